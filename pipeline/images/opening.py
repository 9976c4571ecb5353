"""One door to all formats."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ImageError
from pipeline.images.openslides import OpenSlideSource, is_slide
from pipeline.images.plates import is_zarr
from pipeline.images.sequence_source import SequenceSource
from pipeline.images.sequences import as_sequence
from pipeline.images.tiff import TiffSource
from pipeline.images.told import not_opened
from pipeline.images.vendors import BioioSource, is_of_a_vendor
from pipeline.images.zarrs import ZarrSource
from pipeline.remote.paths import to_path

if TYPE_CHECKING:
    from pipeline.images.source import ImageSource
    from pipeline.remote.paths import AnyPath

__all__ = ["open_coarser", "open_image"]


def open_image(path: str | AnyPath, series: int | None = None) -> ImageSource:
    """Open an image of any format that is known.

    Parameters
    ----------
    path : str, Path or RemotePath
        A TIFF file, or the folder of an OME-Zarr or Zarr; on a disk, or a URL. On a disk also a CZI, ND2, LIF,
        DICOM or MIRAX, or an image of many TIFF files, by a pattern: see `pipeline.images.sequences`.
    series : int, optional
        Which image of a file that holds several; the first where absent.

    Returns
    -------
    ImageSource

    Raises
    ------
    ImageError
        If it cannot be read: says why, and what to do.
    """
    place = to_path(path)
    if (sequence := as_sequence(place)) is not None:
        return SequenceSource(sequence, series)
    if _is_folder(place):
        return ZarrSource(place, series)
    if isinstance(place, Path) and is_of_a_vendor(place):
        return BioioSource(place, series)
    if isinstance(place, Path) and is_slide(place):
        return OpenSlideSource(place, series)
    return TiffSource(place, series)


def _is_folder(path: AnyPath) -> bool:
    if isinstance(path, Path):
        # Not `Path.is_dir`, which fails where a folder above may not be looked into.
        return os.path.isdir(path)  # noqa: PTH112
    try:
        # Whoever opens a Zarr tells best what is wrong with it.
        return path.name.lower().endswith(".zarr") or is_zarr(path)
    except OSError as error:
        raise not_opened(path, error) from error


def open_coarser(path: str | AnyPath, series: int | None = None) -> list[ImageSource]:
    """Open the coarser levels of an image's pyramid, the finest of them first: of an OME-Zarr, for others have none.

    Raises
    ------
    ImageError
        If one cannot be read, or is no coarser image of the same axes.
    """
    place = to_path(path)
    if not _is_folder(place):
        return []
    whole = ZarrSource(place, series)
    found: list[ImageSource] = []
    for level in range(1, len(whole.levels)):
        source = ZarrSource(place, series, level)
        (times, channels, *finer), (*same, depth, height, width) = whole.info.shape, source.info.shape
        if same != [times, channels] or any(a > b for a, b in zip((depth, height, width), finer, strict=True)):
            raise ImageError(f"{path}: level {level} of the pyramid is no coarser image of the same axes")
        found.append(source)
    return found
