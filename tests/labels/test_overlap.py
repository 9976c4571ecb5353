"""Objects found window by window are those of the whole image, each once, whatever the windows and their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from pipeline.errors import GeometryError
from pipeline.geometry import Box
from pipeline.labels.overlap import CandidateTable, Pairs, find_candidates, neighbours
from pipeline.labels.overlap_choice import choose
from tests.labels.overlapping import Labels, Ndim, assemble, components, grid_of


def whole(mask: NDArray[np.bool_], ndim: Ndim) -> NDArray[np.int64]:
    """Label the planes, or volumes, one after the other; numbers are those of the first pixels."""
    labels, count = np.zeros(mask.shape, dtype=np.int64), 0
    for at in np.ndindex(*mask.shape[: 4 - ndim]):
        part = measure.label(mask[at], connectivity=1)
        labels[at] = np.where(part > 0, part + count, 0)
        count += part.max()
    return labels


@st.composite
def masks(draw: st.DrawFn, ndim: Ndim) -> tuple[NDArray[np.bool_], tuple[int, ...], tuple[int, ...], list[int]]:
    """Draw blobs, snakes and labyrinths, cores, a diameter that most objects exceed or none does, and an order."""
    spatial = [draw(st.integers(1, 40)) for _ in range(2)]
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 8 if ndim == 3 else 2)), *spatial)
    smooth = draw(st.sampled_from([0.0, 1.0, 2.5]))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random(shape)
    noise = ndimage.gaussian_filter(noise, (0, smooth if ndim == 3 else 0, smooth, smooth)) if smooth else noise
    mask = noise > np.quantile(noise, draw(st.sampled_from([0.1, 0.4, 0.6, 0.9])))
    core = [draw(st.integers(4, length + 4)) for length in shape[4 - ndim :]]
    diameter = tuple(draw(st.integers(1, min(edge, 9))) for edge in core)
    full = (1,) * (4 - ndim) + tuple(core)
    return mask, full, diameter, draw(st.permutations(range(len(grid_of(shape, full, diameter)))))


@settings(max_examples=60, deadline=None)
@given(masks(2))
def test_components_of_planes_come_out_exactly(case: tuple[Any, ...]) -> None:
    mask, core, diameter, order = case
    found, _ = assemble(mask, components, grid_of(mask.shape, core, diameter), diameter, 2, order)
    np.testing.assert_array_equal(found, whole(mask, 2))


@settings(max_examples=60, deadline=None)
@given(masks(3))
def test_components_of_volumes_come_out_exactly(case: tuple[Any, ...]) -> None:
    mask, core, diameter, order = case
    found, _ = assemble(mask, components, grid_of(mask.shape, core, diameter), diameter, 3, order)
    np.testing.assert_array_equal(found, whole(mask, 3))


@pytest.mark.parametrize("core", [(1, 1, 24, 24), (1, 1, 48, 112), (1, 1, 160, 48)])
def test_rings_spirals_and_combs_larger_than_the_diameter_are_put_together_and_told(core: tuple[int, ...]) -> None:
    rows, columns = np.mgrid[:160, :160] - 80.0
    radius, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
    shapes = {
        "ring": np.abs(radius - 60) < 4,
        "spiral": np.cos(radius / 6 - angle) > 0.2,
        "comb": (columns % 12 < 6) | (rows > 60),
        "all": np.ones((160, 160), dtype=bool),
    }
    for shape in shapes.values():
        mask = shape[None, None]
        found, choice = assemble(mask, components, grid_of(mask.shape, core, (12, 12)), (12, 12), 2)
        np.testing.assert_array_equal(found, whole(mask, 2))
        assert choice.cut >= 1
        assert choice.ambiguous >= 1
        assert {doubt.decision for doubt in choice.doubts} == {"merged"}


def discs(random: np.random.Generator, shape: tuple[int, int], radius: float) -> tuple[Labels, NDArray[np.float64]]:
    """Discs that do not touch, at random: their labels and their centres."""
    centres: list[NDArray[np.float64]] = []
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, dtype=np.int64)
    for centre in radius + 4 + random.random((4000, 2)) * (np.asarray(shape) - 2 * radius - 8):
        if all(np.hypot(*(centre - other)) > 2 * radius + 2 for other in centres):
            centres.append(centre)
            labels[np.hypot(rows - centre[0], columns - centre[1]) <= radius] = len(centres)
    return labels, np.asarray(centres)


def test_a_finder_that_wavers_from_window_to_window_gives_each_object_once() -> None:
    """Outlines and scores differ in each window, as those of networks do; nothing is lost, doubled, or fused."""
    truth, _ = discs(np.random.default_rng(5), (300, 280), 8)
    image, diameter = truth[None, None], (20, 20)
    tiles = grid_of(image.shape, (1, 1, 64, 48), diameter)

    def wavering(block: NDArray[Any]) -> tuple[Labels, NDArray[np.float64]]:
        random = np.random.default_rng(np.ascontiguousarray(block).view(np.uint8).sum(dtype=np.int64))
        labels = np.zeros(block.shape, dtype=np.int64)
        present = np.unique(block[block > 0])
        for number, wanted in enumerate(present.tolist(), start=1):
            mask = ndimage.binary_dilation(block == wanted, iterations=int(random.integers(1, 3)))
            labels[ndimage.shift(mask, random.integers(-1, 2, 2), order=0) & (labels == 0)] = number
        return labels, random.random(present.size)

    found, choice = assemble(image, wavering, tiles, diameter, 2)
    assert found.max() == truth.max()
    for number in range(1, int(truth.max()) + 1):
        partners = np.bincount(found[0, 0][truth == number], minlength=1)
        best = int(partners[1:].argmax()) + 1
        own = np.bincount(truth[found[0, 0] == best], minlength=1)
        assert own[1:].argmax() + 1 == number, "each has a partner of its own"
    assert choice.merged > 50
    assert choice.cut == 0
    again, told = assemble(image, wavering, tiles, diameter, 2, order=range(len(tiles))[::-1])
    np.testing.assert_array_equal(again, found)
    assert told.doubts == choice.doubts


def two_windows(one: NDArray[Any], two: NDArray[Any], scores: tuple[list[float], list[float]]) -> tuple[Any, Any]:
    """Put together what two windows of an image of 20 x 40 see of it: cores end in the middle, windows 8 beyond."""
    answers = iter([(one[:, :28], np.asarray(scores[0])), (two[:, 12:], np.asarray(scores[1]))])
    image = np.zeros((1, 1, 20, 40))
    tiles = grid_of(image.shape, (1, 1, 20, 20), (4, 4))
    return assemble(image, lambda _block: next(answers), tiles, (4, 4), 2)


def painted(*boxes: tuple[int, int, int, int]) -> NDArray[np.int64]:
    labels = np.zeros((20, 40), dtype=np.int64)
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        labels[top:bottom, left:right] = number
    return labels


def test_of_two_views_the_higher_score_is_kept_then_the_larger_then_the_first() -> None:
    small, large = painted((5, 18, 9, 22)), painted((5, 18, 10, 22))
    for scores, expected in ((([0.9], [0.5]), small), (([0.5], [0.9]), large), (([0.5], [0.5]), large)):
        found, choice = two_windows(small, large, scores)
        np.testing.assert_array_equal(found[0, 0], expected)
        assert (choice.merged, choice.apart, choice.ambiguous) == (1, 0, 0)
    shifted = painted((6, 18, 10, 22))
    found, _ = two_windows(shifted, small, ([0.5], [0.5]))
    np.testing.assert_array_equal(found[0, 0], small)


def test_one_seen_whole_wins_against_a_better_score_that_is_cut() -> None:
    wide = painted((5, 10, 9, 30))  # reaches beyond both windows' edges
    whole_one = painted((5, 14, 9, 28))
    found, choice = two_windows(wide, painted((5, 14, 9, 28)), ([0.9], [0.1]))
    assert choice.merged == 1
    np.testing.assert_array_equal(found[0, 0], whole_one)


def test_one_against_two_is_ambiguous_and_nothing_is_lost() -> None:
    fused, parts = painted((5, 16, 9, 24)), painted((5, 16, 9, 20), (5, 20, 9, 24))
    for score, expected in ((0.9, fused), (0.1, parts)):
        found, choice = two_windows(fused, parts, ([score], [0.5, 0.5]))
        np.testing.assert_array_equal(found[0, 0] > 0, expected > 0)
        assert found.max() == expected.max()
        assert choice.ambiguous == 1
        (doubt,) = choice.doubts
        assert np.unravel_index(doubt.first, (20, 40)) == (5, 20)
        assert (doubt.within, doubt.union, doubt.cut) == (1.0, 0.5, False)
        assert doubt.decision == ("dropped" if score > 0.5 else "apart")


def test_touching_in_passing_is_kept_apart_and_the_better_one_has_the_pixels() -> None:
    left, right = painted((5, 14, 9, 21)), painted((5, 20, 9, 27))
    found, choice = two_windows(left, right, ([0.4], [0.8]))
    assert (choice.merged, choice.apart, choice.ambiguous) == (0, 1, 0)
    np.testing.assert_array_equal(found[0, 0], np.where(right > 0, 2, left))


def test_objects_below_the_minimum_size_get_no_number() -> None:
    mask = np.zeros((1, 1, 20, 40), dtype=bool)
    mask[0, 0, 2:4, 18:22] = mask[0, 0, 10:12, 5:7] = True
    found, _ = assemble(mask, components, grid_of(mask.shape, (1, 1, 20, 20), (4, 4)), (4, 4), 2, minimum_size=5)
    np.testing.assert_array_equal(found[0, 0] > 0, mask[0, 0] & (np.arange(20) < 9)[:, None])
    assert found.max() == 1


def test_neighbours_are_all_whose_windows_overlap() -> None:
    tiles = grid_of((2, 3, 90, 50), (1, 1, 16, 20), (5, 5))
    for index in range(len(tiles)):
        window = tiles[index].window.clip(tiles.shape)
        expected = [other for other in range(len(tiles))
                    if other != index and window.intersect(tiles[other].window.clip(tiles.shape)).size]  # fmt: skip
        assert neighbours(tiles, index) == expected


def test_no_candidates_at_all() -> None:
    empty = find_candidates(np.zeros((1, 1, 4, 4), dtype=np.int64), np.zeros(0), Box.whole((1, 1, 4, 4)),
                            Box.whole((1, 1, 4, 4)), (1, 1, 4, 4), 2, (2, 2)).table  # fmt: skip
    choice = choose(lambda _index: CandidateTable.from_arrays(empty.to_arrays()), lambda _index: Pairs.join([]), 3)
    assert choice.identity.size == choice.merged == choice.cut == 0


def test_labels_that_do_not_fit_are_refused() -> None:
    box = Box.whole((1, 1, 4, 4))
    with pytest.raises(GeometryError, match="cannot fill the window"):
        find_candidates(np.zeros((1, 1, 4, 5), dtype=np.int64), np.zeros(0), box, box, (1, 1, 4, 4), 2, (2, 2))
    with pytest.raises(GeometryError, match="scores for 1 to 0"):
        find_candidates(np.ones((1, 1, 4, 4), dtype=np.int64), np.zeros(0), box, box, (1, 1, 4, 4), 2, (2, 2))
