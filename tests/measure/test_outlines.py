"""Outlines along the edges of pixels: valid polygons that fill the object's pixels and no others."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.measure.outlines import outline


def signed_area(ring: list[tuple[int, int]]) -> float:
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def filled(rings: list[list[tuple[int, int]]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Fill by the rule of even and odd: each vertical edge flips what lies to its right."""
    flips = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            assert (x0 == x1) != (y0 == y1), "an edge that is neither along X nor along Y, or of no length"
            flips[min(y0, y1) : max(y0, y1), x0] += x0 == x1
    inside: NDArray[np.bool_] = np.cumsum(flips, axis=1)[:, :-1] % 2 == 1
    return inside


@settings(max_examples=200, deadline=None)
@given(mask=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_polygons_are_valid_and_fill_the_mask(mask: NDArray[np.bool_]) -> None:
    polygons = outline(mask)
    pieces, count = ndimage.label(mask)
    assert len(polygons) == count
    for number, (outer, *holes) in enumerate(polygons, start=1):
        np.testing.assert_array_equal(filled([outer, *holes], mask.shape), pieces == number)
        assert signed_area(outer) > 0
        assert all(signed_area(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            assert len(set(ring[:-1])) == len(ring) - 1, "a ring that touches itself in a corner"
            turns = np.diff(np.array([*ring, ring[1]]), axis=0)
            assert ((turns[:-1] != 0) != (turns[1:] != 0)).all(), "a corner where nothing turns"


def test_a_ring_whose_ends_touch_by_a_corner_has_a_hole() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=np.bool_)
    assert outline(mask) == [
        [[(0, 0), (3, 0), (3, 2), (2, 2), (2, 3), (0, 3), (0, 0)], [(1, 2), (2, 2), (2, 1), (1, 1), (1, 2)]]
    ]
