"""Several passes over one window: an output at each pixel of a coarser network, and averages over symmetries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import torch

from pipeline.models.rescaling import network_window, taps

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pipeline.models.context import Stitching
    from pipeline.models.rescaling import Rescaling

__all__ = ["Symmetry", "rescale", "stitch", "symmetries"]


@dataclass(frozen=True, slots=True)
class Symmetry:
    """A mirroring or transposition of an image: first Y and X are exchanged, then axes are mirrored.

    Parameters
    ----------
    mirrored : tuple of int
        The spatial axes, counted from the last: -1 is X.
    exchanged : bool
        Whether Y and X are exchanged.
    """

    mirrored: tuple[int, ...] = ()
    exchanged: bool = False

    def apply(self, image: Tensor) -> Tensor:
        """Mirror and transpose an image, whose last axes are the spatial ones."""
        turned = image.transpose(-1, -2) if self.exchanged else image
        return turned.flip(self.mirrored) if self.mirrored else turned

    def undo(self, image: Tensor) -> Tensor:
        """Give back what was mirrored and transposed."""
        turned = image.flip(self.mirrored) if self.mirrored else image
        return turned.transpose(-1, -2) if self.exchanged else turned


def symmetries(dims: Literal[2, 3], *, exchange: bool) -> tuple[Symmetry, ...]:
    """Give the symmetries of a window: mirrorings along all its axes and, if wanted, the exchange of Y and X.

    Parameters
    ----------
    dims : int
        Spatial axes.
    exchange : bool
        Whether Y and X are alike. Z never is like them.

    Returns
    -------
    tuple of Symmetry
        The one that changes nothing first: 8 in two dimensions and 16 in three, half as many without exchange.
    """
    axes = tuple(range(-dims, 0))
    return tuple(
        Symmetry(tuple(axis for axis, chosen in zip(axes, choice, strict=True) if chosen), exchanged)
        for exchanged in ((False, True) if exchange else (False,))
        for choice in product((False, True), repeat=dims)
    )


def stitch(network: Callable[[Tensor], Tensor], image: Tensor, stitching: Stitching) -> Tensor:
    """Run a network of coarser output on shifted windows, and put the outputs between each other.

    Parameters
    ----------
    network : callable
        From (1, channels, [Z,] Y, X) to (1, classes, [Z,] Y, X).
    image : Tensor
        As long as a legal size and one pixel less than the scale.
    stitching : Stitching
        How many shifts there are, and what is cut off.

    Returns
    -------
    Tensor
        (1, classes, [Z,] Y, X), with one output for each pixel.
    """
    scale = stitching.scale
    edges = [edge - by + 1 for edge, by in zip(image.shape[2:], scale, strict=True)]
    whole: Tensor | None = None
    for shift in product(*(range(by) for by in scale)):
        part = image
        for axis, (start, edge) in enumerate(zip(shift, edges, strict=True)):
            part = part.narrow(2 + axis, start, edge)
        given = network(part)
        if whole is None:
            extent = [length * by for length, by in zip(given.shape[2:], scale, strict=True)]
            whole = torch.empty((*given.shape[:2], *extent), dtype=given.dtype, device=given.device)
        places = tuple(slice(start, None, by) for start, by in zip(shift, scale, strict=True))
        whole[(slice(None), slice(None), *places)] = given
    assert whole is not None
    for axis, (before, after) in enumerate(stitching.crop):
        whole = whole.narrow(2 + axis, before, whole.shape[2 + axis] - before - after)
    return whole


def rescale(network: Callable[[Tensor], Tensor], image: Tensor, rescaling: Rescaling) -> Tensor:
    """Run a network at another pixel size than the image's, and give the scores of the image's pixels.

    Parameters
    ----------
    network : callable
        From (1, channels, [Z,] Y, X) to (1, classes, [Z,] Y, X).
    image : Tensor
        Of a legal size.
    rescaling : Rescaling
        The ratios, and what is cut off.

    Returns
    -------
    Tensor
        (1, classes, [Z,] Y, X), less what is lost on each side; in float32, or float64 where the image is.
    """
    window = tuple(image.shape[2:])
    wide = torch.float64 if image.dtype == torch.float64 else torch.float32
    seen = image.to(wide)
    for axis, ((there, here), edge) in enumerate(zip(rescaling.ratios, network_window(window, rescaling), strict=True)):
        seen = _resample(seen, 2 + axis, 0, edge, here, there, 0)
    scores = network(seen.to(image.dtype)).to(wide)
    for axis, ((there, here), margin, lost) in enumerate(
        zip(rescaling.ratios, rescaling.margin, rescaling.lost, strict=True)
    ):
        scores = _resample(scores, 2 + axis, lost, window[axis] - 2 * lost, there, here, margin)
    return scores


def _resample(image: Tensor, axis: int, start: int, count: int, given: int, wanted: int, before: int) -> Tensor:
    """Give some pixels of another grid along an axis; of the old grid, so many pixels are missing before the first."""
    if given == wanted:
        return image.narrow(axis, start - before, count)
    pixels, weights = taps(start, count, given, wanted)
    # What lies outside is seen at the ends of windows alone, and thrown away with them.
    places = torch.from_numpy((pixels - before).clip(0, image.shape[axis] - 1)).to(image.device)
    shares = torch.from_numpy(weights).to(device=image.device, dtype=image.dtype)
    along = [-1 if at == axis else 1 for at in range(image.ndim)]
    terms = (
        image.index_select(axis, places[:, term]) * shares[:, term].reshape(along) for term in range(places.shape[1])
    )
    whole = next(terms)
    for term in terms:
        whole += term
    return whole
