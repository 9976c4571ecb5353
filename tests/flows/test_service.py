"""What a watcher starts ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.types.names import Name
from pydantic import TypeAdapter

from flows.server import free_port
from flows.service import Watch
from pipeline.acquisitions.place import identity_of
from pipeline.acquisitions.rules import WatchRules
from pipeline.config import RunConfig

STARTING = """
import asyncio, sys
import anyio
from flows.service import _Loop

async def start():
    # As Prefect's runner does.
    process = await anyio.open_process(["sleep", "600"], stdout=None)
    print(process.pid, flush=True)
    await process.wait()

with asyncio.Runner(loop_factory=_Loop) as loop:
    loop.run(start())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, children find out by themselves")
def test_what_a_killed_watcher_has_just_started_ends_with_it() -> None:
    """Also a program that never calls anything of seamfree's: a run of a flow that still waits for Prefect's server."""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE, text=True, cwd=root) as watcher:
        assert watcher.stdout is not None
        started = psutil.Process(int(watcher.stdout.readline()))
        assert started.name() == "sleep"
        watcher.kill()
    _, alive = psutil.wait_procs([started], timeout=30)
    for process in alive:
        process.kill()
    assert not alive


def named(folder: Path, output: Path) -> str:
    return Watch(folder, output, RunConfig(), WatchRules(), identity=identity_of(output)).name


def test_watchers_of_folders_that_are_called_alike_have_deployments_of_their_own(tmp_path: Path) -> None:
    one, two = (named(tmp_path / lab / "in", tmp_path / lab / "out") for lab in ("one", "two"))
    assert one != two
    assert one.startswith("in to out ")
    assert one == named(tmp_path / "one" / "in", tmp_path / "one" / "out")


@pytest.mark.parametrize("folder", ["in 50% a&b <x>", "in #1?", "a\\b", "caf\udce9", "x" * 250, "Zellkerne \u00e4"])
def test_whatever_a_folder_is_called_its_deployment_has_a_name_that_prefect_takes(tmp_path: Path, folder: str) -> None:
    name = named(tmp_path / folder, tmp_path / "out")
    TypeAdapter(Name).validate_python(name)
    name.encode()
    assert not set(name) & set("/?#%\\")
    assert len(name) < 200


BIN = Path(sys.executable).parent


@contextmanager
def lab_server(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a Prefect server that is not the watcher's own, and wait until it answers."""
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, "PREFECT_HOME": str(home)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: answers(port), process)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def watcher(place: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a watcher that uses a server at a port; give it, and the file of what it tells."""
    (place / "in").mkdir()
    told = place / "told.txt"
    environment = {**os.environ, "PREFECT_HOME": str(place), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    with told.open("ab") as log:
        process = subprocess.Popen(
            [BIN / "seamfree", "watch", place / "in", "-o", place / "out", "--workers", "1", "--every", "5"],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process, told
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_watcher_whose_server_does_not_answer_says_so_in_one_line(tmp_path: Path) -> None:
    with watcher(tmp_path, free_port()) as (process, told):
        assert process.wait(240) == 1
    (line,) = told.read_text().splitlines()
    assert "Prefect's server does not answer" in line
    assert "PREFECT_API_URL" in line


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_watcher_outlives_its_server_and_tells_of_it_in_lines(tmp_path: Path) -> None:
    """Prefect's own loops give up after a minute or two without a server, and say so with tracebacks."""
    port = free_port()
    with lab_server(tmp_path, port) as server, watcher(tmp_path, port) as (process, told):
        until(lambda: (tmp_path / "out" / ".seamfree" / "acquisitions.sqlite").exists(), process)
        server.kill()
        until(lambda: "serving was interrupted" in told.read_text(), process)
        with lab_server(tmp_path, port):
            until(lambda: "the folder is looked through again" in told.read_text(), process)
            lines = told.read_text().splitlines()
    assert all(line.startswith("WARNING flows.service: ") for line in lines)
    assert sum("does not answer" in line for line in lines) == 1
