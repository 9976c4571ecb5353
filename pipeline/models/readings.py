"""What the numbers mean that a packaged network gives: which steps make them probabilities, and of which classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import ModelError
from pipeline.models.pixels import PixelRule
from pipeline.models.processing import map_pixel_step, step_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Reading", "map_postprocessing", "read_scores"]

_ROUNDING = 1e-2
"""By how much probabilities may miss 0, 1, or a sum of 1: test outputs may have been kept in half precision."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How an output is read.

    Parameters
    ----------
    activation : str
        As for a model's card.
    steps : tuple of PixelRule
        What is done to the output before that.
    background : bool
        Whether a class comes first that has what the likeliest of the others leaves.
    why : str
        How that was found out.
    """

    activation: Literal["softmax", "sigmoid", "none"]
    steps: tuple[PixelRule, ...]
    background: bool
    why: str


def map_postprocessing(steps: Sequence[Any], axes: str, channels: int) -> tuple[PixelRule, ...]:
    """Tell what is done to an output.

    Parameters
    ----------
    steps : sequence
        Postprocessing of bioimageio.spec, format 0.4 or 0.5.
    axes : str
        Letters of the output's axes.
    channels : int
        Channels of the output.

    Raises
    ------
    ModelError
        If a step sees more than one pixel at a time; names the step.
    """
    found: list[PixelRule] = []
    for step in steps:
        name = step_name(step)
        if name == "ensure_dtype":
            dtype = str(step.kwargs.dtype)
            if not dtype.startswith("float") and not (found and found[-1].kind == "binarize"):
                raise ModelError(f"the step {name!r} makes scores {dtype}, which leaves nothing of them; change the "
                                 "description, or package the network without that step")  # fmt: skip
        elif name == "softmax":
            if str(step.kwargs.axis) != "channel" or "c" not in axes:
                raise ModelError(f"the step {name!r} goes along {step.kwargs.axis}; it is done along the channels only")
            found.append(PixelRule(kind="softmax"))
        else:
            found.append(map_pixel_step(step, channels))
    return tuple(found)


def read_scores(
    steps: tuple[PixelRule, ...], channels: int, sample: NDArray[np.generic] | None, declared: tuple[Any, Any]
) -> Reading:
    """Find out what an output's numbers mean.

    Parameters
    ----------
    steps : tuple of PixelRule
        As `map_postprocessing` gives them.
    channels : int
        Channels of the output.
    sample : ndarray, optional
        The package's test output, channels first.
    declared : tuple
        Least and largest value that the description allows; None where it does not say.

    Raises
    ------
    ModelError
        If nothing tells.
    """
    last = steps[-1].kind if steps else ""
    if last == "softmax" and channels > 1:
        return Reading("softmax", steps[:-1], background=False, why="a softmax comes last")
    if last == "sigmoid":
        return Reading("sigmoid", steps[:-1], background=False, why="a sigmoid comes last")
    if last == "binarize":
        return Reading("none", steps, background=True, why="a threshold comes last")
    if sample is not None and sample.size:
        values = sample.astype(np.float64)
        if values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING:
            if channels > 1 and np.abs(values.sum(axis=0) - 1).max() <= _ROUNDING:
                return Reading("none", steps, background=False, why="the test output sums to 1 over the channels")
            return Reading("none", steps, background=True, why="the test output lies between 0 and 1")
        if channels > 1:
            return Reading("softmax", steps, background=False, why="the test output has scores without bounds")
    elif (
        channels == 1 and declared[0] is not None and declared[0] >= 0 and declared[1] is not None and declared[1] <= 1
    ):
        return Reading("none", steps, background=True, why="the output is said to lie between 0 and 1")
    raise ModelError(
        f"nothing tells how the {channels} channel(s) of the output become classes; add a step sigmoid, softmax or "
        "binarize to postprocessing, or a test output to the package"
    )
