"""The arithmetic of pyramids, whose levels halve Y and X. Integers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import GeometryError
from pipeline.geometry.box import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SMALLEST_LEVEL", "finer_box", "level_shapes"]

SMALLEST_LEVEL = 256
"""A pyramid ends with the first level whose longer edge is not above this."""


def level_shapes(
    shape: Sequence[int], smallest: int = SMALLEST_LEVEL, count: int | None = None
) -> list[tuple[int, ...]]:
    """Give the shapes of all levels of a pyramid, the finest first.

    Each level halves Y and X, the last two axes, and rounds up. Other axes keep their length.

    Parameters
    ----------
    shape : sequence of int
        Shape of the finest level, ending with Y and X.
    smallest : int, optional
        The last level is the first whose longer edge, of Y and X, is not above this.
    count : int, optional
        So many levels instead.

    Raises
    ------
    GeometryError
        If an axis is empty, there are fewer than two, or `smallest` is below 1.
    """
    if len(shape) < 2 or min(shape) < 1:
        raise GeometryError(f"an array of shape {tuple(shape)} has no pyramid; it needs Y and X and no empty axis")
    if smallest < 1:
        raise GeometryError(f"the longer edge of a pyramid's last level cannot be {smallest}; at least 1")
    levels = [tuple(shape)]
    while len(levels) < count if count is not None else max(levels[-1][-2:]) > smallest:
        *others, height, width = levels[-1]
        levels.append((*others, -(-height // 2), -(-width // 2)))
    return levels


def finer_box(box: Box, shape: Sequence[int]) -> Box:
    """Give the box of the next finer level, of this shape, that a box is made from."""
    height, width = shape[-2:]
    return Box(
        (*box.start[:-2], box.start[-2] * 2, box.start[-1] * 2),
        (*box.stop[:-2], min(box.stop[-2] * 2, height), min(box.stop[-1] * 2, width)),
    )
