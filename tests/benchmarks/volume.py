"""A volume: what the planner's tile is worth, against that of the 3-D U-Net's paper, 132 in, 44 out.

`seamfree run --direct` in turns as it is; with `--planner measure`, by which the tile is chosen by time whatever it
costs to measure that; and with `--tile 44`, which becomes 48, the next whole number of steps of the network: a little
better than the paper's. The network has unpadded convolutions and random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline.rates import device_name
from pipeline.stores.publish import read_provenance
from tests.benchmarks.peers.cases import prepare
from tests.benchmarks.watching import run_watched

WAYS = {"planner": [], "measured": ["--planner", "measure"], "paper": ["--tile", "44"]}


def run(folder: Path, name: str, precision: str, cache: Path) -> dict[str, Any]:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command: list[str | Path] = [Path(sys.executable).parent / "seamfree", "run", folder / "image.ome.tif", "-o", out]
    command += ["--direct", "-m", folder / "valid", "--instances", "none", "--precision", precision, *WAYS[name]]
    watched = run_watched(command, environment=os.environ | {"XDG_CACHE_HOME": str(cache)})
    if watched.code:
        raise SystemExit(watched.errors)
    noted = read_provenance(out / "image.ome.zarr")
    return {"seconds": round(watched.seconds, 2), "core_seconds": round(watched.core_seconds, 2),
            "segment": noted["timings"]["stages"]["segment"],
            "core": noted["plan"]["core"][1:], "gib": round(watched.peak_bytes / 2**30, 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(192, 256, 256))
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory(prefix="seamfree-volume-") as work:
        folder = Path(work) / "case"
        prepare(folder, "3d-16", tuple(given.shape))
        for repeat in range(given.repeats):
            for name in WAYS if repeat % 2 == 0 else reversed(WAYS):
                # What was measured for the tile is part of the run, each time.
                found[name].append(run(folder, name, given.precision, Path(work) / f"cache-{repeat}"))
                print(f"{name}: {found[name][-1]}", flush=True)

    def times(what: str) -> dict[str, float]:
        """Give how many times less the planner's tiles took than the paper's, in the same round."""
        return {
            name: round(
                median(paper[what] / own[what] for paper, own in zip(found["paper"], found[name], strict=True)), 2
            )
            for name in ("planner", "measured")
        }

    facts = {
        "machine": device_name("cpu"),
        "shape": given.shape,
        "precision": given.precision,
        "voxels_per_second": {
            name: round(prod(given.shape) / median(one["seconds"] for one in each)) for name, each in found.items()
        },
        "times_faster": times("seconds"),
        # Of the time for which cores were busy, which other programs hardly change.
        "times_fewer_core_seconds": times("core_seconds"),
        "times_faster_network": times("segment"),
        "runs": found,
    }
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
