"""Files that are there whole or as they were before."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.stores.hold import is_same, lock

__all__ = ["clear_unfinished", "is_unfinished", "refused", "replacing"]

_UNFINISHED = re.compile(r"\.[0-9a-f]{4}\.partial")
"""What follows a file's name while it is written; short, for a name in a folder has 255 bytes."""

_TRIES = 100
"""How many names are tried, of which others may have some."""

_TODO = {
    errno.ENOSPC: "make room, or name another place",
    errno.EDQUOT: "make room, or name another place",
    errno.EFBIG: "files as large as this are not allowed here; name another place",
    errno.EISDIR: "it is a folder; move it away, or name another file",
    errno.ENOENT: "make its folder first, or name another place",
    errno.ENOTDIR: "what it should lie in is no folder; name another place",
    errno.ENAMETOOLONG: "give it a shorter name",
}
"""What helps against what a disk says."""


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a name to write under; what is there takes the target's place, or goes if the writing fails.

    The name is the writer's own: a new, empty file, locked while it is written, so that several may write one target,
    and the last one to end counts. What writers that were killed have left goes before.

    Parameters
    ----------
    target : Path
        The file.

    Raises
    ------
    StoreError
        If the disk refuses, or the target is a folder.
    """
    try:
        if target.is_dir() and not target.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        clear_unfinished(target)
        beside, descriptor = _open_beside(target)
    except OSError as error:
        raise refused(target, error) from error
    try:
        yield beside
        beside.replace(target)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            raise refused(target, error) from error
        raise
    finally:
        os.close(descriptor)


def is_unfinished(path: Path, target: Path) -> bool:
    """Say whether a path is called like one that `replacing` gives for a target."""
    return path.name.startswith(target.name) and bool(_UNFINISHED.fullmatch(path.name, len(target.name)))


def clear_unfinished(target: Path) -> None:
    """Remove what writers of a target have left that were killed; what is being written stays.

    Where a file system has no locks, nobody can tell the two apart, and all stays.

    Parameters
    ----------
    target : Path
        The file; its folder is there.
    """
    for path in sorted(target.parent.iterdir()):
        if is_unfinished(path, target) and path.is_file() and not path.is_symlink():
            _remove_left(path)


def _remove_left(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:  # its writer has just ended
        return
    try:
        if lock(descriptor) and is_same(path, descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _open_beside(target: Path) -> tuple[Path, int]:
    """Make a new file beside a target, and lock it."""
    for _ in range(_TRIES):
        beside = target.with_name(f"{target.name}.{secrets.token_hex(2)}.partial")
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        # Before it was locked, another writer may have taken it for one that was left.
        if lock(descriptor) is not False and is_same(beside, descriptor):
            return beside, descriptor
        os.close(descriptor)
        beside.unlink(missing_ok=True)
    raise BlockingIOError(errno.EAGAIN, "its file system lets none be locked")


def refused(target: Path, error: OSError) -> StoreError:
    """Give the error that tells why a disk does not take a file or a folder, and what to do."""
    todo = _TODO.get(error.errno or 0, "name another place, or let this one be written to")
    return StoreError(f"{target}: cannot be written ({error.strerror or error}); {todo}")
