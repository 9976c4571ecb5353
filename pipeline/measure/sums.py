"""What one core knows of the objects in it: exact sums over runs of equal labels along X."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GeometryError
from pipeline.geometry import Box
from pipeline.measure.exact import PART, exact_parts, squares
from pipeline.measure.subject import Subject

__all__ = ["EXTENT", "CoreSums", "sum_core"]

EXTENT = np.dtype([("low", "i4"), ("high", "i4")])
"""First and last X, in the image, that an object has in a row; ``low`` above ``high`` where it has none."""


@dataclass(frozen=True, eq=False)
class CoreSums:
    """What one core knows of the objects in it.

    Parameters
    ----------
    partials : ndarray of `Subject.partial_type`, shape (n,)
        One per object that has pixels in the core, by label.
    extents : ndarray of `EXTENT`
        For two-dimensional objects, one per object and row of its bounding box in the core.
    parts : ndarray of `PART`
        For images that are not summed as integers, parts of sums of intensities, by label.
    """

    partials: NDArray[Any]
    extents: NDArray[Any]
    parts: NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of equal labels along X, of all objects, in raster order."""

    edges: NDArray[np.int64]
    """Where runs start, of background, too: flat indices."""
    kept: NDArray[np.intp]
    """Which of these are of objects, sorted by object; in raster order within each."""
    heads: NDArray[np.int64]
    """Where each object's runs start among those that are kept."""

    def add(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Add up a value for each pixel, per object."""
        per_run = np.add.reduceat(values, self.edges, dtype=np.int64)[self.kept]
        return np.add.reduceat(per_run, self.heads)

    def reduce(self, function: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """Reduce a value for each pixel, per object."""
        reduced: NDArray[Any] = function.reduceat(function.reduceat(values, self.edges)[self.kept], self.heads)
        return reduced


def sum_core(
    labels: NDArray[np.uint32],
    owned: Box,
    subject: Subject,
    channel: Callable[[int], NDArray[Any]],
    semantic: NDArray[np.uint8] | None = None,
) -> CoreSums:
    """Sum up what one core knows of the objects in it.

    Parameters
    ----------
    labels : ndarray of uint32, TZYX
        Final numbers of the objects in the core, 0 for background.
    owned : Box
        Where the core lies in the image, TZYX.
    subject : Subject
        What is measured.
    channel : callable
        Gives a channel of the image in the core: TZYX, of the image's type. Called once for each, in order, if there
        are objects.
    semantic : ndarray of uint8, TZYX, optional
        Classes in the core; needed where objects may be of several.

    Returns
    -------
    CoreSums

    Raises
    ------
    GeometryError
        If the labels do not have the core's shape.
    """
    if labels.shape != owned.shape:
        raise GeometryError(f"labels of shape {labels.shape} cannot fill a core of shape {owned.shape}")
    flat = np.ascontiguousarray(labels).ravel()
    starts = np.empty(flat.size, dtype=np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=starts[1:])
    starts[:: owned.shape[3]] = True
    edges = np.flatnonzero(starts)
    of_run = flat[edges]
    chosen = np.flatnonzero(of_run)
    kept = chosen[np.argsort(of_run[chosen], kind="stable")]
    sorted_labels = of_run[kept]
    heads = np.flatnonzero(np.diff(sorted_labels, prepend=np.uint32(0)))
    partials = np.zeros(heads.size, dtype=subject.partial_type)
    if not heads.size:
        return CoreSums(partials, np.zeros(0, EXTENT), np.zeros(0, PART))
    partials["label"] = sorted_labels[heads]
    length = np.diff(edges, append=flat.size)[kept]
    *position, first = (axis.astype(np.int64) for axis in np.unravel_index(edges[kept], owned.shape))
    runs = _Runs(edges, kept, heads)
    _place(partials, position, first, length, heads, owned, subject)
    extents = _extents(partials, position[2], first, length, heads, owned) if subject.ndim == 2 else np.zeros(0, EXTENT)
    if subject.counts_classes:
        if semantic is None:
            raise GeometryError("objects of several classes are measured with the classes of their pixels")
        classes = semantic.ravel()
        for at, number in enumerate(subject.object_classes):
            partials["classes"][:, at] = runs.add(classes == number)
    found: list[NDArray[Any]] = [np.zeros(0, PART)]
    order = None if subject.sums_integers else _by_object(flat)
    for at in range(len(subject.channels)):
        values = np.ascontiguousarray(channel(at)).ravel().astype(subject.value_type, copy=False)
        partials["low"][:, at] = runs.reduce(np.minimum, values)
        partials["high"][:, at] = runs.reduce(np.maximum, values)
        if order is None:
            partials["total"][:, at] = runs.add(values)
            partials["squares"][:, at] = runs.add(np.multiply(values, values, dtype=np.int64))
        else:
            found.append(_parts(partials, values[order].astype(np.float64), at))
    parts = np.concatenate(found)
    return CoreSums(partials, extents, parts[np.argsort(parts["label"], kind="stable")])


def _place(
    partials: NDArray[Any],
    position: Sequence[NDArray[np.int64]],
    first: NDArray[np.int64],
    length: NDArray[np.int64],
    heads: NDArray[np.int64],
    owned: Box,
    subject: Subject,
) -> None:
    """Find sizes, bounding boxes and moments from runs, sorted by object: T, Z and Y, first X, and length."""
    partials["pixels"] = np.add.reduceat(length, heads)
    sizes = np.diff(heads, append=length.size)
    for axis, (low, high) in enumerate((*((at, at) for at in position), (first, first + length - 1))):
        partials["start"][:, axis] = np.minimum.reduceat(low, heads) + owned.start[axis]
        partials["stop"][:, axis] = np.maximum.reduceat(high, heads) + owned.start[axis] + 1
    corner = np.repeat(partials["start"] - np.array(owned.start), sizes, axis=0)
    # Along all axes but X a run has one coordinate; along X it has consecutive ones.
    free = 4 - subject.ndim
    coordinates = [at - corner[:, axis] for axis, at in enumerate(position)][free:]
    begin = first - corner[:, 3]
    along_x = length * (2 * begin + length - 1) // 2
    for at, coordinate in enumerate(coordinates):
        partials["first"][:, at] = np.add.reduceat(length * coordinate, heads)
    partials["first"][:, -1] = np.add.reduceat(along_x, heads)
    last = subject.ndim - 1
    for at, (one, other) in enumerate(subject.pairs):
        if one == last:
            product = _squares_below(begin + length) - _squares_below(begin)
        elif other == last:
            product = coordinates[one] * along_x
        else:
            product = length * coordinates[one] * coordinates[other]
        partials["second"][:, at] = np.add.reduceat(product, heads)


def _squares_below(stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add up the squares of 0, 1, ..., stop - 1."""
    return (stop - 1) * stop * (2 * stop - 1) // 6


def _extents(
    partials: NDArray[Any],
    row: NDArray[np.int64],
    first: NDArray[np.int64],
    length: NDArray[np.int64],
    heads: NDArray[np.int64],
    owned: Box,
) -> NDArray[Any]:
    """Note first and last X of each object in each row, and where each object's rows begin."""
    heights = partials["stop"][:, 2] - partials["start"][:, 2]
    partials["row"] = np.cumsum(heights) - heights
    extents = np.empty(int(heights.sum()), dtype=EXTENT)
    extents["low"], extents["high"] = np.iinfo(np.int32).max, -1
    sizes = np.diff(heads, append=row.size)
    where = np.repeat(partials["row"] - partials["start"][:, 2], sizes) + row + owned.start[2]
    # Runs of an object are in raster order: those of one row follow one another.
    begins = np.flatnonzero(np.diff(where, prepend=-1))
    ends = np.append(begins[1:], where.size) - 1
    extents["low"][where[begins]] = first[begins] + owned.start[3]
    extents["high"][where[begins]] = first[ends] + length[ends] - 1 + owned.start[3]
    return extents


def _by_object(flat: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Order the pixels of objects by object."""
    inside = np.flatnonzero(flat)
    return inside[np.argsort(flat[inside], kind="stable")]


def _parts(partials: NDArray[Any], values: NDArray[np.float64], channel: int) -> NDArray[Any]:
    """Sum a channel's values, sorted by object, without rounding."""
    rows: list[tuple[int, int, int, float]] = []
    stops = np.cumsum(partials["pixels"])
    for label, start, stop in zip(partials["label"].tolist(), stops - partials["pixels"], stops, strict=True):
        mine = values[start:stop]
        rows += [(label, channel, 1, part) for part in exact_parts(mine)]
        rows += [(label, channel, 2, part) for part in exact_parts(squares(mine))]
    return np.array(rows, dtype=PART)
