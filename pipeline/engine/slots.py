"""Which of several things of one host a process takes, so that all are used evenly, whoever started the processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from threading import Lock

__all__ = ["take_slot"]

_turn = Lock()
_held: dict[tuple[str, ...], int] = {}
_files: list[int] = []


def take_slot(names: Sequence[str], folder: Path) -> int:
    """Take the thing that the fewest other processes of this host have taken; for as long as this process lives.

    Parameters
    ----------
    names : sequence of str
        What the things are called, the same in each process whatever order it sees them in.
    folder : Path
        Of this host and user, where it is noted by locks, which end with their process.

    Returns
    -------
    int
        An index of `names`; the same when it is asked for again.
    """
    key = tuple(names)
    with _turn:
        if key not in _held:
            _held[key] = _take(key, folder)
        return _held[key]


def _take(names: tuple[str, ...], folder: Path) -> int:
    for turn in count():
        for index, name in enumerate(names):
            file = os.open(folder / f"{name}.{turn}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            _files.append(file)
            return index
    raise AssertionError
