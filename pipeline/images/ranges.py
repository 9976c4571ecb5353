"""Uncompressed pixels that lie one after the other in a file, read by ranges of rows.

Not mapped into memory: where a mapped file shrinks, or its disk fails, the process that looks at it is killed.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.remote.paths import RemotePath

__all__ = ["Rows", "RowsElsewhere", "RowsOnDisk"]


class Rows(Protocol):
    """An array in C order in a file."""

    shape: tuple[int, ...]

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region.

        Parameters
        ----------
        index : tuple of slice
            One for each axis, inside the array, of step 1.
        """
        ...


class _Layout:
    """Where the rows of an array in C order lie.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    dtype : dtype
        With the file's order of bytes.
    offset : int
        Where in the file the array begins.
    rows : int
        Which axis is Y; what lies behind it is a row.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, rows: int) -> None:
        self.shape = self._lengths = shape
        self._dtype, self._offset, self._rows = dtype, offset, rows
        self._row_bytes = prod(shape[rows + 1 :]) * dtype.itemsize

    def _planes(self, index: tuple[slice, ...], found: NDArray[Any]) -> Iterator[tuple[NDArray[Any], int]]:
        """Give each plane of rows of what is to be found, and where in the file its first row begins."""
        outer = index[: self._rows]
        for place in product(*(range(part.start, part.stop) for part in outer)):
            number = 0
            for at, length in zip(place, self._lengths, strict=False):
                number = number * length + at
            start = self._offset + (number * self._lengths[self._rows] + index[self._rows].start) * self._row_bytes
            yield found[tuple(at - part.start for at, part in zip(place, outer, strict=True))], start


class RowsElsewhere(_Layout):
    """An array in C order in a file elsewhere. Whole rows are asked for, and cut.

    Parameters
    ----------
    path : RemotePath
        The file.
    shape, dtype, offset, rows
        As for the layout: of the array, its type, where it begins, and which axis is Y.
    """

    def __init__(self, path: RemotePath, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, rows: int) -> None:
        super().__init__(shape, dtype, offset, rows)
        self._path = path

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region; see `Rows`."""
        found = np.empty([part.stop - part.start for part in index], self._dtype)
        for plane, start in self._planes(index, found):
            content = self._path.read_range(start, len(plane) * self._row_bytes)
            whole = np.frombuffer(content, self._dtype).reshape(len(plane), *self.shape[self._rows + 1 :])
            plane[...] = whole[(slice(None), *index[self._rows + 1 :])]
        return found


class RowsOnDisk(_Layout):
    """An array in C order in a file. Of each row, no more is read than what is asked for along X.

    Parameters
    ----------
    path : Path
        The file; it is opened whenever something is read.
    shape, dtype, offset
        As for the layout.
    across : int
        Which axis is X. What lies behind it, such as colours, is read whole, and cut.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, across: int) -> None:
        # There is an axis of rows, even where X comes first.
        super().__init__((1, *shape), dtype, offset, across)
        self.shape = shape
        self._path = path
        self._pixel = shape[across + 1 :]

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region; see `Rows`.

        Raises
        ------
        EOFError
            If the file ends before.
        """
        index = (slice(0, 1), *index)
        across, behind = index[self._rows + 1], index[self._rows + 2 :]
        found = np.empty([part.stop - part.start for part in index], self._dtype)
        first = across.start * prod(self._pixel) * self._dtype.itemsize
        line = np.empty((across.stop - across.start, *self._pixel), self._dtype)
        with self._path.open("rb", buffering=0) as file:
            for plane, start in self._planes(index, found):
                if plane.shape[1:] == self._lengths[self._rows + 1 :]:
                    _fill(file, start, plane)
                    continue
                for number, row in enumerate(plane):
                    _fill(file, start + number * self._row_bytes + first, line)
                    row[...] = line[(slice(None), *behind)]
        whole: NDArray[Any] = found[0]
        return whole


def _fill(file: FileIO, start: int, into: NDArray[Any]) -> None:
    """Read what lies from a place of a file on into an array in C order."""
    file.seek(start)
    wanted = into.reshape(-1).view(np.uint8).data
    while len(wanted):
        count = file.readinto(wanted)
        if not count:
            raise EOFError(f"the file ends at byte {file.tell()}, and more was there when it was opened")
        wanted = wanted[count:]
