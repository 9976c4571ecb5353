from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from math import isqrt
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.images.statistics import Counts, Search, Summary

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]
COUNT = (1 << 17) + 5000
"""More pixels than are summed at once."""

PERCENTILES = (0.0, 0.1, 1.0, 12.5, 25.0, 50.0, 63.2, 99.0, 99.8, 100.0)


def summarize(
    blocks: list[NDArray[Any]], dtype: str, wanted: tuple[float, ...] = PERCENTILES, seed: int = 0, kept: bool = False
) -> Summary:
    """Search pass by pass, the blocks in another order each time; `kept`: as if the counts came from files."""
    random = np.random.default_rng(seed)
    search = Search(dtype, wanted)
    passes = 0
    while not search.finished:
        counts = [search.count(blocks[at]) for at in random.permutation(len(blocks))]
        if kept:
            counts = [Counts.from_array(count.to_array()) for count in counts]
        search = search.advance(reduce(Counts.__add__, counts, Counts.none()))
        passes += 1
        assert passes <= search.passes
    return search.summary()


def finite(image: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = image[np.isfinite(image)]
    return found


def exact_root(square: Fraction) -> float:
    """Give the double nearest to a square root, by integers alone."""
    if not square:
        return 0.0
    # 200 bits of the root: far more than a double has, so the one more rounding cannot show.
    shift = max(0, 200 - (square.numerator.bit_length() - square.denominator.bit_length()) // 2)
    return float(Fraction(isqrt((square.numerator << 2 * shift) // square.denominator), 1 << shift))


def exact_moments(image: NDArray[Any]) -> tuple[float, float]:
    values = [Fraction(value) for value in finite(image).ravel().tolist()]
    mean = sum(values, Fraction(0)) / len(values)
    return float(mean), exact_root(sum(((value - mean) ** 2 for value in values), Fraction(0)) / len(values))


def expected_percentiles(image: NDArray[Any], wanted: tuple[float, ...] = PERCENTILES) -> list[float]:
    # As doubles: in their own type, numpy's differences of integers overflow, and its float32 percentages are rounded.
    return [float(value) for value in np.percentile(finite(image).astype(np.float64), wanted)]


@st.composite
def images(draw: st.DrawFn) -> tuple[NDArray[Any], str]:
    dtype = draw(st.sampled_from(DTYPES))
    kind = np.dtype(dtype)
    if kind.kind == "f":
        # Differences of two extreme doubles overflow, in numpy too; percentiles need those of half the range.
        limit = float(np.finfo(kind).max) / 4
        width: Any = kind.itemsize * 8
        usual = st.floats(-limit, limit, width=width)
        odd = st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 0.0, float(np.finfo(kind).smallest_subnormal)])
        elements: Any = draw(st.sampled_from([usual, usual | odd, st.floats(-3, 3, width=16) | odd]))
    else:
        limits = np.iinfo(kind)
        everything = st.integers(limits.min, limits.max)
        near = draw(everything)
        close = st.integers(max(limits.min, near - 3), min(limits.max, near + 3))
        elements = draw(st.sampled_from([everything, close]))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=40))
    return draw(hnp.arrays(kind, shape, elements=elements, fill=elements)), dtype


def split(image: NDArray[Any], parts: int, seed: int) -> list[NDArray[Any]]:
    """Cut into blocks of any shape and content, some of them empty."""
    random = np.random.default_rng(seed)
    flat = image.ravel()[random.permutation(image.size)]
    ends = np.sort(random.integers(0, image.size + 1, parts - 1))
    return list(np.split(flat, ends))


@settings(max_examples=200, deadline=None)
@given(images(), st.integers(1, 6), st.integers(0, 99))
def test_percentiles_are_those_of_numpy_to_the_last_bit_whatever_the_blocks(
    given_image: tuple[NDArray[Any], str], parts: int, seed: int
) -> None:
    image, dtype = given_image
    summary = summarize(split(image, parts, seed), dtype, seed=seed)
    assert summary.finite == finite(image).size
    assert summary.odd == image.size - finite(image).size
    if summary.finite:
        assert list(summary.percentiles) == expected_percentiles(image)


@settings(max_examples=100, deadline=None)
@given(images(), st.integers(1, 6), st.integers(0, 99))
def test_mean_and_deviation_are_the_exact_ones_rounded_whatever_the_blocks(
    given_image: tuple[NDArray[Any], str], parts: int, seed: int
) -> None:
    image, dtype = given_image
    summary = summarize(split(image, parts, seed), dtype, seed=seed)
    if not summary.finite:
        return
    mean, std = exact_moments(image)
    assert summary.mean == mean
    # The root is taken of a rounded square: it may be the neighbour of the nearest double.
    assert summary.std == pytest.approx(std, rel=2**-51, abs=0)
    assert summary == summarize([image], dtype)


@settings(max_examples=60, deadline=None)
@given(images(), st.integers(1, 5), st.integers(0, 99))
def test_counts_that_were_kept_as_arrays_give_the_same(
    given_image: tuple[NDArray[Any], str], parts: int, seed: int
) -> None:
    image, dtype = given_image
    blocks = split(image, parts, seed)
    assert summarize(blocks, dtype, kept=True) == summarize(blocks, dtype)


@settings(max_examples=60, deadline=None)
@given(images())
def test_an_array_gives_back_the_counts(given_image: tuple[NDArray[Any], str]) -> None:
    image, dtype = given_image
    counts = Search(dtype, (50.0,)).count(image)
    array = counts.to_array()
    assert array.dtype == np.int64
    again = Counts.from_array(array)
    for name in ("prefix", "digit", "number"):
        assert np.array_equal(getattr(again, name), getattr(counts, name))
    for name in ("finite", "odd", "total", "squares"):
        assert getattr(again, name) == getattr(counts, name)


def test_counts_of_nothing_are_neutral_and_survive_as_an_array() -> None:
    counts = Search("float32", (50.0,)).count(np.arange(-5, 9, dtype=np.float32))
    nothing = Counts.from_array(Counts.none().to_array())
    for total in (counts + nothing, nothing + counts):
        assert np.array_equal(total.to_array(), counts.to_array())


@settings(max_examples=40, deadline=None)
@given(images(), st.integers(0, 99))
def test_sums_of_counts_do_not_depend_on_the_order(given_image: tuple[NDArray[Any], str], seed: int) -> None:
    image, dtype = given_image
    counts = [Search(dtype, (50.0,)).count(block) for block in split(image, 4, seed)]
    forwards = reduce(Counts.__add__, counts)
    backwards = counts[3] + (counts[2] + (counts[1] + counts[0]))
    assert np.array_equal(forwards.to_array(), backwards.to_array())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_images_give_the_same_as_numpy(dtype: str) -> None:
    """Large is what has more pixels than are summed at once."""
    random = np.random.default_rng(0)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        image = (random.lognormal(1, 1, COUNT) * random.choice([-1, 1], COUNT)).astype(kind)
        image[::100] = np.nan
        image[5], image[17] = np.inf, -np.inf
    else:
        image = random.integers(np.iinfo(kind).min, np.iinfo(kind).max, COUNT, dtype=kind, endpoint=True)
    summary = summarize(np.array_split(image, 7), dtype)
    assert list(summary.percentiles) == expected_percentiles(image)
    mean, std = exact_moments(image)
    assert summary.mean == mean
    assert summary.std == pytest.approx(std, rel=2**-51, abs=0)
    assert summary == summarize([image[::-1]], dtype, seed=1)


@pytest.mark.parametrize("value", [1e-310, -5e-324, 1.5e308, -1.7e308, 3.0000000000000004])
@pytest.mark.parametrize("other", [0.0, 5e-324, 1e-200, 1.0])
def test_sums_of_very_small_and_very_large_numbers_are_exact(value: float, other: float) -> None:
    image = np.array([value, other, value, other, other])
    summary = summarize([image[:2], image[2:]], "float64", (50.0,))
    mean, std = exact_moments(image)
    assert summary.mean == mean
    assert summary.std == pytest.approx(std, rel=2**-50, abs=5e-324)


def test_a_large_offset_does_not_hide_a_small_deviation() -> None:
    image = np.array([1e15, 1e15 + 0.125, 1e15 + 0.25])
    mean, std = exact_moments(image)
    summary = summarize([image[:1], image[1:]], "float64")
    assert summary.mean == mean
    assert summary.std == pytest.approx(std, rel=2**-51)
    assert summary.std > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (7, 9)])
def test_images_of_one_value_have_it_everywhere_and_no_deviation(dtype: str, shape: tuple[int, ...]) -> None:
    for value in (0, 3, np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else np.finfo(dtype).max / 3):
        image = np.full(shape, value, dtype=dtype)
        summary = summarize([image], dtype)
        assert set(summary.percentiles) == {float(image.flat[0])}
        assert (summary.mean, summary.std) == (float(image.flat[0]), 0.0)
        assert (summary.finite, summary.odd) == (image.size, 0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_images_without_a_finite_pixel_are_all_zero(dtype: str) -> None:
    image = np.array([np.nan, np.inf, -np.inf, np.nan], dtype=dtype)
    assert summarize([image[:1], image[1:]], dtype, (1.0, 99.0)) == Summary((0.0, 0.0), 0.0, 0.0, 0, 4)


def test_truth_values_count_as_zero_and_one() -> None:
    image = np.array([True, False, True, True])
    assert summarize([image], "bool", (0.0, 50.0)) == Summary((0.0, 1.0), 0.75, exact_root(Fraction(3, 16)), 4, 0)


def test_negative_zero_is_zero() -> None:
    image = np.array([-0.0, 0.0, -0.0, 1.0, -1.0], dtype=np.float32)
    assert summarize([image], "float32", (50.0,)).percentiles == (0.0,)
    counts = Search("float32", (50.0,)).count(np.array([-0.0, 0.0], dtype=np.float32))
    assert counts.number.tolist() == [2]


@pytest.mark.parametrize(
    ("dtype", "passes"), [("uint8", 1), ("bool", 1), ("int16", 1), ("float16", 1), ("float32", 2), ("int64", 4)]
)
def test_passes_are_as_many_as_the_type_has_digits(dtype: str, passes: int) -> None:
    search, done = Search(dtype, (50.0,)), 0
    image = np.array([0, 1, 1], dtype=dtype)
    while not search.finished:
        with pytest.raises(ValueError, match="not finished"):
            search.summary()
        search, done = search.advance(search.count(image)), done + 1
    assert done == search.passes == passes


@pytest.mark.parametrize("layout", ["strided", "reversed", "fortran", "big-endian", "read-only"])
def test_blocks_of_any_layout_are_counted_and_stay_as_they_are(layout: str) -> None:
    image = np.random.default_rng(0).normal(size=(40, 60)).astype(np.float32)
    block = {
        "strided": image[::3, 1::2], "reversed": image[::-1, ::-1], "fortran": np.asfortranarray(image),
        "big-endian": image.astype(">f4"), "read-only": image.copy(),
    }[layout]  # fmt: skip
    block.flags.writeable = layout != "read-only"
    before = block.copy()
    summary = summarize([block], "float32")
    assert list(summary.percentiles) == expected_percentiles(before)
    assert np.array_equal(block, before)


def test_nothing_warns(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    image = np.array([np.nan, np.inf, -np.inf, 1.7e308, 1e-310], dtype=np.float64)
    summarize([image], "float64", (0.0, 100.0))
    assert not recwarn.list


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16"])
def test_values_that_were_counted_very_often_are_summed_exactly_and_soon(dtype: str) -> None:
    bits = np.dtype(dtype).itemsize * 8
    every = np.arange(1 << bits, dtype=f"u{bits // 8}").view(dtype)
    counted = Search(dtype, (50.0,)).count(every)
    number = counted.number * (10**11 + 7) + np.arange(counted.number.size)
    counts = replace(counted, number=number, finite=int(number.sum()))
    seconds = []
    for _ in range(5):
        began = process_time()
        summary = Search(dtype, (50.0,)).advance(counts).summary()
        seconds.append(process_time() - began)
    # Keys sort as values do.
    values = [Fraction(value) for value in np.unique(finite(every)).tolist()]
    weighed = [value * times for value, times in zip(values, number.tolist(), strict=True)]
    mean = sum(weighed, Fraction(0)) / counts.finite
    square = sum((value * product for value, product in zip(values, weighed, strict=True)), Fraction(0)) / counts.finite
    assert summary.mean == float(mean)
    assert summary.std == pytest.approx(exact_root(square - mean * mean), rel=2**-51, abs=0)
    assert min(seconds) < 0.1


@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32", "float64"])
def test_a_search_keeps_no_number_of_single_values(dtype: str) -> None:
    image = np.random.default_rng(0).integers(0, 50000, COUNT).astype(dtype)
    search = Search(dtype, (1.0, 99.0))
    while not search.finished:
        search = search.advance(search.count(image))
        assert len(pickle.dumps(search)) < 4000
