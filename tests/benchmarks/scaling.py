"""How work is shared out: strong scaling from one worker to two, for real, and weak scaling to a thousand, simulated.

Strong: `seamfree run --direct` on one image with one worker and with two, in turns; compared are the seconds that the
network's stage took. Weak: the scheduler, the client, the executor, the ledger and each worker's protocol are those of
a run, and so is the plan that every tile carries; only the tiles sleep, for this machine has no thousand cores. Each
worker is a `distributed.Worker` of its own with one thread, but many share a process, which listens on many ports. So
what workers cost beside their tiles is paid here, on the same cores, and efficiencies are lower bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import dask
import psutil

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline.engine.cluster import connect
from pipeline.engine.ledger import Ledger
from pipeline.engine.workers import WORKER_SETTINGS
from pipeline.planning import RunPlan
from tests.benchmarks.many_tiles import a_plan
from tests.fields import compose, load_fields, write_tiled


def sleep(plan: RunPlan, index: int, *, seconds: float) -> dict[str, Any]:
    """Take as long as a tile does, and report as `segment_tile` does."""
    tile = plan.tiles[index % len(plan.tiles)]
    time.sleep(seconds)
    return {"pixels": tile.owned.size, "read": 0.0, "compute": 0.0, "write": 0.0, "objects": 0.0}


def serve(address: str, workers: int) -> None:
    """Be so many workers of a scheduler, until it goes."""
    from distributed import Worker

    async def work() -> None:
        settings = WORKER_SETTINGS | {"distributed.admin.system-monitor.interval": "10s"}
        with dask.config.set(settings):
            several = [
                Worker(address, nthreads=1, memory_limit=0, dashboard=False, local_directory=tempfile.gettempdir())
                for _ in range(workers)
            ]
            await asyncio.gather(*several)
            await asyncio.gather(*(each.finished() for each in several))

    asyncio.run(work())


@contextmanager
def cluster(workers: int, hosts: int) -> Iterator[tuple[str, list[psutil.Process]]]:
    """Start a scheduler in this process, as a run with a queue does, and workers in others."""
    from distributed import SpecCluster
    from distributed.scheduler import Scheduler

    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "host": "127.0.0.1"}}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(WORKER_SETTINGS))
        started = stack.enter_context(SpecCluster(scheduler=scheduler, silence_logs=50))
        program = f"from tests.benchmarks.scaling import serve; serve({started.scheduler_address!r}, {{}})"
        shares = [workers // hosts + (at < workers % hosts) for at in range(hosts)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        processes = [
            subprocess.Popen([sys.executable, "-c", program.format(share)], env=environment, stderr=subprocess.DEVNULL)
            for share in shares
        ]
        try:
            from distributed import Client

            with Client(started.scheduler_address, set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=180)
            yield started.scheduler_address, [psutil.Process(each.pid) for each in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()


def spent(processes: list[psutil.Process]) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in processes)


def weak(workers: int, hosts: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Give each worker so many tiles of so many seconds, and say which share of its time it slept."""
    with (
        tempfile.TemporaryDirectory(prefix="seamfree-scaling-") as name,
        cluster(workers, hosts) as (address, others),
        connect(address) as executor,
    ):
        plan, tiles = a_plan(Path(name)), workers * rounds
        driver = [psutil.Process()]
        with Ledger(Path(name) / "ledger.sqlite", plan.digest) as ledger:
            busy, helped, began = spent(driver), spent(others), perf_counter()
            first = None
            for index, record in executor.map("segment", partial(sleep, seconds=seconds), plan, range(tiles)):
                ledger.mark("segment", index, record)
                first = first or perf_counter() - began
            took, busy, helped = perf_counter() - began, spent(driver) - busy, spent(others) - helped
        resident = driver[0].memory_info().rss / 2**20
    return {
        "workers": workers,
        "tiles": tiles,
        "tile_seconds": seconds,
        "seconds": round(took, 2),
        "efficiency": round(seconds * rounds / took, 3),
        "tiles_per_second": round(tiles / took, 1),
        "first_after": round(first or 0.0, 2),
        "driver_ms_per_tile": round(1000 * busy / tiles, 2),
        "workers_ms_per_tile": round(1000 * helped / tiles, 2),
        "driver_busy": round(busy / took, 2),
        "driver_mib": round(resident),
    }


def strong(edge: int, repeats: int, tile: int) -> dict[str, Any]:
    """Run one image with one worker and with two, in turns, and compare the seconds of its network."""
    work = Path(tempfile.mkdtemp(prefix="seamfree-strong-"))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    whole: dict[int, list[float]] = {1: [], 2: []}
    try:
        image = work / "large.ome.tif"
        write_tiled(image, compose(load_fields(), (edge, edge)))
        for repeat in range(repeats):
            for workers in (1, 2) if repeat % 2 == 0 else (2, 1):
                command: list[str | Path] = [Path(sys.executable).parent / "seamfree", "run", image, "-o", work / "out"]
                command += ["--direct", "--fresh", "--workers", str(workers), "--tile", str(tile)]
                began = perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                whole[workers].append(perf_counter() - began)
                noted = json.loads((work / "out" / "large.ome.zarr" / "seamfree.json").read_text())["timings"]
                seconds[workers].append(noted["stages"]["segment"])
                print(f"{workers} workers: segment {seconds[workers][-1]:.2f} s, all {whole[workers][-1]:.2f} s",
                      flush=True)  # fmt: skip
    finally:
        shutil.rmtree(work)
    one, two = (median(seconds[workers]) for workers in (1, 2))
    return {
        "edge": edge,
        "tile": tile,
        "segment_seconds": seconds,
        "whole_seconds": {workers: [round(each, 2) for each in whole[workers]] for workers in whole},
        "speedup": round(one / two, 3),
        "whole_speedup": round(median(whole[1]) / median(whole[2]), 3),
    }


COLUMNS = ("workers", "tiles", "seconds", "efficiency", "tiles_per_second", "driver_ms_per_tile", "driver_busy",
           "workers_ms_per_tile", "driver_mib")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[64, 128, 256, 512, 1024])
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="Of a tile; the default model takes so long for 1024."
    )
    parser.add_argument("--rounds", type=int, default=8, help="Tiles for each worker.")
    parser.add_argument("--hosts", type=int, default=4, help="Processes that share the workers.")
    parser.add_argument("--edge", type=int, default=6144, help="Of the image for strong scaling; 0 leaves it out.")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows = []
    if given.workers:
        print(" ".join(f"{name:>19}" for name in COLUMNS))
    for workers in given.workers:
        rows.append(weak(workers, given.hosts, given.seconds, given.rounds))
        print(" ".join(f"{rows[-1][name]:>19}" for name in COLUMNS), flush=True)
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "weak": rows}
    if given.edge:
        found["strong"] = strong(given.edge, given.repeats, given.tile)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
