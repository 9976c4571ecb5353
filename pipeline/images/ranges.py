"""Uncompressed pixels that lie one after the other in a file elsewhere, read by ranges of whole rows."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.remote.paths import RemotePath

__all__ = ["RowsElsewhere"]


class RowsElsewhere:
    """An array in C order in a file elsewhere.

    Parameters
    ----------
    path : RemotePath
        The file.
    shape : tuple of int
        Of the array.
    dtype : dtype
        With the file's order of bytes.
    offset : int
        Where in the file the array begins.
    rows : int
        Which axis is Y: what lies behind it is read whole, and cut.
    """

    def __init__(self, path: RemotePath, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, rows: int) -> None:
        self.shape = shape
        self._path, self._dtype, self._offset, self._rows = path, dtype, offset, rows
        self._row_bytes = prod(shape[rows + 1 :]) * dtype.itemsize

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region.

        Parameters
        ----------
        index : tuple of slice
            One for each axis, inside the array, of step 1.
        """
        outer, rows, inner = index[: self._rows], index[self._rows], index[self._rows + 1 :]
        found = np.empty([part.stop - part.start for part in index], self._dtype)
        for place in product(*(range(part.start, part.stop) for part in outer)):
            number = 0
            for at, length in zip(place, self.shape, strict=False):
                number = number * length + at
            start = self._offset + (number * self.shape[self._rows] + rows.start) * self._row_bytes
            content = self._path.read_range(start, (rows.stop - rows.start) * self._row_bytes)
            whole = np.frombuffer(content, self._dtype).reshape(rows.stop - rows.start, *self.shape[self._rows + 1 :])
            found[tuple(at - part.start for at, part in zip(place, outer, strict=True))] = whole[(slice(None), *inner)]
        return found
