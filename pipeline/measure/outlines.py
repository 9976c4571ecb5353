"""Outlines of objects along the edges of their pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["outline"]

Ring = list[tuple[int, int]]

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Right, down, left, up, in X and Y; each is a turn to the right from the one before."""


def outline(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """Give the polygons that an object's pixels fill.

    Parameters
    ----------
    mask : ndarray of bool, YX
        The object's pixels.

    Returns
    -------
    list of list of list of (int, int)
        One polygon for each piece whose pixels touch by their edges: its outer ring, then its holes. A ring is the X
        and Y of its corners, the first one again at its end; pixel (0, 0) reaches from (0, 0) to (1, 1). Rings have
        the object on their right as Y points down. Valid as simple features: a ring never touches itself, and rings
        touch each other in corners only.
    """
    if not mask.size:
        return []
    pieces, _ = ndimage.label(mask)
    # Each in its own box: there may be thousands, of a few pixels each.
    return [
        _polygon(pieces[place] == number, place[1].start, place[0].start)
        for number, place in enumerate(ndimage.find_objects(pieces), 1)
    ]


def _polygon(mask: NDArray[np.bool_], left: int, top: int) -> list[Ring]:
    """Give outer ring and holes of one piece, whose first pixel lies at so much in X and Y."""
    padded = np.pad(mask, 1)
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    before, after = padded[1:-1, :-1], padded[1:-1, 1:]
    width = mask.shape[1] + 1
    # Each edge by the corner from which it starts, the object on its right, and by its direction.
    edges: set[int] = set()
    starts: list[int] = []
    for direction, (found, y, x) in enumerate(
        ((below & ~above, 0, 0), (before & ~after, 0, 0), (above & ~below, 0, 1), (after & ~before, 1, 0))
    ):
        rows, columns = np.nonzero(found)
        keys = (((rows + y) * width + columns + x) * 4 + direction).tolist()
        edges.update(keys)
        starts = starts or keys
    moves = [dy * width + dx for dx, dy in _STEPS]
    rings: list[Ring] = []
    for first in starts:
        # The first edge to the right, in raster order, begins a ring: it comes after a turn.
        if first not in edges:
            continue
        key, corners, last = first, [], -1
        while last < 0 or key != first:
            corner, direction = divmod(key, 4)
            if direction != last:
                corners.append((corner % width + left, corner // width + top))
            last = direction
            ends = (corner + moves[direction]) * 4
            # Where pixels touch by a corner alone the ring goes on to the other pixel: what is between them is a hole.
            key = next(at for turn in (3, 0, 1) if (at := ends + (direction + turn) % 4) in edges)
            if key != first:
                edges.remove(key)
        edges.remove(first)
        corners.append(corners[0])
        rings.append(corners)
    return rings
