"""Ctrl-C and its like, on the real command with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from pipeline.interrupt import MESSAGE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to a group of processes"),
]

BIN = Path(sys.executable).parent / "seamfree"
MARK = "SEAMFREE_TEST_RUN"


@dataclass
class Run:
    """A running command, and all processes that came of it, found by a mark in their environment."""

    arguments: list[str | Path]
    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        self.process = subprocess.Popen(
            [BIN, "run", *self.arguments],
            env={**environment, MARK: self.mark, "PREFECT_HOME": str(self.folder / "home")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def family(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for_work(self, out: Path) -> None:
        """Wait until there are workers and a result is being made."""
        deadline = time.monotonic() + 120
        while sum(len(names) for _, _, names in os.walk(out)) < 30:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(self.family()) >= 4  # the command, the server of forks, and two workers

    def assert_nobody_is_left(self) -> None:
        deadline = time.monotonic() + 15
        while left := self.family():
            assert time.monotonic() < deadline, left
            time.sleep(0.02)

    def clear(self) -> None:
        for process in self.family():
            process.kill()
        self.process.communicate()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (3000, 3000), dtype=np.uint8))
    return path


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        run.clear()


@pytest.mark.parametrize("way", [["--direct"], []], ids=["direct", "prefect"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_run_at_once_with_one_line_and_nobody_is_left(
    image: Path, tmp_path: Path, runs: list[Run], way: list[str], number: signal.Signals
) -> None:
    out = tmp_path / "out"
    run = Run([image, "-o", out, "--workers", "2", "--tile", "256", *way], tmp_path)
    runs.append(run)
    run.wait_for_work(out)
    began = time.monotonic()
    # As a terminal does, and as a service manager may.
    os.killpg(run.process.pid, number)
    stdout, stderr = run.process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert run.process.returncode == 128 + number
    assert stderr == f"{MESSAGE}\n"
    assert stdout == ""
    run.assert_nobody_is_left()


def test_a_signal_while_all_is_still_starting_ends_the_run_with_one_line(
    image: Path, tmp_path: Path, runs: list[Run]
) -> None:
    run = Run([image, "-o", tmp_path / "out"], tmp_path)
    runs.append(run)
    deadline = time.monotonic() + 60
    while len(run.family()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(run.process.pid, signal.SIGINT)
    _, stderr = run.process.communicate(timeout=5)
    assert (run.process.returncode, stderr) == (130, f"{MESSAGE}\n")
    run.assert_nobody_is_left()


def test_an_interrupted_run_goes_on_where_it_was(image: Path, tmp_path: Path, runs: list[Run]) -> None:
    out = tmp_path / "out"
    arguments: list[str | Path] = [image, "-o", out, "--workers", "2", "--tile", "256", "--direct"]
    run = Run(arguments, tmp_path)
    runs.append(run)
    run.wait_for_work(out)
    run.process.send_signal(signal.SIGINT)
    run.process.communicate(timeout=5)
    made = {path for path in out.rglob("*") if path.is_file()}
    assert made
    assert not (out / "a.ome.zarr").exists()
    again = Run(arguments, tmp_path)
    runs.append(again)
    _, stderr = again.process.communicate(timeout=200)
    assert again.process.returncode == 0, stderr
    assert (out / "a.ome.zarr" / "seamfree.json").exists()


def test_workers_die_with_a_killed_command(image: Path, tmp_path: Path, runs: list[Run]) -> None:
    out = tmp_path / "out"
    run = Run([image, "-o", out, "--workers", "2", "--tile", "256", "--direct"], tmp_path)
    runs.append(run)
    run.wait_for_work(out)
    run.process.kill()
    run.process.wait(5)
    run.assert_nobody_is_left()
