from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage import draw, measure
from skimage.segmentation import watershed

from pipeline.labels.watershed import PartingRule, part_components

RULE = PartingRule(2.0, 0, (1, 1))


def components_of(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    return np.asarray(measure.label(mask, connectivity=1), dtype=np.uint32)


def discs(*circles: tuple[int, int, int], shape: tuple[int, int] = (64, 96)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    for row, column, radius in circles:
        mask[draw.disk((row, column), radius, shape=shape)] = True
    return mask


def test_two_overlapping_discs_are_two_objects_parted_at_the_neck() -> None:
    mask = discs((32, 30, 14), (32, 54, 14))
    parts = part_components(mask, mask, RULE)
    assert parts.max() == 2
    assert (parts > 0).tolist() == mask.tolist()
    assert parts[32, 30] != parts[32, 54]
    columns = np.nonzero(parts == parts[32, 30])[1]
    assert abs(columns.max() - 42) <= 1


def test_a_neck_that_is_not_deep_enough_parts_nothing() -> None:
    mask = discs((32, 30, 14), (32, 54, 14))
    depths = ndimage.distance_transform_edt(mask)
    prominence = depths[32, 30] - depths[32, 42]
    assert part_components(mask, mask, PartingRule(prominence + 0.01, 0, (1, 1))).max() == 1
    assert part_components(mask, mask, PartingRule(prominence - 0.01, 0, (1, 1))).max() == 2


def test_the_number_of_objects_is_that_of_scikit_images_h_maxima() -> None:
    from skimage.morphology import h_maxima

    random = np.random.default_rng(5)
    field = ndimage.gaussian_filter(random.random((200, 200)), 5)
    mask = field > np.quantile(field, 0.4)
    depths = ndimage.distance_transform_edt(mask)
    for depth in (1.0, 2.0, 3.0):
        # Components shallower than the depth are objects here and have no maximum there.
        tops = measure.label(h_maxima(depths, depth), connectivity=2)
        parts = part_components(mask, mask, PartingRule(depth, 0, (1, 1)))
        alone = sum(1 for found in ndimage.find_objects(components_of(mask)) if found and depths[found].max() < depth)
        assert abs(int(parts.max()) - alone - int(tops.max())) <= 0.05 * parts.max()


def test_what_is_no_seed_goes_to_the_object_that_reaches_it() -> None:
    mask = np.zeros((9, 21), dtype=bool)
    mask[2:7, 2:19] = True
    seeds = mask.copy()
    seeds[:, 9:12] = False  # a strip of contact
    parts = part_components(mask, seeds, RULE)
    assert parts.max() == 2
    assert ((parts > 0) == mask).all()
    assert len(np.unique(parts[2:7, 2:9])) == 1
    assert len(np.unique(parts[2:7, 12:19])) == 1


def test_small_objects_are_none_and_their_pixels_go_to_the_neighbour() -> None:
    mask = discs((20, 20, 9))
    seeds = mask.copy()
    seeds[14:27, 12] = False
    parts = part_components(mask, seeds, PartingRule(2.0, 30, (1, 1)))
    assert parts.max() == 1
    assert ((parts > 0) == mask).all()


def test_a_component_without_seeds_is_no_object() -> None:
    mask = discs((20, 20, 9), (20, 60, 9))
    seeds = mask.copy()
    seeds[:, 40:] = False
    parts = part_components(mask, seeds, RULE)
    assert parts.max() == 1
    assert not parts[:, 40:].any()


def test_spacing_stretches_the_distance() -> None:
    """A waist 6 planes thick is narrow when planes are near, and not when they are far apart."""
    mask = np.zeros((14, 24, 60), dtype=bool)
    mask[1:13, 2:22, 2:26] = mask[1:13, 2:22, 34:58] = True
    mask[4:10, 2:22, 26:34] = True
    assert part_components(mask, mask, PartingRule(2.0, 0, (1, 1, 1))).max() == 2
    assert part_components(mask, mask, PartingRule(2.0, 0, (10, 1, 1))).max() == 1


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 0.6, 0.9]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0.0, 0.5, 2.0]),
)
def test_a_component_is_parted_as_if_it_were_alone(seed: int, density: float, smooth: float, depth: float) -> None:
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.random((40, 50)), smooth)
    components = components_of(field > np.quantile(field, 1 - density))
    seeds = random.random(components.shape) < 0.9
    rule = PartingRule(depth, 3, (1, 1))
    parts = part_components(components > 0, seeds, rule)
    for number in range(1, int(components.max()) + 1):
        alone = components == number
        expected = part_components(alone, seeds, rule)
        # Ids mean nothing, but the sets of pixels do.
        pairs = np.unique(np.stack([parts[alone], expected[alone]]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
        assert ((parts[alone] > 0) == (expected[alone] > 0)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (0, 5)])
def test_degenerate_arrays_are_no_trouble(shape: tuple[int, int]) -> None:
    full = np.ones(shape, dtype=np.uint32)
    assert part_components(full > 0, full > 0, RULE).tolist() == full.tolist()
    empty = np.zeros(shape, dtype=np.uint32)
    assert part_components(empty > 0, empty > 0, RULE).tolist() == empty.tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2]), st.booleans())
def test_basins_are_those_of_scikit_images_watershed(seed: int, smooth: float, deep: bool) -> None:
    """With a depth of nothing, each basin is an object; flooding by ranks, none of which are equal, has no ties."""
    random = np.random.default_rng(seed)
    shape = (9, 12, 15) if deep else (40, 50)
    field = ndimage.gaussian_filter(random.random(shape), smooth)
    mask = field > np.quantile(field, 0.4)
    components = components_of(mask)
    parts = part_components(mask, mask, PartingRule(0.0, 0, (1,) * mask.ndim))
    squared = np.zeros(shape)
    for number in range(1, int(components.max()) + 1):
        alone = components == number
        squared[alone] = edge_distance(alone)[alone]
    rank = np.full(mask.size, mask.size)
    where = np.flatnonzero(mask)
    rank[where[np.argsort(-squared.ravel()[where], kind="stable")]] = np.arange(where.size)
    rank = rank.reshape(shape)
    lowest = ndimage.minimum_filter(rank, footprint=ndimage.generate_binary_structure(mask.ndim, 1), mode="nearest")
    peaks = mask & (rank == lowest)
    expected = watershed(rank, measure.label(peaks, connectivity=1), mask=mask, connectivity=1)
    pairs = np.unique(np.stack([parts[mask], expected[mask]]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def edge_distance(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Squared distance to the background inside the array: beyond it there is nothing."""
    if mask.all():
        return np.zeros(mask.shape)
    distance: NDArray[np.float64] = np.round(ndimage.distance_transform_edt(mask) ** 2)
    return distance


@pytest.mark.parametrize("reach", [4200, 70_000])
def test_a_component_beside_one_that_is_very_deep_is_parted_as_alone(reach: int) -> None:
    """Squared distances of a strip beside its only background do not fit into a float32, nor into 32 bits."""
    random = np.random.default_rng(3)
    field = ndimage.gaussian_filter(random.random((16, 300)), 1.5)
    small = field > np.quantile(field, 0.4)
    mask = np.zeros((16, reach + 310), dtype=bool)
    mask[:, :reach] = True
    mask[:, -300:] = small
    rule = PartingRule(0.5, 0, (1, 1))
    alone = part_components(np.pad(small, ((0, 0), (10, 0))), np.pad(small, ((0, 0), (10, 0))), rule)
    beside = part_components(mask, mask, rule)[:, -310:]
    pairs = np.unique(np.stack([alone[alone > 0], beside[alone > 0]]), axis=1)
    assert int(alone.max()) == len(np.unique(pairs[1])) == pairs.shape[1] > 20
