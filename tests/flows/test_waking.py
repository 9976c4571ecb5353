"""Changes in a folder, as the system tells of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import flows.waking
from flows.waking import _changes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names are text")
def test_a_name_that_is_not_utf8_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.waking, "_PAUSE", 0.0)
    told = _changes(tmp_path, lambda _change, _path: True)
    for name in (b"a.tif", b"caf\xe9.tif", b"b.tif"):
        while next(told):
            pass  # what came before
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
        while not next(told):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["removed", "moved"])
def test_a_folder_that_was_away_is_told_of_again(tmp_path: Path, gone: str) -> None:
    """The system goes on telling of the one that was there before, wherever it is now."""
    folder = tmp_path / "in"
    folder.mkdir()
    told = _changes(folder, lambda _change, _path: True)
    next(told)
    if gone == "removed":
        folder.rmdir()
    else:
        folder.rename(tmp_path / "aside")
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        while next(told):
            pass  # what came before
        (folder / name).touch()
        assert any(next(told) for _ in range(40))
