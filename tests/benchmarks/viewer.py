"""Opens a result of many gigapixels in a real browser, and tells how long that takes and how much is read for it.

    python tests/benchmarks/viewer.py [--gigapixels 100] [--picture FILE.png]

The result is a real one of a mosaic of fields, repeated until it is so large: its shards are links to a few files, so
that it takes hardly any room on the disk. All levels of all pyramids are there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

sys.path.append(str(Path(__file__).parents[2]))

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.planning import RunPlan
from pipeline.stores.levels import level_shapes
from pipeline.stores.publish import PROVENANCE
from pipeline.viewer.server import ViewerServer
from pipeline.viewer.site import Site
from tests.browser import BROWSER, WHY_NOT, open_page
from tests.fields import compose, load_fields, write_tiled

BASE = 2048
"""Edge of the mosaic that is repeated."""

SHARD, CHUNK = 4096, 256


def enlarge(base: Path, folder: Path, edge: int) -> Path:
    """Write a result that repeats another one.

    Parameters
    ----------
    base : Path
        A result of BASE x BASE pixels.
    folder : Path
        Where to; on a disk that has hard links.
    edge : int
        In pixels, a multiple of BASE.

    Returns
    -------
    Path
        Its folder.
    """
    result = open_result(base)
    target = folder / "large.ome.zarr"
    shapes = level_shapes((edge, edge))
    pyramids = {"": result.image, "labels/semantic": result.semantic, "labels/instances": result.instances}
    for name, levels in pyramids.items():
        for level, shape in enumerate(shapes):
            if max(shape) > BASE:
                pixels = np.asarray(levels[min(level, len(levels) - 1)])
                step = -(-pixels.shape[0] * 2**level // BASE)
                pixels = pixels[::step, ::step]
            else:
                # Seen from so far, all would be one grey, and nothing to read: the mosaic once, over all of the image.
                rows, columns = (np.arange(length) * BASE // length for length in shape)
                pixels = np.asarray(levels[0])[rows][:, columns]
            _repeat(target / name / str(level), pixels, shape)
        _describe(base / name, target / name, len(shapes))
    for name in ("labels", "tables", "tables/instances"):
        _link(base / name / "zarr.json", target / name / "zarr.json")
    _link(base / "tables/instances/table.parquet", target / "tables/instances/table.parquet")
    facts = json.loads((base / PROVENANCE).read_text())
    facts["plan"]["source"]["shape"] = [1, 1, 1, edge, edge]
    (target / PROVENANCE).write_text(json.dumps(facts))
    assert RunPlan.model_validate(facts["plan"] | {"output": str(target)}).tiles.counts[3] == edge // BASE
    return target


def _repeat(path: Path, pixels: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    """Write one shard, and link the others to it."""
    shard = min(SHARD, -(-max(shape) // CHUNK) * CHUNK)
    array = zarr.create_array(
        path, shape=shape, dtype=pixels.dtype, chunks=(CHUNK, CHUNK), shards=(shard, shard), fill_value=0
    )
    times = -(-shard // pixels.shape[0])
    part = np.tile(pixels, (times, times))[: min(shard, shape[0]), : min(shard, shape[1])]
    array[: part.shape[0], : part.shape[1]] = part
    along = -(-shape[0] // shard)
    for row, column in product(range(along), repeat=2):
        _link(path / "c/0/0", path / f"c/{row}/{column}")


def _link(file: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        os.link(file, link)


def _describe(base: Path, target: Path, levels: int) -> None:
    """Write the metadata of a group for more levels."""
    facts = json.loads((base / "zarr.json").read_text())
    multiscale = facts["attributes"]["ome"]["multiscales"][0]
    first = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
    multiscale["datasets"] = [
        {"path": str(at), "coordinateTransformations": [{"type": "scale", "scale": [size * 2**at for size in first]}]}
        for at in range(levels)
    ]
    (target / "zarr.json").write_text(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigapixels", type=float, default=100)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if BROWSER is None:
        sys.exit(WHY_NOT)
    edge = -(-round((options.gigapixels * 1e9) ** 0.5) // BASE) * BASE
    with tempfile.TemporaryDirectory(prefix="seamfree-viewer-") as folder:
        write_tiled(Path(folder) / "base.ome.tif", compose(load_fields(), (BASE, BASE)))
        report = segment(Path(folder) / "base.ome.tif", folder, make_config({"tile": BASE}, origin="the benchmark"))[0]
        large = enlarge(Path(str(report.result)), Path(folder), edge)
        with open_page() as page:
            began = time.perf_counter()
            with ViewerServer(Site(large)) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                page.open(server.url, 1360, 860)
                page.wait_for("document.getElementById('name').textContent")
                page.settle()
                seconds = time.perf_counter() - began
                said = {"gigapixels": edge**2 / 1e9, "seconds": round(seconds, 2), **read(page.responses)}
                print("opened", json.dumps(said))
                page.responses.clear()
                began = time.perf_counter()
                page.evaluate(f"location.hash = 'x={edge // 3}&y={edge // 5}&resolution=1'; location.reload()")
                page.wait_for("document.getElementById('name').textContent")
                page.settle()
                print(
                    "at full resolution",
                    json.dumps({"seconds": round(time.perf_counter() - began, 2), **read(page.responses)}),
                )
                if options.picture:
                    page.evaluate(f"location.hash = 'x={edge // 3}&y={edge // 5}&resolution=5'; location.reload()")
                    page.wait_for("document.getElementById('name').textContent")
                    page.key("g")
                    page.settle()
                    page.picture(options.picture)
                assert not page.errors, page.errors
                server.shutdown()


def read(responses: list[tuple[str, int, int]]) -> dict[str, float]:
    """Sum up what was read of arrays."""
    pieces = [size for url, status, size in responses if "/data/" in url and status in (200, 206)]
    return {"requests": len(pieces), "megabytes": round(sum(pieces) / 1e6, 2)}


if __name__ == "__main__":
    main()
