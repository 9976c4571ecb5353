"""What is measured: where the pixels lie, and what classes and channels they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Subject"]

_SUMMED = ("uint8", "int8", "uint16", "int16")
"""Types whose values and squares are summed as 64-bit integers; of all others as exact parts of real numbers."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The facts of label image and image that measurements depend on.

    Parameters
    ----------
    shape : tuple of int
        Of the label image, TZYX.
    axes : str
        Those that the label image's file has, a part of TZYX.
    ndim : {2, 3}
        2: each plane of T and Z has its own objects. 3: each time point has.
    spacing, translation : tuple of float
        Size of a pixel, and position of the first one's centre, of the last `ndim` axes.
    unit : str or None
        Of spacing and translation, as OME-Zarr names it.
    classes : tuple of str
        Names of the semantic classes, in the order of their numbers.
    object_classes : tuple of int
        The numbers of those that objects are made of.
    channels : tuple of str
        Names of the image's channels.
    dtype : str
        NumPy's name of the image's type.
    """

    shape: tuple[int, int, int, int]
    axes: str
    ndim: Literal[2, 3]
    spacing: tuple[float, ...]
    translation: tuple[float, ...]
    unit: str | None
    classes: tuple[str, ...]
    object_classes: tuple[int, ...]
    channels: tuple[str, ...]
    dtype: str

    @property
    def counts_classes(self) -> bool:
        """Whether objects may be of different classes, so that pixels of each are counted."""
        return len(self.object_classes) > 1

    @property
    def value_type(self) -> np.dtype[Any]:
        """Type of lowest and highest values."""
        return np.dtype(np.uint8 if self.dtype == "bool" else self.dtype)

    @property
    def sums_integers(self) -> bool:
        """Whether intensities are summed as integers."""
        return self.value_type.name in _SUMMED

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The pairs of axes that have a second moment, counted from the first of the `ndim` axes."""
        return tuple((one, other) for one in range(self.ndim) for other in range(one, self.ndim))

    @property
    def partial_type(self) -> np.dtype[Any]:
        """What one core knows of one object, as a structured type.

        ``start`` and ``stop`` are its bounding box in the image, TZYX. Coordinates in ``first`` and ``second``, sums of
        coordinates and of products of two (see `pairs`), are counted from ``start``. ``row`` is where its
        extents begin.
        """
        channels = len(self.channels)
        fields: list[tuple[Any, ...]] = [
            ("label", "u4"),
            ("pixels", "i8"),
            ("start", "i8", (4,)),
            ("stop", "i8", (4,)),
            ("first", "i8", (self.ndim,)),
            ("second", "i8", (len(self.pairs),)),
            ("low", self.value_type, (channels,)),
            ("high", self.value_type, (channels,)),
        ]
        if self.counts_classes:
            fields.append(("classes", "i8", (len(self.object_classes),)))
        if self.sums_integers:
            fields += [("total", "i8", (channels,)), ("squares", "i8", (channels,))]
        if self.ndim == 2:
            fields.append(("row", "i8"))
        return np.dtype(fields)
