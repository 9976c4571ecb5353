"""What a watcher starts ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect.types.names import Name
from pydantic import TypeAdapter

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
