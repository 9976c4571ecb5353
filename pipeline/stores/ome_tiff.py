"""Pyramidal OME-TIFF: several images in one file, each tile by tile, so that nothing is held but some tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from math import prod
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.stores.metadata import Space
from pipeline.stores.replacing import replacing

__all__ = ["TiffImage", "write_ome_tiff"]

TILE = 512
"""Edge of a tile, as large as the chunks that it is read from."""

CLASSIC_LIMIT = 2**32 - 2**25
"""Bytes of pixels above which offsets of 32 bits may not do; what is left is for the pages' own entries."""

_ROUNDS_UP = {"float16": "float32", "bool": "uint8"}
"""Types that OME-XML or readers do not know, and the next larger ones that they know."""

_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

_UNITS = {
    "micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m", "angstrom": "Å",
    "picometer": "pm", "inch": "in", "second": "s", "millisecond": "ms", "microsecond": "µs", "nanosecond": "ns",
    "minute": "min", "hour": "h",
}  # fmt: skip
"""What OME-Zarr calls units, and how OME-XML writes them."""


@dataclass(frozen=True)
class TiffImage:
    """One image of the file.

    Parameters
    ----------
    name : str
        Its name.
    space : Space
        Its axes, a part of TCZYX that ends with Y and X, and where its pixels lie.
    levels : sequence of zarr.Array
        The pyramid, full resolution first; coarser levels differ in Y and X alone.
    channels : tuple of str
        Names of the channels; one where there is no axis C.
    dtype : str, optional
        The type to write, where it is another one than that of the arrays.
    colours : bool
        Whether the channels are red, green and blue of one picture.
    """

    name: str
    space: Space
    levels: Sequence[zarr.Array[Any]]
    channels: tuple[str, ...]
    dtype: str = ""
    colours: bool = False

    @property
    def stored(self) -> np.dtype[Any]:
        """The type of its pixels in the file."""
        own = self.dtype or np.dtype(self.levels[0].dtype).name
        return np.dtype(_ROUNDS_UP.get(own, own))

    @property
    def nbytes(self) -> int:
        """Bytes of all its tiles, uncompressed."""
        return sum(
            prod(level.shape[:-2]) * prod(-(-edge // TILE) * TILE for edge in level.shape[-2:]) * self.stored.itemsize
            for level in self.levels
        )


def write_ome_tiff(path: Path, images: Sequence[TiffImage], identity: str) -> bool:
    """Write images into one OME-TIFF: tiled, deflated, with pyramids as SubIFDs.

    Parameters
    ----------
    path : Path
        The file; replaced once the new one is complete.
    images : sequence of TiffImage
        In order; most programs open the first.
    identity : str
        What the file's UUID is made of: the same images with the same identity give the same bytes.

    Returns
    -------
    bool
        Whether it is a BigTIFF, as it is where 4 GiB might not suffice.

    Raises
    ------
    StoreError
        If an image has a type that OME-TIFF does not know, or the disk refuses.
    """
    for image in images:
        if image.stored.name not in _TYPES:
            raise StoreError(
                f"{path}: {image.name!r} has pixels of {image.stored}, which OME-TIFF does not know; convert the image "
                f"to one of {', '.join(_TYPES)}, or leave it out of the result (--no-image)"
            )
    big = sum(image.nbytes for image in images) > CLASSIC_LIMIT
    with replacing(path) as beside, tifffile.TiffWriter(beside, bigtiff=big, ome=True) as file:
        for image in images:
            _write_image(file, image, str(uuid5(NAMESPACE_URL, identity)))
    return big


def _write_image(file: tifffile.TiffWriter, image: TiffImage, identity: str) -> None:
    metadata = _metadata(image) | {"UUID": identity, "Creator": f"seamfree {version('seamfree')}"}
    for number, level in enumerate(image.levels):
        shape = level.shape
        axes = image.space.axes
        if image.colours:
            shape, axes = _colours_last(shape, axes)
        file.write(
            _tiles(level, image),
            shape=shape,
            dtype=image.stored,
            tile=(TILE, TILE),
            photometric="rgb" if image.colours else "minisblack",
            compression="zlib",
            compressionargs={"level": 4},
            # Neighbours differ by little, and inside of labels by nothing; of real numbers the same is not true.
            predictor=image.stored.kind in "ui",
            subifds=len(image.levels) - 1 if number == 0 else None,
            subfiletype=1 if number else 0,
            metadata={"axes": axes, **metadata} if number == 0 else None,
        )


def _colours_last(shape: Sequence[int], axes: str) -> tuple[tuple[int, ...], str]:
    at = axes.index("C")
    return (*shape[:at], *shape[at + 1 :], shape[at]), f"{axes[:at]}{axes[at + 1 :]}S"


def _tiles(level: zarr.Array[Any], image: TiffImage) -> Iterator[NDArray[Any]]:
    """Give the tiles of a level plane by plane; beyond the edge they are filled up with zeros."""
    *outer, height, width = level.shape
    axes = image.space.axes[:-2]
    ranges: list[Sequence[int | slice]] = [
        [slice(None)] if image.colours and axis == "C" else range(length)
        for axis, length in zip(axes, outer, strict=True)
    ]
    for place in product(*ranges):
        for row, column in product(range(0, height, TILE), range(0, width, TILE)):
            index = (*place, slice(row, min(row + TILE, height)), slice(column, min(column + TILE, width)))
            found: NDArray[Any] = np.asarray(level[index])
            if image.colours:
                found = np.moveaxis(found, 0, -1)
            tile = np.zeros((TILE, TILE, *found.shape[2:]), dtype=image.stored)
            tile[: found.shape[0], : found.shape[1]] = found
            yield tile


def _metadata(image: TiffImage) -> dict[str, Any]:
    """Give what OME-XML shall say of an image; units that it does not know are left out, and with them the sizes."""
    space = image.space
    found: dict[str, Any] = {"Name": image.name}
    if not image.colours:
        found["Channel"] = {"Name": list(image.channels)}
    length = {"T": 1, "C": 1, "Z": 1, **dict(zip(space.axes, image.levels[0].shape, strict=True))}
    planes = length["T"] * length["Z"] * (1 if image.colours else length["C"])
    positions: dict[str, Any] = {}
    for axis, size, start, unit in zip(space.axes, space.scale, space.translation, space.units, strict=True):
        written = _UNITS.get(unit or "")
        if written is None or axis == "C":
            continue
        name = "TimeIncrement" if axis == "T" else f"PhysicalSize{axis}"
        found |= {name: size, f"{name}Unit": written}
        if start and axis in "YX":
            positions |= {f"Position{axis}": [start] * planes, f"Position{axis}Unit": [written] * planes}
    if positions:
        found["Plane"] = positions
    return found
