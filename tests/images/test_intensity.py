from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.images.intensity import PixelStep, Scaling, make_scaling, wanted_percentiles
from pipeline.images.statistics import Search, Summary
from tests.images.reading import pixels

DTYPES = ["uint8", "int16", "uint16", "uint32", "int64", "float16", "float32", "float64"]


def summarize(image: NDArray[Any], wanted: tuple[float, ...]) -> Summary:
    search = Search(image.dtype.name, wanted)
    while not search.finished:
        search = search.advance(search.count(image))
    return search.summary()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("result", [np.float32, np.float64])
def test_each_pixel_is_shifted_and_divided(dtype: str, result: type[np.float32] | type[np.float64]) -> None:
    block = pixels((3, 20, 30), dtype)
    before = block.copy()
    scaled = Scaling(10.0, 4.0).apply(block, result)
    assert scaled.dtype == result
    assert scaled.shape == block.shape
    rounding = 2.0**-10 if dtype == "float16" else 1e-6
    np.testing.assert_allclose(scaled, (block.astype(np.longdouble) - 10) / 4, rtol=rounding)
    assert np.array_equal(block, before)
    assert not np.shares_memory(block, scaled)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DTYPES), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 19), st.integers(0, 29),
    st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_a_part_of_a_block_is_scaled_as_the_block_is_to_the_last_bit(
    dtype: str, offset: float, scale: float, row: int, column: int, result: type[np.float32] | type[np.float64]
) -> None:
    block, scaling = pixels((20, 30), dtype), Scaling(offset, scale)
    part = scaling.apply(block[row:, column:], result)
    assert part.tobytes() == scaling.apply(block, result)[row:, column:].tobytes()


def test_a_large_offset_does_not_swallow_small_differences() -> None:
    for dtype in ("uint32", "int64", "float64"):
        block = (np.arange(5) + 2**30).astype(dtype)
        assert Scaling(2.0**30, 1.0).apply(block, np.float32).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("result", [np.float32, np.float64])
def test_pixels_that_are_no_numbers_become_zero(dtype: str, result: type[np.float32] | type[np.float64]) -> None:
    block = np.array([np.nan, np.inf, -np.inf, 7], dtype=dtype)
    assert Scaling(5.0, 2.0).apply(block, result).tolist() == [0, 0, 0, 1]


def test_what_leaves_the_range_of_the_result_becomes_zero_without_a_warning() -> None:
    block = np.array([1e300, -1e300, 1.0])
    assert Scaling(0.0, 0.5).apply(block, np.float32).tolist() == [0, 0, 2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_percentiles_become_zero_and_one(dtype: str) -> None:
    image = pixels((101, 100), dtype)
    wanted = wanted_percentiles("percentile", 2.0, 98.0)
    assert wanted == (2.0, 98.0)
    scaled = make_scaling("percentile", summarize(image, wanted)).apply(image, np.float64)
    # Scaling keeps the order: the percentiles of the result are the results of the percentiles.
    np.testing.assert_allclose(np.percentile(scaled, wanted), [0, 1], atol=1e-2 if dtype == "float16" else 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_and_deviation_become_zero_and_one(dtype: str) -> None:
    image = pixels((101, 100), dtype)
    scaled = make_scaling("mean_std", summarize(image, wanted_percentiles("mean_std", 3, 4))).apply(image, np.float64)
    assert scaled.mean() == pytest.approx(0, abs=1e-9)
    assert scaled.std() == pytest.approx(1)


def test_without_scaling_nothing_changes() -> None:
    image = pixels((20, 30), "float32")
    scaling = make_scaling("none", summarize(image, wanted_percentiles("none", 3, 4)))
    assert np.array_equal(scaling.apply(image, np.float32), image)


@pytest.mark.parametrize("method", ["mean_std", "none"])
def test_contrast_limits_are_known_whatever_the_method(method: str) -> None:
    assert wanted_percentiles(method, 3, 4) == (1.0, 99.8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["percentile", "mean_std"])
def test_an_image_without_contrast_is_only_shifted(method: str, dtype: str) -> None:
    image = np.full((4, 5), 7, dtype=dtype)
    scaling = make_scaling(method, summarize(image, wanted_percentiles(method, 1, 99)))
    assert scaling == Scaling(7.0, 1.0)
    assert not scaling.apply(image, np.float32).any()


@pytest.mark.parametrize("method", ["percentile", "mean_std", "none"])
def test_an_image_without_a_finite_pixel_becomes_zero(method: str) -> None:
    image = np.full((4, 5), np.nan, dtype=np.float32)
    scaled = make_scaling(method, summarize(image, wanted_percentiles(method, 1, 99))).apply(image, np.float32)
    assert not scaled.any()


STEPS: dict[str, tuple[PixelStep, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "linear": (PixelStep("linear", 2.0, -3.0), lambda x: 2 * x - 3),
    "standardize": (PixelStep("standardize", 5.0, 2.0), lambda x: (x - 5) / 2),
    "clip": (PixelStep("clip", 0.25, 3.0), lambda x: np.clip(x, 0.25, 3)),
    "clip below": (PixelStep("clip", 0.25, None), lambda x: np.maximum(x, 0.25)),
    "binarize": (PixelStep("binarize", 1.5), lambda x: x > 1.5),
    "sigmoid": (PixelStep("sigmoid"), scipy.special.expit),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_done_before_and_after(name: str) -> None:
    step, function = STEPS[name]
    block = pixels((20, 30), "int16") % 50
    scaled = Scaling(10.0, 4.0, (PixelStep("linear", 3.0, 1.0),), (step,)).apply(block, np.float64)
    np.testing.assert_allclose(scaled, function((block * 3.0 + 1 - 10) / 4), rtol=1e-12)


def test_a_scaling_is_noted_and_read_again() -> None:
    scaling = Scaling(1.5, 2.0, (STEPS["linear"][0],), (STEPS["clip below"][0], STEPS["sigmoid"][0]))
    assert Scaling.from_note(json.loads(json.dumps({"time": 0, **scaling.note()}))) == scaling
    assert Scaling(1.5, 2.0).note() == {"offset": 1.5, "scale": 2.0}


@pytest.mark.parametrize("method", ["percentile", "mean_std"])
@pytest.mark.parametrize("name", STEPS)
def test_statistics_are_of_the_image_whatever_is_done_to_it_before(name: str, method: str) -> None:
    step, function = STEPS[name]
    image = pixels((40, 50), "int16").astype(np.float64) / 100
    wanted = wanted_percentiles(method, 2, 98)
    scaled = make_scaling(method, summarize(image, wanted), 0.5, (step,)).apply(image, np.float64)
    low, high = np.percentile(image, [2, 98]) if method == "percentile" else (image.mean(), image.mean() + image.std())
    np.testing.assert_allclose(scaled, (function(image) - low) / (high - low + 0.5), atol=1e-9)


def test_a_step_without_its_numbers_is_an_error() -> None:
    with pytest.raises(ValueError, match="lacks a number"):
        PixelStep("linear", 1.0).apply(np.zeros(3))
