"""A network at the pixel size that it was trained at, on images of another: resampled before it, and back behind it.

To a tiling, the network with its resampling is a network of its own: one of the image's pixels, that commutes with
larger shifts. The ratio of the pixel sizes is taken as one of small whole numbers, so that windows which start on
multiples of such a shift meet the same pixels of one grid over the whole image, with the same weights. Positions and
weights are those of whole numbers, and the terms of a sum always come in one order. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor, gcd
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PlanError
from pipeline.geometry import Margin, round_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.models.context import ModelContext

__all__ = ["ALIKE", "Ratio", "Rescaling", "choose_ratio", "network_window", "rescaled_context", "taps"]

Ratio = tuple[int, int]
"""So many pixels of the network lie where so many of the image do."""

TOLERANCE = 0.01
"""By how much the ratio that is taken may differ from that of the pixel sizes."""

ALIKE = 1.1
"""Pixel sizes that differ by no more than this factor count as the same."""

MOST = 8
"""The largest factor between pixel sizes, either way."""

_LARGEST = 64


@dataclass(frozen=True, slots=True)
class Rescaling:
    """How an image becomes what a network takes, and its scores those of the image's pixels. Along the spatial axes.

    Parameters
    ----------
    ratios : tuple of (int, int)
        Pixels of the network, and of the image, on one length.
    margin : tuple of int
        What the network crops on each side, in its own pixels.
    cut : tuple of int
        What is cut off at the far end before the network, so that its size is legal, in its own pixels.
    lost : tuple of int
        What is missing on each side in the end, in pixels of the image.
    """

    ratios: tuple[Ratio, ...]
    margin: tuple[int, ...]
    cut: tuple[int, ...]
    lost: tuple[int, ...]


def choose_ratio(factor: float, stride: int) -> Ratio:
    """Choose a ratio of whole numbers.

    Parameters
    ----------
    factor : float
        Pixels of the network per pixel of the image.
    stride : int
        The network's own.

    Returns
    -------
    Ratio
        Of those near enough, the one that commutes with the smallest shift of the image; (1, 1) where the sizes count
        as the same.

    Raises
    ------
    PlanError
        If the sizes are too far from each other.
    """
    if 1 / ALIKE <= factor <= ALIKE:
        return 1, 1
    if not 1 / MOST <= factor <= MOST:
        raise PlanError(f"pixel sizes differ by a factor of {max(factor, 1 / factor):.3g}; at most {MOST} is resampled")
    found = []
    for image in range(1, _LARGEST + 1):
        for network in {floor(factor * image), ceil(factor * image)} - {0}:
            error = abs(network / image / factor - 1)
            if error <= TOLERANCE and gcd(network, image) == 1:
                found.append((_shift((network, image), stride), error, (network, image)))
    return min(found)[2]


def _shift(ratio: Ratio, stride: int) -> int:
    """Give the smallest shift of the image that is one of the network's own by a multiple of its stride."""
    network, image = ratio
    return image * stride // gcd(network, stride)


def network_window(window: tuple[int, ...], rescaling: Rescaling | None) -> tuple[int, ...]:
    """Give the window that a network sees of a window of the image."""
    if rescaling is None:
        return window
    pairs = zip(window, rescaling.ratios, rescaling.cut, strict=True)
    return tuple(max(1, edge * network // image - cut) for edge, (network, image), cut in pairs)


def rescaled_context(context: ModelContext, ratios: tuple[Ratio, ...]) -> ModelContext:
    """Give the context of a network that is run at another pixel size than the image's, in pixels of the image.

    Parameters
    ----------
    context : ModelContext
        Of the network as it is.
    ratios : tuple of Ratio
        Along each spatial axis.

    Returns
    -------
    ModelContext
        With its `rescaling`; the same where the network is not local.

    Raises
    ------
    PlanError
        If its output is coarser than what it sees, or put together of shifted passes.
    """
    if not context.local or not context.sizes_known:
        return context
    if set(context.scale) != {1} or context.stitching is not None:
        raise PlanError("rescale is for networks whose output is as fine as what they see; leave it out")
    cuts, losts, halos, strides, smallest, reaches = [], [], [], [], [], []
    for axis, (network, image) in enumerate(ratios):
        margin, stride = context.margin[axis], _shift((network, image), context.stride[axis])
        cut = -context.phase[axis] % context.stride[axis]
        # How far a resampled pixel looks: to it from those of the image, and back from those of the network.
        there, back = max(1, ceil(image / network)), max(1, ceil(network / image))
        lost = ceil((margin + cut + back + 1) * image / network)
        reach = Margin(*(ceil((far + back + 1) * image / network) + there + 1 for far in context.reach[axis]))
        least = max(ceil((context.smallest[axis] + cut) * image / network), 2 * lost + 1)
        cuts.append(cut)
        losts.append(lost)
        reaches.append(reach)
        halos.append(max(0, max(reach) - lost))
        strides.append(stride)
        smallest.append(round_up(least, stride))
    return replace(
        context,
        margin=tuple(losts),
        reach=tuple(reaches),
        halo=tuple(halos),
        stride=tuple(strides),
        phase=(0,) * len(strides),
        smallest=tuple(smallest),
        rescaling=Rescaling(ratios, context.margin, tuple(cuts), tuple(losts)),
    )


@lru_cache(maxsize=64)
def taps(start: int, count: int, given: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give of which pixels of one grid those of another over the same length consist, and with what weights.

    Finer pixels are interpolated between two, coarser ones are means under a triangle that is as wide as two of them.

    Parameters
    ----------
    start, count : int
        Which pixels of the new grid.
    given, wanted : int
        Pixels of the old and of the new grid on one length.

    Returns
    -------
    pixels : ndarray of int64
        (count, terms), of the old grid; may lie outside of it.
    weights : ndarray of float64
        (count, terms); each row's sum is 1.
    """
    period, at = np.divmod(np.arange(start, start + count), wanted)
    # Twice the wanted number times the position of a pixel's centre on the old grid, within the first period.
    place = (2 * at + 1) * given - wanted
    wide = 2 * max(given, wanted)
    first = -((wide - place) // (2 * wanted))
    terms = wide // wanted + 1
    pixels = first[:, None] + np.arange(terms)
    weights = np.maximum(0.0, 1 - np.abs(pixels * 2 * wanted - place[:, None]) / wide)
    weights /= weights.sum(axis=1, keepdims=True)
    pixels += (period * given)[:, None]
    return pixels, weights
