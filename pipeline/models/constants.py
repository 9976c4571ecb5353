"""Windows of one value: padding, glass, what a scanner left out. What a network says of one is found once."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KEPT", "MOST_BYTES", "Constants", "Ground", "ground_of", "value_of"]

KEPT = 2
"""Results of so many are kept: of padding and of background, say."""

MOST_BYTES = 2**26
"""Of scores that are kept: of very many classes they are computed anew, for no plan allows for them."""

T = TypeVar("T")

Key = tuple[bytes, tuple[int, ...]]


def value_of(window: NDArray[np.floating]) -> bytes | None:
    """Give the value of each channel of a window, if each has a single one; else None.

    Parameters
    ----------
    window : ndarray of float32 or float64
        Channels, then YX or ZYX.

    Returns
    -------
    bytes or None
        Of the numbers as they are: a zero with a sign is another one than a zero without.
    """
    bits = window.reshape(window.shape[0], -1).view(np.dtype(f"u{window.itemsize}"))
    first = bits[:, :1]
    # Most windows show themselves at once, at their middle or their last pixel.
    if (bits[:, [bits.shape[1] // 2, -1]] != first).any() or (bits != first).any():
        return None
    return first.tobytes()


class Ground(NamedTuple):
    """The value round what varies in a window."""

    value: NDArray[np.floating]
    """Of each channel."""
    start: tuple[int, ...]
    stop: tuple[int, ...]
    """Of the smallest box, along the spatial axes, outside of which each pixel has that value."""


def ground_of(window: NDArray[np.floating]) -> Ground | None:
    """Find what of a window is ground: one value at a whole side of it.

    Parameters
    ----------
    window : ndarray of float32 or float64
        Channels, then YX or ZYX.

    Returns
    -------
    Ground or None
        That with the smaller box, if there are two; None where no two neighbouring corners are alike, as in most
        windows, or nothing else is in the window.
    """
    bits = window.view(np.dtype(f"u{window.itemsize}"))
    corners = list(product((0, -1), repeat=window.ndim - 1))
    values = Counter(np.array([channel[corner] for channel in bits]).tobytes() for corner in corners)
    found = []
    for value, count in values.items():
        if 2 * count < len(corners):
            continue
        each = np.frombuffer(value, dtype=bits.dtype)
        varies = (bits != each.reshape(-1, *[1] * (window.ndim - 1))).any(axis=0)
        edges = []
        for axis in range(varies.ndim):
            along = np.flatnonzero(varies.any(axis=tuple(other for other in range(varies.ndim) if other != axis)))
            edges.append((int(along[0]), int(along[-1]) + 1) if along.size else (0, 0))
        start, stop = zip(*edges, strict=True)
        found.append(Ground(each.view(window.dtype), start, stop))
    smallest = min(found, key=lambda ground: np.prod(np.subtract(ground.stop, ground.start)), default=None)
    return smallest if smallest is not None and any(smallest.stop) else None


class Constants(Generic[T]):
    """The results of the constant windows that were met last. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[Key, T] = {}

    def find(self, key: Key) -> T | None:
        """Give what was kept, and remember that it was wanted."""
        found = self._kept.pop(key, None)
        if found is not None:
            self._kept[key] = found
        return found

    def keep(self, key: Key, result: T) -> None:
        """Keep a result, and forget what was not wanted for longest."""
        self._kept[key] = result
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
