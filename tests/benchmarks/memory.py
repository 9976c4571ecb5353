"""Peak memory of every process on images of 1, 4 and 16 times the area: it should depend on the tile, not on the image.

Also what they take: seconds of each stage, objects, rows and size of the table, and the time that objects take as a
share of the network's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile
from numpy.typing import NDArray
from pyarrow import parquet
from skimage.transform import rescale

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline.stores.publish import read_provenance
from tests.benchmarks.watching import looked_at
from tests.fields import compose, load_fields

TILE = 512


def write_large(path: Path, edge: int, scale: float) -> None:
    """Write a tiled uint16 image tile by tile: real fields again and again, for only the size matters here.

    At a scale below 1 nuclei are smaller, and there are more of them.
    """
    full = round(8 * TILE / scale)
    pattern = compose(load_fields(), (full, full))
    if scale != 1:
        shrunk = rescale(pattern, 8 * TILE / full, order=1, anti_aliasing=True, preserve_range=True)
        pattern = np.round(shrunk[: 8 * TILE, : 8 * TILE]).astype(np.uint16)

    def tiles() -> Iterator[NDArray[np.uint16]]:
        count = -(-edge // TILE)
        for row in range(count):
            for column in range(count):
                top, left = row % 8 * TILE, column % 8 * TILE
                yield pattern[top : top + TILE, left : left + TILE]

    tifffile.imwrite(path, tiles(), shape=(edge, edge), dtype=np.uint16, tile=(TILE, TILE), bigtiff=True,
                     compression="zlib", compressionargs={"level": 1})  # fmt: skip


def role(process: psutil.Process, driver: int) -> str:
    if process.pid == driver:
        return "driver"
    command = " ".join(process.cmdline())
    if "forkserver" in command:
        return "server of workers" if process.ppid() == driver else "worker"
    return "worker" if "spawn_main" in command else "other"


def peaks(command: list[str | Path]) -> dict[str, float]:
    """Run a command, and give the highest resident size that any process of each role has had, in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    highest: dict[str, float] = {}

    def look(family: list[psutil.Process]) -> None:
        for member in family:
            try:
                status = Path(f"/proc/{member.pid}/status").read_text()
                kind = role(member, process.pid)
            except (OSError, psutil.Error):
                continue
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    highest[kind] = max(highest.get(kind, 0.0), int(line.split()[1]) / 1024)

    with looked_at(process.pid, look):
        _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors)
    return highest


def account(result: Path) -> dict[str, Any]:
    """Sum up what a run has taken and made."""
    provenance = read_provenance(result)
    stages, tiles = provenance["timings"]["stages"], provenance["timings"]["tiles"]
    table = result / "tables" / "instances" / "table.parquet"
    # Some objects are found while a tile is at hand; on a CPU each worker does one thing at a time.
    workers = len(os.sched_getaffinity(0))
    after = sum(stages[name] or 0 for name in ("cross", "part", "number", "relabel") if name in stages)
    labelling = tiles["objects"] / workers + after
    return {
        "objects": provenance["objects"],
        "table": {"rows": parquet.read_metadata(table).num_rows, "mib": round(table.stat().st_size / 2**20, 1)},
        "stages": stages,
        "tiles": tiles,
        "labels": {"seconds": round(labelling, 2), "of_network": round(labelling * workers / tiles["compute"], 3)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, nargs="+", default=(5000, 10000, 20000))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--scale", type=float, default=1.0, help="Below 1: smaller nuclei, and more.")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="seamfree-memory-"))
    found = {}
    try:
        for edge in given.edges:
            image = work / f"image-{edge}.tif"
            write_large(image, edge, given.scale)
            command: list[str | Path] = [
                Path(sys.executable).parent / "seamfree",
                "run",
                image,
                "-o",
                work / "out",
                "--direct",
            ]
            found[edge] = peaks([*command, "--precision", given.precision])
            print(f"{edge} x {edge}: " + ", ".join(f"{kind} {size:.0f} MiB" for kind, size in found[edge].items()),
                  flush=True)  # fmt: skip
            print(json.dumps(account(work / "out" / f"image-{edge}.ome.zarr")), flush=True)
            shutil.rmtree(work / "out")
            image.unlink()
    finally:
        shutil.rmtree(work)
    small = found[given.edges[0]]
    ratios = {edge: {kind: round(found[edge][kind] / small[kind], 3) for kind in small} for edge in given.edges}
    print(json.dumps({"precision": given.precision, "peaks_mib": found, "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
