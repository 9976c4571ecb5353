"""`seamfree watch`, as typed wrongly: refused before anything is started; and what `seamfree status` says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.place import identity_of, ledger_of, note_trouble, place_of

BIN = Path(sys.executable).parent / "seamfree"


def watch(*arguments: str | Path) -> str:
    """Give what is said of a command that is refused, which is one line."""
    run = subprocess.run([BIN, "watch", *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert "unexpected" not in run.stderr
    return run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--every", "1e20"], "--every"),
        (["--every", "inf"], "--every"),
        (["--every", "nan"], "--every"),
        (["--sentinel", "{name.__class__}"], "--sentinel: only {name} and {stem} may stand in braces"),
        (["--sentinel", "{name:>9999999999999}"], "--sentinel: only {name} and {stem} may stand in braces"),
        (["--sentinel", "{name"], "--sentinel: only {name} and {stem} may stand in braces"),
        (["--sentinel", "a/{name}"], "--sentinel: a name of a file is wanted"),
        (["--notify", "not a url"], "--notify: an address that begins with http:// or https:// is wanted"),
        (["--notify", "ftp://lab/"], "--notify: an address"),
        (["--notify", "http://"], "--notify: an address"),
        (["--notify", ""], "--notify: an address"),
        (["-m", "nosuch"], "there is no model 'nosuch'"),
        (["--channel", "0", "--channel", "1", "--channel", "2"], "channel"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "in").mkdir()
    assert message in watch(tmp_path / "in", "-o", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_folders_that_cannot_be_watched_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    for output in ("in", ".", "in/../in", "link"):
        assert "lies in the folder for the results" in watch(tmp_path / "in", "-o", tmp_path / output)
    assert "is empty" in watch("", "-o", tmp_path / "out")
    assert "is empty" in watch(tmp_path / "in", "-o", "")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in", "link"]
    assert list((tmp_path / "in").iterdir()) == []


def test_status_tells_where_results_are_now_also_as_json(tmp_path: Path) -> None:
    """The folder of results may have been moved, and results be taken away: a program is told what a person is."""
    before, now = tmp_path / "before", tmp_path / "now"
    with AcquisitionLedger(ledger_of(before)) as ledger:
        for name in ("here", "taken"):
            held = ledger.claim(name, "recipe", f"/in/{name}.tif", name, 1.0)
            assert held is not None
            ledger.change(held, replace(held, state="done", result=str(before / f"{name}.ome.zarr"), objects=3))
    before.rename(now)
    (now / "here.ome.zarr").mkdir()
    command: list[str | Path] = [BIN, "status", now, "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    facts = {each["name"]: each for each in told["acquisitions"]}
    assert facts["here"]["result"] == str(now / "here.ome.zarr")
    assert facts["here"]["reason"] is None
    assert facts["taken"]["result"] is None
    assert "is not there any more" in facts["taken"]["reason"]


def test_status_tells_of_a_folder_of_results_that_was_too_full_to_note_what_is_wrong(tmp_path: Path) -> None:
    AcquisitionLedger(ledger_of(tmp_path)).__exit__(None, None, None)
    note_trouble(tmp_path, "")  # a full disk still makes files, of nothing
    told = subprocess.run([BIN, "status", tmp_path], capture_output=True, text=True, check=True, timeout=120).stdout
    assert "could not be written to" in " ".join(told.split())


def test_an_identity_that_a_killed_watcher_or_a_full_disk_left_empty_is_made(tmp_path: Path) -> None:
    """Two folders of results with none would count as one on a server that both use."""
    (place_of(tmp_path) / "identity").touch()
    assert len(identity_of(tmp_path)) == 32
    assert identity_of(tmp_path) == identity_of(tmp_path)
    assert [path.name for path in place_of(tmp_path).iterdir()] == ["identity"]


def test_status_tells_what_is_wrong_and_changes_nothing(tmp_path: Path) -> None:
    with AcquisitionLedger(ledger_of(tmp_path)) as ledger:
        held = ledger.claim("content", "recipe", "/in/a.tif", "a", 1.0)
        assert held is not None
        ledger.change(held, replace(held, state="done", result=str(tmp_path / "a.ome.zarr"), objects=3))
    note_trouble(tmp_path, "/in: no such folder to watch")
    before = ledger_of(tmp_path).read_bytes()
    told = subprocess.run([BIN, "status", tmp_path], capture_output=True, text=True, check=True, timeout=120).stdout
    assert "the folder could not be looked through: /in: no such folder to watch" in told
    assert "is not there any more" in " ".join(told.split())
    assert ledger_of(tmp_path).read_bytes() == before
    note_trouble(tmp_path, None)
    command: list[str | Path] = [BIN, "status", tmp_path, "--json"]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert facts["trouble"] is None
