"""Scaling intensities by the whole image's statistics: each pixel by itself, so the tiling cannot show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.images.statistics import Summary

__all__ = ["PixelStep", "Scaling", "make_scaling", "wanted_percentiles"]


@dataclass(frozen=True, slots=True)
class PixelStep:
    """What is done to each intensity by itself, with fixed numbers.

    Parameters
    ----------
    kind : str
        ``"linear"``: multiplied by `first`, plus `second`. ``"standardize"``: less `first`, divided by `second`.
        ``"clip"``: at least `first` and at most `second`, None for no limit. ``"binarize"``: 1 above `first`, else 0.
        ``"sigmoid"``: the logistic function.
    first, second : float, optional
        As the kind says.
    """

    kind: str
    first: float | None = None
    second: float | None = None

    def apply(self, values: NDArray[np.floating]) -> None:
        """Change floating values in place, in their own precision."""
        match self.kind, self.first, self.second:
            case "linear", float(gain), float(offset):
                values *= values.dtype.type(gain)
                values += values.dtype.type(offset)
            case "standardize", float(offset), float(scale):
                values -= values.dtype.type(offset)
                values /= values.dtype.type(scale)
            case "clip", low, high:
                np.clip(values, low, high, out=values)
            case "binarize", float(threshold), _:
                np.greater(values, values.dtype.type(threshold), out=values, casting="unsafe")
            case "sigmoid", _, _:
                np.negative(values, out=values)
                np.exp(values, out=values)
                values += 1
                np.reciprocal(values, out=values)
            case _:
                raise ValueError(f"no step is called so, or it lacks a number: {self}")


@dataclass(frozen=True, slots=True)
class Scaling:
    """How the intensities of one channel at one time point are scaled.

    Parameters
    ----------
    offset : float
        The intensity that becomes 0.
    scale : float
        The intensities per unit, above 0.
    before, after : tuple of PixelStep
        What else is done to each intensity, before and after.
    """

    offset: float
    scale: float
    before: tuple[PixelStep, ...] = ()
    after: tuple[PixelStep, ...] = ()

    def note(self) -> dict[str, Any]:
        """Give it in plain types; `from_note` undoes it."""
        steps = {name: [list(astuple(step)) for step in each]
                 for name, each in (("before", self.before), ("after", self.after)) if each}  # fmt: skip
        return {"offset": self.offset, "scale": self.scale, **steps}

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> Scaling:
        """Give the scaling that `note` has noted, with whatever else."""
        before, after = (tuple(PixelStep(*step) for step in note.get(name, ())) for name in ("before", "after"))
        return cls(note["offset"], note["scale"], before, after)

    def apply(self, block: NDArray[np.generic], dtype: type[np.float32] | type[np.float64]) -> NDArray[np.floating]:
        """Scale a block.

        Parameters
        ----------
        block : ndarray
            Of any shape and real data type. NaN and infinite pixels become 0.
        dtype : type
            ``numpy.float32`` or ``numpy.float64``: of the result. Pixels of more than 16 bits are scaled in double
            precision, for a float32 cannot hold a large offset and small differences at once.

        Returns
        -------
        ndarray
            A new array of the block's shape.
        """
        inner = np.float64 if block.dtype.itemsize > 2 else dtype
        scaled: NDArray[np.floating] = block.astype(inner)
        with np.errstate(over="ignore"):  # what leaves the range is infinite, and taken care of below
            for step in self.before:
                step.apply(scaled)
            scaled -= inner(self.offset)
            scaled /= inner(self.scale)
            for step in self.after:
                step.apply(scaled)
            scaled = scaled.astype(dtype, copy=False)
        if block.dtype.kind == "f":
            np.nan_to_num(scaled, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return scaled


def wanted_percentiles(method: str, low: float, high: float) -> tuple[float, ...]:
    """Give the percentiles that a method needs, two at least: they serve as contrast limits, too."""
    return (low, high) if method == "percentile" else (1.0, 99.8)


def make_scaling(
    method: str,
    summary: Summary,
    eps: float = 0.0,
    before: Sequence[PixelStep] = (),
    after: Sequence[PixelStep] = (),
) -> Scaling:
    """Make the scaling that a method wants of an image with these statistics.

    Parameters
    ----------
    method : str
        ``"percentile"``: the low one becomes 0, the high one 1. ``"mean_std"``: the mean becomes 0 and a standard
        deviation 1. ``"none"``: nothing changes.
    summary : Summary
        Of the whole image, as it is in its file.
    eps : float
        Added to what intensities are divided by.
    before, after : sequence of PixelStep
        What else is done to each intensity, which changes no statistics: these stay those of the image in its file.

    Returns
    -------
    Scaling
        An image without contrast is only shifted, unless there is an `eps`.
    """
    offset, width = 0.0, 1.0
    if method == "percentile":
        low, high = summary.percentiles
        offset, width = low, max(high - low, 0.0) + eps
    elif method == "mean_std":
        offset, width = summary.mean, summary.std + eps
    return Scaling(offset, width if width > 0 else 1.0, tuple(before), tuple(after))
