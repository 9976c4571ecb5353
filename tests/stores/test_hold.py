from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.stores.hold import hold, is_held, refuse_taken

HOLDER = """
import sys
from pathlib import Path
from pipeline.stores.hold import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(result: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(result)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_what_another_process_holds_is_refused_by_its_name(tmp_path: Path) -> None:
    result = tmp_path / "sub" / "a.ome.zarr"
    with holder(result) as process:
        with pytest.raises(StoreError, match=rf"another run is at work on it \(process {process.pid} on .*, since "):
            hold(result).__enter__()
        with hold(tmp_path / "sub" / "b.ome.zarr"):
            pass
        process.communicate("")
    with hold(result):
        assert (tmp_path / "sub" / ".a.ome.zarr.lock").exists()
    assert list((tmp_path / "sub").iterdir()) == []


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    result = tmp_path / "a.ome.zarr"
    with holder(result) as process:
        process.kill()
        process.wait()
    assert (tmp_path / ".a.ome.zarr.lock").exists()
    with hold(result):
        pass
    assert list(tmp_path.iterdir()) == []


def note_of_elsewhere(path: Path, seconds_ago: float) -> None:
    """Leave the lock of a run on another machine, whose locks this one does not see."""
    noted = {"host": "elsewhere", "machine": "another", "pid": 1, "since": "2026-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(noted))
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))


def test_a_holder_elsewhere_counts_as_long_as_it_gives_signs_of_life(tmp_path: Path) -> None:
    result, lock = tmp_path / "a.ome.zarr", tmp_path / ".a.ome.zarr.lock"
    note_of_elsewhere(lock, seconds_ago=100)
    with pytest.raises(StoreError, match=r"process 1 on elsewhere, since 2026-01-01.*over 120 s after its last sign"):
        hold(result).__enter__()
    assert json.loads(lock.read_text())["host"] == "elsewhere"
    note_of_elsewhere(lock, seconds_ago=130)
    with hold(result):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_gives_signs_of_life(tmp_path: Path) -> None:
    lock = tmp_path / ".a.ome.zarr.lock"
    with hold(tmp_path / "a.ome.zarr", beat=0.01):
        os.utime(lock, (0, 0))
        deadline = time.monotonic() + 30
        while lock.stat().st_mtime < time.time() - 60:
            assert time.monotonic() < deadline


def test_a_run_that_was_taken_over_goes_no_further(tmp_path: Path) -> None:
    result, lock = tmp_path / "a.ome.zarr", tmp_path / ".a.ome.zarr.lock"
    refuse_taken(result)
    with hold(result):
        refuse_taken(result)
        note_of_elsewhere(lock, seconds_ago=0)
        with pytest.raises(StoreError, match=r"another run has taken over \(process 1 on elsewhere"):
            refuse_taken(result)
    assert lock.exists()


def test_where_there_are_no_locks_the_note_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    result, lock = tmp_path / "a.ome.zarr", tmp_path / ".a.ome.zarr.lock"
    with holder(result) as process:
        monkeypatch.setattr("fcntl.flock", refuse)
        with pytest.raises(StoreError, match=rf"another run is at work on it \(process {process.pid} on "):
            hold(result).__enter__()
        process.kill()
        process.wait()
        with hold(result):
            assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_the_process_of_another_container_counts_by_its_signs_of_life(tmp_path: Path) -> None:
    """On the same machine, but with numbers of processes that mean nothing here."""
    result, lock = tmp_path / "a.ome.zarr", tmp_path / ".a.ome.zarr.lock"
    with hold(result):
        noted = json.loads(lock.read_text())
        assert is_held(result)
    for number in (os.getpid(), 2**22 + 1):  # one that lives here, and one that cannot
        lock.write_text(json.dumps(noted | {"space": "pid:[1]", "pid": number}))
        assert is_held(result)
        os.utime(lock, (time.time() - 130,) * 2)
        assert not is_held(result)


def test_a_failure_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "a.ome.zarr"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"), hold(tmp_path / "file" / "a.ome.zarr"):
        pass
