"""What a bioimage.io description does to intensities, told as this program does it: by the whole image's statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from pipeline.errors import ModelError
from pipeline.models.card import IntensityRule
from pipeline.models.pixels import PixelRule

__all__ = ["Preprocessing", "map_pixel_step", "map_preprocessing", "step_name"]

_FIXED_EPS = 1e-6
"""What bioimageio.core adds to a deviation that a description gives as a number."""

_AXES = {"batch": "b", "channel": "c", "time": "t", "index": "i"}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network wants its input.

    Parameters
    ----------
    intensity : IntensityRule
        How intensities are scaled.
    pixel_type : str, optional
        The integer type that pixels must have, or fit into, where one is asked for.
    """

    intensity: IntensityRule
    pixel_type: str | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known after some of the steps."""

    method: str = "none"
    low: float = 1.0
    high: float = 99.8
    eps: float = 0.0
    together: bool = False
    before: tuple[PixelRule, ...] = ()
    after: tuple[PixelRule, ...] = ()
    pixel_type: str | None = None


def step_name(step: Any) -> str:  # noqa: ANN401 (of bioimageio.spec, which has no types)
    """Give a step's name, as format 0.4 and 0.5 write it."""
    return str(getattr(step, "name", None) or getattr(step, "id", None))


def map_preprocessing(steps: Sequence[Any], axes: str, channels: int) -> Preprocessing:
    """Tell how intensities are scaled.

    Parameters
    ----------
    steps : sequence
        Preprocessing of bioimageio.spec, format 0.4 or 0.5.
    axes : str
        Letters of the input's axes.
    channels : int
        Channels of the input.

    Raises
    ------
    ModelError
        If a step cannot be done with statistics of the whole image and one pixel at a time; names the step.
    """
    found = _Found()
    for step in steps:
        found = _take(found, step, axes, channels)
    try:
        rule = IntensityRule.model_validate(
            {
                name: getattr(found, name)
                for name in ("method", "low", "high", "eps", "together", "before", "after")
                if found.method != "none" or name in ("method", "after")
            }
        )
    except ValidationError as error:
        raise ModelError(f"preprocessing: {error.errors()[0]['msg']}") from error
    return Preprocessing(rule, found.pixel_type)


def _take(found: _Found, step: Any, axes: str, channels: int) -> _Found:  # noqa: ANN401
    """Take one more step."""
    name, kwargs = step_name(step), step.kwargs
    fixed = name == "zero_mean_unit_variance" and getattr(kwargs, "mode", None) == "fixed"
    if name == "ensure_dtype":
        return _cast(found, str(kwargs.dtype))
    if name in ("zero_mean_unit_variance", "scale_range") and not fixed:
        return _statistics(found, name, kwargs, axes, channels)
    return replace(found, after=(*found.after, map_pixel_step(step, channels)))


def _cast(found: _Found, dtype: str) -> _Found:
    """Take a cast: to floating numbers it changes nothing here, where all is computed in them."""
    if dtype.startswith("float"):
        return found
    if found.method != "none" or found.after:
        raise _refusal("ensure_dtype", f"casts scaled intensities to {dtype}, which leaves nothing of them")
    return replace(found, pixel_type=dtype)


def _statistics(found: _Found, name: str, kwargs: Any, axes: str, channels: int) -> _Found:  # noqa: ANN401
    """Take a step that needs statistics: those of the whole image as it is, whatever was done to it before.

    That is what bioimageio.core does, which makes and checks the test outputs of packages.
    """
    jointly = _letters(kwargs.axes, axes)
    missing = [axis for axis in "zyx" if axis in axes and axis not in jointly]
    if missing:
        raise _refusal(name, f"takes statistics along {sorted(jointly)} only, for each place along {missing} by itself")
    if found.method != "none":
        raise _refusal(name, "is a second step that needs statistics; one such step is done")
    together = channels > 1 and "c" in jointly
    method = {"scale_range": "percentile", "zero_mean_unit_variance": "mean_std"}[name]
    limits = (float(kwargs.min_percentile), float(kwargs.max_percentile)) if method == "percentile" else (1.0, 99.8)
    return replace(found, method=method, low=limits[0], high=limits[1], eps=float(kwargs.eps), together=together,
                   before=found.after, after=())  # fmt: skip


def _letters(given: Any, axes: str) -> str:  # noqa: ANN401
    """Give the letters of axes, which format 0.4 writes as letters and 0.5 as a list of names."""
    if given is None:
        return axes
    return "".join(_AXES.get(str(axis), str(axis)) for axis in given)


def map_pixel_step(step: Any, channels: int) -> PixelRule:  # noqa: ANN401
    """Tell a step that sees one pixel at a time.

    Raises
    ------
    ModelError
        If it sees more, or numbers are given along another axis than the channels; names the step.
    """
    name, kwargs = step_name(step), step.kwargs
    match name:
        case "sigmoid":
            return PixelRule(kind="sigmoid")
        case "binarize":
            numbers = {"kind": "binarize", "first": _tuple(kwargs.threshold)}
        case "clip":
            if any(getattr(kwargs, each, None) is not None for each in ("min_percentile", "max_percentile")):
                raise _refusal(name, "clips at percentiles of the image")
            numbers = {"kind": "clip", "first": (kwargs.min,), "second": (kwargs.max,)}
        case "scale_linear":
            numbers = {"kind": "linear", "first": _tuple(kwargs.gain), "second": _tuple(kwargs.offset)}
        case "fixed_zero_mean_unit_variance" | "zero_mean_unit_variance" if getattr(kwargs, "std", None) is not None:
            deviations = tuple(each + _FIXED_EPS for each in _tuple(kwargs.std))
            numbers = {"kind": "standardize", "first": _tuple(kwargs.mean), "second": deviations}
        case _:
            raise _refusal(name, "sees more than one pixel at a time, which tiles would cut")
    rule = PixelRule.model_validate(numbers)
    # Format 0.4 names the axes that share a number, which leaves the channels; 0.5 the one that has several.
    axis = getattr(kwargs, "axis", None)
    along = _AXES.get(str(axis), str(axis)) if axis is not None else "c"
    if rule.channels > 1 and (along != "c" or rule.channels != channels):
        raise _refusal(name, f"has {rule.channels} numbers along the axis {along!r}, and there are {channels} channels")
    return rule


def _tuple(given: Any) -> tuple[float, ...]:  # noqa: ANN401
    return (float(given),) if isinstance(given, int | float) else tuple(float(each) for each in given)


def _refusal(name: str, why: str) -> ModelError:
    return ModelError(f"the step {name!r} {why}; change the description, or package the network without that step")
