"""A result of many gigapixels that takes hardly any room, and what a page reads of it."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.planning import RunPlan
from pipeline.stores.levels import level_shapes
from pipeline.stores.publish import PROVENANCE
from tests.browser import Page
from tests.fields import compose, load_fields, write_tiled

__all__ = ["CHUNK", "SIZE", "open_at", "open_whole", "write_large"]

BASE = 2048
"""Edge of the mosaic that is repeated."""

SHARD, CHUNK = 4096, 256

SIZE = (1360, 860)
"""Width and height of the page."""


def write_large(folder: Path, gigapixels: float, **settings: Any) -> tuple[Path, int]:  # noqa: ANN401 (as YAML gives them)
    """Write a result that repeats one of a mosaic of fields: all levels of all pyramids, their shards links to a few.

    Parameters
    ----------
    folder : Path
        Where to; on a disk that has hard links.
    gigapixels : float
        How large it is, at least.
    **settings
        With which the mosaic is segmented.

    Returns
    -------
    result : Path
        Its folder.
    edge : int
        In pixels, a multiple of BASE.
    """
    write_tiled(folder / "base.ome.tif", compose(load_fields(), (BASE, BASE)))
    (report,) = segment(folder / "base.ome.tif", folder, make_config({"tile": BASE} | settings))
    edge = -(-round((gigapixels * 1e9) ** 0.5) // BASE) * BASE
    return _enlarge(Path(str(report.result)), folder, edge), edge


def _enlarge(base: Path, folder: Path, edge: int) -> Path:
    """Write a result of `edge` x `edge` pixels that repeats another one, of BASE x BASE."""
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


def open_whole(page: Page, url: str) -> dict[str, float]:
    """Open a result, wait until all of it is drawn, and tell what was read for that."""
    page.responses.clear()
    page.open(url, *SIZE)
    return _drawn(page)


def open_at(page: Page, x: int, y: int, resolution: float = 1) -> dict[str, float]:
    """Open what is open at another place, in pixels of the image, and tell what was read for that."""
    page.responses.clear()
    page.evaluate(f"location.hash = 'x={x}&y={y}&resolution={resolution}'; location.reload()")
    return _drawn(page)


def _drawn(page: Page) -> dict[str, float]:
    page.wait_for("document.getElementById('name').textContent")
    page.settle()
    return _sum_up(page.responses)


def _sum_up(responses: list[tuple[str, int, int]]) -> dict[str, float]:
    """Sum up what was read of arrays."""
    pieces = [size for url, status, size in responses if "/data/" in url and status in (200, 206)]
    return {"requests": len(pieces), "megabytes": round(sum(pieces) / 1e6, 2)}
