from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.geometry import Box, mirror_index
from pipeline.images.mirrored import read_window
from tests.images.reading import opened, pixels
from tests.images.zarrs import array


class Image:
    """Gives regions of an array as an open image does, and keeps which."""

    def __init__(self, data: NDArray[Any]) -> None:
        self.data = data
        self.boxes: list[Box] = []

    def read(self, box: Box) -> NDArray[Any]:
        assert Box.whole(self.data.shape).contains(box)
        self.boxes.append(box)
        return self.data[box.slices].copy()


@st.composite
def windows(draw: st.DrawFn) -> tuple[tuple[int, ...], Box, tuple[int, ...]]:
    """Draw an image's shape, a window that may lie anywhere, and channels in any order."""
    shape = tuple(draw(st.integers(1, most)) for most in (3, 4, 5, 12, 12))
    time = draw(st.integers(0, shape[0] - 1))
    start = [draw(st.integers(-3 * length - 5, 3 * length + 5)) for length in shape[2:]]
    stop = [low + draw(st.integers(1, 3 * length + 5)) for low, length in zip(start, shape[2:], strict=True)]
    channels = draw(st.lists(st.integers(0, shape[1] - 1), min_size=1, max_size=5))
    return shape, Box((time, *start), (time + 1, *stop)), tuple(channels)


def padded(image: NDArray[Any], window: Box) -> NDArray[Any]:
    """Cut the window from the image of one time point (CZYX) padded far enough on all sides by numpy."""
    widths = [
        (max(0, -start), max(0, stop - length))
        for start, stop, length in zip(window.start[1:], window.stop[1:], image.shape[1:], strict=True)
    ]
    whole = np.pad(image, [(0, 0), *widths], mode="reflect")
    ends = zip(window.start[1:], window.stop[1:], widths, strict=True)
    return whole[(slice(None), *(slice(start + before, stop + before) for start, stop, (before, _) in ends))]


@settings(max_examples=400, deadline=None)
@given(windows())
def test_a_window_is_the_same_window_of_the_image_that_numpy_pads(
    given_window: tuple[tuple[int, ...], Box, tuple[int, ...]],
) -> None:
    shape, window, channels = given_window
    image = Image(pixels(shape))
    found = read_window(image.read, shape, window, channels)
    assert found.shape == (len(channels), *window.shape[1:])
    assert found.dtype == image.data.dtype
    assert np.array_equal(found, padded(image.data[window.start[0]], window)[list(channels)])


@settings(max_examples=100, deadline=None)
@given(windows())
def test_a_window_is_what_the_mirrored_positions_hold(
    given_window: tuple[tuple[int, ...], Box, tuple[int, ...]],
) -> None:
    shape, window, channels = given_window
    image = Image(pixels(shape))
    found = read_window(image.read, shape, window, channels)
    places = [
        [mirror_index(position, length) for position in range(start, stop)]
        for start, stop, length in zip(window.start[1:], window.stop[1:], shape[2:], strict=True)
    ]
    assert np.array_equal(found, image.data[window.start[0]][np.ix_(channels, *places)])


@settings(max_examples=100, deadline=None)
@given(windows())
def test_what_is_read_are_the_wanted_channels_no_larger_than_needed(
    given_window: tuple[tuple[int, ...], Box, tuple[int, ...]],
) -> None:
    shape, window, channels = given_window
    image = Image(pixels(shape))
    read_window(image.read, shape, window, channels)
    read = [channel for box in image.boxes for channel in range(box.start[1], box.stop[1])]
    assert sorted(read) == sorted(set(channels))
    for box in image.boxes:
        assert (box.start[0], box.stop[0]) == (window.start[0], window.stop[0])
        for axis in (1, 2, 3):
            length = shape[axis + 1]
            places = {mirror_index(position, length) for position in range(window.start[axis], window.stop[axis])}
            assert (box.start[axis + 1], box.stop[axis + 1]) == (min(places), max(places) + 1)


@settings(max_examples=100, deadline=None)
@given(windows(), st.integers(1, 5))
def test_channels_that_are_decoded_together_are_read_at_once(
    given_window: tuple[tuple[int, ...], Box, tuple[int, ...]], together: int
) -> None:
    shape, window, channels = given_window
    image = Image(pixels(shape))
    found = read_window(image.read, shape, window, channels, together)
    assert np.array_equal(found, padded(image.data[window.start[0]], window)[list(channels)])
    groups = [{channel // together for channel in range(box.start[1], box.stop[1])} for box in image.boxes]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert set.union(*groups) == {channel // together for channel in channels}


def test_inside_the_image_a_window_is_what_lies_there() -> None:
    image = Image(pixels((2, 2, 5, 30, 40)))
    found = read_window(image.read, image.data.shape, Box((1, 1, 3, 4), (2, 4, 20, 30)), (0, 1))
    assert np.array_equal(found, image.data[1, :, 1:4, 3:20, 4:30])


@pytest.mark.parametrize(("start", "stop"), [(-7, 9), (-1, 1), (0, 8), (5, 6)])
def test_an_axis_of_one_pixel_is_that_pixel_again_and_again(start: int, stop: int) -> None:
    image = Image(pixels((1, 1, 1, 1, 1)))
    found = read_window(image.read, image.data.shape, Box((0, start, start, start), (1, stop, stop, stop)), (0,))
    assert set(found.ravel().tolist()) == {int(image.data.item())}


def test_two_pixels_swing_to_and_fro() -> None:
    image = Image(np.array([[[[[10, 20]]]]]))
    found = read_window(image.read, image.data.shape, Box((0, 0, 0, -3), (1, 1, 1, 5)), (0,))
    assert found[0, 0, 0].tolist() == [20, 10, 20, 10, 20, 10, 20, 10]


def test_windows_of_a_file_are_mirrored_too(tmp_path: Path) -> None:
    data = pixels((3, 20, 30))
    array(tmp_path / "a.zarr", data, 3, dimension_names=["c", "y", "x"])
    window = Box((0, 0, -25, 10), (1, 1, 45, 90))
    with opened(tmp_path / "a.zarr") as source:
        found = read_window(source.read, source.info.shape, window, (2, 0))
    assert np.array_equal(found, padded(data[[2, 0], None], window))
