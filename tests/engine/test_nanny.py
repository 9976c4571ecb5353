"""A worker that dies in the very moment in which it reports for duty."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import dask
import pytest
from distributed import Nanny, Scheduler, Status

from pipeline.engine.nanny import SteadyNanny


async def die_while_reporting(nanny: Nanny) -> None:
    """Kill the worker, and its successor after its report has come and before it is taken notice of."""
    process: Any = nanny.process
    wait_until_connected = process._wait_until_connected
    begun = asyncio.Event()

    async def die_when_connected(*arguments: object) -> object:
        message = await wait_until_connected(*arguments)
        process._wait_until_connected = wait_until_connected
        os.kill(process.pid, signal.SIGKILL)
        while process.status != Status.stopped:
            await asyncio.sleep(0)
        # The next start has to begin, if it is going to, before this one ends.
        for _ in range(100):
            await asyncio.sleep(0)
        begun.set()
        return message

    process._wait_until_connected = die_when_connected
    os.kill(process.pid, signal.SIGKILL)
    await begun.wait()
    await asyncio.sleep(0)


async def end_after_that(kind: type[Nanny]) -> Status:
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        nanny = kind(scheduler.address, nthreads=1, host="127.0.0.1", silence_logs=logging.CRITICAL)
        await nanny
        await die_while_reporting(nanny)
        await nanny.close()
        assert not scheduler.workers
        return Status(nanny.status)


def test_the_end_comes_in_order() -> None:
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        assert asyncio.run(end_after_that(SteadyNanny)) == Status.closed


def test_without_the_guard_it_does_not() -> None:
    """When this fails, distributed has mended it, and `SteadyNanny` can go."""
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}),
        pytest.raises(AssertionError, match="can only join a started process"),
    ):
        asyncio.run(end_after_that(Nanny))
