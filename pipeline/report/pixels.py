"""Planes of a result for pictures, the image and its labels, at any scale: bounded pieces, from the levels that fit."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import floor, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.transform import resize

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.source import AXES
from pipeline.inputs import Segmented, open_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import zarr
    from numpy.typing import NDArray

    from pipeline.planning import RunPlan
    from pipeline.results import Result

__all__ = ["ImagePixels", "LabelPixels", "View", "open_pixels"]

MOST_DECODED = 2**24
"""Pixels that are decoded for one picture, where the image has no level of a fitting size."""


@dataclass(frozen=True, slots=True)
class View:
    """A rectangle of one plane, and how large it is drawn.

    Parameters
    ----------
    time, plane : int
        T and Z, in the image.
    top, left, bottom, right : int
        In pixels of the image, half open.
    height, width : int
        Of the drawing, in its own pixels.
    """

    time: int
    plane: int
    top: int
    left: int
    bottom: int
    right: int
    height: int
    width: int

    @property
    def step(self) -> float:
        """Pixels of the image for one of the drawing, along the axis that has fewer of them."""
        return min((self.bottom - self.top) / self.height, (self.right - self.left) / self.width)


@dataclass(frozen=True, slots=True)
class _Level:
    shape: tuple[int, ...]
    """TCZYX."""
    block: tuple[int, ...]
    """What is decoded at once."""
    read: Callable[[Box], NDArray[np.generic]]


def _of_array(array: zarr.Array[Any], axes: str, frame: str) -> _Level:
    """Let an array be addressed in all axes of a frame."""
    at = {axis: number for number, axis in enumerate(axes)}

    def read(box: Box) -> NDArray[np.generic]:
        extent = dict(zip(frame, box.slices, strict=True))
        found = np.asarray(array[tuple(extent[axis] for axis in axes)])
        return np.expand_dims(found, tuple(number for number, axis in enumerate(frame) if axis not in at))

    return _Level(
        tuple(array.shape[at[axis]] if axis in at else 1 for axis in frame),
        tuple(array.chunks[at[axis]] if axis in at else 1 for axis in frame),
        read,
    )


class LabelPixels:
    """Labels of a result: those of objects, or of classes where there are none.

    Parameters
    ----------
    arrays : list of zarr.Array
        The levels, the finest first.
    plan : RunPlan
        The result's.
    classes : bool
        Whether these are classes, which have colours of their own.
    """

    def __init__(self, arrays: list[zarr.Array[Any]], plan: RunPlan, *, classes: bool = False) -> None:
        self.classes = classes
        axes = plan.source.axes.replace("C", "")
        self.levels = [_of_array(array, axes, "TZYX") for array in arrays]
        self.scale = plan.footprint.scale
        self.start = tuple(
            centre - (scale - 1) / 2 for centre, scale in zip(plan.centre, plan.footprint.scale, strict=True)
        )

    @property
    def planes(self) -> tuple[int, int]:
        """Number of time points and of planes, of the labels."""
        return self.levels[0].shape[0], self.levels[0].shape[1]

    def plane_of(self, plane: int) -> int:
        """Give the labels' plane that a plane of the image lies in."""
        found = floor((plane + 0.5 - self.start[1]) / self.scale[1])
        return min(max(found, 0), self.planes[1] - 1)

    def image_plane(self, plane: int, planes: int) -> int:
        """Give the image's plane in the middle of one of the labels, of so many in all."""
        return min(max(round(self.start[1] + (plane + 0.5) * self.scale[1] - 0.5), 0), planes - 1)

    def level_within(self, longest: int) -> int:
        """Give the finest level whose Y and X are not longer than this, the last one if none is so short."""
        fitting = (number for number, level in enumerate(self.levels) if max(level.shape[2:]) <= longest)
        return next(fitting, len(self.levels) - 1)

    def whole(self, time: int, plane: int, level: int) -> NDArray[np.integer[Any]]:
        """Read a plane of the labels at a level, YX."""
        shape = self.levels[level].shape
        box = Box((time, plane, 0, 0), (time + 1, plane + 1, *shape[2:]))
        found: NDArray[np.int64] = self.levels[level].read(box)[0, 0].astype(np.int64)
        return found

    def strips(self, time: int, plane: int, level: int) -> Iterator[NDArray[np.integer[Any]]]:
        """Read a plane of the labels at a level, some rows at a time."""
        found = self.levels[level]
        rows = max(1, 2**22 // found.shape[3] // found.block[2]) * found.block[2]
        for top in range(0, found.shape[2], rows):
            box = Box((time, plane, top, 0), (time + 1, plane + 1, min(top + rows, found.shape[2]), found.shape[3]))
            yield found.read(box)[0, 0]

    def at(self, view: View) -> NDArray[np.integer[Any]]:
        """Give the labels at the middle of each pixel of a drawing, YX; 0 where there are none."""
        step = view.step / max(self.scale[2:])
        level = min(max(int(step).bit_length() - 1, 0), len(self.levels) - 1)
        spans = ((view.top, view.bottom, view.height), (view.left, view.right, view.width))
        places, inside, start, stop = [], [], [], []
        for axis, (first, last, count) in enumerate(spans, 2):
            middles = first + (np.arange(count) + 0.5) * (last - first) / count
            found = np.floor((middles - self.start[axis]) / self.scale[axis]).astype(np.int64)
            inside.append((found >= 0) & (found < self.levels[0].shape[axis]))
            place = np.clip(found, 0, self.levels[0].shape[axis] - 1) >> level
            place = np.minimum(place, self.levels[level].shape[axis] - 1)
            start.append(int(place.min()))
            stop.append(int(place.max()) + 1)
            places.append(place - start[-1])
        plane = self.plane_of(view.plane)
        box = Box((view.time, plane, *start), (view.time + 1, plane + 1, *stop))
        block = self.levels[level].read(box)[0, 0].astype(np.int64)
        return np.where(np.logical_and.outer(*inside), block[np.ix_(*places)], 0)


class ImagePixels:
    """An image, from a result's copy or from the input.

    Parameters
    ----------
    levels : list
        The finest first.
    """

    def __init__(self, levels: list[_Level]) -> None:
        self.levels = levels
        self.shape = levels[0].shape

    def _box(self, level: _Level, view: View, channel: int) -> Box:
        """Give the pixels of a level that a drawing shows."""
        spans = []
        for axis, first, last in ((3, view.top, view.bottom), (4, view.left, view.right)):
            of = level.shape[axis] / self.shape[axis]
            start = min(floor(first * of), level.shape[axis] - 1)
            spans.append((start, min(max(-floor(-last * of), start + 1), level.shape[axis])))
        deep = min(view.plane * level.shape[2] // self.shape[2], level.shape[2] - 1)
        return Box(
            (view.time, channel, deep, spans[0][0], spans[1][0]),
            (view.time + 1, channel + 1, deep + 1, spans[0][1], spans[1][1]),
        )

    def at(self, view: View, channel: int) -> NDArray[np.floating] | None:
        """Give a channel of a drawing, YX: means of what each of its pixels covers; None if too much had to be read."""
        fitting = [level for level in self.levels if self.shape[4] / level.shape[4] <= view.step * 1.001]
        for level in reversed(fitting or self.levels[:1]):
            box = self._box(level, view, channel)
            if decoded(level.block, box) <= MOST_DECODED:
                return _resized(level.read(box)[0, 0, 0], (view.height, view.width))
        return None

    def samples(self, time: int, plane: int, channel: int, most: int, edge: int = 256) -> NDArray[np.generic]:
        """Give intensities of a plane at full resolution: all of them, or those of pieces spread evenly over it.

        Parameters
        ----------
        time, plane, channel : int
            Of the image.
        most : int
            Pixels that may be decoded.
        edge : int
            Of a piece.

        Returns
        -------
        ndarray, one axis
        """
        level = self.levels[0]
        height, width = level.shape[3:]

        def piece(top: int, left: int, bottom: int, right: int) -> Box:
            return Box((time, channel, plane, top, left), (time + 1, channel + 1, plane + 1, bottom, right))

        whole = piece(0, 0, height, width)
        if decoded(level.block, whole) <= most:
            return level.read(whole).ravel()
        edge = min(edge, height, width)
        each = max(decoded(level.block, piece(at, at, at + edge, at + edge)) for at in (0, min(height, width) - edge))
        along = max(1, min(int((most / each) ** 0.5), height // edge, width // edge))
        tops, lefts = (
            [round((length - edge) * (at + 0.5) / along) for at in range(along)] for length in (height, width)
        )
        found = [level.read(piece(top, left, top + edge, left + edge)).ravel() for top in tops for left in lefts]
        return np.concatenate(found)


def decoded(block: tuple[int, ...], box: Box) -> int:
    """Count the pixels that are decoded to read a box from blocks of a shape."""
    return prod(
        (-(-stop // edge) - start // edge) * edge for start, stop, edge in zip(box.start, box.stop, block, strict=True)
    )


def _resized(plane: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.floating]:
    """Bring a plane to a shape: whole pixels are averaged as far as that goes, the rest is interpolated."""
    factors = [max(1, have // want) for have, want in zip(plane.shape, shape, strict=True)]
    inside = tuple(slice(have // factor * factor) for have, factor in zip(plane.shape, factors, strict=True))
    height, width = (have // factor for have, factor in zip(plane.shape, factors, strict=True))
    pieces = plane[inside].reshape(height, factors[0], width, factors[1])
    small: NDArray[np.floating]
    if plane.dtype.kind == "f":
        wide = np.float64 if plane.dtype.itemsize > 4 else np.float32
        # Divided before they are added: the sum of numbers that are hardly finite is not.
        small = (np.where(np.isfinite(pieces), pieces, np.nan).astype(wide) / prod(factors)).sum(axis=(1, 3))
        small = np.nan_to_num(small, nan=0.0, posinf=0.0, neginf=0.0)
    else:
        small = pieces.mean(axis=(1, 3), dtype=np.float32)
    if small.shape == shape:
        return small
    smaller = any(have > want for have, want in zip(small.shape, shape, strict=True))
    order = 1 if smaller else 0
    found: NDArray[np.floating] = resize(small, shape, order=order, preserve_range=True, anti_aliasing=smaller)
    return found.astype(small.dtype)


@contextmanager
def open_pixels(result: Result, plan: RunPlan) -> Iterator[tuple[ImagePixels | None, str | None]]:
    """Open the image of a result: its copy, or else the input, as long as that is what was segmented.

    Yields
    ------
    tuple of ImagePixels or None, str or None
        The image, or why it cannot be shown.
    """
    if result.image:
        yield ImagePixels([_of_array(array, plan.source.axes, AXES) for array in result.image]), None
        return
    with ExitStack() as stack:
        try:
            sources = open_input(Segmented.of(plan))
            for source in sources:
                stack.callback(source.close)
            levels = [_Level(source.info.shape, source.info.block, source.read) for source in sources]
            found: tuple[ImagePixels | None, str | None] = ImagePixels(levels), None
        except ImageError as error:
            found = None, str(error)
        yield found
