"""Checking the table of objects of a finished result: against its labels, and a sample of its rows against pixels."""

from __future__ import annotations

from dataclasses import replace
from math import isclose, isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.checks import Check, draw_some
from pipeline.errors import ImageError
from pipeline.geometry import Box, Margin
from pipeline.measure.columns import columns
from pipeline.measure.single import measure_object
from pipeline.printing import in_one_line, short
from pipeline.stores.tables import find_row, odd_columns, stream_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.bench import Bench
    from pipeline.measure.subject import Subject

__all__ = ["check_table"]

SAMPLE = 32
"""Objects that are measured again."""

LARGEST = 2**22
"""Pixels of the largest box, all channels together, in which an object is measured again."""

CLOSE = 1e-6
"""How much numbers may differ: libraries of other machines round otherwise, and angles of round objects mean little."""


def check_table(bench: Bench, objects: object, pixels: int | None, seed: int, *, ask_input: bool) -> Check:
    """Check the table of objects.

    Parameters
    ----------
    bench : Bench
        Of the result.
    objects : object
        What its provenance says of how many there are.
    pixels : int, optional
        How many pixels are of objects, where that is known.
    seed : int
        Chooses the objects that are measured again.
    ask_input : bool
        Whether the input may be opened for intensities, where the result has no copy of the image.

    Raises
    ------
    StoreError
        If the table or an array cannot be read.
    """
    what, folder = "table of objects", bench.folder
    if odd := odd_columns(folder, columns(bench.plan.subject)):
        return Check(what, passed=False, detail=f"not the columns that were measured: {short(', '.join(odd))}")
    rows = area = 0
    for labels, areas in stream_columns(folder, ["label", "area"]):
        wrong = np.flatnonzero(labels != rows + 1 + np.arange(labels.size))
        if wrong.size:
            at = int(wrong[0])
            told = f"row {rows + at + 1:,} is of object {labels[at]}; rows are in the order of the labels"
            return Check(what, passed=False, detail=told)
        rows += labels.size
        area += int(areas.sum())
    if rows != objects:
        return Check(what, passed=False, detail=f"{rows:,} rows, and the provenance says {objects!r} objects")
    if pixels is not None and area != pixels:
        return Check(what, passed=False, detail=f"areas of {area:,} pixels in all, and objects have {pixels:,}")
    numbers, subject = [1 + at for at in draw_some(rows, SAMPLE, seed)], bench.plan.subject
    of_input = bool(subject.channels) and not bench.plan.copy_image
    without, note = replace(subject, channels=()), ""
    try:
        looked, odd_row = _measure_again(bench, numbers, without if of_input and not ask_input else subject)
        note = "" if ask_input or not of_input else ", without intensities: they are of the input"
    except ImageError as error:
        looked, odd_row = _measure_again(bench, numbers, without)
        note = f", without intensities: {in_one_line(str(error))}"
    if odd_row is not None:
        return Check(what, passed=False, detail=odd_row)
    return Check(what, passed=True, detail=f"{rows:,} rows, {looked} objects measured again{note}")


def _measure_again(bench: Bench, numbers: list[int], subject: Subject) -> tuple[int, str | None]:
    """Measure some objects, and say how many were, and what is wrong with the first whose row says otherwise."""
    looked = 0
    for number in numbers:
        row = find_row(bench.folder, number)
        if row is None:
            # The file says of each part which labels lie in it.
            return looked, f"object {number} is not where the file says that it is"
        box = _box_of(row, subject)
        if box is not None and box.size * max(1, len(subject.channels)) > LARGEST:
            continue
        looked += 1
        if (told := _difference(bench, number, row, box, subject)) is not None:
            return looked, f"object {number}: {told}"
    return looked, None


def _box_of(row: Mapping[str, Any], subject: Subject) -> Box | None:
    """Give the box that a row tells, with a pixel around it in which the object must not go on; None if it has none."""
    free = 4 - subject.ndim
    start = [row.get(axis, 0) for axis in "tz"[:free]] + [row[f"bbox-{axis}"] for axis in range(subject.ndim)]
    stop = [at + 1 for at in start[:free]] + [row[f"bbox-{subject.ndim + axis}"] for axis in range(subject.ndim)]
    inside = zip(start, stop, subject.shape, strict=True)
    if not all(0 <= first < last <= length for first, last, length in inside):
        return None
    margins = [Margin(0, 0)] * free + [Margin(1, 1)] * subject.ndim
    return Box(tuple(start), tuple(stop)).grow(margins).clip(subject.shape)


def _difference(bench: Bench, number: int, row: Mapping[str, Any], box: Box | None, subject: Subject) -> str | None:
    """Say what of a row is not what the object's pixels give."""
    if box is None:
        return "its box does not lie in the image"

    def channel(at: int) -> NDArray[Any]:
        return bench.read(bench.plan.image_box(box, (at, at + 1)))[:, 0]

    semantic = bench.array("labels/semantic/0").read(box) if subject.counts_classes else None
    found = measure_object(number, bench.array("labels/instances/0").read(box), box, subject, channel, semantic)
    if found is None:
        return "it is not in its box"
    for name, value in found.items():
        if not _same(row[name], value):
            return f"{name} is {row[name]}, and its pixels give {value}"
    return None


def _same(held: object, found: object) -> bool:
    """Say whether a value is the same, but for rounding."""
    if isinstance(held, float) and isinstance(found, float):
        return (isnan(held) and isnan(found)) or isclose(held, found, rel_tol=CLOSE, abs_tol=CLOSE)
    return held == found
