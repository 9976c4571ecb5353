"""Objects from what all cores know of them: sums added up, without rounding, whatever the cores were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.measure.exact import PART, mean_and_std
from pipeline.measure.hull import convex_areas
from pipeline.measure.subject import Subject
from pipeline.measure.sums import EXTENT, CoreSums

__all__ = ["Objects", "merge"]

_ROOM = 2.0**62
"""What products of sums must stay below to be computed with 64-bit integers."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Whole objects, by label.

    Parameters
    ----------
    label, pixels : ndarray of int64, shape (n,)
        Number, and number of pixels.
    start, stop : ndarray of int64, shape (n, 4)
        Bounding boxes in the image, TZYX.
    first : ndarray of float64, shape (n, ndim)
        Mean coordinates, counted from the corner of the bounding box.
    second : ndarray of float64, shape (n, pairs)
        Covariances of coordinates, in the order of `Subject.pairs`.
    classes : ndarray of int64, shape (n,)
        Number of the object's class: that of most of its pixels, the first of several in the order of the settings.
    low, high : ndarray, shape (n, channels)
        Lowest and highest intensity.
    mean, std : ndarray of float64, shape (n, channels)
        Of intensities.
    convex : ndarray of int64, shape (n,)
        Pixels of the convex hull of two-dimensional objects; empty for others.
    """

    label: NDArray[np.int64]
    pixels: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    classes: NDArray[np.int64]
    low: NDArray[Any]
    high: NDArray[Any]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    convex: NDArray[np.int64]


def merge(cores: Sequence[CoreSums], subject: Subject) -> Objects:
    """Merge what several cores know of the same objects.

    Parameters
    ----------
    cores : sequence of CoreSums
        Everything that is known of these objects, in any order.
    subject : Subject
        What is measured.

    Returns
    -------
    Objects
        Functions of the whole objects alone: equal, bit for bit, for all ways to cut the image into cores.
    """
    partials = np.concatenate([np.zeros(0, subject.partial_type), *(core.partials for core in cores)])
    heights = partials["stop"][:, 2] - partials["start"][:, 2]
    rows_from = np.cumsum(heights) - heights
    order = np.argsort(partials["label"], kind="stable")
    partials = partials[order]
    heads = np.flatnonzero(np.diff(partials["label"], prepend=np.uint32(0)))
    sizes = np.diff(heads, append=partials.size)
    label = partials["label"][heads].astype(np.int64)
    pixels = _add(partials["pixels"], heads)
    start = _reduce(np.minimum, partials["start"], heads)
    stop = _reduce(np.maximum, partials["stop"], heads)
    free = 4 - subject.ndim
    extent = (stop - start)[:, free:].max(axis=1, initial=1).astype(np.float64)
    largest = np.maximum(extent, 2.0 ** (8 * subject.value_type.itemsize) if subject.sums_integers else 0.0)
    large = (pixels * largest) ** 2 >= _ROOM
    first, second = np.empty((heads.size, subject.ndim)), np.empty((heads.size, len(subject.pairs)))
    mean, std = (np.full((heads.size, len(subject.channels)), np.nan) for _ in range(2))
    corner = (partials["start"] - np.repeat(start, sizes, axis=0))[:, free:]
    for chosen, kind in ((~large, np.int64), (large, object)):
        if not chosen.any():
            continue
        # The few objects whose sums might not fit are computed with Python's integers, which know no limit.
        mine = np.repeat(chosen, sizes)
        part = partials[mine]
        begin = np.cumsum(sizes[chosen]) - sizes[chosen]
        first[chosen], second[chosen] = _moments(part, corner[mine], begin, subject, kind)
        if subject.sums_integers:
            mean[chosen], std[chosen] = _intensities(part, begin, kind)
    if not subject.sums_integers:
        _real_intensities(
            np.concatenate([np.zeros(0, PART), *(core.parts for core in cores)]), label, pixels, mean, std
        )
    convex = np.zeros(0, dtype=np.int64)
    if subject.ndim == 2:
        rows = np.concatenate([np.zeros(0, EXTENT), *(core.extents for core in cores)])
        convex = _convex(partials, rows, rows_from[order], sizes, start, stop)
    return Objects(
        label,
        pixels,
        start,
        stop,
        first,
        second,
        _classes(partials, heads, subject),
        _reduce(np.minimum, partials["low"], heads),
        _reduce(np.maximum, partials["high"], heads),
        mean,
        std,
        convex,
    )


def _reduce(function: np.ufunc, values: NDArray[Any], heads: NDArray[np.int64]) -> NDArray[Any]:
    """Reduce what cores know to what is true of objects."""
    if not heads.size:
        return values[:0]
    reduced: NDArray[Any] = function.reduceat(values, heads, axis=0)
    return reduced


def _add(values: NDArray[Any], heads: NDArray[np.int64]) -> NDArray[Any]:
    return _reduce(np.add, values, heads)


def _classes(partials: NDArray[Any], heads: NDArray[np.int64], subject: Subject) -> NDArray[np.int64]:
    """Give each object's class."""
    if not subject.counts_classes:
        return np.full(heads.size, subject.object_classes[0], dtype=np.int64)
    most: NDArray[np.intp] = _add(partials["classes"], heads).argmax(axis=1)
    chosen: NDArray[np.int64] = np.asarray(subject.object_classes, dtype=np.int64)[most]
    return chosen


def _moments(
    part: NDArray[Any], corner: NDArray[np.int64], heads: NDArray[np.int64], subject: Subject, kind: type
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give means and covariances of coordinates.

    What is rounded is the quotient of two whole numbers, so that it does not matter from where coordinates are counted.
    """
    count: NDArray[Any] = part["pixels"].astype(kind)
    shift: NDArray[Any] = corner.astype(kind)
    sums: NDArray[Any] = part["first"].astype(kind)
    products: NDArray[Any] = part["second"].astype(kind)
    total = [_add(sums[:, axis] + count * shift[:, axis], heads) for axis in range(subject.ndim)]
    pixels = _add(count, heads)
    first = np.stack([_quotient(of_axis, pixels) for of_axis in total], axis=1)
    second = []
    for at, (one, other) in enumerate(subject.pairs):
        moved = (
            products[:, at]
            + sums[:, one] * shift[:, other]
            + sums[:, other] * shift[:, one]
            + count * shift[:, one] * shift[:, other]
        )
        second.append(_quotient(pixels * _add(moved, heads) - total[one] * total[other], pixels * pixels))
    return first, np.stack(second, axis=1)


def _quotient(dividend: NDArray[Any], divisor: NDArray[Any]) -> NDArray[np.float64]:
    """Divide whole numbers, each rounded to 53 binary digits before."""
    quotient: NDArray[np.float64] = dividend.astype(np.float64) / divisor.astype(np.float64)
    return quotient


def _intensities(
    part: NDArray[Any], heads: NDArray[np.int64], kind: type
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give mean and standard deviation of intensities that were summed as integers."""
    pixels = _add(part["pixels"].astype(kind), heads)[:, np.newaxis]
    total, squares = _add(part["total"].astype(kind), heads), _add(part["squares"].astype(kind), heads)
    return _quotient(total, pixels), np.sqrt(_quotient(pixels * squares - total * total, pixels * pixels))


def _real_intensities(
    parts: NDArray[Any],
    label: NDArray[np.int64],
    pixels: NDArray[np.int64],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
) -> None:
    """Fill in mean and standard deviation of intensities that were summed as real numbers."""
    parts = parts[np.lexsort((parts["power"], parts["channel"], parts["label"]))]
    keys = np.flatnonzero(
        (np.diff(parts["label"], prepend=np.uint32(0)) != 0)
        | (np.diff(parts["channel"], prepend=np.uint16(0)) != 0)
        | (np.diff(parts["power"], prepend=np.uint8(0)) != 0)
    )
    values = np.split(parts["value"], keys[1:])
    rows = np.searchsorted(label, parts["label"][keys])
    for at in range(0, keys.size, 2):
        row, channel = int(rows[at]), int(parts["channel"][keys[at]])
        found = mean_and_std(int(pixels[row]), values[at].tolist(), values[at + 1].tolist())
        mean[row, channel], std[row, channel] = found


def _convex(
    partials: NDArray[Any],
    rows: NDArray[Any],
    row: NDArray[np.int64],
    sizes: NDArray[np.int64],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Unite the extents that objects have in the rows of several cores, and count the pixels of their hulls."""
    heights = stop[:, 2] - start[:, 2]
    offsets = np.cumsum(heights) - heights
    low = np.full(int(heights.sum()), np.iinfo(np.int32).max, dtype=np.int64)
    high = np.full(low.size, -1, dtype=np.int64)
    lengths = partials["stop"][:, 2] - partials["start"][:, 2]
    inside = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    source = np.repeat(row, lengths) + inside
    corner = np.repeat(offsets - start[:, 2], sizes) + partials["start"][:, 2]
    target = np.repeat(corner, lengths) + inside
    np.minimum.at(low, target, rows["low"][source].astype(np.int64))
    np.maximum.at(high, target, rows["high"][source].astype(np.int64))
    shift = np.repeat(start[:, 3], heights)
    return convex_areas(low - shift, high - shift, heights)
