"""What workers keep beside their work lies where no other user looks."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.engine.secrecy import private_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="rights of files are others there")


def test_the_folder_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Path(private_folder())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder() == str(folder)


@pytest.mark.parametrize("how", ["open to all", "a link"])
def test_one_that_another_could_have_made_is_not_used(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    named = tmp_path / f"seamfree-{os.getuid()}"
    if how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        named.symlink_to(tmp_path / "elsewhere")
    else:
        named.mkdir()
        named.chmod(0o755)
    folder = Path(private_folder())
    assert folder not in (named, tmp_path / "elsewhere")
    assert folder.stat().st_mode & 0o777 == 0o700
