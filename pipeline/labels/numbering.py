"""Whether a label image is numbered as all are: from 1 on, by the raster position of each object's first pixel.

One pass, block by block. No more is kept than the objects that begin in one row of blocks: what has begun before has a
lower number than what is next.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pipeline.geometry import Box

__all__ = ["Numbers", "follow_numbers"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the numbers of a label image are like.

    Parameters
    ----------
    highest : int
        The highest number, as far as they are in order.
    pixels : int
        Pixels that are of objects.
    wrong : tuple of int, optional
        The first number that is out of turn, behind it where the object begins, TZYX. Nothing is looked at behind it.
    """

    highest: int
    pixels: int
    wrong: tuple[int, tuple[int, ...]] | None = None


def follow_numbers(blocks: Iterable[tuple[Box, NDArray[np.uint32]]], shape: Sequence[int]) -> Numbers:
    """Follow the numbers of a label image.

    Parameters
    ----------
    blocks : iterable of tuple of Box, ndarray of uint32
        All of it, in the order of a grid: where each block lies, TZYX, and what is in it.
    shape : sequence of int
        Of the image, TZYX.
    """
    highest, pixels = 0, 0
    for _, row in groupby(blocks, lambda block: _row_of(block[0])):
        begun: list[tuple[NDArray[np.uint32], NDArray[np.int64]]] = []
        for box, labels in row:
            pixels += int(np.count_nonzero(labels))
            found = _beginning(labels, box, shape, highest)
            if found[0].size:
                begun.append(found)
        if not begun:
            continue
        numbers, places = (np.concatenate(parts) for parts in zip(*begun, strict=True))
        order = np.argsort(places, kind="stable")
        # An object of several blocks begins in the first of its places.
        _, first = np.unique(numbers[order], return_index=True)
        turn = order[np.sort(first)]
        odd = np.flatnonzero(numbers[turn] != highest + 1 + np.arange(turn.size))
        if odd.size:
            at = turn[odd[0]]
            place = tuple(int(index) for index in np.unravel_index(int(places[at]), tuple(shape)))
            return Numbers(highest + int(odd[0]), pixels, (int(numbers[at]), place))
        highest += turn.size
    return Numbers(highest, pixels)


def _row_of(box: Box) -> tuple[int, ...]:
    """Tell apart what is wholly before, in raster order, from what is wholly behind: blocks that share their planes.

    Blocks of a single plane, and row, follow one another; those of several planes each begin anew in every plane.
    """
    for axis, edge in enumerate(box.shape):
        if edge > 1:
            return box.start[: axis + 1]
    return box.start


def _beginning(
    labels: NDArray[np.uint32], box: Box, shape: Sequence[int], above: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Give the numbers in a block that are higher, and the raster position in the image of the first pixel of each."""
    flat = np.ascontiguousarray(labels).ravel()
    starts = np.empty(flat.size, dtype=np.bool_)
    starts[0] = True
    np.not_equal(flat[1:], flat[:-1], out=starts[1:])
    edges = np.flatnonzero(starts)
    of_run = flat[edges]
    edges, of_run = edges[of_run > above], of_run[of_run > above]
    numbers, first = np.unique(of_run, return_index=True)
    inside = np.unravel_index(edges[first], labels.shape)
    moved = tuple(at + start for at, start in zip(inside, box.start, strict=True))
    return numbers, np.ravel_multi_index(moved, tuple(shape)).astype(np.int64)
