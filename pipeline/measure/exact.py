"""Sums of real numbers that do not depend on the order: exact, as few numbers that add up to the sum."""

from __future__ import annotations

from fractions import Fraction
from math import fsum, isnan, nan, sqrt

import numpy as np
from numpy.typing import NDArray

__all__ = ["PART", "exact_parts", "mean_and_std", "squares"]

PART = np.dtype([("label", "u4"), ("channel", "u2"), ("power", "u1"), ("value", "f8")])
"""A part of the sum of an object's values (power 1), or of their squares (power 2), in a channel."""

_LARGEST = 1e145
"""Values beyond it, whose squares come close to what a number can hold, count as not finite."""

_LARGEST_SUMMED = _LARGEST**2
"""A sum of as many such squares as there are pixels in an image is still a number."""

_SPLITTER = float(2**27 + 1)


def exact_parts(values: NDArray[np.float64]) -> list[float]:
    """Give numbers that add up, exactly, to the sum of the values.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Not empty.

    Returns
    -------
    list of float
        Mostly two or three; the first is the sum, rounded once. A single NaN where a value is not finite, or is
        larger than 1e290.

    Notes
    -----
    `math.fsum` rounds the exact sum once. What it has left out is found by summing again, less what there is.
    """
    if not np.all(np.abs(values) <= _LARGEST_SUMMED):
        return [nan]
    waiting = values.tolist()
    parts = [fsum(waiting)]
    while True:
        waiting.append(-parts[-1])
        rest = fsum(waiting)
        if rest == 0.0:
            return parts
        parts.append(rest)


def squares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give two numbers for each value that add up, exactly, to its square: the square rounded, and what that left out.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Values that are not finite, or larger than 1e145, give NaN.

    Returns
    -------
    ndarray of float64, shape (2 n,)

    Notes
    -----
    The product of Dekker (1971), which splits a number into halves whose products are exact.
    """
    kept = np.where(np.abs(values) <= _LARGEST, values, nan)
    shifted = kept * _SPLITTER
    high = shifted - (shifted - kept)
    low = kept - high
    rounded = kept * kept
    return np.concatenate([rounded, ((high * high - rounded) + 2 * high * low) + low * low])


def mean_and_std(pixels: int, values: list[float], squared: list[float]) -> tuple[float, float]:
    """Give mean and standard deviation of an object's values.

    Parameters
    ----------
    pixels : int
        Their number.
    values, squared : list of float
        Parts of the sum of the values, and of that of their squares, from whatever cores.

    Returns
    -------
    mean, std : float
        Functions of the exact sums alone. NaN where a value is not finite.
    """
    if any(isnan(part) for part in (*values, *squared)):
        return nan, nan
    total, square = _twofold(values), _twofold(squared)
    variance = (pixels * square - total * total) / pixels**2
    return float(total / pixels), sqrt(max(variance, Fraction(0)))


def _twofold(parts: list[float]) -> Fraction:
    """Give a sum to twice the digits of a number, whatever parts add up to it."""
    rounded = fsum(parts)
    return Fraction(rounded) + Fraction(fsum([*parts, -rounded]))
