"""Half-open integer boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

from pipeline.errors import GeometryError
from pipeline.geometry.footprint import Margin

__all__ = ["Box"]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open box of integer coordinates: `start` is inside, `stop` is not.

    Parameters
    ----------
    start : tuple of int
        First coordinate per axis. May be negative: boxes reach beyond the image.
    stop : tuple of int
        One past the last coordinate per axis. Equal to `start` on some axis for an empty box.

    Raises
    ------
    GeometryError
        If the two differ in length, or a stop lies before its start.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop):
            raise GeometryError(f"a box from {self.start} to {self.stop} has ends with different numbers of axes")
        for axis, (start, stop) in enumerate(zip(self.start, self.stop, strict=True)):
            if stop < start:
                raise GeometryError(f"axis {axis}: a box cannot stop at {stop}, before its start {start}")

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Self:
        """Give the box that covers an array of this shape."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Edge lengths."""
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of pixels."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index for an array whose origin is the frame's origin.

        Raises
        ------
        GeometryError
            If the box starts below 0, where NumPy would count from the far end.
        """
        if any(start < 0 for start in self.start):
            raise GeometryError(f"the box from {self.start} to {self.stop} starts outside the array it should index")
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))

    def shift(self, offset: Sequence[int]) -> Self:
        """Move by `offset`, one entry per axis."""
        return type(self)(
            tuple(start + by for start, by in zip(self.start, offset, strict=True)),
            tuple(stop + by for stop, by in zip(self.stop, offset, strict=True)),
        )

    def times(self, factors: Sequence[int]) -> Self:
        """Give the box in a frame whose pixels are finer by whole factors, one per axis."""
        return type(self)(
            tuple(start * by for start, by in zip(self.start, factors, strict=True)),
            tuple(stop * by for stop, by in zip(self.stop, factors, strict=True)),
        )

    def relative_to(self, origin: Sequence[int]) -> Self:
        """Give the same box in a frame whose origin lies at `origin`."""
        return self.shift(tuple(-by for by in origin))

    def grow(self, margins: Sequence[Margin]) -> Self:
        """Add `margins` around, one per axis."""
        return type(self)(
            tuple(start - margin.low for start, margin in zip(self.start, margins, strict=True)),
            tuple(stop + margin.high for stop, margin in zip(self.stop, margins, strict=True)),
        )

    def intersect(self, other: Box) -> Self:
        """Give what both boxes hold; empty, at the nearer end, where they do not meet."""
        start = tuple(max(ours, theirs) for ours, theirs in zip(self.start, other.start, strict=True))
        stop = tuple(min(ours, theirs) for ours, theirs in zip(self.stop, other.stop, strict=True))
        return type(self)(start, tuple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def clip(self, shape: Sequence[int]) -> Self:
        """Give the part that lies inside an array of this shape."""
        return self.intersect(Box.whole(shape))

    def contains(self, other: Box) -> bool:
        """Say whether `other` lies wholly inside."""
        return all(ours <= theirs for ours, theirs in zip(self.start, other.start, strict=True)) and all(
            ours >= theirs for ours, theirs in zip(self.stop, other.stop, strict=True)
        )

    def insert(self, axis: int, start: int, stop: int) -> Self:
        """Add an axis before position `axis`, with the given extent."""
        return type(self)((*self.start[:axis], start, *self.start[axis:]), (*self.stop[:axis], stop, *self.stop[axis:]))
