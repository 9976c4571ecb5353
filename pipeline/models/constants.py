"""Windows of one value: padding, glass, what a scanner left out. What a network says of one is found once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KEPT", "Constants", "value_of"]

KEPT = 2
"""Results of so many are kept: of padding and of background, say."""

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
