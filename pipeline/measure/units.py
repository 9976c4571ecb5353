"""One unit for all axes."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["in_one_unit", "is_length"]

_METRES = {
    "yoctometer": 1e-24, "zeptometer": 1e-21, "attometer": 1e-18, "femtometer": 1e-15, "picometer": 1e-12,
    "angstrom": 1e-10, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2,
    "decimeter": 1e-1, "meter": 1.0, "decameter": 1e1, "hectometer": 1e2, "kilometer": 1e3, "megameter": 1e6,
    "gigameter": 1e9, "terameter": 1e12, "petameter": 1e15, "exameter": 1e18, "zettameter": 1e21, "yottameter": 1e24,
    "inch": 0.0254, "foot": 0.3048, "yard": 0.9144, "mile": 1609.344,
}  # fmt: skip
"""Lengths, by the names of OME-Zarr."""


def is_length(unit: str | None) -> bool:
    """Say whether a unit, as OME-Zarr names it, is one of lengths; pixels and frames of reference are none."""
    return unit in _METRES


def in_one_unit(
    sizes: Sequence[float], positions: Sequence[float], units: Sequence[str | None]
) -> tuple[tuple[float, ...], tuple[float, ...], str | None]:
    """Express sizes and positions along several axes in one unit, that of the last axis.

    Parameters
    ----------
    sizes, positions : sequence of float
        One entry per axis.
    units : sequence of str or None
        As OME-Zarr names them; one entry per axis.

    Returns
    -------
    sizes, positions : tuple of float
    unit : str or None
        None where an axis has none, or one that cannot be converted; the numbers are then left as they are.
    """
    unit = units[-1]
    if any(other != unit and (other not in _METRES or unit not in _METRES) for other in units):
        return tuple(sizes), tuple(positions), None
    factors = [1.0 if other == unit else _METRES[str(other)] / _METRES[str(unit)] for other in units]
    return (
        tuple(size * factor for size, factor in zip(sizes, factors, strict=True)),
        tuple(position * factor for position, factor in zip(positions, factors, strict=True)),
        unit,
    )
