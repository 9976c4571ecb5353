"""Parted components, core by core: what lies inside a core is parted there, what may reach beyond it is gathered.

A component that touches a face shared with another core is open, and so is one that is too large to be parted. It is
united with the pieces of it in other cores, and the whole is parted in its bounding box. So no object knows where a
core ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Self

import cc3d
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.geometry import Box, TileGrid
from pipeline.labels.components import CoreSummary, edge_ids, label_core, linked_axes, open_components, raster_index
from pipeline.labels.runs import Runs
from pipeline.labels.union import unite
from pipeline.labels.watershed import PartingRule, part_components

__all__ = [
    "CoreParts",
    "Crossing",
    "OpenSummary",
    "Parted",
    "Piece",
    "number_parts",
    "part_core",
    "part_crossing",
    "unite_open",
]

_TOGETHER = 2**20
"""Pixels of the bounding boxes that one job parts, if they are many."""

_SHELF = 2**16
"""Pixels of the bounding boxes that are parted in one array."""


@dataclass(frozen=True, eq=False)
class OpenSummary:
    """What one core leaves of its parts.

    Parameters
    ----------
    first : ndarray of int64, shape (n,)
        Raster index, in the whole TZYX array, of the first pixel of object 1, 2, ... that lies inside the core.
    at_edge : ndarray of bool, shape (n,)
        Whether it lies at the image's edge.
    components : CoreSummary
        Of the open components.
    start, stop : ndarray of int64, shape (open components, 4)
        Their bounding boxes in this core, TZYX.
    """

    first: NDArray[np.int64]
    at_edge: NDArray[np.bool_]
    components: CoreSummary
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give everything as named arrays, for ``numpy.savez``."""
        return {
            **self.components.to_arrays(),
            "objects_first": self.first,
            "objects_at_edge": self.at_edge,
            "open_start": self.start,
            "open_stop": self.stop,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild a summary from what `to_arrays` gave."""
        return cls(
            np.asarray(arrays["objects_first"], dtype=np.int64),
            np.asarray(arrays["objects_at_edge"], dtype=np.bool_),
            CoreSummary.from_arrays(arrays),
            np.asarray(arrays["open_start"], dtype=np.int64),
            np.asarray(arrays["open_stop"], dtype=np.int64),
        )


@dataclass(frozen=True, eq=False)
class CoreParts:
    """The parts of one core.

    Parameters
    ----------
    labels : ndarray of uint32, TZYX
        Ids of the objects that lie inside the core, 1 to n, then those of the open components, n + 1 to n + m; 0
        elsewhere.
    runs : Runs
        The same as runs.
    summary : OpenSummary
        What the other cores need to know.
    """

    labels: NDArray[np.uint32]
    runs: Runs
    summary: OpenSummary

    @property
    def objects(self) -> NDArray[np.uint32]:
        """Ids of the objects, 0 elsewhere."""
        return np.where(self.labels > self.summary.first.size, np.uint32(0), self.labels)

    @property
    def open(self) -> NDArray[np.uint32]:
        """Ids of the open components, 1 to m, 0 elsewhere."""
        count = np.uint32(self.summary.first.size)
        return np.where(self.labels > count, self.labels - count, np.uint32(0))


def part_core(
    mask: NDArray[np.bool_],
    seeds: NDArray[np.bool_],
    owned: Box,
    image_shape: Sequence[int],
    spatial_ndim: Literal[2, 3],
    rule: PartingRule,
) -> CoreParts:
    """Part the components that lie inside a core.

    Parameters
    ----------
    mask, seeds : ndarray of bool, TZYX
        Pixels of objects and of what parts them, and those of objects alone; of the core's shape.
    owned : Box
        Where the core lies in the image, TZYX.
    image_shape : sequence of int
        Shape of the whole label image, TZYX.
    spatial_ndim : {2, 3}
        2: pixels are connected in Y and X. 3: in Z, too. Never in T.
    rule : PartingRule
        How to part.

    Returns
    -------
    CoreParts
        With a core as large as the image only what is larger than the rule's `largest` is open, and the objects are
        those of the image.
    """
    found = label_core(mask, owned, image_shape, spatial_ndim)
    is_open = open_components(found.summary, owned, image_shape)
    if prod(owned.shape[4 - spatial_ndim :]) > rule.largest:
        # What is too large to be parted is so wherever it lies.
        start, stop = found.runs.boxes(found.summary.count)
        is_open[1:] |= (stop - start).prod(axis=1) > rule.largest
    opened = np.where(is_open, np.cumsum(is_open), 0).astype(np.uint32)
    is_closed = ~is_open
    is_closed[0] = False
    closed = found.runs.paint(is_closed)
    planes: list[NDArray[np.uint32]] = []
    total = 0
    for index in np.ndindex(*mask.shape[: 4 - spatial_ndim]):
        parts = part_components(closed[index], seeds[index], rule)
        if total:
            parts[parts > 0] += np.uint32(total)
        planes.append(parts)
        total = max(total, int(parts.max(initial=0)))
    labels: NDArray[np.uint32] = (planes[0] if len(planes) == 1 else np.stack(planes)).reshape(mask.shape)
    count = int(np.count_nonzero(is_open))
    if count:
        labels += found.runs.paint(np.where(is_open, opened + np.uint32(total), np.uint32(0)))
    runs = Runs.of(labels)
    chosen = is_open[1:]
    components = CoreSummary(
        found.summary.first[chosen],
        found.summary.area[chosen],
        {axis: opened[face] for axis, face in found.summary.low.items()},
        {axis: opened[face] for axis, face in found.summary.high.items()},
        opened[found.summary.at_edge][is_open[found.summary.at_edge]].astype(np.int64),
    )
    first = raster_index(runs.first(total + count)[:total], owned, image_shape)
    at_edge = np.zeros(total + count, dtype=np.bool_)
    at_edge[edge_ids(labels, owned, image_shape, spatial_ndim) - 1] = True
    start, stop = (edges[total:] + np.array(owned.start) for edges in runs.boxes(total + count))
    return CoreParts(labels, runs, OpenSummary(first, at_edge[:total], components, start, stop))


@dataclass(frozen=True, eq=False)
class Crossing:
    """Components that cross from core to core, or may: united.

    Parameters
    ----------
    table : ndarray of uint32
        Number, from 1 on, of the crossing component that open component ``k`` of core ``i`` is part of, at
        ``offsets[i] + k - 1``.
    offsets : ndarray of int64, one more than there are cores
        Where the open components of each core start in the table.
    first : ndarray of int64, shape (n,)
        Raster index of each crossing component's first pixel; ascending.
    start, stop : ndarray of int64, shape (n, 4)
        Their bounding boxes, TZYX.
    """

    table: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    first: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give everything as named arrays, for ``numpy.savez``."""
        return {name: getattr(self, name) for name in ("table", "offsets", "first", "start", "stop")}

    @property
    def volume(self) -> NDArray[np.int64]:
        """Pixels of the bounding boxes."""
        volume: NDArray[np.int64] = (self.stop - self.start).prod(axis=1)
        return volume

    def box(self, number: int) -> Box:
        """Give the bounding box of component `number`, from 1 on."""
        return Box(tuple(self.start[number - 1].tolist()), tuple(self.stop[number - 1].tolist()))

    def at_edge(self, image_shape: Sequence[int], spatial_ndim: Literal[2, 3]) -> NDArray[np.bool_]:
        """Say which of them lie at the image's edge, along the axes by which pixels are connected."""
        axes = list(linked_axes(spatial_ndim))
        found: NDArray[np.bool_] = (
            (self.start[:, axes] == 0) | (self.stop[:, axes] == np.asarray(image_shape)[axes])
        ).any(axis=1)
        return found

    def batches(self, grid: TileGrid, largest: int) -> list[NDArray[np.int64]]:
        """Share the components that are parted among jobs: the largest first, then small ones core by core.

        Parameters
        ----------
        grid : TileGrid
            The cores. Components that begin in the same or in neighbouring ones are found in the same places.
        largest : int
            Pixels of the largest bounding box in which a component is parted, as in `PartingRule`.

        Returns
        -------
        list of ndarray of int64
            Numbers of the components of each job. What is too large to be parted is in none.
        """
        volume = self.volume
        large = np.flatnonzero((volume > _TOGETHER) & (volume <= largest))
        small = np.flatnonzero(volume <= min(_TOGETHER, largest))
        begins = self.start[small] // np.asarray(grid.core)
        small = small[np.lexsort(begins.T[::-1])]
        ends = np.flatnonzero(np.diff(np.cumsum(volume[small]) // _TOGETHER)) + 1
        together = np.split(small + 1, ends) if small.size else []
        return [*(large[np.argsort(-volume[large], kind="stable")] + 1)[:, None], *together]


def unite_open(
    summary_of: Callable[[int], OpenSummary], counts: Sequence[int], spatial_ndim: Literal[2, 3]
) -> Crossing:
    """Unite the open components of all cores.

    Parameters
    ----------
    summary_of : callable
        Gives the summary of the core with a flat index; called once for each, in C order.
    counts : sequence of int
        Number of cores along T, Z, Y and X.
    spatial_ndim : {2, 3}
        As for `part_core`.
    """
    boxes: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    firsts: list[NDArray[np.int64]] = []

    def components(index: int) -> CoreSummary:
        summary = summary_of(index)
        boxes.append((summary.start, summary.stop))
        firsts.append(summary.components.first)
        return summary.components

    numbering = unite(components, counts, spatial_ndim)
    group = numbering.table.astype(np.int64) - 1
    first = np.full(numbering.count, np.iinfo(np.int64).max, dtype=np.int64)
    start = np.full((numbering.count, 4), np.iinfo(np.int64).max, dtype=np.int64)
    stop = np.zeros((numbering.count, 4), dtype=np.int64)
    np.minimum.at(first, group, np.concatenate(firsts))
    np.minimum.at(start, group, np.concatenate([low for low, _ in boxes]))
    np.maximum.at(stop, group, np.concatenate([high for _, high in boxes]))
    return Crossing(numbering.table, numbering.offsets, first, start, stop)


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """A crossing component, cut out of the image.

    Parameters
    ----------
    mask, seeds : ndarray of bool, TZYX
        As for `part_core`, in the box.
    box : Box
        The component's bounding box, TZYX.
    first : int
        Raster index of its first pixel in the image.
    """

    mask: NDArray[np.bool_]
    seeds: NDArray[np.bool_]
    box: Box
    first: int


@dataclass(frozen=True, eq=False, slots=True)
class Parted:
    """The objects of a crossing component.

    Parameters
    ----------
    labels : ndarray of uint32, TZYX
        Ids 1 to n, 0 elsewhere; of the box's shape.
    first : ndarray of int64, shape (n,)
        Raster index of each object's first pixel in the image.
    at_edge : ndarray of bool, shape (n,)
        Whether the object lies at the image's edge.
    """

    labels: NDArray[np.uint32]
    first: NDArray[np.int64]
    at_edge: NDArray[np.bool_]


def part_crossing(pieces: Sequence[Piece], image_shape: Sequence[int], rule: PartingRule) -> list[Parted]:
    """Part components, each as if it were alone in the image.

    Parameters
    ----------
    pieces : sequence of Piece
        The components.
    image_shape : sequence of int
        Shape of the whole label image, TZYX.
    rule : PartingRule
        How to part. The length of its spacing says along how many of the last axes pixels are connected.

    Returns
    -------
    list of Parted
        One for each piece.
    """
    free = 4 - len(rule.spacing)
    found: dict[int, NDArray[np.uint32]] = {}
    shelf: list[tuple[int, NDArray[np.bool_], NDArray[np.bool_]]] = []
    for at in sorted(range(len(pieces)), key=lambda at: pieces[at].box.shape):
        piece = pieces[at]
        alone, seeds = _isolate(piece, image_shape, free), piece.seeds.reshape(piece.seeds.shape[free:])
        room = [
            (int(low > 0), int(high < length))
            for low, high, length in zip(piece.box.start[free:], piece.box.stop[free:], image_shape[free:], strict=True)
        ]
        if all(map(all, room)) and alone.size <= _SHELF:
            shelf.append((at, alone, seeds))
            if sum(mask.size for _, mask, _ in shelf) > _SHELF:
                found.update(_part_shelf(shelf, rule))
                shelf = []
        else:
            # Beyond the box there is background, but beyond the image there is nothing.
            parts = part_components(np.pad(alone, room), np.pad(seeds, room), rule)
            found[at] = parts[tuple(slice(low, low + size) for (low, _), size in zip(room, alone.shape, strict=True))]
    found.update(_part_shelf(shelf, rule))
    results = []
    for at, piece in enumerate(pieces):
        parts = found[at].reshape(piece.box.shape)
        count = int(parts.max(initial=0))
        at_edge = np.zeros(count, dtype=np.bool_)
        at_edge[edge_ids(parts, piece.box, image_shape, 2 if free == 2 else 3) - 1] = True
        results.append(Parted(parts, raster_index(Runs.of(parts).first(count), piece.box, image_shape), at_edge))
    return results


def _isolate(piece: Piece, image_shape: Sequence[int], free: int) -> NDArray[np.bool_]:
    """Give the component's own mask, without others that reach into its box; along the linked axes."""
    mask = np.ascontiguousarray(piece.mask.reshape(piece.mask.shape[free:]))
    labels = cc3d.connected_components(mask, connectivity=4 if mask.ndim == 2 else 6, out_dtype=np.uint32)
    seed = np.unravel_index(piece.first, tuple(image_shape))
    inside = tuple(int(at) - start for at, start in zip(seed[free:], piece.box.start[free:], strict=True))
    alone: NDArray[np.bool_] = labels == labels[inside]
    return alone


def _part_shelf(
    shelf: list[tuple[int, NDArray[np.bool_], NDArray[np.bool_]]], rule: PartingRule
) -> dict[int, NDArray[np.uint32]]:
    """Part components that have background all around, side by side in one array: less work than one by one."""
    if not shelf:
        return {}
    widths = [mask.shape[-1] + 1 for _, mask, _ in shelf]
    others = tuple(max(mask.shape[axis] for _, mask, _ in shelf) + 2 for axis in range(shelf[0][1].ndim - 1))
    masks = np.zeros((*others, sum(widths) + 1), dtype=np.bool_)
    seeds = np.zeros(masks.shape, dtype=np.bool_)
    places = []
    left = 1
    for _, mask, certain in shelf:
        place = (*(slice(1, 1 + size) for size in mask.shape[:-1]), slice(left, left + mask.shape[-1]))
        masks[place], seeds[place] = mask, certain
        places.append(place)
        left += mask.shape[-1] + 1
    parts = part_components(masks, seeds, rule)
    found = {}
    for (at, _, _), place in zip(shelf, places, strict=True):
        ids, labels = np.unique(parts[place], return_inverse=True)
        shift = 0 if ids[0] == 0 else 1
        found[at] = (labels + shift).astype(np.uint32).reshape(parts[place].shape)
    return found


def number_parts(first: NDArray[np.int64], kept: NDArray[np.bool_] | None = None) -> NDArray[np.uint32]:
    """Give objects their numbers, by the raster position of their first pixel.

    Parameters
    ----------
    first : ndarray of int64, shape (n,)
        Raster index of each object's first pixel; all different.
    kept : ndarray of bool, shape (n,), optional
        Which objects are wanted; all where absent.

    Returns
    -------
    ndarray of uint32, shape (n,)
        From 1 on; 0 for what is not wanted.

    Raises
    ------
    StoreError
        If there are more objects than a uint32 label image can number.
    """
    if first.size > np.iinfo(np.uint32).max:
        raise StoreError(f"{first.size} objects are more than a uint32 label image can number; raise the minimum size")
    order = np.argsort(first)
    wanted = np.ones(first.size, dtype=np.bool_) if kept is None else kept[order]
    ranks = np.cumsum(wanted, dtype=np.uint32)
    ranks *= wanted
    numbers = np.empty(first.size, dtype=np.uint32)
    numbers[order] = ranks
    return numbers
