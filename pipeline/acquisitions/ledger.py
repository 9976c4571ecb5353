"""The ledger of acquisitions: what was seen in a folder, and which contents were segmented, by which run.

One SQLite file beside the results. Whatever is decided is written in a transaction before it is done, so that a crash
at any moment leaves a state from which the next scan goes on. Written by one scan at a time and read by anybody; it
keeps no log beside it, which file systems of a network could not share.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["LEDGER", "Acquisition", "AcquisitionLedger", "Sighting"]

LEDGER = "acquisitions.sqlite"

_WAIT = 30.0
"""Seconds that one process waits for another that writes."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sightings (
    path TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, since REAL NOT NULL, state TEXT NOT NULL, reason TEXT,
    content TEXT
);
CREATE TABLE IF NOT EXISTS acquisitions (
    content TEXT NOT NULL, recipe TEXT NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, run TEXT, reason TEXT, result TEXT, objects INTEGER, since REAL NOT NULL,
    died INTEGER NOT NULL DEFAULT 0, delay REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (content, recipe)
);
CREATE INDEX IF NOT EXISTS by_state ON acquisitions (state);
CREATE INDEX IF NOT EXISTS by_name ON acquisitions (name);
CREATE TABLE IF NOT EXISTS ledger (id INTEGER PRIMARY KEY CHECK (id = 1), identity TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of a file or folder that may be an acquisition.

    Parameters
    ----------
    path : str
        Where it lies.
    fingerprint : str
        Of its sizes and times.
    since : float
        When it was first seen so, in seconds since 1970, by the clock of the machine that scans.
    state : str
        ``"growing"``, or still but ``"waiting"`` (for something beside it, or because it cannot be read yet),
        ``"quarantined"``, ``"part"`` of another one, or ``"known"``: its content is in the ledger.
    reason : str, optional
        What is waited for, or wrong.
    content : str, optional
        SHA-256 of what is known.
    """

    path: str
    fingerprint: str
    since: float
    state: Literal["growing", "waiting", "quarantined", "part", "known"]
    reason: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Acquisition:
    """A content to be segmented in a certain way, once.

    Parameters
    ----------
    content : str
        SHA-256 of its files.
    recipe : str
        Digest of the model and of the settings.
    path, name : str
        Where it was seen first, and the name of its result.
    state : str
        ``"claimed"`` (a run is to be started), ``"started"``, ``"done"``, ``"failed"``, ``"cancelled"`` by a person
        (the run, or the result, for another one), or ``"replaced"``: when its run began, the file was gone or had
        another content, or its result has given way to another content's. What is replaced is segmented again where
        it is seen again.
    attempt : int
        Number of the run, from 1 on.
    died : int
        So many runs have died, one after the other.
    delay : float
        A run that is to be started is not before so many seconds have gone by, for the one before was postponed.
    run : str, optional
        What the orchestrator calls the run.
    reason : str, optional
        Why it failed.
    result : str, optional
        Path of the result.
    objects : int, optional
        Number of objects.
    since : float
        Time of the last change of state, in seconds since 1970.
    """

    content: str
    recipe: str
    path: str
    name: str
    state: Literal["claimed", "started", "done", "failed", "cancelled", "replaced"]
    attempt: int
    run: str | None
    reason: str | None
    result: str | None
    objects: int | None
    since: float
    died: int = 0
    delay: float = 0.0


def _kept(*values: object) -> tuple[object, ...]:
    """Give values as SQLite keeps them: a text with a name that is not UTF-8 as bytes."""
    return tuple(
        value.encode(errors="surrogatepass") if isinstance(value, str) and _NO_UNICODE.search(value) else value
        for value in values
    )


def _given_back(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give values as they were before they were `_kept`."""
    return tuple(value.decode(errors="surrogatepass") if isinstance(value, bytes) else value for value in row)


_NO_UNICODE = re.compile("[\ud800-\udfff]")
"""How Python gives bytes of a name that are not UTF-8."""

_SIGHTING = ", ".join(field.name for field in fields(Sighting))
_ACQUISITION = ", ".join(field.name for field in fields(Acquisition))


class AcquisitionLedger:
    """Sightings and acquisitions of one output folder.

    Parameters
    ----------
    path : Path
        The SQLite file; made, with its folder, where it is missing.
    read_only : bool
        Whether it is only looked at: then nothing is made, and nothing written.

    Raises
    ------
    StoreError
        If it cannot be made or is none.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        with self._telling("opened"):
            if not read_only:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise StoreError(f"{path.parent}: cannot be made ({error.strerror or error})") from error
            # Also who only reads has to be able to roll back what a process that was killed was writing.
            address = f"{path.absolute().as_uri()}?mode={'rw' if read_only else 'rwc'}"
            self._connection = sqlite3.connect(address, uri=True, timeout=_WAIT, check_same_thread=False)
            there = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if there and not there >= {"sightings", "acquisitions"}:
                self._connection.close()
                raise StoreError(f"{path}: is no ledger of acquisitions; move it away")
            if read_only and there:
                return
            if read_only:  # a process was killed that was about to make it
                self._connection.close()
                self._connection = sqlite3.connect(":memory:")
            with self._connection:
                # In one piece: a process that opens it meanwhile would take the half of it for something else.
                self._connection.execute("BEGIN IMMEDIATE")
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._connection.execute(statement)
                self._add_columns()
                self._connection.execute("INSERT OR IGNORE INTO ledger VALUES (1, ?)", (uuid4().hex,))

    def _add_columns(self) -> None:
        """Bring a ledger up to date that a version before has made."""
        there = {row[1] for row in self._connection.execute("PRAGMA table_info(acquisitions)")}
        for name, kind in (("died", "INTEGER"), ("delay", "REAL")):
            if name not in there:
                self._connection.execute(f"ALTER TABLE acquisitions ADD COLUMN {name} {kind} NOT NULL DEFAULT 0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreError(
                    f"{self.path}: the ledger of acquisitions cannot be {what}, for another process has held it for "
                    f"{_WAIT:.0f} s; try again"
                ) from error
            raise StoreError(
                f"{self.path}: the ledger of acquisitions cannot be {what} ({error}); make sure that there is room "
                "and that it may be written to; removed, it is made anew, and results that are there stay"
            ) from error

    @property
    def identity(self) -> str:
        """What tells this ledger from all others, also from one that was in its place before."""
        with self._telling("read"):
            return str(self._connection.execute("SELECT identity FROM ledger").fetchone()[0])

    def sightings(self) -> dict[str, Sighting]:
        """Give all sightings, by path."""
        with self._telling("read"), closing(self._connection.execute(f"SELECT {_SIGHTING} FROM sightings")) as rows:
            return {sighting.path: sighting for sighting in (Sighting(*_given_back(row)) for row in rows)}

    def note(self, *sightings: Sighting) -> None:
        """Keep what is known of files, in one transaction."""
        marks = ", ".join("?" * len(fields(Sighting)))
        with self._telling("written"), self._connection:
            self._connection.executemany(
                f"INSERT OR REPLACE INTO sightings ({_SIGHTING}) VALUES ({marks})",
                [_kept(*(getattr(sighting, field.name) for field in fields(Sighting))) for sighting in sightings],
            )

    def forget(self, paths: list[str]) -> None:
        """Drop sightings of files that have gone; what was segmented stays known."""
        with self._telling("written"), self._connection:
            self._connection.executemany("DELETE FROM sightings WHERE path = ?", [_kept(path) for path in paths])

    def claim(self, content: str, recipe: str, path: str, name: str, now: float) -> Acquisition | None:
        """Claim a content for a run that is to be started; None if it was claimed before, by whomever.

        One that has been replaced is claimed anew.
        """
        with self._telling("written"), self._connection:
            made = self._connection.execute(
                f"INSERT INTO acquisitions ({_ACQUISITION}) VALUES (?, ?, ?, ?, 'claimed', 1, NULL, NULL, NULL, NULL, "
                "?, 0, 0) ON CONFLICT (content, recipe) DO UPDATE SET path = excluded.path, name = excluded.name, "
                "state = 'claimed', attempt = attempt + 1, run = NULL, reason = NULL, result = NULL, objects = NULL, "
                "since = excluded.since, died = 0, delay = 0 WHERE state = 'replaced'",
                _kept(content, recipe, path, name, now),
            )
        return self.find(content, recipe) if made.rowcount else None

    def change(self, held: Acquisition, changed: Acquisition) -> bool:
        """Replace an acquisition's entry, unless another process has changed it meanwhile; say whether it was done."""
        names = ("path", "name", "state", "attempt", "run", "reason", "result", "objects", "since", "died", "delay")
        assigned = ", ".join(f"{name} = ?" for name in names)
        with self._telling("written"), self._connection:
            made = self._connection.execute(
                f"UPDATE acquisitions SET {assigned} WHERE content = ? AND recipe = ? AND state = ? AND attempt = ?",
                _kept(*(getattr(changed, name) for name in names), held.content, held.recipe, held.state, held.attempt),
            )
        return made.rowcount == 1

    def displace(
        self, name: str, reason: str, now: float, *, content: str, recipe: str | None = None, by_hand: str | None = None
    ) -> None:
        """Note that the results of other contents, or recipes, that had a name are there no more.

        Parameters
        ----------
        name : str
            The result's name.
        reason : str
            What has taken their place.
        now : float
            Time of the change.
        content : str
            Content of the result that has the name now.
        recipe : str, optional
            Its recipe; None for whichever.
        by_hand : str, optional
            Path of the image that a person has named for it: then those of other paths are not to be segmented again.
        """
        with self._telling("written"), self._connection:
            self._connection.execute(
                "UPDATE acquisitions SET state = CASE WHEN path != ? THEN 'cancelled' ELSE 'replaced' END, reason = ?, "
                "result = NULL, objects = NULL, since = ? "
                "WHERE name = ? AND state = 'done' AND (content != ? OR recipe != coalesce(?, recipe))",
                _kept(by_hand, reason, now, name, content, recipe),
            )

    def acquisitions(self, *states: str) -> list[Acquisition]:
        """Give the acquisitions in certain states, all where none is named, the latest change last."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        query = f"SELECT {_ACQUISITION} FROM acquisitions {where} ORDER BY since, content"
        with self._telling("read"), closing(self._connection.execute(query, states)) as rows:
            return [Acquisition(*_given_back(row)) for row in rows]

    def find(self, content: str, recipe: str) -> Acquisition | None:
        """Give the entry of a content and a recipe."""
        query = f"SELECT {_ACQUISITION} FROM acquisitions WHERE content = ? AND recipe = ?"
        with self._telling("read"):
            row = self._connection.execute(query, (content, recipe)).fetchone()
        return None if row is None else Acquisition(*_given_back(row))

    def occupant(self, name: str) -> Acquisition | None:
        """Give who has the name of a result: the latest one that was not replaced."""
        where = "WHERE name = ? AND state != 'replaced' ORDER BY since DESC LIMIT 1"
        query = f"SELECT {_ACQUISITION} FROM acquisitions {where}"
        with self._telling("read"):
            row = self._connection.execute(query, _kept(name)).fetchone()
        return None if row is None else Acquisition(*_given_back(row))
