"""Very many tiles with a network that does nothing: what the engine costs for each, and whether memory grows.

Jobs go through the same executor, ledger and cluster as those of a run, with a run's own plan on their backs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import tifffile

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline.config import make_config
from pipeline.engine.cluster import ClusterSpec, connect, open_cluster
from pipeline.engine.ledger import Ledger
from pipeline.images.discover import InputImage
from pipeline.planning import Intent, RunPlan
from pipeline.run import prepare

FAR = 10**7
"""Tiles to extrapolate to: an image of 10 million megapixels in cores of 1024."""


def nothing(plan: RunPlan, index: int) -> dict[str, Any]:
    """Do what every job does beside its work: find its tile, and report on it as `segment_tile` does."""
    tile = plan.tiles[index % len(plan.tiles)]
    return {"pixels": tile.owned.size, "read": 0.0, "compute": 0.0, "write": 0.0, "objects": 0.0}


def resident() -> dict[str, float]:
    """Give the resident memory of this process, in which the scheduler is a thread, and of all workers, in MiB."""
    driver = psutil.Process()
    workers = [child.memory_info().rss for child in driver.children(recursive=True)]
    return {"driver": driver.memory_info().rss / 2**20, "workers": max(workers, default=0) / 2**20}


def busy() -> float:
    """Give the seconds that this process and all workers have computed so far: other programs do not count."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def a_plan(folder: Path) -> RunPlan:
    """Plan a small image, of which each tile stands for many."""
    tifffile.imwrite(folder / "a.tif", np.zeros((512, 512), dtype=np.uint8))
    config = make_config({"tile": 64, "instances": {"method": "none"}})
    return prepare(config, InputImage(str(folder / "a.tif"), "a"), folder, Intent(device="cpu", worker_memory=2**32))


def measure(tiles: int, workers: int, report: int) -> dict[str, Any]:
    """Run so many jobs, and say what each took and how memory went."""
    seen: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="seamfree-tiles-") as name,
        open_cluster(ClusterSpec(workers, preload=("pipeline.jobs",))) as address,
        connect(address) as executor,
    ):
        plan = a_plan(Path(name))
        path = Path(name) / "ledger.sqlite"
        with Ledger(path, plan.digest) as ledger:
            for index, _ in executor.map("warm-up", nothing, plan, range(100)):
                ledger.mark("warm-up", index, {})
            began, worked = perf_counter(), busy()
            last = began
            for done, (index, record) in enumerate(executor.map("segment", nothing, plan, range(tiles)), start=1):
                ledger.mark("segment", index, record)
                if done % report == 0:
                    now = perf_counter()
                    seen.append({"tiles": done, "ms_per_tile": 1000 * (now - last) / report, **resident()})
                    last = now
                    print(json.dumps({key: round(value, 3) for key, value in seen[-1].items()}), flush=True)
            seconds, worked = perf_counter() - began, busy() - worked
        size = path.stat().st_size
    per_tile = seconds / tiles
    first, end = seen[0], seen[-1]
    grown = {name: (end[name] - first[name]) / (end["tiles"] - first["tiles"] or 1) for name in ("driver", "workers")}
    return {
        "tiles": tiles,
        "workers": workers,
        "seconds": round(seconds, 1),
        "ms_per_tile": round(1000 * per_tile, 3),
        "cpu_ms_per_tile": round(1000 * worked / tiles, 3),
        "mib": {name: [round(first[name], 1), round(end[name], 1)] for name in ("driver", "workers")},
        "bytes_per_tile": {name: round(2**20 * each, 1) for name, each in grown.items()}
        | {"ledger": round(size / tiles)},
        "at_1e7_tiles": {
            "hours": round(per_tile * FAR / 3600, 1),
            "driver_mib": round(end["driver"] + grown["driver"] * (FAR - tiles)),
            "ledger_mib": round(size / tiles * FAR / 2**20),
        },
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=int, default=20_000)
    given = parser.parse_args()
    print(json.dumps(measure(given.tiles, given.workers, given.report), indent=2))


if __name__ == "__main__":
    main()
