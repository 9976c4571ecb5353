"""One door to all formats."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ImageError
from pipeline.images.tiff import TiffSource
from pipeline.images.zarrs import ZarrSource

if TYPE_CHECKING:
    from pipeline.images.source import ImageSource

__all__ = ["open_coarser", "open_image"]


def open_image(path: str | Path, series: int | None = None) -> ImageSource:
    """Open an image of any format that is known.

    Parameters
    ----------
    path : str or Path
        A TIFF file, or the folder of an OME-Zarr or Zarr.
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
    # Not `Path.is_dir`, which fails where a folder above may not be looked into.
    if os.path.isdir(path):  # noqa: PTH112
        return ZarrSource(Path(path), series)
    return TiffSource(Path(path), series)


def open_coarser(path: str | Path, series: int | None = None) -> list[ImageSource]:
    """Open the coarser levels of an image's pyramid, the finest of them first: of an OME-Zarr, for others have none.

    Raises
    ------
    ImageError
        If one cannot be read, or is no coarser image of the same axes.
    """
    if not os.path.isdir(path):  # noqa: PTH112
        return []
    whole = ZarrSource(Path(path), series)
    found: list[ImageSource] = []
    for level in range(1, len(whole.levels)):
        source = ZarrSource(Path(path), series, level)
        (times, channels, *finer), (*same, depth, height, width) = whole.info.shape, source.info.shape
        if same != [times, channels] or any(a > b for a, b in zip((depth, height, width), finer, strict=True)):
            raise ImageError(f"{path}: level {level} of the pyramid is no coarser image of the same axes")
        found.append(source)
    return found
