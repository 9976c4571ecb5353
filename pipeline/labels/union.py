"""Objects from the components of all cores: which of them touch, and what number each gets.

Everything is arrays, some 60 bytes per component of a core. No object is a Python object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import GeometryError, StoreError
from pipeline.labels.components import AXES, CoreSummary, linked_axes
from pipeline.labels.runs import Runs

__all__ = ["Numbering", "join", "leave_out", "relabel", "unite"]


@dataclass(frozen=True, eq=False)
class Numbering:
    """The final number of each component of each core.

    Parameters
    ----------
    table : ndarray of uint32
        Final number per provisional id; 0 for what was too small. The provisional id of local component ``k`` of
        core ``i`` is ``offsets[i] + k - 1``.
    offsets : ndarray of int64, one more than there are cores
        Where the components of each core start in the table.
    count : int
        Number of objects; they are numbered from 1 to it.
    dropped : int
        Number of objects left out: too small, or not wanted.
    """

    table: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    count: int
    dropped: int

    def of_core(self, index: int) -> NDArray[np.uint32]:
        """Give the part of the table that one core needs: entry ``k - 1`` for its local component ``k``."""
        return self.table[self.offsets[index] : self.offsets[index + 1]]


def unite(
    summary_of: Callable[[int], CoreSummary],
    counts: Sequence[int],
    spatial_ndim: Literal[2, 3],
    minimum_size: int = 0,
) -> Numbering:
    """Join components that touch across the faces of cores, and number the objects.

    Equal, number by number, to labelling the whole image at once, whatever the cores: an object's number is its
    rank by the raster position of its first pixel, as in ``skimage.measure.label(mask, connectivity=1)``.

    Parameters
    ----------
    summary_of : callable
        Gives the summary of the core with a flat index; called once for each, in C order.
    counts : sequence of int
        Number of cores along T, Z, Y and X.
    spatial_ndim : {2, 3}
        As for `label_core`.
    minimum_size : int, optional
        Objects with fewer pixels, in all cores together, are left out and get no number.

    Returns
    -------
    Numbering

    Raises
    ------
    GeometryError
        If the faces that two neighbouring cores share differ in shape.
    StoreError
        If there are more objects than a uint32 label image can number.

    Notes
    -----
    Memory beside the arrays per component: the faces of one slab of cores, and the touching pairs.
    """
    cores = prod(counts)
    axes = linked_axes(spatial_ndim)
    steps = {axis: prod(counts[axis + 1 :]) for axis in axes}
    offsets = np.zeros(cores + 1, dtype=np.int64)
    firsts: list[NDArray[np.int64]] = []
    areas: list[NDArray[np.int64]] = []
    pairs: list[NDArray[np.int64]] = []
    waiting: dict[tuple[int, int], NDArray[np.uint32]] = {}
    for index in range(cores):
        summary = summary_of(index)
        offsets[index + 1] = offsets[index] + summary.count
        firsts.append(summary.first)
        areas.append(summary.area)
        for axis in axes:
            position = index // steps[axis] % counts[axis]
            if position > 0:
                neighbour = index - steps[axis]
                before = waiting.pop((axis, neighbour))
                touching = _touching(before, summary.low[axis], axis, neighbour, index)
                pairs.append(touching + np.array([offsets[neighbour] - 1, offsets[index] - 1]))
            if position + 1 < counts[axis]:
                waiting[axis, index] = summary.high[axis]
    links = np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])
    return _number(firsts, areas, links, offsets, minimum_size)


def leave_out(numbering: Numbering, unwanted: NDArray[np.int64]) -> Numbering:
    """Leave out objects, and close the gaps between the numbers of the others.

    Parameters
    ----------
    numbering : Numbering
        All objects.
    unwanted : ndarray of int64
        Numbers of those to leave out; 0 does not count.

    Returns
    -------
    Numbering
    """
    kept = np.ones(numbering.count + 1, dtype=np.bool_)
    kept[unwanted] = False
    kept[0] = False
    renumbered = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    count = int(np.count_nonzero(kept))
    dropped = numbering.dropped + numbering.count - count
    return Numbering(renumbered[numbering.table], numbering.offsets, count, dropped)


def relabel(runs: Runs, numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Replace the local ids of a core by final numbers.

    Parameters
    ----------
    runs : Runs
        Of local ids 1 to n, 0 for background.
    numbers : ndarray of uint32, shape (n,)
        What `Numbering.of_core` gives.

    Returns
    -------
    ndarray of uint32
        Of the core's shape.

    Raises
    ------
    GeometryError
        If the labels hold an id that the numbers do not know.
    """
    highest = int(runs.label.max(initial=0))
    if highest > numbers.size:
        raise GeometryError(
            f"local component {highest} in a core for which {numbers.size} are known; summary and labels disagree"
        )
    return runs.paint(np.concatenate([np.zeros(1, dtype=np.uint32), numbers]))


def join(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Concatenate arrays, and forget them: there may be many millions of objects."""
    joined = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
    parts.clear()
    return joined


def _touching(
    before: NDArray[np.uint32], after: NDArray[np.uint32], axis: int, low_core: int, high_core: int
) -> NDArray[np.int64]:
    """Give the unique pairs of local ids that face each other, shape (pairs, 2)."""
    if before.shape != after.shape:
        raise GeometryError(
            f"cores {low_core} and {high_core} share a face along {AXES[axis]} but leave faces of shapes "
            f"{before.shape} and {after.shape}"
        )
    both = (before > 0) & (after > 0)
    packed = np.unique(before[both].astype(np.uint64) << np.uint64(32) | after[both])
    return np.stack([packed >> np.uint64(32), packed & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _number(
    firsts: list[NDArray[np.int64]],
    areas: list[NDArray[np.int64]],
    links: NDArray[np.int64],
    offsets: NDArray[np.int64],
    minimum_size: int,
) -> Numbering:
    """Unite linked components and rank the objects by their first pixel. Empties `firsts` and `areas`."""
    first, area = join(firsts), join(areas)
    linked = np.unique(links)
    ends = np.searchsorted(linked, links)
    graph = coo_array((np.ones(len(ends), dtype=np.bool_), (ends[:, 0], ends[:, 1])), shape=(linked.size, linked.size))
    _, group = connected_components(graph, directed=False)
    # Within a group the component that comes first in the image stands for the whole object.
    order = np.lexsort((first[linked], group))
    members, sorted_group = linked[order], group[order]
    heads = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    representative = members[heads]
    sizes = np.add.reduceat(area[members], heads) if heads.size else np.zeros(0, dtype=np.int64)
    is_object = np.ones(first.size, dtype=np.bool_)
    is_object[linked] = False
    is_object[representative] = True
    area[representative] = sizes
    objects = int(np.count_nonzero(is_object))
    kept = np.flatnonzero(is_object & (area >= minimum_size))
    del area, is_object
    if kept.size > np.iinfo(np.uint32).max:
        raise StoreError(f"{kept.size} objects are more than a uint32 label image can number; raise the minimum size")
    table = np.zeros(first.size, dtype=np.uint32)
    first = first[kept]
    order = np.argsort(first)
    del first
    table[kept[order]] = np.arange(1, kept.size + 1, dtype=np.uint32)
    table[members] = np.repeat(table[representative], np.diff(heads, append=members.size))
    return Numbering(table=table, offsets=offsets, count=int(kept.size), dropped=objects - int(kept.size))
