"""The ledger of done work: which jobs of which stages of one plan are finished, and what they have written.

One SQLite file beside the unfinished result, written by the driver alone. A job is marked after its chunks are on
disk, with a checksum of each; what is done but not yet marked is done again, with the same bytes.

Nothing here is taken on trust. Workers do not wait until the disk itself has a chunk, for that would cost each tile
some milliseconds; instead the next run compares every marked chunk with its checksum, and so finds what a power
failure has lost as well as what a disk has corrupted. Each mark is sealed with a checksum of its own: a damaged one is
no mark. A ledger that SQLite cannot read, or finds inconsistent, counts as none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import StoreError

__all__ = ["Files", "Ledger", "Mark", "why_untrusted"]

Files = dict[str, str | None]
"""Checksums of files by their path below the unfinished result; None for a chunk of zeros, which is no file."""

_PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
"""
"""A mark is a write to a log that the system keeps when this process dies; a power failure may take the last marks,
and their jobs are done again. To wait for the disk at each mark took 5 to 12 ms of every tile. Held by one process, the
log needs no memory that others share, which file systems of a network do not have."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS done (
    turn INTEGER PRIMARY KEY AUTOINCREMENT,
    stage TEXT NOT NULL, job INTEGER NOT NULL, record TEXT NOT NULL, files TEXT NOT NULL, seal TEXT NOT NULL,
    UNIQUE (stage, job)
);
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark of a job that is done.

    Parameters
    ----------
    stage : str
        Name of the stage.
    job : int
        Index of the job in it.
    record : dict
        What the job reported.
    files : dict of str to str or None
        What it wrote.
    sound : bool
        Whether the mark is as it was made. What a damaged one says is worth nothing.
    """

    stage: str
    job: int
    record: dict[str, Any]
    files: Files
    sound: bool = True


class Ledger:
    """Done jobs of one plan.

    Parameters
    ----------
    path : Path
        The SQLite file; made where it is missing.
    digest : str
        The plan's digest. Work that was done for another plan is not this plan's work.

    Raises
    ------
    StoreError
        If the file is not a ledger, or belongs to another plan.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        with self._telling("read"):
            self._connection = sqlite3.connect(path, check_same_thread=False)
            # What is no text any more belongs to a damaged mark, and its seal says so.
            self._connection.text_factory = lambda content: content.decode(errors="replace")
            self._connection.executescript(_PRAGMAS + _SCHEMA)
            held = self._connection.execute("SELECT digest FROM identity").fetchone()
            if held is None:
                with self._connection:
                    self._connection.execute("INSERT INTO identity VALUES (?)", (digest,))
        if held is not None and held[0] != digest:
            self.close()
            raise StoreError(f"{path}: the ledger of done work belongs to another plan; run again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Say in seamfree's words what goes wrong with the file."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"{self.path}: the ledger of done work cannot be {what} ({error}); make sure that there is room and "
                "that it may be written to, and run again: what is done is kept"
            ) from error
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: the ledger of done work is damaged ({error}); run again: the work is done anew"
            ) from error

    def mark(self, stage: str, job: int, record: dict[str, Any], files: Files | None = None) -> None:
        """Note that a job is done, with what it reported and wrote; outlives this process when this returns.

        Raises
        ------
        StoreError
            If it cannot be written, because the disk is full, for instance.
        """
        told, written = json.dumps(record, sort_keys=True), json.dumps(files or {}, sort_keys=True)
        with self._telling("written"), self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO done (stage, job, record, files, seal) VALUES (?, ?, ?, ?, ?)",
                (stage, job, told, written, _seal(stage, job, told, written)),
            )

    def marks(self, stage: str) -> Iterator[Mark]:
        """Give the marks of a stage, damaged ones, too."""
        yield from self._select("stage = ?", stage)

    def marks_of(self, folder: str) -> Iterator[Mark]:
        """Give the marks of all jobs that wrote anything below a folder, in which no file's name needs quoting."""
        yield from self._select("instr(files, ?)", f'"{folder}/')

    def _select(self, condition: str, value: str, order: str = "") -> Iterator[Mark]:
        query = f"SELECT stage, job, record, files, seal FROM done WHERE {condition} {order}"
        with self._telling("read"), closing(self._connection.execute(query, (value,))) as rows:
            for stage, job, told, written, seal in rows:
                if seal == _seal(stage, job, told, written):
                    yield Mark(stage, job, json.loads(told), json.loads(written))
                else:
                    yield Mark(stage, job, {}, {}, sound=False)

    def done(self, stage: str) -> dict[int, dict[str, Any]]:
        """Give the records of a stage's done jobs, by index."""
        return {mark.job: mark.record for mark in self.marks(stage) if mark.sound}

    def records(self, stage: str, total: int) -> Iterator[dict[str, Any]]:
        """Give the records of a stage of which all jobs are done, in the order of their indices, one after the other.

        Raises
        ------
        StoreError
            If a mark is missing or damaged. The next run does its job again.
        """
        found = 0
        for mark in self._select("stage = ?", stage, "ORDER BY job"):
            if not mark.sound or mark.job != found:
                break
            yield mark.record
            found += 1
        if found != total:
            raise StoreError(f"{self.path}: the mark of job {found} of the stage {stage!r} is damaged; run again")

    def forget(self, stage: str, jobs: list[int]) -> None:
        """Take back the marks of jobs, and of whatever was done after their stage: it may have read what they wrote."""
        with self._telling("written"), self._connection:
            self._connection.execute(
                "DELETE FROM done WHERE stage != ? AND turn > (SELECT min(turn) FROM done WHERE stage = ?)",
                (stage, stage),
            )
            self._connection.executemany("DELETE FROM done WHERE stage = ? AND job = ?", [(stage, job) for job in jobs])


def _seal(stage: object, job: object, record: object, files: object) -> str:
    """Give a checksum of a mark."""
    return blake2b(f"{stage}\0{job}\0{record}\0{files}".encode(), digest_size=8).hexdigest()


def why_untrusted(path: Path, digest: str) -> str | None:
    """Say why a ledger cannot be gone on with, None if it can.

    Parameters
    ----------
    path : Path
        The SQLite file.
    digest : str
        The plan's digest.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    if not path.is_file():
        return "is missing"
    try:
        # Not made where it is missing, and nothing is written.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            held = connection.execute("SELECT digest FROM identity").fetchall()
            connection.execute("SELECT turn, stage, job, record, files, seal FROM done LIMIT 1").fetchall()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return f"cannot be read ({error})"
    if verdict != "ok":
        return f"is damaged ({' '.join(str(verdict).split())})"
    return None if held == [(digest,)] else "belongs to another plan"
