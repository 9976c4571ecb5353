"""Files that are replaced: whole, by writers that do not disturb each other, and told when that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.stores.replacing import is_unfinished, replacing


def test_two_writers_of_one_file_have_names_of_their_own(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with replacing(target) as first:
        first.write_text("the first")
        with replacing(target) as second:
            assert first.read_text() == "the first"
            second.write_text("the second")
        assert target.read_text() == "the second"
        assert is_unfinished(first, target)
    assert target.read_text() == "the first"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208
    # As any other file is made.
    (tmp_path / "b.txt").write_text("")
    assert target.stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_nothing_is_written_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.txt.partial").symlink_to(tmp_path / "mine")
    with replacing(tmp_path / "a.txt") as beside:
        beside.write_text("new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "new"


_KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.stores.replacing import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_the_killed_leave_goes_with_the_next_and_what_fails_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", _KILLED, target], check=False)
    (left,) = tmp_path.iterdir()
    assert is_unfinished(left, target)
    other = tmp_path / "a.txt.mine.partial"
    other.write_text("of somebody else")
    with replacing(target):
        assert not left.exists()
    assert sorted(tmp_path.iterdir()) == [target, other]
    with pytest.raises(KeyboardInterrupt), replacing(target):
        raise KeyboardInterrupt
    assert sorted(tmp_path.iterdir()) == [target, other]


_SMALL_DISK = """
import resource, sys
from pathlib import Path
from pipeline.stores.replacing import replacing
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with replacing(Path(sys.argv[1])) as beside:
    beside.write_bytes(bytes(5000))
"""


def test_what_a_disk_refuses_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for target, told in (
        (tmp_path / "folder", r"folder: cannot be written \(Is a directory\); it is a folder; move it away"),
        (tmp_path / "no" / "a.txt", r"a\.txt: cannot be written \(No such file or directory\); make its folder first"),
        (tmp_path / "file" / "a.txt", r"a\.txt: cannot be written \(Not a directory\); what it should lie in"),
        (tmp_path / ("a" * 300), r"cannot be written \(File name too long\); give it a shorter name"),
    ):
        with pytest.raises(StoreError, match=told), replacing(target):
            pytest.fail("work has begun")
    with (
        pytest.raises(StoreError, match=r"cannot be written \(No space left on device\); make room"),
        replacing(tmp_path / "a.txt"),
    ):
        raise OSError(28, os.strerror(28))
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_DISK, tmp_path / "a.txt"], capture_output=True, text=True, check=False
    )
    assert "a.txt: cannot be written (File too large); " in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
