"""Runs of equal labels along X: what a label image says, in a small part of its size."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Runs"]


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """A label image as runs of equal labels, background's included. No run goes on from one row to the next.

    Parameters
    ----------
    start : ndarray of int64, shape (n,)
        Flat index of each run's first pixel, ascending.
    label : ndarray of uint32, shape (n,)
        What its pixels have.
    shape : tuple of int
        Of the image; X is the last axis.
    """

    start: NDArray[np.int64]
    label: NDArray[np.uint32]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, labels: NDArray[np.uint32]) -> Self:
        """Find the runs of a label image."""
        flat = np.ascontiguousarray(labels).ravel()
        starts = np.empty(flat.size, dtype=np.bool_)
        np.not_equal(flat[1:], flat[:-1], out=starts[1:])
        starts[:: labels.shape[-1]] = True
        start = np.flatnonzero(starts)
        return cls(start, flat[start], labels.shape)

    @property
    def length(self) -> NDArray[np.int64]:
        """Pixels of each run."""
        return np.diff(self.start, append=prod(self.shape))

    def area(self, count: int) -> NDArray[np.int64]:
        """Give the number of pixels of labels 1 to `count`."""
        # Sums of whole numbers: exact below 2**53.
        return np.bincount(self.label, weights=self.length, minlength=count + 1)[1:].astype(np.int64)

    def first(self, count: int) -> NDArray[np.int64]:
        """Give the flat index of the first pixel of labels 1 to `count`."""
        first = np.zeros(count + 1, dtype=np.int64)
        # Written from the last to the first, the earliest stays.
        first[self.label[::-1]] = self.start[::-1]
        return first[1:]

    def boxes(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the bounding boxes of labels 1 to `count`: start and stop, each of shape (count, axes)."""
        kept = np.flatnonzero((self.label > 0) & (self.label <= count))
        of = self.label[kept].astype(np.int64) - 1
        positions = np.unravel_index(self.start[kept], self.shape)
        last = (*positions[:-1], positions[-1] + self.length[kept] - 1)
        start = np.full((count, len(self.shape)), np.iinfo(np.int64).max, dtype=np.int64)
        stop = np.zeros((count, len(self.shape)), dtype=np.int64)
        for axis, (low, high) in enumerate(zip(positions, last, strict=True)):
            np.minimum.at(start[:, axis], of, low)
            np.maximum.at(stop[:, axis], of, high + 1)
        return start, stop

    def paint(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give the image with each label ``k`` replaced by ``values[k]``; ``values[0]`` is background's."""
        return np.repeat(values[self.label], self.length).reshape(self.shape)

    def to_array(self) -> NDArray[np.uint32]:
        """Give labels and lengths as one array, shape (2, n)."""
        return np.stack([self.label, self.length.astype(np.uint32)])

    @classmethod
    def from_array(cls, array: NDArray[np.uint32], shape: tuple[int, ...]) -> Self:
        """Rebuild the runs of an image of this shape from what `to_array` gave."""
        length = array[1].astype(np.int64)
        return cls(np.cumsum(length) - length, array[0], shape)
