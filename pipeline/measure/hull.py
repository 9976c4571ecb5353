"""Pixels of convex hulls, of many objects at once, from the first and last pixel in each row; integers only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["convex_areas"]

_NOWHERE = -(2**62)


def convex_areas(low: NDArray[np.int64], high: NDArray[np.int64], heights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the pixels whose centres lie in, or on the edge of, the convex hull of an object.

    The hull is that of the middles of the edges of the object's pixels, as in
    ``skimage.morphology.convex_hull_image``.

    Parameters
    ----------
    low, high : ndarray of int64, shape (rows,)
        First and last X of each object in each row of its bounding box, one object after the other; ``low`` above
        ``high`` in a row where it has none, which cannot be its first or last.
    heights : ndarray of int64, shape (n,)
        Number of rows of each object.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    empty = low > high
    right = _outermost(np.where(empty, _NOWHERE, high), heights)
    left = _outermost(np.where(empty, _NOWHERE, -low), heights)
    if not heights.size:
        return np.zeros(0, dtype=np.int64)
    areas: NDArray[np.int64] = np.add.reduceat(right + left + 1, np.cumsum(heights) - heights)
    return areas


def _outermost(edge: NDArray[np.int64], heights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the last X of the hull in each row, from the last X of the object.

    Coordinates are doubled, so that the middles of edges are whole: the last pixel X of row R has its right edge's
    middle at (2 R, 2 X + 1), its upper and lower ones at (2 R - 1, 2 X) and (2 R + 1, 2 X). The hull's right side is
    the least concave function above these points.
    """
    offsets = np.cumsum(heights) - heights
    ends = offsets + heights - 1
    # Between two rows, and beyond the first and the last, the farther of the two counts.
    above = np.append(np.int64(_NOWHERE), edge[:-1])[: edge.size]
    above[offsets] = _NOWHERE
    between = np.maximum(above, edge)
    reach = np.empty(2 * edge.size + heights.size, dtype=np.int64)
    rows = np.arange(edge.size)
    which = np.repeat(np.arange(heights.size), heights)
    at = 2 * rows + which + 1
    reach[at] = 2 * edge + 1
    reach[at - 1] = 2 * between
    reach[at[ends] + 1] = 2 * edge[ends]
    owner = np.repeat(np.arange(heights.size), 2 * heights + 1)
    x = np.flatnonzero(reach > _NOWHERE)
    corners = _peel(x, reach[x], owner[x])
    y = reach[corners]
    after = np.searchsorted(corners, at, side="right")
    x0, x1, y0, y1 = corners[after - 1], corners[after], y[after - 1], y[after]
    # Rounded down: the last pixel whose centre is not beyond the line between two corners.
    last: NDArray[np.int64] = (y0 * (x1 - x0) + (y1 - y0) * (at - x0)) // (2 * (x1 - x0))
    return last


def _peel(x: NDArray[np.int64], y: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Take away points on or below the line between their neighbours until there are none, and give the x of the rest.

    Points that are taken away together may be each other's neighbours: none of them is a corner all the same, for a
    corner is above the line between any two other points.
    """
    kept = []
    while x.size:
        inner = np.zeros(x.size, dtype=np.bool_)
        inner[1:-1] = (owner[:-2] == owner[1:-1]) & (owner[1:-1] == owner[2:])
        before, here, after = slice(None, -2), slice(1, -1), slice(2, None)
        turn = (x[here] - x[before]) * (y[after] - y[before]) - (x[after] - x[before]) * (y[here] - y[before])
        inner[1:-1] &= turn >= 0
        # An object of which nothing was taken away is done.
        going = np.zeros(int(owner[-1]) + 1, dtype=np.bool_)
        going[owner[inner]] = True
        done = ~going[owner]
        kept.append(x[done])
        left = ~done & ~inner
        x, y, owner = x[left], y[left], owner[left]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *kept]))
