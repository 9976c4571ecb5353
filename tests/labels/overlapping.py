"""Overlapping windows without any files: as the jobs do it, from arrays to arrays. And finders of objects for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Footprint, TileGrid
from pipeline.labels.overlap import CandidateTable, Pairs, compare_views, find_candidates, neighbours
from pipeline.labels.overlap_choice import Choice, choose
from pipeline.labels.overlap_painting import PaintedSummary, View, number_painted, paint_core

Ndim = Literal[2, 3]
Labels = NDArray[np.integer[Any]]
Finder = Callable[[NDArray[Any]], tuple[Labels, NDArray[np.float64]]]
"""From a window without T (and without Z for planes) to objects and scores."""

__all__ = ["Finder", "Ndim", "assemble", "components", "grid_of"]


def grid_of(shape: tuple[int, ...], core: tuple[int, ...], diameter: Sequence[int], halo: int = 2) -> TileGrid:
    """Tiles with so many diameters around each core."""
    margin = (0,) * (4 - len(diameter)) + tuple(halo * extent for extent in diameter)
    return TileGrid(shape, core, Footprint((0,) * 4, margin, (1,) * 4, (0,) * 4, (1,) * 4))


def components(mask: NDArray[np.bool_]) -> tuple[Labels, NDArray[np.float64]]:
    """Connected components: what a pixel belongs to does not depend on the window, but whether pieces are connected."""
    labels = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=4 if mask.ndim == 2 else 6)
    return labels, np.ones(int(labels.max(initial=0)))


def assemble(
    image: NDArray[Any], finder: Finder, tiles: TileGrid, diameter: Sequence[int], ndim: Ndim,
    order: Sequence[int] | None = None, minimum_size: int = 0,
) -> tuple[NDArray[np.uint32], Choice]:  # fmt: skip
    """Find objects window by window, in some order, and put them together: by way of arrays, as between processes."""
    order = order if order is not None else range(len(tiles))
    windows = [tile.window.clip(tiles.shape) for tile in tiles]
    views: dict[int, NDArray[np.uint32]] = {}
    tables: dict[int, dict[str, NDArray[Any]]] = {}
    for index in order:
        labels = np.zeros(windows[index].shape, dtype=np.int64)
        scores: list[NDArray[np.float64]] = [np.zeros(0)]
        block = image[windows[index].slices]
        for at in np.ndindex(*labels.shape[: 4 - ndim]):
            found, score = finder(block[at])
            labels[at] = np.where(found > 0, found + sum(part.size for part in scores), 0)
            scores.append(score)
        candidates = find_candidates(
            labels, np.concatenate(scores), windows[index], tiles[index].owned, tiles.shape, ndim, diameter
        )
        views[index], tables[index] = candidates.labels, candidates.table.to_arrays()
    pairs = {
        index: Pairs.join(
            [
                compare_views(
                    views[index], views[other], (tables[index]["clearance"] <= 0, tables[other]["clearance"] <= 0),
                    (windows[index], windows[other]),
                    (tiles[index].owned, tiles[other].owned), other, tiles.shape,
                )
                for other in neighbours(tiles, index) if other > index
            ]
        ).to_arrays()
        for index in order
    }  # fmt: skip
    choice = choose(
        lambda index: CandidateTable.from_arrays(tables[index]),
        lambda index: Pairs.from_arrays(pairs[index]),
        len(tiles),
    )
    painted = {}
    for index in order:
        owned = tiles[index].owned
        seen = []
        for other in (*neighbours(tiles, index), index):
            place = windows[other].intersect(owned)
            mine = slice(choice.offsets[other], choice.offsets[other + 1])
            identity = choice.identity[mine]
            if other != index:
                identity = np.where(tables[other]["clearance"] > 0, identity, -1)
            inside = views[other][place.relative_to(windows[other].start).slices]
            seen.append(View(inside, place, identity, choice.rank[mine]))
        painted[index] = paint_core(seen, owned, tiles.shape)
    numbering = number_painted(
        (PaintedSummary.from_arrays(painted[index].summary.to_arrays()) for index in range(len(tiles))), minimum_size
    )
    result = np.zeros(tiles.shape, dtype=np.uint32)
    for index in range(len(tiles)):
        numbers = np.concatenate([np.zeros(1, np.uint32), numbering.of_core(index)])
        result[tiles[index].owned.slices] = numbers[painted[index].labels]
    return result, choice
