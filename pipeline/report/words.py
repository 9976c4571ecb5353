"""Numbers as a reader wants them: three digits that count, and a unit that fits them."""

from __future__ import annotations

from math import floor, isfinite, log10, pi
from typing import TYPE_CHECKING

from pipeline.measure.units import in_one_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.planning import RunPlan

__all__ = [
    "Measure",
    "across",
    "duration",
    "extent",
    "nice_step",
    "number",
    "plural",
    "share",
    "short",
    "size_measure",
    "unit_sign",
]

_LENGTHS = ("nanometer", "micrometer", "millimeter", "meter")
"""Units that sizes are told in, the smallest first."""

_SIGNS = {
    "nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "centimeter": "cm", "meter": "m", "angstrom": "Å",
    "picometer": "pm", "kilometer": "km", "inch": "in", "second": "s", "millisecond": "ms", "microsecond": "µs",
    "minute": "min", "hour": "h", "day": "d",
}  # fmt: skip
"""Of units, by the names of OME-Zarr."""

_POWERS = {1: "", 2: "²", 3: "³"}


def number(value: float) -> str:
    """Give a number with three digits that count, none of a whole one's left out."""
    if not isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = floor(log10(abs(value)))
    if size < -4 or size > 8:
        return f"{value:.2e}"
    text = f"{value:,.{max(2 - size, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def short(value: float) -> str:
    """Give a count in little room, such as ``20 k`` or ``1.5 M``."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{number(value / min(size, 1e3 if sign == 'k' else size))} {sign}"
    return number(value)


def share(part: float, whole: float) -> str:
    """Give a part of a whole in percent."""
    return f"{number(float(f'{100 * part / whole:.2g}'))} %" if whole else "0 %"


def plural(count: int, what: str, many: str | None = None) -> str:
    """Give a count and what is counted."""
    return f"{count:,} {what if count == 1 else many or f'{what}s'}"


def duration(seconds: float) -> str:
    """Give a time as one would say it."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{number(float(f'{seconds:.2g}'))} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def unit_sign(unit: str) -> str:
    """Give the sign of a unit that OME-Zarr names."""
    return _SIGNS.get(unit, unit)


class Measure:
    """A unit that fits some quantity.

    Parameters
    ----------
    value : float
        A typical one, in units of `unit` to the power of `power`.
    unit : str or None
        As OME-Zarr names it; None for pixels.
    power : {1, 2, 3}
        1 for lengths, 2 for areas, 3 for volumes.
    """

    def __init__(self, value: float, unit: str | None, power: int) -> None:
        self.factor, chosen = 1.0, unit
        if unit in _LENGTHS and value > 0:
            for other in _LENGTHS:
                factor = in_one_unit((1.0, 1.0), (0.0, 0.0), (unit, other))[0][0] ** power
                if other == _LENGTHS[0] or value * factor >= 0.1:
                    self.factor, chosen = factor, other
        pixels = "pixels" if power < 3 else "voxels"
        self.sign = pixels if chosen is None else unit_sign(chosen) + _POWERS[power]

    def __call__(self, value: float) -> str:
        """Give a value with its unit."""
        return f"{number(value * self.factor)} {self.sign}"


def size_measure(plan: RunPlan, pixels: float) -> tuple[float, Measure]:
    """Give how large a pixel of the labels is, as area or volume, and the unit for objects of so many of them."""
    subject, each = plan.subject, 1.0
    if subject.unit is None:
        return 1.0, Measure(pixels, None, plan.spatial_ndim)
    for length in subject.spacing:
        each *= length
    return each, Measure(pixels * each, subject.unit, plan.spatial_ndim)


def across(size: float, ndim: int) -> float:
    """Give the diameter of a disk of an area, or of a ball of a volume."""
    return float((4 * size / pi) ** 0.5 if ndim == 2 else (6 * size / pi) ** (1 / 3))


def extent(lengths: Sequence[int], sizes: Sequence[float], units: Sequence[str | None]) -> str | None:
    """Give how large an image is along some axes, such as ``2.7 × 1.8 mm``; None where that is unknown."""
    if any(unit is None for unit in units):
        return None
    scaled, _, unit = in_one_unit(sizes, (0.0,) * len(sizes), units)
    if unit is None:
        return None
    spans = [length * size for length, size in zip(lengths, scaled, strict=True)]
    measure = Measure(max(spans), unit, 1)
    return f"{' × '.join(number(span * measure.factor) for span in spans)} {measure.sign}"


def nice_step(span: float, pieces: int) -> float:
    """Give the largest of 1, 2 and 5 times a power of ten that is not above a part of a span."""
    wanted = span / max(pieces, 1)
    if not (isfinite(wanted) and wanted > 0):
        return 1.0
    power: float = 10.0 ** floor(log10(wanted))
    return next(power * times for times in (5, 2, 1) if power * times <= wanted * (1 + 1e-9))
