"""How worker processes start: from what, and in which environment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Literal

__all__ = ["START_METHOD", "WORKER_ENVIRONMENT", "WORKER_SETTINGS", "prepare_workers", "worker_variables"]

START_METHOD: Literal["forkserver", "spawn"] = "forkserver" if sys.platform == "linux" else "spawn"
"""Workers are forked from a server that has imported what they need, once for all. Elsewhere that is not safe."""

WORKER_ENVIRONMENT: dict[str, int | str] = {
    "OMP_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    # Each tile allocates the same large activations again. Given back to the system after each layer, as the C library
    # does by default (and Dask even more so), they cost a third of the time in page faults: at windows of 1212 pixels
    # the network went from 1.1 to 1.9 megapixels per second and core when they were kept. One arena, because those of
    # other threads than the main one consist of heaps of 64 MiB and cannot keep anything larger.
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_THRESHOLD_": 2**33,
    "MALLOC_TRIM_THRESHOLD_": 2**33,
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Environment of worker processes, set before they start."""

WORKER_SETTINGS: dict[str, bool | str] = {
    # Sampling every 10 ms costs a twentieth of the time, and nobody looks at it.
    "distributed.worker.profile.enabled": False,
    # Every process, the driver with its nannies three times, looks at the clock so often, 20 ms by default, to warn
    # when it was held up for 3 s: 250 times a second a tile made room for that.
    "distributed.admin.tick.interval": "500 ms",
    # A worker that is full of pixels is at the size it was planned for: spilling or pausing would only slow it. One
    # that takes more than its share is ended by its nanny, as Dask does by default.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}
"""Dask's settings for worker processes."""


def worker_variables() -> dict[str, int | str]:
    """Give environment and settings of workers, the latter as Dask takes them, for those that others start."""
    named = {name.upper().replace(".", "__").replace("-", "_"): value for name, value in WORKER_SETTINGS.items()}
    return WORKER_ENVIRONMENT | {f"DASK_{name}": str(value) for name, value in named.items()}


def _without_warnings_of_the_tracker() -> dict[str, int | str]:
    """Have the process that removes the semaphores of killed ones do so, and be started again, without a word."""
    others = os.environ.get("PYTHONWARNINGS")
    return {"PYTHONWARNINGS": ",".join(filter(None, [others, "ignore:resource_tracker:UserWarning"]))}


@contextmanager
def _environment(variables: dict[str, int | str]) -> Iterator[None]:
    """Set an environment for what is started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def prepare_workers(preload: tuple[str, ...]) -> None:
    """Start, in the background, the server that worker processes are forked from; does nothing when it runs.

    To be called as early as it is known that there will be workers: the server imports while the caller goes on.

    Parameters
    ----------
    preload : tuple of str
        Modules that the jobs need.
    """
    if START_METHOD == "forkserver":
        # Killed together with others it is started again, which is nothing for a user to act upon.
        warnings.filterwarnings("ignore", "resource_tracker: process died unexpectedly", UserWarning)
        multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed", *preload])
        with _environment(_without_warnings_of_the_tracker()):
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            resource_tracker.ensure_running()
            # It unblocks what the caller may have blocked.
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with _environment(WORKER_ENVIRONMENT | _without_warnings_of_the_tracker()):
            forkserver.ensure_running()
