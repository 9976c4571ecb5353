"""A database that has held much gives the room back, and loses nothing."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.records import give_room_back, writable_again


def write(path: Path, rows: int, removed: int) -> None:
    """Write rows of a mebibyte each, and remove the first of them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE held (number INTEGER PRIMARY KEY, data BLOB)")
        connection.executemany("INSERT INTO held VALUES (?, zeroblob(1048576))", [(each,) for each in range(rows)])
        connection.execute("DELETE FROM held WHERE number < ?", (removed,))


def numbers(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM held ORDER BY number")]


@pytest.mark.slow
def test_what_a_database_does_not_need_any_more_is_given_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Most of it is room, but not much; much is, but not most of it; both.
    small, full, large = (tmp_path / name for name in ("small.db", "full.db", "large.db"))
    write(small, 12, 10)
    write(full, 150, 70)
    write(large, 80, 70)
    sizes = {path: path.stat().st_size for path in (small, full, large)}
    with closing(sqlite3.connect(large)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING):
            give_room_back(large)
        assert "large.db: cannot be made smaller (database is locked); it stays as it is" in caplog.text
        assert large.stat().st_size == sizes[large]
    for path in (small, full, large, tmp_path / "none.db"):
        give_room_back(path)
    assert small.stat().st_size == sizes[small]
    assert full.stat().st_size == sizes[full]
    assert large.stat().st_size < 11 * 2**20
    assert numbers(large) == list(range(70, 80))
    assert not (tmp_path / "none.db").exists()


def test_that_a_database_can_be_written_to_again_is_said_once(tmp_path: Path) -> None:
    database, away = tmp_path / "prefect.db", tmp_path / "away"
    database.touch()
    ask = writable_again(database)
    assert [ask(), ask()] == [False, False]
    database.rename(away)
    assert [ask(), ask()] == [False, False]
    away.rename(database)
    assert [ask(), ask()] == [True, False]
