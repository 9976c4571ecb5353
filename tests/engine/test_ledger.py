from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.ledger import Ledger, why_untrusted
from pipeline.errors import StoreError

RECORDS = st.dictionaries(st.text(max_size=5), st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text())


@settings(max_examples=20, deadline=None)  # each mark waits for the disk
@given(st.lists(st.tuples(st.sampled_from(["read", "segment"]), st.integers(0, 2**40), RECORDS), max_size=8))
def test_what_was_marked_last_is_what_is_done(
    tmp_path_factory: pytest.TempPathFactory, marks: list[tuple[str, int, dict[str, object]]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    expected: dict[str, dict[int, dict[str, object]]] = {"read": {}, "segment": {}}
    with Ledger(path, "digest") as ledger:
        for stage, job, record in marks:
            ledger.mark(stage, job, record)
            expected[stage][job] = record
    with Ledger(path, "digest") as again:
        assert {stage: again.done(stage) for stage in expected} == expected


def test_the_work_of_another_plan_is_not_taken_over(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite", "one") as ledger:
        ledger.mark("segment", 0, {})
    with pytest.raises(StoreError, match=r"belongs to another plan"):
        Ledger(tmp_path / "ledger.sqlite", "two")
    assert why_untrusted(tmp_path / "ledger.sqlite", "two") == "belongs to another plan"
    assert why_untrusted(tmp_path / "ledger.sqlite", "one") is None


@pytest.mark.parametrize("content", [b"no database at all, but long enough" * 20, b"SQLite format 3\0junk", b""])
def test_a_damaged_file_is_not_trusted_and_never_ends_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    assert str(why_untrusted(path, "digest")).startswith("cannot be read (")
    if content:
        with pytest.raises(StoreError, match=r"ledger\.sqlite: the ledger of done work is damaged \(.*run again"):
            Ledger(path, "digest")


def test_a_ledger_of_another_form_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("CREATE TABLE identity (digest TEXT); CREATE TABLE done (stage TEXT, job INTEGER);")
        connection.execute("INSERT INTO identity VALUES ('digest')")
    assert why_untrusted(path, "digest") == "cannot be read (no such column: turn)"


def test_a_missing_file_is_not_trusted_and_not_made(tmp_path: Path) -> None:
    assert why_untrusted(tmp_path / "ledger.sqlite", "digest") == "is missing"
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_byte_changes_no_mark_says_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    with Ledger(path, "digest") as ledger:
        for job in range(30):
            ledger.mark("segment", job, {"objects": job}, {f"a/c/{job}": "0" * 16})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    if why_untrusted(path, "digest") is not None:
        return
    try:
        with Ledger(path, "digest") as ledger:
            sound = [mark for mark in ledger.marks("segment") if mark.sound]
    except StoreError:
        return
    for mark in sound:
        assert (mark.record, mark.files) == ({"objects": mark.job}, {f"a/c/{mark.job}": "0" * 16})


def test_what_is_taken_back_takes_back_what_was_done_after_it(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite", "digest") as ledger:
        for stage in ("read", "segment", "relabel"):
            for job in range(3):
                ledger.mark(stage, job, {}, {f"{stage}/c/{job}": None})
        assert [mark.job for mark in ledger.marks_of("segment")] == [0, 1, 2]
        assert list(ledger.marks_of("seg")) == []
        ledger.forget("segment", [1])
        found = {stage: sorted(ledger.done(stage)) for stage in ("read", "segment", "relabel")}
        assert found == {"read": [0, 1, 2], "segment": [0, 2], "relabel": []}


def test_a_mark_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    program = f"from tests.engine.jobs import mark_many; mark_many({str(path)!r}, 100000)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = -1
        for line in process.stdout:
            told = int(line)
            if told == 40:
                process.kill()
    assert told >= 40
    with Ledger(path, "digest") as ledger:
        done = ledger.done("stage")
    # One more may have been marked before it could be told.
    assert len(done) in (told + 1, told + 2)
    assert sorted(done) == list(range(len(done)))


def test_a_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "digest") as ledger:
        ledger.mark("segment", 0, {})
        ledger._connection.execute("PRAGMA max_page_count = 1")  # what a full disk is to SQLite
        with pytest.raises(StoreError, match=r"ledger\.sqlite: .*full"):
            ledger.mark("segment", 1, {"text": "x" * 1_000_000})
        assert list(ledger.done("segment")) == [0]
