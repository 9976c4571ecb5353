"""Patches: functions of their seed, in which picture and mask stay on one another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.training.augment import DIAMETERS, change_appearance, cut_patch
from pipeline.training.data import Field
from tests.training.fields import draw_field

seeds = st.integers(0, 2**32 - 1)
EDGE = 300


def real_field(seed: int = 0, diameter: float = 13.0) -> Field:
    image, mask = draw_field((160, 130), seed)
    return Field("a", "b", image.astype(np.float32) / np.float32(180), mask.astype(np.int32), diameter)


def patch_of_places(
    seed: int, diameter: float, size: int = 64
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """Cut a patch of a field that says of each pixel where it comes from: as picture, and as mask."""
    rows, columns = np.indices((EDGE, EDGE))
    field = Field("a", "b", rows.astype(np.float32), (rows * EDGE + columns).astype(np.int32), diameter)
    pictured_rows, mask = cut_patch(field, size, np.random.default_rng(seed))
    other = replace(field, image=columns.astype(np.float32))
    pictured_columns, same = cut_patch(other, size, np.random.default_rng(seed))
    np.testing.assert_array_equal(same, mask)
    return pictured_rows, pictured_columns, mask // EDGE, mask % EDGE


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([10.0, 20.0, 60.0]))
def test_picture_and_mask_of_a_patch_come_from_the_same_places(seed: int, diameter: float) -> None:
    rows, columns, mask_rows, mask_columns = patch_of_places(seed, diameter)
    # The blur before a picture is made smaller changes a ramp at the field's edges, and the fold of its mirrored part.
    inner = (np.minimum(rows, columns) > 12) & (np.maximum(rows, columns) < EDGE - 13)
    assert np.abs(rows - mask_rows)[inner].max(initial=0) <= 0.51
    assert np.abs(columns - mask_columns)[inner].max(initial=0) <= 0.51


def test_patches_are_turned_flipped_and_scaled_and_nuclei_stay_as_large_as_they_may_be() -> None:
    angles, handedness, diameters = [], set(), []
    for seed in range(60):
        diameter = (10.0, 20.0, 60.0)[seed % 3]
        rows, columns, *_ = patch_of_places(seed, diameter)
        along = np.array([[np.diff(ramp, axis=axis)[:63, :63] for axis in (0, 1)] for ramp in (rows, columns)])
        determinant = along[0, 0] * along[1, 1] - along[0, 1] * along[1, 0]
        middle = np.median(np.abs(determinant))
        diameters.append(diameter / np.sqrt(middle))
        handedness.add(bool(determinant[32, 32] > 0))
        angles.append(np.arctan2(along[1, 0, 32, 32], along[0, 0, 32, 32]))
    assert handedness == {True, False}
    assert np.histogram(angles, 4, (-np.pi, np.pi))[0].min() >= 5
    assert min(diameters) >= DIAMETERS[0] * 0.99
    assert max(diameters) <= DIAMETERS[1] * 1.01
    assert max(diameters) > 3 * min(diameters)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([17, 60, 333]))
def test_a_patch_is_a_function_of_its_seed(seed: int, size: int) -> None:
    field = real_field()
    (image, mask), (again, mask_again) = (cut_patch(field, size, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert image.shape == mask.shape == (size, size)
    assert (image.dtype.name, mask.dtype.name) == ("float32", "int32")
    assert set(np.unique(mask)) <= set(np.unique(field.mask))


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_appearance_is_a_function_of_the_seed_and_leaves_its_inputs(seed: int) -> None:
    field = real_field(1)
    image, mask = field.image.copy(), field.mask.copy()
    changed, again = (change_appearance(image, mask, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(changed, again)
    np.testing.assert_array_equal(image, field.image)
    np.testing.assert_array_equal(mask, field.mask)
    assert changed.shape == image.shape
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()


def test_other_seeds_give_other_patches_and_appearances() -> None:
    field = real_field()
    patches = [cut_patch(field, 40, np.random.default_rng(seed))[0] for seed in range(10)]
    looks = [change_appearance(field.image, field.mask, np.random.default_rng(seed)) for seed in range(10)]
    for several in (patches, looks):
        assert len({one.tobytes() for one in several}) == 10


def test_nuclei_stay_brighter_than_what_surrounds_them() -> None:
    """Whatever the appearance, it must not contradict the mask that the network learns from."""
    field = real_field(2)
    clear = 0
    for seed in range(60):
        changed = change_appearance(field.image, field.mask, np.random.default_rng(seed))
        clear += np.median(changed[field.mask > 0]) > np.median(changed[field.mask == 0])
    assert clear == 60


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 5)])
def test_fields_smaller_than_a_patch_are_mirrored(shape: tuple[int, int]) -> None:
    field = Field("a", "b", np.full(shape, 0.5, np.float32), np.full(shape, 3, np.int32), 20.0)
    image, mask = cut_patch(field, 30, np.random.default_rng(0))
    np.testing.assert_allclose(image, 0.5, rtol=1e-6)
    assert (mask == 3).all()


def test_a_patch_without_nuclei_has_an_appearance_too() -> None:
    empty = np.zeros((20, 30), np.float32)
    for seed in range(20):
        assert np.isfinite(change_appearance(empty, empty.astype(np.int32), np.random.default_rng(seed))).all()
