from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import GeometryError
from pipeline.geometry import Box, Footprint, Margin, mirror_indices


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    start = tuple(draw(st.lists(st.integers(-20, 20), min_size=2, max_size=2)))
    return Box(start, tuple(at + draw(st.integers(0, 20)) for at in start))


@given(boxes(), boxes())
def test_the_intersection_holds_what_both_hold(a: Box, b: Box) -> None:
    canvas = np.zeros((2, 80, 80), dtype=bool)
    for layer, box in zip(canvas, (a, b), strict=True):
        layer[box.shift((40, 40)).slices] = True
    expected = int((canvas[0] & canvas[1]).sum())
    both = a.intersect(b)
    assert both.size == expected
    if expected:
        assert a.contains(both)
        assert b.contains(both)


@given(boxes())
def test_growing_and_shifting_can_be_undone(box: Box) -> None:
    grown = box.grow((Margin(3, 4), Margin(0, 2)))
    assert grown.shape == (box.shape[0] + 7, box.shape[1] + 2)
    assert grown.contains(box)
    assert box.shift((5, -7)).relative_to((5, -7)) == box


def test_a_box_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(GeometryError, match="axis 1: a box cannot stop at 1, before its start 2"):
        Box((0, 2), (3, 1))


def test_indexing_never_counts_from_the_far_end() -> None:
    with pytest.raises(GeometryError, match="outside the array"):
        _ = Box((-1,), (2,)).slices


def test_an_axis_can_be_added() -> None:
    assert Box((1, 2), (3, 4)).insert(1, 7, 9) == Box((1, 7, 2), (3, 9, 4))


@given(st.integers(1, 12), st.integers(0, 60), st.integers(0, 60))
def test_mirroring_is_numpys_reflect_without_a_limit(length: int, before: int, after: int) -> None:
    image = np.arange(length)
    expected = np.pad(image, (before, after), mode="reflect") if length > 1 else np.zeros(1 + before + after, int)
    assert list(mirror_indices(-before, length + after, length)) == list(expected)


def test_an_impossible_footprint_is_refused() -> None:
    with pytest.raises(GeometryError, match="phase 16 is not below the stride"):
        Footprint((92,), (0,), (16,), (16,), (188,))
    with pytest.raises(GeometryError, match="smallest input 184 is not legal"):
        Footprint((92,), (0,), (16,), (8,), (184,))
    with pytest.raises(GeometryError, match="an input of 573 is not legal"):
        Footprint((92,), (0,), (16,), (12,), (188,)).output_shape((573,))
