"""Exact statistics of a whole image, gathered block by block in any order.

Percentiles are selected by counting: values become unsigned keys that sort alike, and each pass counts the next 16
bits of those keys that can still hold a wanted rank (a radix selection). Types of 8 and 16 bits take one pass, 32
bits two, 64 bits four. The result is ``numpy.percentile`` of all finite pixels at once, as doubles, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor, ldexp, sqrt
from operator import mul
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Counts", "Search", "Summary"]

DIGIT = 16
"""Bits counted in one pass."""

_UNIT = 1074
"""Sums count in units of 2**-1074, the smallest double; sums of squares in the square of that."""

_PART = 18
"""Bits of the parts that pixels are split into for exact sums: products of two parts have 36 bits."""

_MANTISSA = {4: 24, 8: 53}
"""Bits of the whole numbers that floating pixels of so many bytes are multiples of powers of two of."""

_HALF = 24
"""Floating pixels of two bytes are multiples of 2**-24."""

_PIECE = 1 << 17
"""Pixels summed at once: 2**17 products of 36 bits fill the 53 bits of a double, and no more."""


def _exact_sums(values: NDArray[np.generic]) -> tuple[int, int]:
    """Sum pixels and their squares without rounding, so that no order or split of the blocks can show.

    Floating pixels are integer mantissas times powers of two, and are summed per exponent; integers are mantissas of
    one exponent.
    """
    total = squares = 0
    for start in range(0, values.size, _PIECE):
        piece = values[start : start + _PIECE]
        if piece.dtype.kind == "f":
            digits = _MANTISSA[piece.dtype.itemsize]
            fraction, exponents = np.frexp(piece)
            mantissas = np.ldexp(fraction, digits).astype(np.int64)
            lowest = int(exponents.min())
            groups = exponents - lowest
            shift = _UNIT + lowest - digits
        else:
            digits = piece.dtype.itemsize * 8
            mantissas, groups, shift = piece, np.zeros(piece.size, dtype=np.intp), _UNIT
        count = -(-digits // _PART)
        # The last part keeps the sign; the others are what two's complement has below it.
        parts = [
            (mantissas >> (_PART * at) if at == count - 1 else (mantissas >> (_PART * at)) & ((1 << _PART) - 1)).astype(
                np.float64
            )
            for at in range(count)
        ]
        for at, part in enumerate(parts):
            sums = np.bincount(groups, part)
            total += _weighed(sums, 1, shift + _PART * at)
            for other in range(at, count):
                twice = 1 if other == at else 2
                sums = np.bincount(groups, part * parts[other])
                squares += twice * _weighed(sums, 2, 2 * shift + _PART * (at + other))
    return total, squares


def _weighed(sums: NDArray[np.integer | np.floating], step: int, shift: int) -> int:
    """Add up whole sums, each shifted by so many bits more than the one before.

    A shift below 0 loses nothing: what it takes off are the zeros of numbers below the smallest normal one.
    """
    whole = 0
    for group in np.flatnonzero(sums).tolist():
        by = shift + step * group
        whole += int(sums[group]) << by if by >= 0 else int(sums[group]) >> -by
    return whole


def _root(square: Fraction) -> float:
    """Give the square root, also of what is too large or small for a double."""
    half = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    return ldexp(sqrt(square / Fraction(4) ** half), half)


def _keys(values: NDArray[np.generic]) -> NDArray[np.unsignedinteger]:
    """Map values to unsigned integers that sort alike."""
    bits = values.dtype.itemsize * 8
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    raw: NDArray[np.unsignedinteger] = np.ascontiguousarray(values).view(unsigned)
    sign = unsigned.type(1 << (bits - 1))
    if values.dtype.kind == "u":
        return raw
    if values.dtype.kind == "i":
        return np.asarray(np.bitwise_xor(raw, sign), dtype=unsigned)
    return np.asarray(np.where(raw & sign, ~raw, raw | sign), dtype=unsigned)


def _values(keys: NDArray[np.unsignedinteger], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Undo `_keys`, of a type of as many bytes."""
    sign = keys.dtype.type(1 << (dtype.itemsize * 8 - 1))
    if dtype.kind == "i":
        keys = keys ^ sign
    elif dtype.kind == "f":
        keys = np.where(keys & sign, keys ^ sign, ~keys)
    return keys.view(dtype)


def _value(key: int, dtype: np.dtype[np.generic]) -> float:
    """Undo `_keys` for one value."""
    return float(_values(np.array([key], dtype=f"u{dtype.itemsize}"), dtype)[0])


def _moments(counts: Counts, dtype: np.dtype[np.generic]) -> tuple[int, int]:
    """Sum pixels and their squares, as `_exact_sums` does, of how often each value of at most 16 bits was counted."""
    values = _values(counts.digit.astype(f"u{dtype.itemsize}"), dtype)
    # Numbers of 16 bits with a point are multiples of the smallest of them.
    below = _HALF if dtype.kind == "f" else 0
    whole = np.ldexp(values.astype(np.float64), below).astype(np.int64).tolist()
    weighed = list(map(mul, whole, counts.number.tolist()))
    return sum(weighed) << _UNIT - below, sum(map(mul, whole, weighed)) << 2 * (_UNIT - below)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one pass has counted so far. Counts of several blocks add up, in any order.

    Parameters
    ----------
    prefix, digit, number : ndarray of int64
        How many keys begin with the prefix's bits (its index in `Search.prefixes`) and go on with the digit; sorted.
    finite, odd : int
        Pixels counted, and pixels left out because they are NaN or infinite.
    total, squares : int
        Exact sum and sum of squares of the finite pixels, in units of 2**-1074 and 2**-2148; 0 for types up to 16
        bits, whose numbers tell them once all are added up.
    """

    prefix: NDArray[np.int64]
    digit: NDArray[np.int64]
    number: NDArray[np.int64]
    finite: int
    odd: int
    total: int
    squares: int

    @classmethod
    def none(cls) -> Counts:
        """Give the counts of no pixels."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(nothing, nothing, nothing, 0, 0, 0, 0)

    def __add__(self, other: Counts) -> Counts:
        base = 1 << DIGIT
        joined = np.concatenate([self.prefix * base + self.digit, other.prefix * base + other.digit])
        places, inverse = np.unique(joined, return_inverse=True)
        number = np.zeros(places.size, dtype=np.int64)
        np.add.at(number, inverse, np.concatenate([self.number, other.number]))
        return Counts(
            places // base,
            places % base,
            number,
            self.finite + other.finite,
            self.odd + other.odd,
            self.total + other.total,
            self.squares + other.squares,
        )

    def to_array(self) -> NDArray[np.int64]:
        """Give everything as one array, to be kept in a file; `from_array` undoes it."""
        sums = [_words(self.total), _words(self.squares)]
        head = np.array([self.finite, self.odd, sums[0].size, sums[1].size], dtype=np.int64)
        return np.concatenate([head, *sums, self.prefix, self.digit, self.number])

    @classmethod
    def from_array(cls, array: NDArray[np.int64]) -> Counts:
        """Give the counts that `to_array` put into an array."""
        finite, odd, first, second = array[:4].tolist()
        total, squares, counted = np.split(array[4:], [first, first + second])
        prefix, digit, number = counted.reshape(3, -1)
        return cls(prefix, digit, number, finite, odd, _whole(total), _whole(squares))


def _words(whole: int) -> NDArray[np.int64]:
    """Write an integer of any length as 64-bit words."""
    return np.frombuffer(whole.to_bytes((whole.bit_length() // 64 + 1) * 8, "little", signed=True), dtype="<i8")


def _whole(words: NDArray[np.int64]) -> int:
    """Undo `_words`."""
    return int.from_bytes(words.astype("<i8").tobytes(), "little", signed=True)


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of all finite pixels of one channel at one time point.

    Parameters
    ----------
    percentiles : tuple of float
        In the order asked for.
    mean, std : float
        Mean and standard deviation (of the population).
    finite, odd : int
        Pixels that count, and pixels that are NaN or infinite.
    """

    percentiles: tuple[float, ...]
    mean: float
    std: float
    finite: int
    odd: int


@dataclass(frozen=True, slots=True)
class Search:
    """A search for percentiles, pass by pass.

    Parameters
    ----------
    dtype : str
        NumPy's name of the image's data type.
    wanted : tuple of float
        Percentiles, 0 to 100.
    level : int
        Passes done.
    prefixes : tuple of int
        Beginnings of keys that may hold a wanted rank; sorted.
    ranks : tuple of (int, int)
        Of each order statistic that the percentiles need: index of its prefix, and its rank among the keys with it.
    first : Counts, optional
        Of the first pass, which knows the number of pixels and their sums; without the numbers of single keys, so
        that searches of many time points fit into memory.
    """

    dtype: str
    wanted: tuple[float, ...]
    level: int = 0
    prefixes: tuple[int, ...] = (0,)
    ranks: tuple[tuple[int, int], ...] = ()
    first: Counts | None = None

    @property
    def passes(self) -> int:
        """Passes over the image that the data type needs."""
        return max(1, np.dtype(self.dtype).itemsize * 8 // DIGIT)

    @property
    def finished(self) -> bool:
        """Whether all passes are done, or there was nothing to count."""
        return self.first is not None and (self.level == self.passes or self.first.finite == 0)

    def count(self, block: NDArray[np.generic]) -> Counts:
        """Count a block's pixels in this pass.

        Parameters
        ----------
        block : ndarray
            Of any shape, of the image's data type.
        """
        values = block.ravel().astype(block.dtype.newbyteorder("="), copy=False)  # keys are made of the bytes
        odd = 0
        if values.dtype.kind == "f":
            real = np.isfinite(values)
            odd = int(values.size - np.count_nonzero(real))
            # Adding zero makes the negative zero a positive one: they are equal, so they must sort as equals.
            values = np.add(values[real] if odd else values, 0, dtype=values.dtype)
        elif values.dtype.kind == "b":
            values = values.astype(np.uint8)
        bits = values.dtype.itemsize * 8
        digit_bits = min(DIGIT, bits)
        keys = _keys(values)
        total, squares = _exact_sums(values) if self.level == 0 and bits > DIGIT else (0, 0)
        shift = bits - digit_bits * (self.level + 1)
        nothing = np.zeros(0, dtype=np.int64)  # there are no prefixes where no pixel was finite
        prefix_parts, digit_parts, number_parts = [nothing], [nothing], [nothing]
        for number, prefix in enumerate(self.prefixes):
            chosen = keys if self.level == 0 else keys[(keys >> (shift + digit_bits)) == prefix]
            digits = chosen if bits == digit_bits else (chosen >> shift) & ((1 << digit_bits) - 1)
            histogram = np.bincount(digits.astype(np.intp, copy=False))
            present = np.flatnonzero(histogram)
            prefix_parts.append(np.full(present.size, number, dtype=np.int64))
            digit_parts.append(present.astype(np.int64))
            number_parts.append(histogram[present].astype(np.int64))
        return Counts(
            np.concatenate(prefix_parts),
            np.concatenate(digit_parts),
            np.concatenate(number_parts),
            int(values.size),
            odd,
            total,
            squares,
        )

    def advance(self, counts: Counts) -> Search:
        """Take the counts of the whole image, and give the search that is left."""
        if self.first is None:
            n, dtype = counts.finite, np.dtype(self.dtype)
            sums = _moments(counts, dtype) if dtype.itemsize * 8 <= DIGIT else (counts.total, counts.squares)
            first = replace(Counts.none(), finite=n, odd=counts.odd, total=sums[0], squares=sums[1])
            needed = [at for percentile in self.wanted for at in _neighbours(percentile, n)] if n else []
            ranks = tuple((0, rank) for rank in needed)
        else:
            first, ranks = self.first, self.ranks
        digit_bits = min(DIGIT, np.dtype(self.dtype).itemsize * 8)
        places = []
        for number, rank in ranks:
            mine = counts.prefix == number
            cumulative = np.cumsum(counts.number[mine])
            at = int(np.searchsorted(cumulative, rank, side="right"))
            before = int(cumulative[at - 1]) if at else 0
            key = (self.prefixes[number] << digit_bits if self.level else 0) | int(counts.digit[mine][at])
            places.append((key, rank - before))
        prefixes = tuple(sorted({key for key, _ in places}))
        return Search(
            self.dtype,
            self.wanted,
            self.level + 1,
            prefixes,
            tuple((prefixes.index(key), rank) for key, rank in places),
            first,
        )

    def summary(self) -> Summary:
        """Give the statistics, once the search is finished."""
        if self.first is None or not self.finished:
            raise ValueError("the search for percentiles is not finished")
        n = self.first.finite
        if n == 0:
            return Summary((0.0,) * len(self.wanted), 0.0, 0.0, 0, self.first.odd)
        dtype = np.dtype(self.dtype)
        values = [_value(self.prefixes[number], dtype) for number, _ in self.ranks]
        percentiles = tuple(
            _interpolate(values[2 * at], values[2 * at + 1], percentile, n) for at, percentile in enumerate(self.wanted)
        )
        total, squares = self.first.total, self.first.squares
        mean, variance = Fraction(total, n << _UNIT), Fraction(squares * n - total * total, n * n << 2 * _UNIT)
        return Summary(percentiles, float(mean), _root(variance), n, self.first.odd)


def _neighbours(percentile: float, n: int) -> tuple[int, int]:
    """Give the ranks of the two order statistics between which a percentile lies."""
    position = (n - 1) * (percentile / 100)
    low = floor(position)
    return low, min(low + 1, n - 1)


def _interpolate(low: float, high: float, percentile: float, n: int) -> float:
    """Interpolate as ``numpy.percentile`` does, step by step the same, so that the rounding is the same."""
    position = (n - 1) * (percentile / 100)
    weight = position - floor(position)
    difference = high - low
    return high - difference * (1 - weight) if weight >= 0.5 else low + difference * weight
