"""Several passes over one window: an output at each pixel of a coarser network, and averages over symmetries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pipeline.models.context import Stitching

__all__ = ["Symmetry", "stitch", "symmetries"]


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
