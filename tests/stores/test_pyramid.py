from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.geometry import Box
from pipeline.stores.arrays import ArraySpec, ResultArray, create_array
from pipeline.stores.pyramid import build_region, downsample_mean, downsample_nearest
from tests.stores.strategies import write_pyramid

blocks = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=9)


def exact_means(block: NDArray[Any]) -> NDArray[Any]:
    """Average with Python's own integers, which neither overflow nor lose digits; `round` takes halves to even."""
    out_shape = (*block.shape[:-2], -(-block.shape[-2] // 2), -(-block.shape[-1] // 2))
    means = np.empty(out_shape, dtype=block.dtype)
    for at in np.ndindex(*out_shape):
        *plane, row, column = at
        found = [int(value) for value in block[tuple(plane)][2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flat]
        whole, rest = divmod(sum(found), len(found))
        up = 2 * rest > len(found) or (2 * rest == len(found) and whole % 2 == 1)
        means[at] = whole + up
    return means


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]))
def test_integer_means_are_exact_up_to_the_limits_of_the_type(data: st.DataObject, dtype: str) -> None:
    block = data.draw(hnp.arrays(np.dtype(dtype), blocks))
    means = downsample_mean(block)
    assert means.dtype == block.dtype
    np.testing.assert_array_equal(means, exact_means(block))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["f2", "f4", "f8"]))
def test_floating_point_means_are_over_the_pixels_that_exist(data: st.DataObject, dtype: str) -> None:
    block = data.draw(hnp.arrays(np.dtype(dtype), blocks, elements=st.integers(-64, 64).map(float)))
    means = downsample_mean(block)
    assert means.dtype == block.dtype
    expected = np.stack(
        [
            np.stack(
                [
                    block[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(axis=(-2, -1), dtype=np.float64)
                    for column in range(means.shape[-1])
                ],
                axis=-1,
            )
            for row in range(means.shape[-2])
        ],
        axis=-2,
    )
    np.testing.assert_array_equal(means, expected.astype(dtype))


def test_booleans_become_what_most_pixels_are() -> None:
    block = np.array([[True, True, False, True], [True, False, False, False]])
    assert downsample_mean(block).tolist() == [[True, False]]


def test_a_dim_image_does_not_get_brighter_with_each_level() -> None:
    block = np.random.default_rng(0).poisson(4, (512, 512)).astype(np.uint16)
    coarse = block
    for _ in range(5):
        coarse = downsample_mean(coarse)
    assert abs(float(coarse.mean()) - float(block.mean())) < 0.1


def test_strips_do_not_show() -> None:
    block = np.random.default_rng(1).integers(0, 2**16, (2, 301, 70001), dtype=np.uint16)
    at_once = downsample_mean(block)
    np.testing.assert_array_equal(at_once[:, 100:], downsample_mean(block[:, 200:]))
    np.testing.assert_array_equal(at_once[:, :, :50], downsample_mean(block[:, :, :100]))


def test_types_without_means_are_refused() -> None:
    with pytest.raises(StoreError, match="complex64 cannot be averaged"):
        downsample_mean(np.zeros((2, 2), dtype=np.complex64))


@given(hnp.arrays(np.uint32, blocks))
def test_samples_are_the_pixels_at_even_places(block: NDArray[np.uint32]) -> None:
    samples = downsample_nearest(block)
    for at in np.ndindex(*samples.shape):
        *plane, row, column = at
        assert samples[at] == block[(*plane, 2 * row, 2 * column)]


@pytest.mark.parametrize(("height", "width"), [(200, 130), (97, 211), (1, 75), (64, 64), (1, 1)])
def test_levels_made_shard_by_shard_in_any_order_equal_levels_made_at_once(
    tmp_path: Path, height: int, width: int
) -> None:
    rng = np.random.default_rng(height)
    image = rng.integers(0, 2**16, (2, 1, 1, height, width), dtype=np.uint16)
    labels = rng.integers(0, 2**32, (2, 1, height, width), dtype=np.uint32)
    images = write_pyramid(tmp_path, "", "TYX", image, chunk=16, shard=32, method="mean", smallest=8)
    nearest = write_pyramid(
        tmp_path, "labels/instances", "TYX", labels, chunk=12, shard=36, method="nearest", smallest=8, order=3
    )
    for image_spec, label_spec in zip(images, nearest, strict=True):
        np.testing.assert_array_equal(ResultArray(tmp_path, image_spec).read(Box.whole(image.shape)), image)
        np.testing.assert_array_equal(ResultArray(tmp_path, label_spec).read(Box.whole(labels.shape)), labels)
        image, labels = downsample_mean(image), labels[..., ::2, ::2]


def test_a_region_that_cuts_a_shard_of_the_coarser_level_is_refused(tmp_path: Path) -> None:
    finer = ArraySpec("0", "TZYX", "YX", (1, 1, 64, 64), (1, 1, 16, 16), (1, 1, 32, 32), "uint8")
    coarser = ArraySpec("1", "TZYX", "YX", (1, 1, 32, 32), (1, 1, 16, 16), (1, 1, 32, 32), "uint8")
    create_array(tmp_path, finer)
    create_array(tmp_path, coarser)
    with pytest.raises(StoreError, match="would cut a shard of 32"):
        build_region(
            ResultArray(tmp_path, finer), ResultArray(tmp_path, coarser), Box((0, 0, 0, 0), (1, 1, 16, 32)), "mean"
        )
