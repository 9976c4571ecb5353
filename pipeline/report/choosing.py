"""What is shown of an image: the plane with most objects, and where in it they are dense. Labels alone decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.report.pixels import LabelPixels, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.planning import RunPlan

__all__ = ["Zooms", "choose_plane", "choose_strip", "choose_zooms"]

MOST_PLANES = 64
"""Planes that are looked at to find the one to show."""

LONGEST_MAP = 2048
"""Pixels of Y or X of the level on which the dense place is looked for."""

DRAWN = 900
"""Longest edge of a drawing, in its own pixels."""

STRIP, STRIP_DRAWN = 8, 240
"""Planes of a series that are shown small, and how small."""

CLOSE = 320
"""Edge of the close-up, in pixels of the labels."""

Zooms = list[View]
"""The whole plane, a part of it, and a part of that; fewer where the image is small."""


def _edges(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Say which pixels differ from the one to the right or below: the more of them, the more there is to see."""
    found = np.zeros(labels.shape, dtype=bool)
    found[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    found[:-1] |= labels[1:] != labels[:-1]
    return found


def _evenly(count: int, most: int) -> list[int]:
    """Give indices spread evenly over a range, all of them where they are few."""
    return list(range(count)) if count <= most else [int((at + 0.5) * count / most) for at in range(most)]


def choose_plane(labels: LabelPixels, plan: RunPlan) -> tuple[int, int]:
    """Give the time point and the plane, of the image, with the most edges of labels; of many, some are looked at."""
    times, planes = labels.planes
    level = labels.level_within(256)
    best, chosen = -1, (0, 0)
    for at in _evenly(times * planes, MOST_PLANES):
        time, plane = divmod(at, planes)
        count = int(np.count_nonzero(_edges(labels.whole(time, plane, level)))) if times * planes > 1 else 0
        if count > best:
            best, chosen = count, (time, plane)
    return chosen[0], labels.image_plane(chosen[1], plan.source.shape[2])


def choose_strip(plan: RunPlan, time: int, plane: int) -> list[View]:
    """Give small views of whole planes along the longer of T and Z, through the chosen one; none of a single plane."""
    times, _, planes, *_ = plan.source.shape
    if max(times, planes) == 1:
        return []
    height, width = _drawn(plan, plan.source.shape[3], plan.source.shape[4], STRIP_DRAWN)
    places = ([(time, at) for at in _evenly(planes, STRIP)] if planes > times
              else [(at, plane) for at in _evenly(times, STRIP)])  # fmt: skip
    return [View(t, z, 0, 0, *plan.source.shape[3:], height, width) for t, z in places]


def _drawn(plan: RunPlan, height: int, width: int, longest: int) -> tuple[int, int]:
    """Give the size of a drawing of so many pixels, as wide for its height as the pixels are in truth."""
    tall, wide = (height * _aspect(plan), float(width))
    by = min(1.0, longest / max(tall, wide))
    return max(1, round(tall * by)), max(1, round(wide * by))


def _aspect(plan: RunPlan) -> float:
    """Give the height of a pixel in widths; 1 where that is unknown, or no picture could be drawn so."""
    sizes = plan.subject.spacing[-2:]
    ratio = sizes[0] / sizes[1] if plan.subject.unit is not None else 1.0
    return ratio if 1 / 8 <= ratio <= 8 else 1.0


def choose_zooms(labels: LabelPixels, plan: RunPlan, time: int, plane: int) -> Zooms:
    """Give the whole plane, and two parts of it around where the labels have most edges.

    Parameters
    ----------
    labels : LabelPixels
        Of objects, or of classes where there are none.
    plan : RunPlan
        The result's.
    time, plane : int
        Of the image.

    Returns
    -------
    list of View
        Of the whole, of a part whose edge is the geometric mean of the other two, and of a close-up, whose pixels are
        those of the image.
    """
    height, width = plan.source.shape[3:]
    whole = View(time, plane, 0, 0, height, width, *_drawn(plan, height, width, DRAWN))
    longest = max(height, width)
    close = min(CLOSE * max(labels.scale[2:]), max(longest // 3, 96))
    if longest < 1.5 * close:
        return [whole]
    middle = round((longest * close) ** 0.5)
    centre = _densest(labels, time, labels.plane_of(plane), close)
    parts = [middle, close] if middle > 1.4 * close and longest > 1.4 * middle else [close]
    return [whole, *(_part(plan, whole, centre, edge, pixels=edge == close) for edge in parts)]


def _part(plan: RunPlan, whole: View, centre: tuple[int, int], edge: int, *, pixels: bool) -> View:
    spans = []
    for middle, length in zip(centre, (whole.bottom, whole.right), strict=True):
        size = min(edge, length)
        start = min(max(middle - size // 2, 0), length - size)
        spans.append((start, start + size))
    (top, bottom), (left, right) = spans
    size_drawn = (bottom - top, right - left) if pixels else _drawn(plan, bottom - top, right - left, DRAWN)
    if pixels and max(size_drawn) > DRAWN:
        size_drawn = _drawn(plan, bottom - top, right - left, DRAWN)
    return View(whole.time, whole.plane, top, left, bottom, right, *size_drawn)


def _densest(labels: LabelPixels, time: int, plane: int, edge: int) -> tuple[int, int]:
    """Give the middle of the square of an edge, in pixels of the image, with the most edges of labels."""
    level = labels.level_within(LONGEST_MAP)
    found = _edges(labels.whole(time, plane, level))
    finest = labels.levels[0].shape[2:]
    by = [labels.scale[axis + 2] * finest[axis] / found.shape[axis] for axis in (0, 1)]
    sizes = [min(max(1, round(edge / each)), length) for each, length in zip(by, found.shape, strict=True)]
    if not found.any():
        at = [(length - size) // 2 for length, size in zip(found.shape, sizes, strict=True)]
    else:
        sums = np.pad(found.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        high, wide = sizes
        counts = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
        # Of equals the first one: nothing but the labels decides.
        at = [int(place) for place in np.unravel_index(int(counts.argmax()), counts.shape)]
    centres = [labels.start[axis + 2] + (at[axis] + sizes[axis] / 2) * by[axis] for axis in (0, 1)]
    return round(centres[0]), round(centres[1])
