"""Images with instance masks, and which of them are held out.

Many images of a set come from the same plates. Held out at random they would flatter the validation, so whole
groups are held out: images of one size and one level of background.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Field", "load_fields", "split"]

BACKGROUND_STEPS = (2, 5, 10, 18)
"""Median intensities, of 255, that part the groups of one size."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One annotated field of view.

    Parameters
    ----------
    name : str
        File name without suffix.
    group : str
        Plate-like group: size and level of background.
    image : ndarray of float32
        YX, scaled by the whole image's percentiles: background near 0, the brightest nuclei near 1.
    mask : ndarray of int32
        YX, 0 for background, one number per nucleus.
    diameter : float
        Median diameter of the nuclei, in pixels, of a circle of equal area.
    """

    name: str
    group: str
    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    diameter: float


def scale_intensity(image: NDArray[np.uint8], low: float, high: float) -> NDArray[np.float32]:
    """Scale so that the two percentiles of the whole image become 0 and 1."""
    bottom, top = np.percentile(image, [low, high])
    return (image.astype(np.float32) - np.float32(bottom)) / np.float32(max(top - bottom, 1e-6))


def _read(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(tifffile.imread(path))
    except Exception as error:  # tifffile meets whatever bytes a file holds
        raise ImageError(f"{path}: cannot be read as a TIFF ({type(error).__name__}: {error})") from error


def load_fields(folder: Path, low: float, high: float) -> list[Field]:
    """Read a folder with ``images/*.tif`` and ``masks/*.tif`` of the same names.

    Parameters
    ----------
    folder : Path
        The data set.
    low, high : float
        Percentiles for the intensities.

    Returns
    -------
    list of Field
        In the order of their names.

    Raises
    ------
    ImageError
        If the folder holds no images, an image has no mask of its shape, or a file cannot be read.
    """
    fields = []
    for path in sorted((folder / "images").glob("*.tif")):
        beside = folder / "masks" / path.name
        if not beside.exists():
            raise ImageError(f"{path}: there is no mask of that name in {beside.parent}")
        image, mask = _read(path), _read(beside).astype(np.int32)
        if image.ndim != 2 or image.shape != mask.shape:
            raise ImageError(f"{path}: image {image.shape} and mask {mask.shape} are not one plane of one size")
        background = int(np.searchsorted(BACKGROUND_STEPS, np.median(image) / (1 if image.dtype == np.uint8 else 257)))
        areas = np.bincount(mask.ravel())[1:]
        areas = areas[areas > 0]
        fields.append(
            Field(
                name=path.stem,
                group=f"{image.shape[0]}x{image.shape[1]}-{background}",
                image=scale_intensity(image, low, high),
                mask=mask,
                diameter=float(np.sqrt(np.median(areas) * 4 / np.pi)) if areas.size else 20.0,
            )
        )
    if not fields:
        raise ImageError(f"{folder}: no images/*.tif there; give the folder that holds images and masks")
    return fields


def split(fields: Sequence[Field], held_out: Sequence[str]) -> tuple[list[Field], list[Field]]:
    """Part fields into those to learn from and those of the groups held out."""
    learn = [field for field in fields if field.group not in held_out]
    test = [field for field in fields if field.group in held_out]
    return learn, test
