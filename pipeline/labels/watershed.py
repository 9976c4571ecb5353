"""Touching objects parted where they are narrow, each connected component by itself.

The parting of a component is a function of its own pixels alone: pixels are ranked by their distance to the
component's background, equal ones by raster position, so no two are equal and no order of computation can show.
With unequal ranks, flooding an image from all its peaks is the same as walking from each pixel to its first neighbour
until a peak is reached; so there is no queue of pixels here, but pointers from pixel to pixel, followed all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import edt
import numpy as np
from numpy.typing import NDArray

__all__ = ["PartingRule", "part_components"]


@dataclass(frozen=True, slots=True)
class PartingRule:
    """How components become objects.

    Parameters
    ----------
    depth : float
        A peak of the distance to the background that rises less than this above the pass to a higher one is no object
        of its own. In pixels of the axis with the smallest spacing.
    minimum_size : int
        Objects with fewer seed pixels are none; their pixels go to their neighbours.
    spacing : tuple of int
        Distance between pixels along Y and X, or Z, Y and X. Whole numbers, so that squared distances are whole, too,
        and exact.
    largest : int, optional
        Pixels of the largest bounding box in which a component is parted. A larger one is left as one object.
    """

    depth: float
    minimum_size: int
    spacing: tuple[int, ...]
    largest: int = 2**30


def part_components(mask: NDArray[np.bool_], seeds: NDArray[np.bool_], rule: PartingRule) -> NDArray[np.uint32]:
    """Part the components of an image into objects by a watershed of the distance to their background.

    Each peak of the distance within the seed pixels is the bottom of a basin. Basins whose peak is low join the
    neighbour across their highest pass. The pixels that are no seeds go to the object that is the fewest steps away
    inside the component; of several, to that of the neighbour which comes first in raster order.

    Parameters
    ----------
    mask : ndarray of bool
        YX or ZYX. What is connected by faces is a component. What lies beyond the array does not count as background.
    seeds : ndarray of bool
        Same shape. Pixels that are surely inside objects; only those in components count.
    rule : PartingRule
        How to part.

    Returns
    -------
    ndarray of uint32
        Ids of objects, from 1 on without gaps, in no order that means anything; 0 for background, and for components
        without an object.

    Notes
    -----
    Distances are those of edt, https://github.com/seung-lab/euclidean-distance-transform-3d, exact below 4096. Other
    components need not be told from background: of the pixels outside a component, the nearest one is no other's, for
    a step from it towards the component would lead into that one, and both would be one. The height of a peak above
    its pass is its persistence: Edelsbrunner, Letscher and Zomorodian 2002, doi:10.1007/s00454-002-2885-2. The basins
    are those of ``skimage.segmentation.watershed`` of the ranks, from their minima; a test compares them.
    """
    # A rim of one pixel around the array, so that no step leaves it.
    rimmed = np.pad(mask, 1)
    labels = np.zeros(rimmed.shape, dtype=np.uint32)
    certain = seeds & mask
    if certain.any():
        squared = _distance(certain, rule.spacing)[certain]
        forward = [prod(rimmed.shape[axis + 1 :]) for axis in reversed(range(mask.ndim))]
        steps = (*(-step for step in reversed(forward)), *forward)
        where = np.flatnonzero(np.pad(certain, 1))
        flat = labels.ravel()
        flat[where] = _part(where, squared, flat.size, steps, rule)
        _flood(flat, rimmed.ravel(), steps)
    return np.ascontiguousarray(labels[(slice(1, -1),) * mask.ndim])


def _distance(mask: NDArray[np.bool_], spacing: tuple[int, ...]) -> NDArray[np.float32]:
    """Give the squared distance of each pixel to the nearest one outside; 0 everywhere where none is outside."""
    if mask.all():
        return np.zeros(mask.shape, dtype=np.float32)
    # As bytes: edt takes three times as long for bool.
    squared: NDArray[np.float32] = edt.edtsq(
        np.ascontiguousarray(mask).view(np.uint8), anisotropy=tuple(map(float, spacing)), black_border=False, parallel=1
    )
    return squared


def _part(
    where: NDArray[np.intp], squared: NDArray[np.float32], size: int, steps: tuple[int, ...], rule: PartingRule
) -> NDArray[np.uint32]:
    """Give the object of each seed pixel, 0 where it is too small.

    `where` are their flat indices in the array with its rim, ascending, and `squared` their squared distances; `size`
    is that array's, and `steps` lead from a pixel to its face neighbours, in raster order.
    """
    count = where.size
    # From the deepest to the shallowest, equal ones by raster position. Numbers of 16 bits are sorted the fastest.
    # They are whole: a difference of floats would round where another component reaches thousands of pixels deep.
    deepest = int(squared.max())
    is_short = deepest - int(squared.min()) < 2**16
    shallow = deepest - squared.astype(np.int32 if is_short and deepest < 2**31 else np.int64)
    if is_short:
        shallow = shallow.astype(np.uint16)
    order = np.argsort(shallow, kind="stable").astype(np.int32)
    del shallow
    ranks = np.empty(count, dtype=np.int32)
    ranks[order] = np.arange(count, dtype=np.int32)
    rank_at = np.full(size, count, dtype=np.int32)
    rank_at[where] = ranks
    # In raster order, in which neighbours lie near each other in memory; then by rank.
    lowest = ranks.copy()
    facing = []
    for step in steps:
        there = rank_at[where + step]
        np.minimum(lowest, there, out=lowest)
        if step > 0:
            facing.append(there)
    del rank_at, there
    toward = lowest[order]
    del lowest
    squared_heights = squared[order]
    del order
    is_peak = toward == np.arange(count, dtype=np.int32)
    basins = (np.cumsum(is_peak, dtype=np.int32) - np.int32(1))[_ends(toward)]
    del toward
    passes = _passes(ranks, facing, basins)
    del facing
    object_of = _merge(passes, np.flatnonzero(is_peak), squared_heights, rule.depth * min(rule.spacing))
    objects = object_of[basins]
    kept = np.bincount(objects) >= rule.minimum_size
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    found: NDArray[np.uint32] = numbers[objects[ranks]]
    return found


def _ends(toward: NDArray[np.int32]) -> NDArray[np.int32]:
    """Follow pointers until they point to themselves."""
    while True:
        further = toward[toward]
        if np.array_equal(further, toward):
            return toward
        toward = further


def _flood(labels: NDArray[np.uint32], mask: NDArray[np.bool_], steps: tuple[int, ...]) -> None:
    """Give pixels of the mask without an object to the one that is the fewest steps away; changes `labels`."""
    closed = ~mask | (labels != 0)
    reached = np.flatnonzero(~closed)
    while reached.size:
        found = np.zeros(reached.size, dtype=np.uint32)
        for step in steps:
            found = np.where(found > 0, found, labels[reached + step])
        fresh = reached[found > 0]
        labels[fresh] = found[found > 0]
        closed[fresh] = True
        around = []
        for step in steps:
            ahead = fresh + step
            ahead = ahead[~closed[ahead]]
            closed[ahead] = True
            around.append(ahead)
        reached = np.concatenate(around)


def _passes(ranks: NDArray[np.int32], facing: list[NDArray[np.int32]], basins: NDArray[np.int32]) -> NDArray[np.int64]:
    """Give the highest pass between each two basins that touch: rank of its pixel, and the two basins.

    From the highest pass to the lowest. A pass is the lower one of two facing pixels; where two passes share it, the
    one with the higher other pixel comes first. `facing` are the ranks of the pixels that lie a step further along
    each axis, and of no rank where there are none.
    """
    pairs, ways = [], []
    basin_of = np.append(basins, np.int32(-1))
    own = basins[ranks]
    for there in facing:
        other = basin_of[there]
        apart = np.flatnonzero((other >= 0) & (other != own))
        pairs.append(_joined(own[apart], other[apart]))
        way = _joined(ranks[apart], there[apart])
        ways.append((way & _LOW) << 32 | way >> 32)
    del basin_of, own, other, apart, way
    pair, place = np.unique(np.concatenate(pairs), return_inverse=True)
    del pairs
    # The best of each two basins: the smallest rank of the lower pixel, then of the higher one.
    way = np.concatenate(ways)
    best = np.full(pair.size, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(best, place, way)
    order = np.argsort(best)
    passes: NDArray[np.int64] = np.stack([best >> 32, pair >> 32, pair & _LOW], axis=1)[order]
    return passes


_LOW = np.int64(2**32 - 1)


def _joined(one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int64]:
    """Give two numbers as one: the smaller above the larger."""
    return np.minimum(one, other).astype(np.int64) << 32 | np.maximum(one, other)


def _merge(
    passes: NDArray[np.int64], peaks: NDArray[np.intp], squared: NDArray[np.float32], depth: float
) -> NDArray[np.int32]:
    """Give the object of each basin: a basin whose peak is too low goes with whom it meets first.

    Peaks are the ranks of the basins' deepest pixels, `squared` the squares of all ranks' heights.
    """
    count = peaks.size
    # Two forests over the basins: what has met so far, led by its highest peak, and what is one object.
    met, belongs = list(range(count)), list(range(count))

    def leader(forest: list[int], member: int) -> int:
        while forest[member] != member:
            forest[member] = forest[forest[member]]
            member = forest[member]
        return member

    peak_heights, pass_heights = (
        np.sqrt(squared[ranks].astype(np.float64)).tolist() for ranks in (peaks, passes[:, 0])
    )
    for low, (one, other) in zip(pass_heights, passes[:, 1:].tolist(), strict=True):
        # Basins are numbered from the highest peak to the lowest.
        across, ending = one, other
        survivor, ended = leader(met, across), leader(met, ending)
        if survivor == ended:
            continue
        if survivor > ended:
            across, ending, survivor, ended = ending, across, ended, survivor
        met[ended] = survivor
        if peak_heights[ended] - low < depth:
            belongs[leader(belongs, ending)] = leader(belongs, across)
    leaders = np.array([leader(belongs, member) for member in range(count)], dtype=np.int32)
    objects: NDArray[np.int32] = np.unique(leaders, return_inverse=True)[1].astype(np.int32)
    return objects
