"""One door to all formats."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.images.tiff import TiffSource
from pipeline.images.zarrs import ZarrSource

if TYPE_CHECKING:
    from pipeline.images.source import ImageSource

__all__ = ["open_image"]


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
