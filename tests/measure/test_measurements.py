"""Measured core by core and merged: what scikit-image measures in the whole image, the same bits for all cores."""

from __future__ import annotations

import dataclasses
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from pipeline.errors import GeometryError
from pipeline.geometry import Box
from pipeline.measure.columns import columns, measurements
from pipeline.measure.merging import Objects, merge
from pipeline.measure.subject import Subject
from pipeline.measure.sums import sum_core

SPACING, TRANSLATION = (2.5, 0.5, 0.325), (7.0, -100.25, 3000.0)


def subject_of(labels: NDArray[Any], image: NDArray[Any], ndim: Literal[2, 3], classes: int = 1) -> Subject:
    """TZYX labels, TCZYX image."""
    return Subject(
        shape=labels.shape, axes="TZYX", ndim=ndim, spacing=SPACING[-ndim:], translation=TRANSLATION[-ndim:],
        unit="micrometer", classes=tuple(f"class {number}" for number in range(classes + 1)),
        object_classes=tuple(range(1, classes + 1)), channels=tuple(f"channel {at}" for at in range(image.shape[1])),
        dtype=image.dtype.name,
    )  # fmt: skip


def objects_of(
    labels: NDArray[Any], image: NDArray[Any], subject: Subject, core: tuple[int, ...],
    semantic: NDArray[Any] | None = None, reverse: bool = False,
) -> Objects:  # fmt: skip
    """Cut into cores, sum up each, merge."""
    found = []
    for corner in product(*(range(0, length, edge) for length, edge in zip(labels.shape, core, strict=True))):
        owned = Box(corner, tuple(at + edge for at, edge in zip(corner, core, strict=True))).clip(labels.shape)
        found.append(
            sum_core(
                labels[owned.slices].astype(np.uint32),
                owned,
                subject,
                lambda channel, owned=owned: image[:, channel][owned.slices],  # type: ignore[misc]
                None if semantic is None else semantic[owned.slices],
            )
        )
    return merge(found[::-1] if reverse else found, subject)


def assert_same(one: Objects, other: Objects) -> None:
    for field in dataclasses.fields(Objects):
        left, right = getattr(one, field.name), getattr(other, field.name)
        assert left.dtype == right.dtype, field.name
        np.testing.assert_array_equal(left, right, field.name)


def scikit_images(labels: NDArray[Any], image: NDArray[Any], subject: Subject) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give scikit-image's table in pixels, and that in units: of each plane, or each volume, by itself."""
    names = ["label", "area", "centroid", "bbox", "axis_major_length", "axis_minor_length"]
    if subject.ndim == 2:
        names += ["orientation", "eccentricity", "solidity"]
    intensities = [f"intensity_{name}" for name in ("mean", "min", "max", "std")]
    inside, physical = [], []
    for frame in np.ndindex(*labels.shape[: 4 - subject.ndim]):
        channels = np.stack([image[:, at][frame] for at in range(image.shape[1])], axis=-1)
        if channels.dtype == np.float32:
            # Of these, NumPy would take the mean in single precision.
            channels = channels.astype(np.float64)
        inside.append(measure.regionprops_table(labels[frame], channels, properties=[*names, *intensities]))
        properties = [name for name in names if name != "bbox"]
        physical.append(measure.regionprops_table(labels[frame], properties=properties, spacing=subject.spacing))
    return tuple(pd.concat(map(pd.DataFrame, tables), ignore_index=True) for tables in (inside, physical))  # type: ignore[return-value]


def assert_scikit_images(labels: NDArray[Any], image: NDArray[Any], subject: Subject, found: Objects) -> None:
    table = pd.DataFrame(measurements(found, subject))
    inside, physical = scikit_images(labels, image, subject)
    exact = ["label", "area", *(f"bbox-{at}" for at in range(2 * subject.ndim)), *(["solidity"] * (subject.ndim == 2))]
    for name in map(str, inside):
        if name in exact or name.startswith(("intensity_min", "intensity_max")):
            np.testing.assert_array_equal(table[name], inside[name], name)
        elif name.startswith(("centroid", "intensity")):
            np.testing.assert_allclose(table[name], inside[name], rtol=1e-9, atol=1e-9, err_msg=name)
    for suffix, expected in (("", inside), ("_physical", physical)):
        for name in ("axis_major_length", "axis_minor_length"):
            # What is zero is the root of a rounding error there.
            np.testing.assert_allclose(table[name + suffix], expected[name], rtol=1e-9, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(table["area" + suffix], expected["area"], rtol=1e-12, err_msg="area")
        if subject.ndim == 2:
            assert_orientation(table, expected, suffix)
    for axis in range(subject.ndim):
        moved = physical[f"centroid-{axis}"] + subject.translation[axis]
        np.testing.assert_allclose(table[f"centroid_physical-{axis}"], moved, rtol=1e-9)


def assert_orientation(table: pd.DataFrame, expected: pd.DataFrame, suffix: str) -> None:
    """An orientation is one up to half a turn, and a circle has none."""
    major, minor = expected["axis_major_length"], expected["axis_minor_length"]
    long = (major - minor > 1e-5 * major).to_numpy()
    turned = (table["orientation" + suffix] - expected["orientation"])[long] / np.pi
    np.testing.assert_allclose(turned - turned.round(), 0, atol=1e-7)
    np.testing.assert_allclose(table["eccentricity" + suffix][long], expected["eccentricity"][long], rtol=1e-9)
    assert (table["eccentricity" + suffix][~long] < 0.01).all()


def blobs(shape: tuple[int, ...], ndim: int, seed: int = 0) -> NDArray[np.int64]:
    """Label blobs of all forms, each plane or volume by itself, with numbers that go on."""
    noise = np.random.default_rng(seed).normal(size=shape)
    sigma = (0, 0, 1.5, 1.5) if ndim == 2 else (0, 1, 1, 1)
    mask = ndimage.gaussian_filter(noise, sigma) > (0.03 if ndim == 2 else 0.2)
    labels, count = np.zeros(shape, dtype=np.int64), 0
    for frame in np.ndindex(*shape[: 4 - ndim]):
        found = measure.label(mask[frame], connectivity=1)
        labels[frame] = np.where(found > 0, found + count, 0)
        count += found.max()
    return labels


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_objects_measure_what_scikit_image_says(ndim: Literal[2, 3], dtype: str) -> None:
    shape = (2, 3, 70, 81) if ndim == 2 else (2, 14, 30, 41)
    labels = blobs(shape, ndim)
    random = np.random.default_rng(1)
    if np.dtype(dtype).kind == "f":
        image = random.lognormal(3, 5, (2, 2, *shape[1:])).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        image = random.integers(limits.min, limits.max, (2, 2, *shape[1:]), dtype=dtype, endpoint=True)
    subject = subject_of(labels, image, ndim)
    whole = objects_of(labels, image, subject, (1, *([1] * (ndim == 2)), *shape[4 - ndim :]))
    assert len(whole.label) > 20
    assert_scikit_images(labels, image, subject, whole)
    cuts = ((1, 1, 16, 32), (1, 1, 7, 5)) if ndim == 2 else ((1, 4, 16, 16), (1, 5, 7, 3))
    assert_same(objects_of(labels, image, subject, cuts[0]), whole)
    assert_same(objects_of(labels, image, subject, cuts[1], reverse=True), whole)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), ndim=st.sampled_from([2, 3]), dtype=st.sampled_from(["uint8", "bool", "float32", "float64"]))
def test_sums_of_parts_are_those_of_the_whole(data: st.DataObject, ndim: Literal[2, 3], dtype: str) -> None:
    """Whatever the labels are, in pieces or not: any cut gives the same."""
    shape = data.draw(st.tuples(st.just(1), st.just(1) if ndim == 2 else st.integers(1, 4), *[st.integers(1, 12)] * 2))
    labels = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 3)))
    elements: Any = None
    if dtype.startswith("float"):
        elements = st.floats(width=int(dtype[-2:]), allow_nan=True, allow_infinity=True)  # type: ignore[arg-type]
    image = data.draw(hnp.arrays(dtype, (1, 1, *shape[1:]), elements=elements))
    subject = subject_of(labels, image, ndim)
    core = (1, *(data.draw(st.integers(1, length)) for length in shape[1:]))
    with np.errstate(invalid="ignore"):
        found = objects_of(labels, image, subject, core, reverse=data.draw(st.booleans()))
        assert_same(found, objects_of(labels, image, subject, shape))
    np.testing.assert_array_equal(found.label, np.unique(labels[labels > 0]))


@settings(max_examples=150, deadline=None)
@given(mask=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_hulls_are_scikit_images(mask: NDArray[np.bool_]) -> None:
    """Of what is in one piece and of what is not."""
    labels = mask.astype(np.int64)[np.newaxis, np.newaxis]
    image = np.zeros((1, 1, *labels.shape[1:]), dtype=np.uint8)
    found = objects_of(labels, image, subject_of(labels, image, 2), labels.shape).convex
    expected = [region.area_convex for region in measure.regionprops(mask.astype(np.int64))]
    np.testing.assert_array_equal(found, expected)


def test_hulls_of_real_forms_are_scikit_images() -> None:
    y, x = np.mgrid[:200, :300]
    distance = np.hypot(y - 100, (x - 150) * 0.7)
    forms = [
        distance < 90,
        (distance < 90) & (distance > 80),
        (np.sin(x / 9) * 80 + 100 - y > -4) & (np.sin(x / 9) * 80 + 100 - y < 4),
        (y == 5) | (x == 290),
        abs(y * 3 - x) < 4,
    ]
    for form in forms:
        labels = form.astype(np.int64)[np.newaxis, np.newaxis]
        image = np.zeros((1, 1, *labels.shape[1:]), dtype=np.uint8)
        (found,) = objects_of(labels, image, subject_of(labels, image, 2), (1, 1, 64, 64)).convex
        assert found == measure.regionprops(form.astype(np.int64))[0].area_convex


def test_objects_are_of_the_class_of_most_of_their_pixels() -> None:
    labels = blobs((1, 1, 50, 60), 2)
    image = np.zeros((1, 1, 1, 50, 60), dtype=np.uint8)
    semantic = np.random.default_rng(0).integers(0, 4, labels.shape).astype(np.uint8)
    subject = subject_of(labels, image, 2, classes=3)
    found = objects_of(labels, image, subject, (1, 1, 16, 16), semantic)
    for label, number in zip(found.label, found.classes, strict=True):
        assert number == 1 + np.bincount(semantic[labels == label], minlength=4)[1:].argmax()
    assert set(found.classes.tolist()) == {1, 2, 3}
    with pytest.raises(GeometryError, match="classes"):
        objects_of(labels, image, subject, (1, 1, 16, 16))


def test_sums_beyond_64_bits_are_exact() -> None:
    """A large object far along the axes: its second moments have more digits than a 64-bit integer."""
    shape = (1, 1, 3, 3_000_000)
    labels = np.ones(shape, dtype=np.int64)
    image = np.full((1, 1, *shape[1:]), 65535, dtype=np.uint16)
    image[..., ::2] = 65533
    subject = subject_of(labels, image, 2)
    found = objects_of(labels, image, subject, (1, 1, 3, 700_000))
    assert_same(found, objects_of(labels, image, subject, (1, 1, 2, 500_000)))
    length = shape[3]
    assert found.second[0].tolist() == [2 / 3, 0, pytest.approx((length**2 - 1) / 12, rel=1e-15)]
    assert (found.mean[0, 0], found.std[0, 0]) == (65534, 1)
    assert found.convex[0] == labels.size


def test_values_that_are_not_finite_have_no_mean() -> None:
    labels = np.array([[[[1, 1, 1, 2, 2, 2]]]])
    image = np.array([1.0, np.nan, 2.0, 1e20, 1.0, -1e20], dtype=np.float64).reshape(1, 1, 1, 1, 6)
    found = objects_of(labels, image, subject_of(labels, image, 2), (1, 1, 1, 2))
    assert np.isnan([found.mean[0, 0], found.std[0, 0], found.low[0, 0]]).all()
    # Rounded at each step, this would be zero.
    assert found.mean[1, 0] == 1 / 3


def test_values_whose_squares_are_very_large_have_a_mean() -> None:
    labels = np.array([[[[1, 1, 1, 1]]]])
    image = np.array([1e140, 3e140, 1e140, 3e140], dtype=np.float64).reshape(1, 1, 1, 1, 4)
    found = objects_of(labels, image, subject_of(labels, image, 2), (1, 1, 1, 2))
    np.testing.assert_allclose([found.mean[0, 0], found.std[0, 0]], [2e140, 1e140], rtol=1e-15)


def test_no_objects_give_all_columns() -> None:
    labels = np.zeros((1, 1, 5, 6), dtype=np.int64)
    image = np.zeros((1, 2, 1, 5, 6), dtype=np.float32)
    subject = subject_of(labels, image, 2)
    found = measurements(objects_of(labels, image, subject, labels.shape), subject)
    assert list(found) == [column.name for column in columns(subject)]
    assert {values.size for values in found.values()} == {0}


def test_labels_of_another_shape_are_refused() -> None:
    labels = np.zeros((1, 1, 5, 6), dtype=np.uint32)
    subject = subject_of(labels, np.zeros((1, 1, 1, 5, 6), dtype=np.uint8), 2)
    with pytest.raises(GeometryError, match="cannot fill"):
        sum_core(labels, Box.whole((1, 1, 5, 7)), subject, lambda _: labels)
