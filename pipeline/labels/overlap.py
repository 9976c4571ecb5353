"""Objects that were found window by window: what each window saw, and how the views of two windows compare.

The windows of neighbouring cores overlap, so an object near a core's face is seen by several. A window answers for the
objects that have a pixel in its core: its candidates. An object no larger than the halo is seen whole by every
window that answers for it, so its views agree wherever the finder of objects sees the same in both. Which candidates
become objects is decided in `pipeline.labels.overlap_choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import cc3d
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GeometryError
from pipeline.geometry import Box, TileGrid
from pipeline.labels.components import linked_axes, raster_index
from pipeline.labels.runs import Runs

__all__ = ["WITHIN", "CandidateTable", "Candidates", "Pairs", "compare_views", "find_candidates", "neighbours"]

WITHIN = 0.75
"""From this share of its pixels on, a piece of an object lies within another."""


@dataclass(frozen=True, eq=False)
class CandidateTable:
    """What is known of the candidates of one window, in the order of their ids 1 to n.

    Parameters
    ----------
    first : ndarray of int64, shape (n,)
        Raster index, in the whole TZYX array, of the first pixel.
    size, core_size : ndarray of int64, shape (n,)
        Pixels in the window, and in the core; of the latter there is at least one.
    score : ndarray of float64, shape (n,)
        How sure the finder is.
    clearance : ndarray of float64, shape (n,)
        How far from the edges of the window that lie inside the image, in object diameters. 0: the object touches such
        an edge, so that it is cut, or may be. Infinite where the window has none.
    start, stop : ndarray of int64, shape (n, 4)
        Bounding boxes, TZYX.
    """

    first: NDArray[np.int64]
    size: NDArray[np.int64]
    core_size: NDArray[np.int64]
    score: NDArray[np.float64]
    clearance: NDArray[np.float64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of candidates."""
        return int(self.first.size)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give everything as named arrays, for ``numpy.savez``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild a table from what `to_arrays` gave; takes an open ``npz`` file, too."""
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class Candidates:
    """The objects for which one window answers.

    Parameters
    ----------
    labels : ndarray of uint32, TZYX
        Their ids 1 to n, 0 elsewhere; of the window's shape.
    table : CandidateTable
        What is known of them.
    """

    labels: NDArray[np.uint32]
    table: CandidateTable


def find_candidates(
    labels: NDArray[np.integer[Any]],
    scores: NDArray[np.floating[Any]],
    window: Box,
    owned: Box,
    image_shape: Sequence[int],
    spatial_ndim: Literal[2, 3],
    diameter: Sequence[int],
) -> Candidates:
    """Choose the objects of a window that have a pixel in its core.

    Parameters
    ----------
    labels : ndarray of int, TZYX
        Objects 1 to n, 0 for background; of the window's shape. An object need not be in one piece.
    scores : ndarray of float, shape (n,)
        How sure the finder is of each.
    window : Box
        Where the window lies, TZYX, inside the image.
    owned : Box
        The core, inside the window.
    image_shape : sequence of int
        Shape of the whole label image, TZYX.
    spatial_ndim : {2, 3}
        Along how many of the last axes objects extend.
    diameter : sequence of int
        Largest extent of an object along these axes, in pixels.

    Returns
    -------
    Candidates
        Numbered in the order of their ids in `labels`.

    Raises
    ------
    GeometryError
        If boxes and labels do not fit, or there are fewer scores than objects.
    """
    if labels.shape != window.shape or not window.contains(owned) or not Box.whole(image_shape).contains(window):
        raise GeometryError(
            f"labels of shape {labels.shape} cannot fill the window {window.start} to {window.stop} around the core "
            f"{owned.start} to {owned.stop} in an image of {tuple(image_shape)}"
        )
    highest = int(labels.max(initial=0))
    if highest > scores.size or int(labels.min(initial=0)) < 0:
        raise GeometryError(f"labels from {labels.min()} to {highest}, but scores for 1 to {scores.size}")
    core_sizes = np.bincount(labels[owned.relative_to(window.start).slices].ravel(), minlength=highest + 1)
    chosen = np.flatnonzero(core_sizes[1:]) + 1
    ids = np.zeros(highest + 1, dtype=np.uint32)
    ids[chosen] = np.arange(1, chosen.size + 1)
    kept = ids[labels]
    runs = Runs.of(kept)
    start, stop = (edges + np.array(window.start) for edges in runs.boxes(chosen.size))
    table = CandidateTable(
        first=raster_index(runs.first(chosen.size), window, image_shape),
        size=runs.area(chosen.size),
        core_size=core_sizes[chosen].astype(np.int64),
        score=scores[chosen - 1].astype(np.float64),
        clearance=_clearance(start, stop, window, image_shape, spatial_ndim, diameter),
        start=start,
        stop=stop,
    )
    return Candidates(kept, table)


def _clearance(
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    window: Box,
    image_shape: Sequence[int],
    spatial_ndim: Literal[2, 3],
    diameter: Sequence[int],
) -> NDArray[np.float64]:
    """Give the distances to the window's edges inside the image, in diameters."""
    clearance = np.full(start.shape[0], np.inf)
    for axis, extent in zip(linked_axes(spatial_ndim), diameter, strict=True):
        if window.start[axis] > 0:
            np.minimum(clearance, (start[:, axis] - window.start[axis]) / extent, out=clearance)
        if window.stop[axis] < image_shape[axis]:
            np.minimum(clearance, (window.stop[axis] - stop[:, axis]) / extent, out=clearance)
    return clearance


@dataclass(frozen=True, eq=False)
class Pairs:
    """Candidates of different windows that have pixels in common.

    Parameters
    ----------
    one, two : ndarray of int64, shape (n,)
        Ids in the one window and in the other.
    other : ndarray of int64, shape (n,)
        Index of the tile of the other window.
    common : ndarray of int64, shape (n,)
        Pixels that both have.
    common_core_one, common_core_two : ndarray of int64, shape (n,)
        Such pixels in the core of the one window and in that of the other.
    seen_one, seen_two : ndarray of int64, shape (n,)
        Pixels that each has where both windows look.
    agreed : ndarray of int64, shape (n,)
        Pixels in common where both are cut by their windows and agree: in connected pieces, where both windows look, of
        which the one lies within the other, or nearly. What a cut object has elsewhere may well be joined beyond.
    first : ndarray of int64, shape (n,)
        Raster index of the first pixel that both have.
    """

    one: NDArray[np.int64]
    two: NDArray[np.int64]
    other: NDArray[np.int64]
    common: NDArray[np.int64]
    common_core_one: NDArray[np.int64]
    common_core_two: NDArray[np.int64]
    seen_one: NDArray[np.int64]
    seen_two: NDArray[np.int64]
    agreed: NDArray[np.int64]
    first: NDArray[np.int64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give everything as named arrays, for ``numpy.savez``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild pairs from what `to_arrays` gave; takes an open ``npz`` file, too."""
        return cls(**{name: np.asarray(arrays[name], dtype=np.int64) for name in cls.__dataclass_fields__})

    @classmethod
    def join(cls, parts: Sequence[Pairs]) -> Self:
        """Put pairs one after the other."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(
            **{name: np.concatenate([nothing, *(getattr(part, name) for part in parts)])
               for name in cls.__dataclass_fields__}
        )  # fmt: skip


def compare_views(
    one: NDArray[np.uint32],
    two: NDArray[np.uint32],
    cut: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    windows: tuple[Box, Box],
    cores: tuple[Box, Box],
    other: int,
    image_shape: Sequence[int],
) -> Pairs:
    """Find what the candidates of two windows have in common, where both look.

    Parameters
    ----------
    one, two : ndarray of uint32, TZYX
        Ids of the candidates; of the windows' shapes.
    cut : tuple of ndarray of bool
        Which candidates of the one and of the other are cut by their window's edge.
    windows, cores : tuple of Box
        Of the one and of the other, TZYX.
    other : int
        Index of the other one's tile; noted in the pairs.
    image_shape : sequence of int
        Shape of the whole label image, TZYX.

    Returns
    -------
    Pairs
        Sorted by the ids.
    """
    shared = windows[0].intersect(windows[1])
    ours = one[shared.relative_to(windows[0].start).slices]
    theirs = two[shared.relative_to(windows[1].start).slices]
    both = np.flatnonzero((ours.ravel() > 0) & (theirs.ravel() > 0))
    packed = ours.ravel()[both].astype(np.uint64) << np.uint64(32) | theirs.ravel()[both]
    found, first, pair, common = np.unique(packed, return_index=True, return_inverse=True, return_counts=True)
    mine = (found >> np.uint64(32)).astype(np.int64)
    yours = (found & np.uint64(0xFFFFFFFF)).astype(np.int64)
    in_core = []
    for core in cores:
        place = np.zeros(shared.shape, dtype=np.bool_)
        place[core.intersect(shared).relative_to(shared.start).slices] = True
        in_core.append(np.bincount(pair[place.ravel()[both]], minlength=found.size).astype(np.int64))
    return Pairs(
        one=mine,
        two=yours,
        other=np.full(found.size, other, dtype=np.int64),
        common=common.astype(np.int64),
        common_core_one=in_core[0],
        common_core_two=in_core[1],
        seen_one=np.bincount(ours.ravel())[mine].astype(np.int64),
        seen_two=np.bincount(theirs.ravel())[yours].astype(np.int64),
        agreed=_agreed(ours, theirs, cut, both, pair, found.size),
        first=raster_index(both[first], shared, image_shape),
    )


def _agreed(
    ours: NDArray[np.uint32],
    theirs: NDArray[np.uint32],
    cut: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    both: NDArray[np.int64],
    pair: NDArray[np.int64],
    pairs: int,
) -> NDArray[np.int64]:
    """Count, for each pair of cut objects, the common pixels at which their connected pieces are the same."""
    chosen = cut[0][ours.ravel()[both] - 1] & cut[1][theirs.ravel()[both] - 1]
    if not chosen.any():
        return np.zeros(pairs, dtype=np.int64)
    sizes, pieces = [], []
    for labels, is_cut in zip((ours, theirs), cut, strict=True):
        ids = np.where(is_cut, np.arange(1, is_cut.size + 1), 0)
        alone = np.concatenate([np.zeros(1), ids]).astype(np.uint32)[labels]
        parts = np.zeros(labels.shape, dtype=np.uint32)
        for time, volume in enumerate(alone):
            found = cc3d.connected_components(np.ascontiguousarray(volume), connectivity=6, out_dtype=np.uint32)
            parts[time] = np.where(found > 0, found + parts.max(), 0)
        sizes.append(np.bincount(parts.ravel()))
        pieces.append(parts.ravel()[both[chosen]])
    packed = pieces[0].astype(np.uint64) << np.uint64(32) | pieces[1]
    _, first, member, common = np.unique(packed, return_index=True, return_inverse=True, return_counts=True)
    smaller = np.minimum(sizes[0][pieces[0][first]], sizes[1][pieces[1][first]])
    agree = (common >= WITHIN * smaller)[member]
    return np.bincount(pair[chosen][agree], minlength=pairs).astype(np.int64)


def neighbours(tiles: TileGrid, index: int) -> list[int]:
    """Give the tiles whose windows overlap a tile's window inside the image, ascending, without the tile itself."""
    tile = tiles[index]
    window = tile.window.clip(tiles.shape)
    ranges = []
    for axis, (margin, edge) in enumerate(zip(tiles.surrounding, tiles.core, strict=True)):
        reach = -(-(margin.low + margin.high) // edge)
        at = tile.position[axis]
        ranges.append(range(max(0, at - reach), min(tiles.counts[axis], at + reach + 1)))
    found = []
    for offsets in np.ndindex(*map(len, ranges)):
        position = [wanted[at] for wanted, at in zip(ranges, offsets, strict=True)]
        other = 0
        for at, count in zip(position, tiles.counts, strict=True):
            other = other * count + at
        if other != index and window.intersect(tiles[other].window.clip(tiles.shape)).size:
            found.append(other)
    return found
