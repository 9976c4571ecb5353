"""One region of a coarser level from the finer one: means for images, samples for labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import StoreError
from pipeline.stores.levels import finer_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.geometry import Box
    from pipeline.stores.arrays import ResultArray

__all__ = ["Method", "build_region", "coarser_block", "downsample_mean", "downsample_nearest"]

Method = Literal["mean", "nearest"]

STRIP_PIXELS = 2**17
"""Pixels averaged at a time: few enough for what lies in between to stay in the processor's cache."""


def downsample_nearest(block: NDArray[Any]) -> NDArray[Any]:
    """Take every second pixel of the last two axes, from the first on: labels stay labels.

    Parameters
    ----------
    block : ndarray, (..., Y, X)
        Of any type.

    Returns
    -------
    ndarray
        Edges halved, rounded up; a view of the block.
    """
    return block[..., ::2, ::2]


def downsample_mean(block: NDArray[Any]) -> NDArray[Any]:
    """Give the means over 2 x 2 pixels of the last two axes.

    Parameters
    ----------
    block : ndarray, (..., Y, X)
        Integers, floating-point numbers or booleans. Means at an odd edge are over the pixels that exist.

    Returns
    -------
    ndarray
        Of the same type, edges halved, rounded up. Integers are rounded, halves to the even number: rounding them up
        would make each level a little brighter than the one before.

    Raises
    ------
    StoreError
        If the type has no means.
    """
    if block.dtype.kind not in "iufb":
        raise StoreError(f"pixels of type {block.dtype} cannot be averaged; use integers or floating-point numbers")
    height, width = block.shape[-2:]
    means = np.empty((*block.shape[:-2], -(-height // 2), -(-width // 2)), dtype=block.dtype)
    rows = max(1, STRIP_PIXELS // max(1, 2 * width))
    for plane in np.ndindex(block.shape[:-2]):
        for first in range(0, means.shape[-2], rows):
            strip = block[plane][2 * first : 2 * (first + rows)]
            odd = [(0, edge % 2) for edge in strip.shape]
            if any(after for _, after in odd):
                # A mean over pixels and their copies is the mean over the pixels.
                strip = np.pad(strip, odd, mode="edge")
            means[plane][first : first + rows] = _mean_of_pairs(strip)
    return means


def _mean_of_pairs(strip: NDArray[Any]) -> NDArray[Any]:
    """Average 2 x 2 pixels of an array of even edges."""
    if strip.dtype.kind == "f":
        wide = np.promote_types(strip.dtype, np.float32)
        columns = np.add(strip[0::2], strip[1::2], dtype=wide)
        return np.asarray((columns[:, 0::2] + columns[:, 1::2]) * wide.type(0.25))
    if strip.dtype.kind == "b":
        strip = strip.view(np.uint8)
    # The sum of four may not fit into the type; the sums of their quarters and of what these leave do.
    corners = [strip[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    mean, rest = corners[0] >> 2, corners[0] & 3
    for corner in corners[1:]:
        mean += corner >> 2
        rest += corner & 3
    mean += rest >> 2
    rest &= 3
    # Up for three quarters, and for a half where the number below is odd.
    rest += 1
    rest += mean & 1
    rest >>= 2
    mean += rest
    return mean


def coarser_block(finer: ResultArray, region: Box, method: Method) -> NDArray[Any]:
    """Give what belongs into a region of a coarser level.

    Parameters
    ----------
    finer : ResultArray
        The level before.
    region : Box
        In the coarser level.
    method : {"mean", "nearest"}
        For images, or for labels.

    Raises
    ------
    StoreError
        If the finer level cannot be read.
    """
    block = finer.read(finer_box(region, finer.spec.shape))
    return downsample_mean(block) if method == "mean" else downsample_nearest(block)


def build_region(finer: ResultArray, coarser: ResultArray, region: Box, method: Method) -> None:
    """Make one region of a coarser level.

    Parameters
    ----------
    finer, coarser : ResultArray
        Two neighbouring levels.
    region : Box
        In the coarser level: whole shards.
    method : {"mean", "nearest"}
        For images, or for labels.

    Raises
    ------
    StoreError
        If the region cuts a shard, or a level cannot be read or written.
    """
    coarser.write(region, coarser_block(finer, region, method))
