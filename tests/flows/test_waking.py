"""Changes in a folder, as the system tells of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import flows.waking
from flows.waking import _changes


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
