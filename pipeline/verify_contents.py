"""Checking what the arrays of a finished result say of one another: numbers of objects, and pyramids.

Labels are read once, core by core. Of pyramids a few blocks of each level are made again, whatever their size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.checks import Check, draw_some
from pipeline.labels.components import AXES
from pipeline.labels.numbering import follow_numbers
from pipeline.pyramids import plain_grid
from pipeline.stores.pyramid import coarser_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.bench import Bench
    from pipeline.geometry import Box
    from pipeline.pyramids import Pyramid

__all__ = ["check_numbering", "check_pyramids"]

BLOCKS = 8
"""Blocks of each level of each pyramid that are made again: one of the result's chunks each."""


def check_numbering(bench: Bench, objects: object) -> tuple[Check, int | None]:
    """Check that objects have the numbers from 1 on, by the raster position of their first pixels.

    Parameters
    ----------
    bench : Bench
        Of the result.
    objects : object
        What its provenance says of how many there are.

    Returns
    -------
    tuple of Check, int or None
        What was found, and how many pixels are of objects; None where a number was wrong before all were counted.

    Raises
    ------
    StoreError
        If the labels cannot be read.
    """
    labels = bench.array("labels/instances/0")

    def blocks() -> Iterator[tuple[Box, NDArray[np.uint32]]]:
        for tile in bench.plan.tiles:
            yield tile.owned, labels.read(tile.owned)

    found = follow_numbers(blocks(), bench.plan.label_shape)
    what = "numbers of objects"
    if found.wrong is not None:
        number, at = found.wrong
        place = ", ".join(f"{axis} {index}" for axis, index in zip(AXES, at, strict=True))
        told = f"object {number} begins at {place}, where the next number is {found.highest + 1}"
        return Check(what, passed=False, detail=told), None
    if type(objects) is not int or objects != found.highest:
        told = f"the provenance says {objects!r} objects, and the highest number is {found.highest}"
        return Check(what, passed=False, detail=told), found.pixels
    return Check(what, passed=True, detail=f"1 to {objects}, in order" if objects else "no objects"), found.pixels


def check_pyramids(bench: Bench, seed: int) -> Check:
    """Check that coarser levels are what the finer ones give, at places drawn at random.

    Parameters
    ----------
    bench : Bench
        Of the result.
    seed : int
        Chooses the places.

    Raises
    ------
    StoreError
        If a level cannot be read.
    """
    made = total = 0
    for turn, pyramid in enumerate(bench.plan.pyramids):
        for level in range(1, len(pyramid.levels)):
            grid = plain_grid(pyramid.levels[level], pyramid.chunk)
            total += len(grid)
            for index in draw_some(len(grid), BLOCKS, [seed, turn, level]):
                made += 1
                if (at := _first_difference(bench, pyramid, level, grid[index].owned)) is not None:
                    place = ", ".join(f"{axis.lower()} {one}" for axis, one in zip(pyramid.frame, at, strict=True))
                    told = f"{pyramid.array(level)} differs at {place} from what {pyramid.array(level - 1)} gives"
                    return Check("pyramids", passed=False, detail=told)
    return Check("pyramids", passed=True, detail=f"{made} of {total:,} blocks made again" if total else "no levels")


def _first_difference(bench: Bench, pyramid: Pyramid, level: int, box: Box) -> tuple[int, ...] | None:
    """Make a block of a coarser level again, and give the first pixel that differs from what is there."""
    wanted = coarser_block(bench.array(pyramid.array(level - 1)), box, pyramid.method)
    held = bench.array(pyramid.array(level)).read(box)
    differ = held != wanted
    if held.dtype.kind == "f":
        differ &= ~(np.isnan(held) & np.isnan(wanted))
    if not differ.any():
        return None
    first = np.unravel_index(int(differ.argmax()), differ.shape)
    return tuple(int(at) + start for at, start in zip(first, box.start, strict=True))
