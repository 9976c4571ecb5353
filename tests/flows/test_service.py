"""What a watcher starts ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

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
