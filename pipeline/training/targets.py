"""What the network is to learn of instance masks: which pixels are nucleus, and where two nuclei meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BACKGROUND", "CLASSES", "CONTACT", "DEPTH", "MINIMUM_SIZE", "NUCLEUS", "border_weights", "class_target"]

BACKGROUND, NUCLEUS, CONTACT = 0, 1, 2
CLASSES = ("background", "nucleus", "contact")

MINIMUM_SIZE = 20
"""Pixels. The smallest nuclei that the network is to know have 50; below this, components are noise."""

DEPTH = 4.0
"""Pixels. How much deeper the middle of a nucleus must be than the neck to the next for a watershed to part them. On
the groups held out, F1 is within 0.002 of its best from 3.5 to 5; below 2.5, nuclei with a dent fall apart."""

REACH = 2
"""Two nuclei meet where both lie within this many pixels: a strip wide enough to part them for sure."""


def class_target(mask: NDArray[np.int32]) -> NDArray[np.int64]:
    """Make the class of each pixel from an instance mask.

    Parameters
    ----------
    mask : ndarray of int32
        YX, 0 for background.

    Returns
    -------
    ndarray of int64
        YX: `BACKGROUND`, `NUCLEUS`, or `CONTACT` where two nuclei lie within `REACH` pixels.
    """
    rows, columns = np.ogrid[-REACH : REACH + 1, -REACH : REACH + 1]
    footprint = rows**2 + columns**2 <= REACH**2
    none = np.iinfo(mask.dtype).max
    highest = ndimage.maximum_filter(mask, footprint=footprint)
    lowest = ndimage.minimum_filter(np.where(mask == 0, none, mask), footprint=footprint)
    target = (mask > 0).astype(np.int64)
    target[(highest != lowest) & (highest > 0)] = CONTACT
    return target


def border_weights(mask: NDArray[np.int32], target: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weigh the pixels: more where a mistake joins two nuclei, more in small nuclei than in large ones.

    Parameters
    ----------
    mask : ndarray of int32
        YX, 0 for background.
    target : ndarray of int64
        YX, as `class_target` gives it.

    Returns
    -------
    ndarray of float32
        YX.
    """
    weights = np.ones(mask.shape, dtype=np.float32)
    near_contact = ndimage.maximum_filter(target == CONTACT, size=5)
    weights[near_contact] = 2.0
    weights[target == CONTACT] = 4.0
    areas = np.bincount(mask.ravel())
    areas[0] = 0
    small = (areas > 0) & (areas < 150)
    weights[small[mask] & (target == NUCLEUS)] += 1.0
    return weights
