"""Where nothing can be seen: blocks of an image around which all is darker than the user says background is.

The blocks do not depend on tiles. They are a step of the network long, from the image's first pixel on, and one is
background where each pixel that the network could look at for any of its pixels is below the threshold, in each channel
that it takes. Cores are whole numbers of blocks, and a tile's window holds all that its blocks depend on; so every tile
finds the same of them, whatever its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.geometry import Footprint

__all__ = ["fill_background", "find_background"]


def find_background(
    raw: NDArray[np.number], footprint: Footprint, core: tuple[int, ...], below: float
) -> NDArray[np.bool_]:
    """Find the blocks of a tile that are background.

    Parameters
    ----------
    raw : ndarray
        What the tile's window holds, intensities as in the file: (channels, Z, Y, X).
    footprint : Footprint
        The network's, TZYX.
    core : tuple of int
        Shape of the tile's core, TZYX: whole numbers of steps, and one time point.
    below : float
        The threshold, in intensities of the file. What is not a number is not below it.

    Returns
    -------
    ndarray of bool
        Of the core's pixels, ZYX.
    """
    axes = list(zip(core, footprint.step, footprint.stride, footprint.context, strict=True))[1:]
    bright: NDArray[np.bool_] = np.any(~(raw < below), axis=0)
    if not bright.any():
        return np.ones(core[1:], dtype=bool)
    # How many bright pixels there are in each block with its context: sums along one axis after the other.
    counts: NDArray[Any] = bright.astype(np.int32)
    for axis, (edge, step, stride, context) in enumerate(axes):
        before: tuple[Any, ...] = (slice(None),) * axis
        starts = np.arange(edge // step) * stride
        shape = list(counts.shape)
        shape[axis] += 1
        sums: NDArray[Any] = np.zeros(shape, dtype=np.int32)
        np.cumsum(counts, axis=axis, out=sums[(*before, slice(1, None))])
        counts = sums[(*before, starts + stride + 2 * context)] - sums[(*before, starts)]
    found: NDArray[np.bool_] = counts == 0
    for axis, (_, step, _, _) in enumerate(axes):
        found = found.repeat(step, axis=axis)
    return found


def fill_background(scores: NDArray[np.floating], background: NDArray[np.bool_]) -> None:
    """Make scores say of background that it is the first class, for certain.

    Parameters
    ----------
    scores : ndarray
        Classes, then the spatial axes; changed.
    background : ndarray of bool
        Of the spatial axes.
    """
    scores[:, background] = 0
    scores[0, background] = 1
