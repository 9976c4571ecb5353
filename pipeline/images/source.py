"""What every image is to the pipeline: five axes TCZYX, some facts, and regions that can be read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from pipeline.errors import ImageError
from pipeline.images.told import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.geometry import Box
    from pipeline.remote.paths import AnyPath

__all__ = ["AXES", "ImageInfo", "ImageSource", "check_type", "is_size"]

AXES = "TCZYX"

MOST_PIXELS = 2**50
"""A thousand million megapixels. What claims to be larger is damaged; sums of positions stay below 2**63."""

SMALLEST_SIZE, LARGEST_SIZE = 1e-30, 1e30
"""Of a pixel, in any unit: squares and fourth powers of more are no numbers."""

_KINDS = "buif"
"""Of data types that are read: bool, unsigned, signed, floating."""


def check_type(path: str, dtype: np.dtype[Any]) -> None:
    """Refuse pixels that are no numbers.

    Raises
    ------
    ImageError
        If they are complex, texts, dates or whatever else a file may hold.
    """
    if dtype.kind not in _KINDS:
        raise ImageError(f"{path}: pixels of type {dtype} cannot be segmented; convert to integers or real numbers")


def is_size(value: float) -> bool:
    """Say whether anything can be so long, in any unit."""
    return SMALLEST_SIZE < value < LARGEST_SIZE


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The facts of an image, read once.

    Parameters
    ----------
    path : str
        Where it lies.
    kind : str
        ``"tiff"``, ``"sequence"`` (many TIFF files), ``"ome-zarr"``, ``"zarr"``, ``"slide"`` (DICOM, MIRAX)
        or, of a microscope's maker, ``"vendor"``.
    shape : tuple of int
        TCZYX; 1 for axes that the file does not have.
    dtype : str
        NumPy's name of the data type as it is read.
    axes : str
        The axes that the file really has, in the order TCZYX.
    pixel_size : tuple of float
        Per axis TCZYX; 1.0 where it is unknown.
    units : tuple of str or None
        Per axis TCZYX, as OME-Zarr names them, such as ``"micrometer"``.
    translation : tuple of float
        Position of the first pixel, per axis TCZYX, in units.
    channel_names : tuple of str
        One per channel.
    block : tuple of int
        TCZYX; what the file decodes at once: a strip, a tile, a chunk or a shard. Its channels are those that lie side
        by side, as in interleaved RGB; one where each lies by itself.
    size_bytes, modified_ns : int
        What the image is known by again: sum of the sizes and latest modification of all files that it is read from.
        Of a Zarr, those are the metadata and every file of the array that is read, each counted with one byte more
        than it has, so that an empty one that comes or goes shows, too; of an OME-TIFF, every file with planes. A web
        server does not list files: of a Zarr there, its metadata alone.
    files_sha256 : str, optional
        Of a sequence, of the names, sizes and times of modification of all its files: many are of one size.
    """

    path: str
    kind: Literal["tiff", "sequence", "ome-zarr", "zarr", "vendor", "slide"]
    shape: tuple[int, int, int, int, int]
    dtype: str
    axes: str
    pixel_size: tuple[float, float, float, float, float]
    units: tuple[str | None, str | None, str | None, str | None, str | None]
    translation: tuple[float, float, float, float, float]
    channel_names: tuple[str, ...]
    block: tuple[int, int, int, int, int]
    size_bytes: int
    modified_ns: int
    files_sha256: str | None = None

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ImageError(f"{self.path}: the image has no pixels, its shape TCZYX is {self.shape}")
        if prod(self.shape) > MOST_PIXELS:
            raise ImageError(
                f"{self.path}: damaged: no image has the shape TCZYX {self.shape}, {prod(self.shape):.1e} pixels; "
                f"{AGAIN}"
            )
        check_type(self.path, np.dtype(self.dtype))

    def is_still(self, before: ImageInfo) -> bool:
        """Say whether an image is what it was; a user may have stated what its files do not tell."""
        stated = ("pixel_size", "translation", "units", *(("channel_names",) if before.kind == "sequence" else ()))
        return replace(self, **{name: getattr(before, name) for name in stated}) == before

    @property
    def itemsize(self) -> int:
        """Bytes of one pixel."""
        return np.dtype(self.dtype).itemsize


class ImageSource(Protocol):
    """An open image. Several threads may read at once."""

    @property
    def info(self) -> ImageInfo:
        """The facts."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the file though it can be read, in lines that begin with its path."""
        ...

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a region.

        Parameters
        ----------
        box : Box
            TCZYX, inside the image.

        Returns
        -------
        ndarray
            TCZYX, of the image's data type. Only the strips, tiles or chunks that the region needs are decoded.

        Raises
        ------
        ImageError
            If the pixels cannot be decoded.
        """
        ...

    def files(self) -> Iterator[AnyPath]:
        """Give all files that it is read from."""
        ...

    def pieces(self) -> tuple[int, int]:
        """Count the pieces that are there, and those that there should be: strips, tiles and planes, or chunks.

        What is not there reads as zeros, as the formats have it. Files that are still being written look so, too.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...
