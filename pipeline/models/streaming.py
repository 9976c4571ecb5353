"""A three-dimensional U-Net that is fed a few planes at a time, and keeps of each layer what it will see again.

A forward pass holds the activations of all planes of a window at once, at full resolution several times over. Yet a
convolution needs of the planes before it only two, a pooling one at most, and what is copied across waits until the way
up has come so far. So here each layer is a stream of slabs: of what it is given, behind the planes that it has kept, it
makes the next. Nothing is computed twice and nothing is left out: the numbers are those of one pass, up to the rounding
of the library of convolutions. Memory grows with the cross-section of a window, not with its length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.fusing import RectifiedConvolution

if TYPE_CHECKING:
    from pipeline.models.unet import UNet

__all__ = ["StreamedUNet"]

Slabs = Iterator[Tensor]
"""Batch, channels, then ZYX: consecutive planes."""

_DEPTH = 2
"""Axis of a tensor along which it is cut into slabs: Z."""


class StreamedUNet(nn.Module):
    """A three-dimensional U-Net that computes a window slab by slab.

    Parameters
    ----------
    network : UNet
        In evaluation mode; its batch normalisations, if any, are folded into the convolutions.
    planes : int, optional
        Thickness of the slabs that it is fed; its stride where absent, so that the lowest level gets one plane at a
        time. Thicker ones take more memory, and fit worse into a processor's cache.
    """

    def __init__(self, network: UNet, planes: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.planes = network.config.footprint.stride[0] if planes is None else planes

    def forward(self, image: Tensor) -> Tensor:
        """Give what the network gives.

        Parameters
        ----------
        image : Tensor
            Batch, channels, then ZYX; of a legal size.

        Returns
        -------
        Tensor
            Batch, classes, then ZYX; smaller by the margin on each side.
        """
        head = self.network.head
        return torch.cat([head(slab) for slab in self._level(iter(torch.split(image, self.planes, _DEPTH)), 0)], _DEPTH)

    def _level(self, slabs: Slabs, level: int) -> Slabs:
        """Give what a level of the network, with all below it, makes of what enters it on the way down."""
        network = self.network
        down = _block(slabs, network.down[level], self._padding)
        if level == network.config.depth:
            yield from down
            return
        turn = network.config.depth - 1 - level
        waiting = _Waiting(network.config.crop(level))
        below = self._level(_pooled(waiting.listen(down), network.pool), level + 1)
        joined = _joined(below, waiting, network.up[turn])
        yield from _block(joined, network.merge[turn], self._padding)

    @property
    def _padding(self) -> int:
        return int(self.network.config.padding == "same")


class _Waiting:
    """Planes on their way across, until the way up has come so far.

    Parameters
    ----------
    crop : int
        So many of the first planes nobody waits for, and of each plane so many pixels of each edge.
    """

    def __init__(self, crop: int) -> None:
        self._left_out, self._crop, self._planes = crop, crop, deque[Tensor]()

    def listen(self, slabs: Slabs) -> Slabs:
        """Give the slabs as they come, and keep what is waited for."""
        for slab in slabs:
            missing = min(self._left_out, slab.shape[_DEPTH])
            self._left_out -= missing
            if missing < slab.shape[_DEPTH]:
                self._planes.append(self._wanted(slab[:, :, missing:]))
            yield slab

    def _wanted(self, slab: Tensor) -> Tensor:
        if not self._crop:
            return slab
        inner = slice(self._crop, -self._crop)
        # A copy, or all of it would be kept.
        return slab[..., inner, inner].contiguous(memory_format=torch.channels_last_3d)

    def take(self, count: int) -> Tensor:
        """Give the next planes."""
        taken = []
        while count:
            first = self._planes.popleft()
            if first.shape[_DEPTH] > count:
                self._planes.appendleft(first[:, :, count:])
                first = first[:, :, :count]
            count -= first.shape[_DEPTH]
            taken.append(first)
        return taken[0] if len(taken) == 1 else torch.cat(taken, _DEPTH)


def _block(slabs: Slabs, layers: nn.Module, padding: int) -> Slabs:
    """Run the layers of a block, one after the other: those that look at one plane as they are."""
    for layer in layers.children():
        if isinstance(layer, nn.Conv3d | RectifiedConvolution):
            slabs = _convolved(slabs, layer, padding)
        else:
            slabs = map(layer, slabs)
    return slabs


def _convolved(slabs: Slabs, layer: nn.Conv3d | RectifiedConvolution, padding: int) -> Slabs:
    """Convolve with a kernel of three planes; with padding, an empty one comes before the first and after the last."""
    kept: Tensor | None = None
    for slab in slabs:
        if kept is None:
            kept = _empty(slab, padding)
        kept = torch.cat([kept, slab], _DEPTH)
        if kept.shape[_DEPTH] > 2:
            yield _convolve(kept, layer, padding)
            # A copy, or all of it would be kept.
            kept = kept[:, :, -2:].clone(memory_format=torch.preserve_format)
    if padding and kept is not None:
        yield _convolve(torch.cat([kept, _empty(kept, padding)], _DEPTH), layer, padding)


def _empty(like: Tensor, planes: int) -> Tensor:
    return like.new_zeros((*like.shape[:_DEPTH], planes, *like.shape[3:]))


def _convolve(slab: Tensor, layer: nn.Conv3d | RectifiedConvolution, padding: int) -> Tensor:
    across = (0, padding, padding)
    if isinstance(layer, RectifiedConvolution):
        return layer.padded(slab, across)
    return functional.conv3d(slab, layer.weight, layer.bias, padding=across)


def _pooled(slabs: Slabs, pool: nn.Module) -> Slabs:
    """Halve each axis. A plane without its neighbour waits for it; the last may wait in vain."""
    odd: Tensor | None = None
    for slab in slabs:
        whole = slab if odd is None else torch.cat([odd, slab], _DEPTH)
        even = whole.shape[_DEPTH] // 2 * 2
        odd = whole[:, :, even:] if even < whole.shape[_DEPTH] else None
        if even:
            yield pool(whole[:, :, :even])


def _joined(slabs: Slabs, waiting: _Waiting, upsample: nn.Module) -> Slabs:
    """Double each axis, and put what has waited beside it."""
    for slab in slabs:
        raised = upsample(slab)
        yield torch.cat([waiting.take(raised.shape[_DEPTH]), raised], 1)
