"""The ledger of acquisitions as a file: of others, of versions before, and written by two at once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.errors import StoreError


def test_a_change_by_another_process_is_not_overwritten(tmp_path: Path) -> None:
    with AcquisitionLedger(tmp_path / "ledger") as one, AcquisitionLedger(tmp_path / "ledger") as two:
        held = one.claim("content", "recipe", "a.tif", "a", 1.0)
        assert held is not None
        assert two.claim("content", "recipe", "b.tif", "b", 2.0) is None
        assert two.change(held, replace(held, state="started", run="x"))
        assert not one.change(held, replace(held, state="started", run="y"))
        found = one.find("content", "recipe")
        assert found is not None
        assert found.run == "x"


def test_a_ledger_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="ledger of acquisitions"):
        AcquisitionLedger(tmp_path / "ledger")


def test_a_ledger_of_a_version_before_is_gone_on_with(tmp_path: Path) -> None:
    with AcquisitionLedger(tmp_path / "ledger") as ledger:
        ledger.claim("content", "recipe", "a.tif", "a", 1.0)
    with closing(sqlite3.connect(tmp_path / "ledger")) as connection, connection:
        for column in ("died", "delay"):
            connection.execute(f"ALTER TABLE acquisitions DROP COLUMN {column}")
        connection.execute("DROP TABLE ledger")
    with AcquisitionLedger(tmp_path / "ledger") as ledger:
        held = ledger.find("content", "recipe")
        assert held is not None
        assert held.died == 0
        assert ledger.identity


def test_a_ledger_is_never_seen_half_made(tmp_path: Path) -> None:
    """Who opens it while another process makes it sees nothing of it, or all."""
    made = str(tmp_path / "ledger")
    seen: set[frozenset[str]] = set()

    def look() -> int:
        with closing(sqlite3.connect(made)) as other:
            seen.add(frozenset(row[0] for row in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")))
        return 0

    connect = sqlite3.connect

    def watched(*arguments: Any, **named: Any) -> sqlite3.Connection:  # noqa: ANN401 (as sqlite3 takes them)
        connection: sqlite3.Connection = connect(*arguments, **named)
        if named.get("uri"):
            connection.set_progress_handler(look, 1)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", watched)
        AcquisitionLedger(Path(made)).__exit__(None, None, None)
    look()
    assert seen == {frozenset(), frozenset({"sightings", "acquisitions", "ledger"})}


def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE other (a)")
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(StoreError, match="no ledger of acquisitions"):
            AcquisitionLedger(path, read_only=read_only)
    assert path.read_bytes() == before


def test_a_ledger_that_is_only_looked_at_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        AcquisitionLedger(tmp_path / "ledger", read_only=True)
    (tmp_path / "ledger").touch()
    with AcquisitionLedger(tmp_path / "ledger", read_only=True) as ledger:
        assert ledger.acquisitions() == []
    assert (tmp_path / "ledger").read_bytes() == b""
