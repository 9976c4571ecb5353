"""`seamfree watch`, as typed wrongly: refused before anything is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_folders_that_cannot_be_watched_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    for output in ("in", ".", "in/../in", "link"):
        assert "lies in the folder for the results" in watch(tmp_path / "in", "-o", tmp_path / output)
    assert "is empty" in watch("", "-o", tmp_path / "out")
    assert "is empty" in watch(tmp_path / "in", "-o", "")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in", "link"]
    assert list((tmp_path / "in").iterdir()) == []
