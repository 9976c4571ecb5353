"""Pictures of a result: the image with the outlines of its objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.segmentation import find_boundaries

from pipeline.look import OBJECT_COLOURS

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray

    from pipeline.results import Result

__all__ = ["draw_overlay", "overlay"]

COLOURS = np.array(OBJECT_COLOURS, dtype=np.uint8)
"""Of objects, by the remainder of their number."""


def draw_overlay(
    image: NDArray[np.generic], objects: NDArray[np.integer], black: float, white: float, zoom: int = 1
) -> NDArray[np.uint8]:
    """Draw outlines of objects over a plane, in colours that tell neighbours apart.

    Parameters
    ----------
    image : ndarray
        YX.
    objects : ndarray of int
        YX, 0 for background.
    black, white : float
        Intensities to show as black and white. Between them the square root is shown, so that dim nuclei are seen.
    zoom : int, optional
        Pixels of the drawing for each pixel of the plane.

    Returns
    -------
    ndarray of uint8
        YX and RGB.
    """
    scaled = np.clip((image.astype(np.float32) - black) / max(white - black, 1e-6), 0, 1) ** 0.5
    grey, objects = _enlarge((scaled * 255).astype(np.uint8), zoom), _enlarge(objects, zoom)
    drawn = np.repeat(grey[..., None], 3, axis=2)
    outlines = find_boundaries(objects, mode="inner")
    drawn[outlines] = COLOURS[objects[outlines] % len(COLOURS)]
    return drawn


def _enlarge(plane: NDArray[Any], zoom: int) -> NDArray[Any]:
    return plane.repeat(zoom, axis=0).repeat(zoom, axis=1)


def overlay(result: Result, rows: slice, columns: slice, level: int = 0, zoom: int = 1) -> NDArray[np.uint8]:
    """Draw a region of a result: of the first time point, channel and plane.

    Parameters
    ----------
    result : Result
        With an image and instances.
    rows, columns : slice
        The region, in pixels of the level.
    level : int
        Of the pyramid.
    zoom : int, optional
        Pixels of the drawing for each pixel of the level.

    Returns
    -------
    ndarray of uint8
        YX and RGB.
    """
    image, objects = result.image[level], result.instances[level]
    region, labels = _plane(image, rows, columns), _plane(objects, rows, columns)
    black, white = result.provenance["intensity"][0]["percentiles"].values()
    return draw_overlay(region, labels, black, white, zoom)


def _plane(array: zarr.Array[Any], rows: slice, columns: slice) -> NDArray[Any]:
    """Read a region of the first plane."""
    first: tuple[int | slice, ...] = (0,) * (array.ndim - 2)
    return np.asarray(array[(*first, rows, columns)])
