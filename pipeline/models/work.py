"""How much arithmetic a forward pass is: of any window, from a few that were counted. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import prod

__all__ = ["Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of a network, as a function of its window.

    Each layer does as much for each pixel that it gives, and gives a number of them that grows linearly with each edge
    of the window. The sum over all layers is therefore linear in each edge, and follows from the corners of a box of
    windows; exactly, where their sizes are legal.

    Parameters
    ----------
    low, high : tuple of int
        The shortest and the longest edges that were counted, along the spatial axes.
    counts : tuple of int
        Operations, two per multiply-add, of the windows whose edges are all combinations of the two, in C order.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    counts: tuple[int, ...]

    def flops(self, window: tuple[int, ...]) -> int:
        """Give the operations of one forward pass on a window."""
        total = Fraction(0)
        for corner, count in zip(product((False, True), repeat=len(self.low)), self.counts, strict=True):
            total += count * prod(
                Fraction(edge - low, high - low) if far else Fraction(high - edge, high - low)
                for edge, low, high, far in zip(window, self.low, self.high, corner, strict=True)
            )
        return max(round(total), 0)
