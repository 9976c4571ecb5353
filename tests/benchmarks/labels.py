"""Connected components of one mask: seamfree's, core by core, against dask-image and scikit-image's whole-image label.

The same semantic labels, from the bundled model's result or synthetic, the same chunks, the same number of threads, in
one run. All three must give the same objects; seamfree and scikit-image the same numbers, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

import dask
import dask.array as da
import numpy as np
from dask_image.ndmeasure import label as dask_image_label
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline import open_result
from pipeline.geometry import Footprint, TileGrid
from pipeline.labels import label_core, relabel, unite

__all__ = ["by_cores", "by_dask_image", "canonical"]


def by_cores(mask: NDArray[np.bool_], edge: int, threads: int) -> NDArray[np.uint32]:
    """Label a YX mask as the pipeline does: each core, the union, each core again."""
    nothing = Footprint((0,) * 4, (0,) * 4, (1,) * 4, (0,) * 4, (1,) * 4)
    frame = mask[None, None]
    grid = TileGrid(frame.shape, (1, 1, edge, edge), nothing)
    result = np.zeros(frame.shape, dtype=np.uint32)
    with ThreadPoolExecutor(threads) as pool:
        cores = list(
            pool.map(lambda tile: label_core(frame[tile.owned.slices], tile.owned, frame.shape, 2), list(grid))
        )
        numbering = unite(lambda index: cores[index].summary, grid.counts, 2)

        def write(index: int) -> None:
            result[grid[index].owned.slices] = relabel(cores[index].runs, numbering.of_core(index))

        list(pool.map(write, range(len(grid))))
    return np.asarray(result[0, 0])


def by_dask_image(mask: NDArray[np.bool_], edge: int, threads: int) -> NDArray[np.integer]:
    """Label it with dask-image, in chunks of the same size."""
    with dask.config.set(scheduler="threads", num_workers=threads):
        labels, _ = dask_image_label(da.from_array(mask, chunks=(edge, edge)))
        return np.asarray(labels.compute())


def canonical(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Number objects by their first pixel in raster order."""
    ids, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(ids.size, dtype=np.int64)
    order[np.argsort(np.where(ids == 0, -1, first))] = np.arange(ids.size) + (0 if ids[0] == 0 else 1)
    return np.asarray(order[inverse].reshape(labels.shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, help="A result whose semantic labels are taken; synthetic without.")
    parser.add_argument("--edge", type=int, default=8192)
    parser.add_argument("--core", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    if given.result is not None:
        mask = np.asarray(open_result(given.result).semantic[0][: given.edge, : given.edge]) == 1
    else:
        noise = ndimage.gaussian_filter(np.random.default_rng(0).random((given.edge, given.edge), np.float32), 4)
        mask = noise > np.quantile(noise[:2048, :2048], 0.75)
    ways: dict[str, Callable[[], NDArray[np.integer]]] = {
        "seamfree": lambda: by_cores(mask, given.core, threads),
        "dask-image": lambda: by_dask_image(mask, given.core, threads),
        "scikit-image, whole": lambda: np.asarray(measure.label(mask, connectivity=1)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, NDArray[np.integer]] = {}
    for _ in range(given.repeats):
        for name, way in ways.items():
            began = perf_counter()
            found[name] = way()
            seconds[name].append(perf_counter() - began)
    whole = found["scikit-image, whole"]
    facts = {
        "machine": f"{platform.machine()}, {threads} cores",
        "mask": f"{given.result or 'synthetic'}, {mask.shape}",
        "objects": int(whole.max()),
        "seconds": {name: round(median(times), 2) for name, times in seconds.items()},
        "seamfree equals scikit-image, number by number": bool(np.array_equal(found["seamfree"], whole)),
        "dask-image has the same objects": bool(np.array_equal(canonical(found["dask-image"]), whole)),
    }
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
