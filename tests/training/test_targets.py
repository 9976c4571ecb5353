"""The classes of pixels and their weights, against plain slow references."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.training.targets import BACKGROUND, CLASSES, CONTACT, NUCLEUS, REACH, border_weights, class_target

masks = st.one_of(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)),
    # Few nuclei in much background, with numbers that have gaps.
    hnp.arrays(
        np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([1, 7, 65535]),
        fill=st.just(0),
    ),
)  # fmt: skip


def plain_target(mask: NDArray[np.int32]) -> NDArray[np.int64]:
    """Look at every pixel within reach of every pixel."""
    target = np.zeros(mask.shape, dtype=np.int64)
    for y, x in np.ndindex(*mask.shape):
        near = {
            int(mask[row, column])
            for row, column in np.ndindex(*mask.shape)
            if (row - y) ** 2 + (column - x) ** 2 <= REACH**2
        }
        target[y, x] = CONTACT if len(near - {0}) > 1 else NUCLEUS if mask[y, x] else BACKGROUND
    return target


def plain_weights(mask: NDArray[np.int32], target: NDArray[np.int64]) -> NDArray[np.float32]:
    weights = np.ones(mask.shape, dtype=np.float32)
    for y, x in np.ndindex(*mask.shape):
        if (target[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] == CONTACT).any():
            weights[y, x] = 2
        if target[y, x] == CONTACT:
            weights[y, x] = 4
        if target[y, x] == NUCLEUS and mask[y, x] and (mask == mask[y, x]).sum() < 150:
            weights[y, x] += 1
    return weights


def discs(*places: tuple[int, int, int], shape: tuple[int, int] = (40, 60)) -> NDArray[np.int32]:
    """Draw discs, each a number: rows, columns and radii of their centres."""
    rows, columns = np.indices(shape)
    mask = np.zeros(shape, dtype=np.int32)
    for number, (row, column, radius) in enumerate(places, 1):
        mask[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return mask


def test_classes_have_the_names_of_the_card_in_their_order() -> None:
    assert (CLASSES[BACKGROUND], CLASSES[NUCLEUS], CLASSES[CONTACT]) == ("background", "nucleus", "contact")


@settings(max_examples=80, deadline=None)
@given(masks)
def test_each_pixel_has_the_class_of_the_plain_definition(mask: NDArray[np.int32]) -> None:
    target = class_target(mask)
    assert target.dtype == np.int64
    np.testing.assert_array_equal(target, plain_target(mask))


@settings(max_examples=80, deadline=None)
@given(masks)
def test_each_pixel_has_the_weight_of_the_plain_definition(mask: NDArray[np.int32]) -> None:
    target = class_target(mask)
    weights = border_weights(mask, target)
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, plain_weights(mask, target))


@settings(max_examples=40, deadline=None)
@given(masks, st.integers(0, 99))
def test_the_numbers_of_the_nuclei_do_not_matter(mask: NDArray[np.int32], seed: int) -> None:
    numbers = np.unique(mask[mask > 0])
    renamed = np.zeros_like(mask)
    for old, new in zip(numbers, np.random.default_rng(seed).permutation(numbers), strict=True):
        renamed[mask == old] = new
    np.testing.assert_array_equal(class_target(mask), class_target(renamed))


def test_touching_nuclei_are_parted_and_a_lone_one_is_left_whole() -> None:
    from skimage import measure

    mask = discs((20, 15, 10), (20, 35, 10), (20, 53, 4))
    mask[:, 25] = np.where(mask[:, 24] > 0, 1, mask[:, 25])
    assert measure.label(mask > 0, connectivity=1).max() == 2
    target = class_target(mask)
    assert measure.label(target == NUCLEUS, connectivity=2).max() == 3
    np.testing.assert_array_equal(target[mask == 3], NUCLEUS)


def test_contact_weighs_most_and_small_nuclei_more_than_large_ones() -> None:
    mask = discs((20, 12, 10), (20, 33, 10), (20, 53, 4))
    target = class_target(mask)
    weights = border_weights(mask, target)
    assert (target == CONTACT).any()
    assert weights[target == CONTACT].min() == weights.max() == 4
    assert (weights[20, 12], weights[20, 53], weights[0, 0]) == (1, 2, 1)


def test_an_empty_field_is_background_of_weight_one() -> None:
    mask = np.zeros((5, 6), dtype=np.int32)
    target = class_target(mask)
    assert not target.any()
    assert (border_weights(mask, target) == 1).all()
