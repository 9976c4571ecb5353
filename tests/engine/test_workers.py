"""How the server that workers are forked from, and what belongs to it, stands being killed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.engine.workers import START_METHOD

KILL = """
import os, signal
from multiprocessing import resource_tracker
from pipeline.engine.workers import prepare_workers

prepare_workers(())
before = resource_tracker._resource_tracker._pid
os.kill(before, signal.SIGKILL)
os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
resource_tracker.ensure_running()
print(resource_tracker._resource_tracker._pid not in (None, before))
"""


@pytest.mark.skipif(START_METHOD != "forkserver", reason="there is no such server on this system")
def test_what_removes_semaphores_is_started_again_without_a_word() -> None:
    run = subprocess.run([sys.executable, "-c", KILL], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("True\n", "")
