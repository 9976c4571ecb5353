"""The columns of a table of objects: scikit-image's names and definitions, in pixels and in physical units."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.measure.merging import Objects
from pipeline.measure.subject import Subject

__all__ = ["Column", "columns", "measurements"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Parameters
    ----------
    name : str
        scikit-image's, as of ``regionprops_table``; with ``_physical`` behind the property's name where it is in
        physical units.
    dtype : str
        NumPy's name, or ``"string"``.
    kind : {"index", "metadata", "categorical", "measurement"}
        What ngio calls it.
    unit : str or None
        None for plain numbers.
    """

    name: str
    dtype: str
    kind: str
    unit: str | None = None


def columns(subject: Subject) -> tuple[Column, ...]:
    """Give the columns of a table, in order.

    Parameters
    ----------
    subject : Subject
        What is measured.

    Returns
    -------
    tuple of Column
    """
    ndim, power = subject.ndim, {2: "²", 3: "³"}[subject.ndim]
    found = [Column("label", "int64", "index"), Column("class", "string", "categorical")]
    found += [Column(axis.lower(), "int64", "metadata") for axis in "TZ"[: 4 - ndim] if axis in subject.axes]
    for suffix, unit in (("", "pixel"), ("_physical", subject.unit)):
        dtype = "float64" if suffix else "int64"
        found.append(Column(f"area{suffix}", dtype, "measurement", unit and f"{unit}{power}"))
        found += [Column(f"centroid{suffix}-{axis}", "float64", "measurement", unit) for axis in range(ndim)]
        found += [Column(f"bbox{suffix}-{at}", dtype, "measurement", unit) for at in range(2 * ndim)]
        found += [
            Column(f"axis_{which}_length{suffix}", "float64", "measurement", unit) for which in ("major", "minor")
        ]
        if ndim == 2:
            found.append(Column(f"orientation{suffix}", "float64", "measurement", "radian"))
            found.append(Column(f"eccentricity{suffix}", "float64", "measurement"))
    if ndim == 2:
        found.append(Column("solidity", "float64", "measurement"))
    for property_name in ("intensity_mean", "intensity_min", "intensity_max", "intensity_std"):
        found += [Column(f"{property_name}-{at}", "float64", "measurement") for at in range(len(subject.channels))]
    found.append(Column("touches_border", "bool", "metadata"))
    return tuple(found)


def measurements(objects: Objects, subject: Subject) -> dict[str, NDArray[Any]]:
    """Measure whole objects.

    Parameters
    ----------
    objects : Objects
        What was merged.
    subject : Subject
        What is measured.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        The columns in the order of `columns`; strings as numbers of classes.
    """
    ndim, free = subject.ndim, 4 - subject.ndim
    start, stop = objects.start[:, free:], objects.stop[:, free:]
    centroid = start + objects.first
    found: dict[str, NDArray[Any]] = {
        "label": objects.label,
        "class": objects.classes,
        "t": objects.start[:, 0],
        "z": objects.start[:, 1],
        "area": objects.pixels,
        "area_physical": objects.pixels * prod(subject.spacing),
        "touches_border": _touches_border(start, stop, subject),
    }
    for axis in range(ndim):
        found[f"centroid-{axis}"] = centroid[:, axis]
        found[f"centroid_physical-{axis}"] = centroid[:, axis] * subject.spacing[axis] + subject.translation[axis]
        for at, edge in ((axis, start[:, axis]), (ndim + axis, stop[:, axis])):
            found[f"bbox-{at}"] = edge
            # A pixel's position is that of its centre; a box begins and ends at the outer edges of pixels.
            found[f"bbox_physical-{at}"] = (edge - 0.5) * subject.spacing[axis] + subject.translation[axis]
    for suffix, spacing in (("", (1.0,) * ndim), ("_physical", subject.spacing)):
        found.update({f"{name}{suffix}": values for name, values in _shapes(objects.second, spacing, subject).items()})
    if ndim == 2:
        found["solidity"] = objects.pixels / objects.convex
    for name, values in (("mean", objects.mean), ("min", objects.low), ("max", objects.high), ("std", objects.std)):
        for at in range(len(subject.channels)):
            found[f"intensity_{name}-{at}"] = values[:, at].astype(np.float64)
    return {column.name: found[column.name] for column in columns(subject)}


def _touches_border(start: NDArray[np.int64], stop: NDArray[np.int64], subject: Subject) -> NDArray[np.bool_]:
    """Say whether an object may go on beyond the image."""
    touching: NDArray[np.bool_] = ((start == 0) | (stop == np.array(subject.shape[4 - subject.ndim :]))).any(axis=1)
    return touching


def _shapes(
    covariances: NDArray[np.float64], spacing: tuple[float, ...], subject: Subject
) -> dict[str, NDArray[np.float64]]:
    """Give what follows from the tensor of inertia, as scikit-image defines it, for pixels of a size."""
    ndim = subject.ndim
    tensor = np.zeros((len(covariances), ndim, ndim))
    scaled = {pair: covariances[:, at] * spacing[pair[0]] * spacing[pair[1]] for at, pair in enumerate(subject.pairs)}
    for (one, other), values in scaled.items():
        if one != other:
            tensor[:, one, other] = tensor[:, other, one] = -values
    for axis in range(ndim):
        tensor[:, axis, axis] = sum(scaled[other, other] for other in range(ndim) if other != axis)
    # Ascending; rounding may have left the smallest below zero.
    moments = np.clip(np.linalg.eigvalsh(tensor), 0, None) if len(tensor) else np.zeros((0, ndim))
    if ndim == 3:
        low, middle, high = moments.T
        return {
            "axis_major_length": np.sqrt(10 * np.clip(high + middle - low, 0, None)),
            "axis_minor_length": np.sqrt(10 * np.clip(low + middle - high, 0, None)),
        }
    low, high = moments.T
    ratio = np.divide(low, high, out=np.ones_like(low), where=high > 0)
    a, b, c = tensor[:, 0, 0], tensor[:, 0, 1], tensor[:, 1, 1]
    diagonal = np.where(b < 0, np.pi / 4, -np.pi / 4)
    return {
        "axis_major_length": 4 * np.sqrt(high),
        "axis_minor_length": 4 * np.sqrt(low),
        "eccentricity": np.sqrt(1 - ratio),
        "orientation": np.where(a == c, diagonal, 0.5 * np.arctan2(-2 * b, c - a)),
    }
