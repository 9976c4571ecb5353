"""All seams of a plan, cut into stretches that one look takes in: integers, whatever the image holds."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Self

import numpy as np

from pipeline.geometry import Box, Margin
from pipeline.labels.components import linked_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.planning import RunPlan

__all__ = ["Seams", "Stretch"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of one seam.

    Parameters
    ----------
    axis : int
        Which the seam lies across, of TZYX.
    plane : Box
        The pixels behind the seam, TZYX; one along `axis`.
    """

    axis: int
    plane: Box

    @property
    def seam(self) -> int:
        """Where the seam lies, along its axis."""
        return self.plane.start[self.axis]

    def around(self, reach: int, shape: Sequence[int]) -> Box:
        """Give the pixels so far on either side of the seam, in an image of some shape."""
        margins = [Margin(0, 0)] * self.plane.ndim
        margins[self.axis] = Margin(reach, reach - 1)
        return self.plane.grow(tuple(margins)).clip(shape)


@dataclass(frozen=True, slots=True)
class Seams:
    """All stretches of all seams, each with a number.

    Parameters
    ----------
    shape : tuple of int
        Of the label image, TZYX.
    core : tuple of int
        Edges of a tile's core, TZYX. A seam lies on each multiple inside the image, along axes on which objects extend.
    cell : tuple of int
        Length of a stretch along each axis, TZYX.
    axes : tuple of int
        Those that seams lie across.
    """

    shape: tuple[int, ...]
    core: tuple[int, ...]
    cell: tuple[int, ...]
    axes: tuple[int, ...]

    @classmethod
    def of(cls, plan: RunPlan, edges: Sequence[int]) -> Self:
        """Cut the seams of a plan into stretches of such edges along the spatial axes; in 2-D, plane by plane."""
        free = 4 - plan.spatial_ndim
        return cls(plan.label_shape, plan.core, (1,) * free + tuple(edges), tuple(linked_axes(plan.spatial_ndim)))

    def counts(self, axis: int) -> tuple[int, ...]:
        """Give how many stretches there are along each axis, of the seams across one of them."""
        return tuple(
            (length - 1) // core if at == axis else -(-length // cell)
            for at, (length, core, cell) in enumerate(zip(self.shape, self.core, self.cell, strict=True))
        )

    def __len__(self) -> int:
        return sum(prod(self.counts(axis)) for axis in self.axes)

    def __getitem__(self, number: int) -> Stretch:
        for axis in self.axes:
            counts = self.counts(axis)
            if number < prod(counts):
                place = np.unravel_index(number, counts)
                start = [int(at) * cell for at, cell in zip(place, self.cell, strict=True)]
                start[axis] = (int(place[axis]) + 1) * self.core[axis]
                edges = tuple(1 if at == axis else cell for at, cell in enumerate(self.cell))
                stop = tuple(low + edge for low, edge in zip(start, edges, strict=True))
                return Stretch(axis, Box(tuple(start), stop).clip(self.shape))
            number -= prod(counts)
        raise IndexError(number)

    @property
    def pixels(self) -> int:
        """Pixels behind all seams."""
        return sum(
            prod((length - 1) // self.core[axis] if at == axis else length for at, length in enumerate(self.shape))
            for axis in self.axes
        )

    def numbers(self, axis: int, seam: int, points: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Give the stretches in which points of one seam lie.

        Parameters
        ----------
        axis, seam : int
            Across which axis the seam lies, and where.
        points : sequence of ndarray of int64
            Positions TZYX; those along `axis` do not matter.
        """
        counts = self.counts(axis)
        place = [
            np.full_like(at, seam // self.core[axis] - 1) if number == axis else at // cell
            for number, (at, cell) in enumerate(zip(points, self.cell, strict=True))
        ]
        before = sum(prod(self.counts(other)) for other in self.axes[: self.axes.index(axis)])
        found: NDArray[np.int64] = np.ravel_multi_index(tuple(place), counts).astype(np.int64) + before
        return found

    def number_at(self, pixel: Sequence[int]) -> int:
        """Give the stretch in which a pixel behind a seam lies; on several seams, that of the first axis."""
        axis = next(axis for axis in self.axes if pixel[axis] and pixel[axis] % self.core[axis] == 0)
        (number,) = self.numbers(axis, pixel[axis], [np.array([at], dtype=np.int64) for at in pixel]).tolist()
        return int(number)
