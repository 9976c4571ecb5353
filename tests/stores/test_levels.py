from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import GeometryError
from pipeline.geometry import Box
from pipeline.stores.levels import finer_box, level_shapes

shapes = st.lists(st.integers(1, 5000), min_size=2, max_size=5)


@given(shapes, st.integers(1, 600))
def test_each_level_halves_y_and_x_upwards_until_both_are_small(shape: list[int], smallest: int) -> None:
    levels = level_shapes(shape, smallest)
    assert levels[0] == tuple(shape)
    for finer, coarser in pairwise(levels):
        assert max(finer[-2:]) > smallest
        assert coarser == (*finer[:-2], (finer[-2] + 1) // 2, (finer[-1] + 1) // 2)
    assert max(levels[-1][-2:]) <= smallest


def test_image_and_labels_have_equally_many_levels() -> None:
    assert len(level_shapes((3, 2, 7, 5000, 90))) == len(level_shapes((3, 7, 5000, 90))) == 6


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 20))
def test_boxes_that_partition_a_level_are_made_from_boxes_that_partition_the_finer_one(
    height: int, width: int, edge: int
) -> None:
    finer, coarser = level_shapes((height, width), 1)[0], (-(-height // 2), -(-width // 2))
    seen = [[0] * width for _ in range(height)]
    for row in range(0, coarser[0], edge):
        for column in range(0, coarser[1], edge):
            box = finer_box(Box((row, column), (row + edge, column + edge)).clip(coarser), finer)
            for y in range(box.start[0], box.stop[0]):
                for x in range(box.start[1], box.stop[1]):
                    seen[y][x] += 1
    assert {count for line in seen for count in line} == {1}


@pytest.mark.parametrize(("shape", "smallest"), [((5,), 256), ((0, 4), 256), ((4, 4), 0)])
def test_shapes_without_a_pyramid_are_refused(shape: tuple[int, ...], smallest: int) -> None:
    with pytest.raises(GeometryError):
        level_shapes(shape, smallest)
