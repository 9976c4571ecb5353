"""A slide-like image, most of which has one value: what it saves that windows of one value are computed once.

`seamfree run --direct` in turns, as it is and with each window computed anew, on the same tiles. The results must be
the same, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline.models.architecture import UNetConfig
from pipeline.rates import device_name
from pipeline.stores.publish import read_provenance
from tests.benchmarks.watching import run_watched
from tests.faults.run import contents
from tests.fields import compose, load_fields, write_tiled
from tests.random_models import save_random_model

GROUND = 150
PATTERN = 4096
"""Edge of the mosaic that is repeated: only how much there is of it matters here."""

ANEW = Path(__file__).with_name("anew")


def slide(edge: int, ground: float) -> NDArray[np.uint16]:
    """Give a round piece of tissue on a ground of one value, which takes such a share of the image."""
    pattern = compose(load_fields(), (min(PATTERN, edge),) * 2)
    times = -(-edge // pattern.shape[0])
    image = np.tile(pattern, (times, times))[:edge, :edge].copy()
    radius = edge * ((1 - ground) / np.pi) ** 0.5
    if radius > edge / 2:
        raise ValueError(f"a round piece of tissue cannot leave a share of {ground} only; give 0.22 or more")
    along = np.square(np.arange(edge, dtype=np.float32) - edge / 2)
    for row, square in zip(image, along, strict=True):
        row[along + square > radius**2] = GROUND
    return image


def run(image: Path, out: Path, wishes: list[str], *, anew: bool) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    command: list[str | Path] = [Path(sys.executable).parent / "seamfree", "run", image, "-o", out, "--direct"]
    command += ["--planner", "off", *wishes]
    watched = run_watched(command, environment=os.environ | ({"PYTHONPATH": str(ANEW)} if anew else {}))
    if watched.code:
        raise SystemExit(watched.errors)
    noted = read_provenance(out / "slide.ome.zarr")
    timings = noted["timings"]
    return {"seconds": round(watched.seconds, 2), "core_seconds": round(watched.core_seconds, 2),
            "stages": timings["stages"], "reused": timings["constant_windows"],
            "in_part": timings["windows_in_part"], "spared": timings["spared"], "core": noted["plan"]["core"][2:],
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=8192)
    parser.add_argument("--ground", type=float, default=0.7, help="Its share of the image.")
    parser.add_argument("--tile", type=int, help="Edge of a core; without it, what a run takes that does not measure.")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--channels", type=int, help="A network of so many, with weights by chance; no objects then.")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="seamfree-slide-"))
    wishes = ["--precision", given.precision, *(["--tile", str(given.tile)] if given.tile else [])]
    if given.channels:
        model = save_random_model(work / "model", UNetConfig(base_channels=given.channels, classes=3))
        wishes += ["-m", model, "--instances", "none"]
    found: dict[str, list[dict[str, Any]]] = {"once": [], "anew": []}
    try:
        write_tiled(work / "slide.ome.tif", slide(given.edge, given.ground))
        same = True
        for repeat in range(given.repeats):
            for name in ("once", "anew") if repeat % 2 == 0 else ("anew", "once"):
                one = run(work / "slide.ome.tif", work / name, wishes, anew=name == "anew")
                found[name].append(one)
                print(f"{name}: {one['seconds']:.1f} s, {one['reused']} windows reused", flush=True)
            same &= contents(work / "once") == contents(work / "anew")
    finally:
        shutil.rmtree(work)
    pairs = list(zip(found["anew"], found["once"], strict=True))
    facts = {
        "machine": device_name("cpu"),
        "edge": given.edge,
        "ground": given.ground,
        "precision": given.precision,
        "channels": given.channels or "the bundled network's 16",
        "times_faster": round(median(anew["seconds"] / once["seconds"] for anew, once in pairs), 2),
        # Of the time for which cores were busy, which other programs hardly change.
        "times_fewer_core_seconds": round(
            median(anew["core_seconds"] / once["core_seconds"] for anew, once in pairs), 2
        ),
        "times_faster_network": round(
            median(anew["stages"]["segment"] / once["stages"]["segment"] for anew, once in pairs), 2
        ),
        "same_bytes": same,
        "runs": found,
    }
    print(json.dumps(facts, indent=2))
    if not same:
        raise SystemExit("the results differ")


if __name__ == "__main__":
    main()
