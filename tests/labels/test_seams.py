"""What is counted at seams, and objects compared as partitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.geometry import Box
from pipeline.labels.seams import (
    FaceCounts,
    chance_of,
    complete_components,
    count_face,
    longest_ends,
    odd_neighbours,
    odd_pixels,
    profile_face,
)


def line(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint32)


def test_objects_that_end_are_told_from_those_that_go_on() -> None:
    before = line(1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 0, 5)
    after_ = line(1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4)
    found = count_face(before, after_)
    assert found == FaceCounts(pixels=14, covered=14, sections=6, ends=1, facing=11, boundary=9, touching=1)
    assert found + FaceCounts() == found
    assert longest_ends(before, after_, 3) == [(4, (7,))]


def test_a_profile_counts_each_plane() -> None:
    slab = np.stack([line(1, 1, 0), line(1, 2, 0), line(0, 0, 0), line(0, 0, 3)])
    assert profile_face(slab, 0) == ([2, 2, 1], [1, 2, 1])
    assert profile_face(np.ascontiguousarray(slab.T), 1) == ([2, 2, 1], [1, 2, 1])


@pytest.mark.parametrize(("ends", "elsewhere"), [(3, 4), (0, 5), (40, 2), (7, 0)])
def test_the_chance_is_that_of_a_binomial_test(ends: int, elsewhere: int) -> None:
    at_seams, others = FaceCounts(sections=100, ends=ends), FaceCounts(sections=150, ends=elsewhere)
    expected = binomtest(ends, ends + elsewhere, 0.4, alternative="greater").pvalue
    assert chance_of(at_seams, others) == pytest.approx(expected)
    assert chance_of(at_seams, FaceCounts()) is None


def test_components_that_reach_beyond_a_region_are_open() -> None:
    mask = np.zeros((1, 1, 6, 8), dtype=np.bool_)
    mask[..., 0, 0:3] = True  # at the image's edge, complete
    mask[..., 3, 6:8] = True  # at the region's edge, open
    mask[..., 4, 2] = True  # too small
    complete, opened = complete_components(mask, Box((0, 0, 0, 0), (1, 1, 6, 8)), (1, 1, 6, 20), 2, 2)
    np.testing.assert_array_equal(complete > 0, np.where(np.arange(6)[:, None] == 0, mask, False))
    np.testing.assert_array_equal(opened > 0, np.where(np.arange(6)[:, None] == 3, mask, False))


@pytest.mark.parametrize(
    ("labels", "odd"),
    [
        ([7, 7, 0, 9, 9, 0, 4, 4], []),
        ([7, 8, 0, 9, 9, 0, 4, 4], [0, 1]),  # split
        ([7, 7, 0, 7, 7, 0, 4, 4], [0, 3]),  # fused
        ([0, 0, 0, 9, 9, 0, 4, 4], [0]),  # missing
        ([7, 7, 3, 9, 9, 0, 4, 4], [2]),  # of nothing
        ([7, 7, 0, 4, 4, 0, 4, 4], [3]),  # fused with what reaches beyond
        ([7, 7, 0, 9, 9, 0, 4, 5], []),  # of what reaches beyond nothing is known
    ],
)
def test_partitions_are_compared_whatever_the_numbers(labels: list[int], odd: list[int]) -> None:
    complete, opened = line(1, 1, 0, 2, 2, 0, 0, 0), line(0, 0, 0, 0, 0, 0, 3, 3)
    assert sorted(odd_pixels(complete, opened, line(*labels))[:, 0].tolist()) == odd


@pytest.mark.parametrize(
    ("labels", "odd"),
    [
        ([0, 4, 4, 0, 0, 6], []),
        ([0, 4, 4, 4, 4, 4], []),  # the background between them may be a hole of both, which then are one
        ([0, 0, 0, 0, 0, 0], []),  # left out
        ([0, 4, 5, 0, 0, 6], [1]),  # one component, two numbers
        ([0, 4, 0, 0, 0, 6], [1]),  # and a part of one
        ([0, 4, 4, 4, 0, 6], [3]),  # half a hole
        ([0, 4, 4, 4, 4, 6], [4]),  # a hole of two
        ([0, 4, 4, 5, 5, 4], [2, 4]),  # an object in a hole
        ([0, 0, 0, 4, 4, 4], [2]),  # a hole of nothing
    ],
)
def test_neighbours_that_cannot_both_be_right(labels: list[int], odd: list[int]) -> None:
    mask, numbers = np.array([0, 1, 1, 0, 0, 1], dtype=np.bool_), line(*labels)
    assert np.flatnonzero(odd_neighbours(mask, numbers, 0)).tolist() == odd
    across = odd_neighbours(np.stack([mask] * 2), np.stack([numbers] * 2), 1)
    assert np.flatnonzero(across.all(axis=0)).tolist() == odd
    assert not odd_neighbours(np.stack([mask] * 2), np.stack([numbers] * 2), 0).any()
