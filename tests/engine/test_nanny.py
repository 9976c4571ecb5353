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
from distributed.process import AsyncProcess

from pipeline.engine.nanny import SteadyNanny


async def die_while_reporting(nanny: Nanny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the worker, and its successor after its report has come and before it is taken notice of.

    A process that is to be started while that successor's start is still under way is not started: whatever the
    speed of this machine, the end of the one start then comes before the end of the other.
    """
    process: Any = nanny.process
    wait_until_connected, instantiate = process._wait_until_connected, nanny.instantiate
    asked_again, died = asyncio.Event(), asyncio.Event()
    start: Any = AsyncProcess.start
    reporting = False

    async def start_late(self: AsyncProcess) -> None:
        if reporting:
            await asyncio.Event().wait()
        await start(self)

    async def instantiate_again() -> Status:
        asked_again.set()
        return await instantiate()

    async def die_when_connected(*arguments: object) -> object:
        nonlocal reporting
        message = await wait_until_connected(*arguments)
        process._wait_until_connected = wait_until_connected
        reporting = True
        monkeypatch.setattr(nanny, "instantiate", instantiate_again)
        os.kill(process.pid, signal.SIGKILL)
        await asked_again.wait()
        # The next start has to begin, if it is going to, before this one ends.
        for _ in range(100):
            await asyncio.sleep(0)
        reporting = False
        died.set()
        return message

    monkeypatch.setattr(AsyncProcess, "start", start_late)
    process._wait_until_connected = die_when_connected
    os.kill(process.pid, signal.SIGKILL)
    await died.wait()
    await asyncio.sleep(0)


async def end_after_that(kind: type[Nanny], monkeypatch: pytest.MonkeyPatch) -> Status:
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        nanny = kind(scheduler.address, nthreads=1, host="127.0.0.1", silence_logs=logging.CRITICAL)
        await nanny
        await die_while_reporting(nanny, monkeypatch)
        await nanny.close()
        assert not scheduler.workers
        return Status(nanny.status)


def test_the_end_comes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        assert asyncio.run(end_after_that(SteadyNanny, monkeypatch)) == Status.closed


def test_without_the_guard_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, distributed has mended it, and `SteadyNanny` can go."""
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}),
        pytest.raises(AssertionError, match="can only join a started process"),
    ):
        asyncio.run(end_after_that(Nanny, monkeypatch))
