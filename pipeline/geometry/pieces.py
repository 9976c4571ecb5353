"""A core in pieces, whose windows need less memory than its own, and all lie in it."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

from pipeline.geometry.box import Box
from pipeline.geometry.footprint import round_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.geometry.footprint import Footprint

__all__ = ["SHORTEST_PIECE", "ways_to_cut", "window_in"]

WORTH = 0.75
"""A cut must leave a window of at most this share of the one before, or it is context all over."""

SHORTEST_PIECE = {2: 128, 3: 32}
"""Edge of a piece, by number of axes, below which no cut goes: where deep layers become tiny, a library may choose
kernels that round otherwise."""


def ways_to_cut(core: Sequence[int], footprint: Footprint) -> list[tuple[Box, ...]]:
    """Cut a core in halves, again and again along its longest edge, as long as that saves memory.

    Parameters
    ----------
    core : sequence of int
        Its edges, in output pixels: multiples of the footprint's step.
    footprint : Footprint
        The network's, on the same axes.

    Returns
    -------
    list of tuple of Box
        For each number of cuts, from one on, the pieces in the frame of the core: edges are multiples of the step, and
        every pixel lies in one of them. Empty where no cut saves anything.
    """
    found: list[tuple[Box, ...]] = []
    edges, whole = tuple(core), footprint.window_shape(tuple(core))
    shortest = SHORTEST_PIECE[3 if sum(edge > 1 for edge in core) > 2 else 2]
    while True:
        smaller = [
            tuple(round_up(-(-edge // 2), step) if at == axis else edge for at, edge in enumerate(edges))
            for axis, step in enumerate(footprint.step)
        ]
        sizes = [prod(footprint.window_shape(each)) for each in smaller]
        best = min(range(len(sizes)), key=lambda axis: (sizes[axis], axis))
        if sizes[best] > WORTH * prod(footprint.window_shape(edges)) or smaller[best][best] < shortest:
            break
        edges = smaller[best]
        starts = product(*(range(0, length, edge) for length, edge in zip(core, edges, strict=True)))
        pieces = tuple(
            Box(start, tuple(min(at + edge, length) for at, edge, length in zip(start, edges, core, strict=True)))
            for start in starts
        )
        if not all(Box.whole(whole).contains(window_in(piece, footprint)) for piece in pieces):
            break
        found.append(pieces)
    return found


def window_in(piece: Box, footprint: Footprint) -> Box:
    """Give a piece's window in the frame of the window of its core."""
    start = tuple(at * scale for at, scale in zip(piece.start, footprint.scale, strict=True))
    return Box(start, tuple(at + edge for at, edge in zip(start, footprint.window_shape(piece.shape), strict=True)))
