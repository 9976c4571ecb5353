"""``run-summary.json``: what became of each image of a folder of results."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pipeline.errors import StoreError
from pipeline.remote.paths import is_url
from pipeline.stores.hold import EXPIRY, hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pipeline.run import ImageReport

__all__ = ["SUMMARY", "keeping_summary", "write_summary"]

SUMMARY = "run-summary.json"

SHARE = 0.05
"""Of a run's time, that its summary may take while it goes on: each writing is of all images."""

log = logging.getLogger(__name__)


@contextmanager
def keeping_summary(output: Path, reports: Sequence[ImageReport]) -> Iterator[Callable[[], None]]:
    """Keep the summary of a run at work: as near behind as that costs little, and whole at the end, whatever ends it.

    Parameters
    ----------
    output : Path
        The folder of the results.
    reports : sequence of ImageReport
        Of this run; grows.

    Yields
    ------
    callable
        To be called after each image.
    """
    due = 0.0

    def note() -> None:
        nonlocal due
        if (began := perf_counter()) < due:
            return
        write_summary(output, reports)
        ended = perf_counter()
        due = ended + (ended - began) / SHARE

    try:
        yield note
    finally:
        write_summary(output, reports)


def write_summary(output: Path, reports: Sequence[ImageReport]) -> Path:
    """Write ``run-summary.json``: one entry per input, whole at any moment.

    It tells of the folder, not of a run: what other runs have noted of other inputs stays, also that of one which is at
    work at the same moment. What goes is an entry whose result is now that of another input, and one of which neither
    the input nor a result is left.

    Parameters
    ----------
    output : Path
        The folder of the results.
    reports : sequence of ImageReport
        Of this run.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    path = output / SUMMARY
    beside = path.with_name(f".{SUMMARY}.{uuid4().hex}.tmp")
    entries = [asdict(report) for report in reports]
    try:
        with hold(path, patience=EXPIRY):
            entries = _noted_of_others(path, entries) + entries
            counts = Counter(str(entry["status"]) for entry in entries)
            facts = {"counts": dict(sorted(counts.items())), "images": entries}
            # In ASCII: a name of a file that is not UTF-8 comes back as it was, and cannot be written otherwise.
            beside.write_text(json.dumps(facts, indent=2) + "\n", encoding="ascii")
            beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{path}: the summary cannot be written ({error.strerror or error}); make room or give another folder with "
            "-o, and run again: what is done is kept"
        ) from error
    return path


def _is_left(place: str) -> bool:
    """Say whether an input or a result is still there; of what is not on a disk, nobody asks."""
    return is_url(place) or os.path.lexists(place)


def _noted_of_others(path: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the entries of a summary that other runs have made, as far as they still hold."""
    try:
        if os.path.lexists(path) and not path.is_file():
            raise StoreError(f"{path}: no file, and not made by seamfree; take it away, or choose another -o")
        noted = json.loads(path.read_text(encoding="ascii"))["images"]
        # Another version may have noted more, or less.
        others = [entry for entry in noted if {"name", "input", "status", "result"} <= set(entry)]
        inputs = {entry["input"] for entry in entries}
        results = {entry["result"] for entry in entries if entry["status"] != "failed"} - {None}
        return [
            entry for entry in others
            if entry["input"] not in inputs and entry["result"] not in results
            and (_is_left(entry["input"]) or (entry["result"] and _is_left(entry["result"])))
        ]  # fmt: skip
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        aside = path.with_name(f"{path.stem}.damaged-{uuid4().hex[:8]}{path.suffix}")
        path.rename(aside)
        log.warning("%s: no summary of earlier runs, or damaged: it is kept as %s, and one is made", path, aside.name)
        return []
