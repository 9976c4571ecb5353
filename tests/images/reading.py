"""Regions to read, and what any image must give for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from pipeline.images.source import ImageInfo, ImageSource

__all__ = ["assert_reads", "boxes", "info_of", "opened", "pixels", "read_whole", "refused_or_right"]


@contextmanager
def opened(path: Path, series: int | None = None) -> Iterator[ImageSource]:
    """Open an image and close it again, whatever happens."""
    source = open_image(path, series)
    try:
        yield source
    finally:
        source.close()


def info_of(path: Path, series: int | None = None) -> ImageInfo:
    """Give the facts of an image."""
    with opened(path, series) as source:
        return source.info


def pixels(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> NDArray[Any]:
    """Give pixels that are all over the range of their type, so that a wrong sign or byte order shows."""
    random = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (random.normal(size=shape) * 100).astype(kind)
    if kind.kind == "b":
        return random.integers(0, 2, shape).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    """Draw a region inside an image, at least one pixel large."""
    start = [draw(st.integers(0, length - 1)) for length in shape]
    stop = [draw(st.integers(low + 1, length)) for low, length in zip(start, shape, strict=True)]
    return Box(tuple(start), tuple(stop))


def assert_reads(source: ImageSource, expected: NDArray[Any], box: Box) -> None:
    """Check a region of an image whose pixels, TCZYX, are known."""
    found = source.read(box)
    assert source.info.shape == expected.shape
    assert found.dtype.name == source.info.dtype == expected.dtype.name
    assert found.shape == box.shape
    assert np.array_equal(found, expected[box.slices])


def read_whole(path: Path, series: int | None = None) -> NDArray[Any]:
    """Open, read all and close."""
    with opened(path, series) as source:
        return source.read(Box.whole(source.info.shape))


def refused_or_right(path: Path, expected: NDArray[Any]) -> bool:
    """Say whether a damaged image was refused; if not, its pixels must be the right ones. Other errors get through."""
    try:
        found = read_whole(path)
    except ImageError:
        return True
    assert found.shape == expected.shape, "a damaged file was read as one of another shape"
    assert np.array_equal(found, expected), "a damaged file was read with wrong pixels"
    return False
