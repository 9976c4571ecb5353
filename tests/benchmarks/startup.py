"""How long it takes until something happens: `seamfree --help`, and a whole run of a small image.

Medians. The first of each is left out: it fills the system's cache of files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import tifffile

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from tests.benchmarks.memory import peaks

SEAMFREE = str(Path(sys.executable).parent / "seamfree")


def seconds(command: list[str], repeats: int) -> float:
    taken = []
    for _ in range(repeats + 1):
        began = perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(perf_counter() - began)
    return round(median(taken[1:]), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prefect", action="store_true", help="Also as a flow, with Prefect's own server.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seamfree-startup-") as name:
        image = f"{name}/a.tif"
        tifffile.imwrite(image, np.random.default_rng(0).integers(0, 4000, (given.edge, given.edge), dtype=np.uint16))
        run = [SEAMFREE, "run", image, "-o", f"{name}/out", "--fresh", "--direct"]
        two = [*run, "--workers", "2"]
        found = {
            "--help": seconds([SEAMFREE, "--help"], given.repeats),
            "run --direct": seconds(two, given.repeats),
            "run --direct --scheduler serial": seconds([*run, "--scheduler", "serial"], given.repeats),
        }
        if given.prefect:
            found["run"] = seconds([part for part in two if part != "--direct"], 1)
        processes = sorted(peaks([*two]))
    print(json.dumps({"cores": len(os.sched_getaffinity(0)), "seconds": found, "processes": processes}, indent=2))


if __name__ == "__main__":
    main()
