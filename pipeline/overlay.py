"""Pictures of a result: the image with the outlines of its objects."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from skimage.segmentation import find_boundaries

from pipeline.errors import StoreError

if TYPE_CHECKING:
    import xarray
    import zarr
    from numpy.typing import NDArray

    from pipeline.results import Result

__all__ = ["draw_overlay", "overlay", "thumbnail"]

COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167)], dtype=np.uint8
)
"""Of the palette of Okabe and Ito (2008): told apart by the colour-blind, too."""


_SMALL = 4096
"""Pixels in Y and X of a plane that is read as a whole to draw a small picture of it."""


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


def thumbnail(result: Result, edge: int = 512) -> str:
    """Draw the whole of a result, small: the middle plane of the middle time point, with outlines of what was found.

    Parameters
    ----------
    result : Result
        With instances, or else semantic labels. Where the image is not at hand, labels alone are drawn.
    edge : int
        Pixels that the drawing has in Y and X at most.

    Returns
    -------
    str
        A JPEG as a data URI.
    """
    name, levels = ("instances", result.instances) if result.instances else ("semantic", result.semantic)
    fitting = (number for number, level in enumerate(levels) if max(level.shape[-2:]) <= edge)
    level = next(fitting, len(levels) - 1)
    labels = _middle(result.xarray(name, level), edge, 0)
    image = _image_at(result, level, edge)
    if image is not None and image.shape == labels.shape:
        black, white = np.percentile(image, (1, 99.8))
        drawn = draw_overlay(image, labels, float(black), float(white))
    else:
        drawn = np.where(labels[..., None] > 0, COLOURS[labels % len(COLOURS)], np.uint8(0))
    return f"data:image/jpeg;base64,{b64encode(imagecodecs.jpeg8_encode(drawn, level=80)).decode()}"


def _image_at(result: Result, level: int, edge: int) -> NDArray[Any] | None:
    """Read the image at a level, or a small input that has no others at full resolution; None if it is not at hand."""
    channel = result.provenance["plan"]["channels"][0]
    try:
        return _middle(result.xarray("image", level), edge, channel)
    except StoreError:
        pass
    try:
        whole = result.xarray("image")
    except StoreError:
        return None
    return _middle(whole, edge, channel) if max(whole.sizes["y"], whole.sizes["x"]) <= _SMALL else None


def _middle(array: xarray.DataArray, edge: int, channel: int) -> NDArray[Any]:
    """Read one plane, of which every so many pixels where there are more than wanted."""
    chosen = {axis: channel if axis == "c" else array.sizes[axis] // 2 for axis in array.dims if axis not in ("y", "x")}
    step = -(-max(array.sizes["y"], array.sizes["x"]) // edge)
    return np.asarray(array.isel(chosen)[::step, ::step])
