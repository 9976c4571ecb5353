"""The U-Net as a torch module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.architecture import UNetConfig

__all__ = ["PairwisePool", "UNet"]


def _block(config: UNetConfig, incoming: int, outgoing: int) -> nn.Sequential:
    """Two 3x3 convolutions, each followed by the normalisation, if any, and a ReLU."""
    convolution = nn.Conv2d if config.dims == 2 else nn.Conv3d
    batch_norm = nn.BatchNorm2d if config.dims == 2 else nn.BatchNorm3d
    padding = 1 if config.padding == "same" else 0
    layers: list[nn.Module] = []
    for channels in (incoming, outgoing):
        normalised = config.norm == "batch"
        layers.append(convolution(channels, outgoing, 3, padding=padding, bias=not normalised))
        if normalised:
            layers.append(batch_norm(outgoing))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class PairwisePool(nn.Module):
    """Max-pooling by 2 along all spatial axes, as maxima of pairs: the same numbers, NaN included.

    On a CPU in less than half the time, for torch's own always notes where the maxima were. For evaluation only: the
    gradient of equal values is another one.
    """

    def forward(self, tensor: Tensor) -> Tensor:
        """Halve each spatial axis; of an odd length the last pixel is left out, as by torch's own.

        Parameters
        ----------
        tensor : Tensor
            Batch, channels, then YX or ZYX.
        """
        for axis in range(2, tensor.ndim):
            even = tensor.shape[axis] // 2 * 2
            first, second = (tensor[(slice(None),) * axis + (slice(start, even, 2),)] for start in (0, 1))
            tensor = torch.maximum(first, second)
        return tensor


def _crop(tensor: Tensor, like: Tensor) -> Tensor:
    """Cut the middle that has the spatial shape of `like`."""
    for axis in range(2, tensor.ndim):
        surplus = tensor.shape[axis] - like.shape[axis]
        tensor = tensor.narrow(axis, surplus // 2, like.shape[axis])
    return tensor


class UNet(nn.Module):
    """The network of Ronneberger, Fischer and Brox 2015, in two or three dimensions.

    Parameters
    ----------
    config : UNetConfig
        Its shape; the defaults are the paper's.
    """

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else UNetConfig()
        two = self.config.dims == 2
        channels = self.config.channels
        upsampling = nn.ConvTranspose2d if two else nn.ConvTranspose3d
        incoming = (self.config.in_channels, *channels[:-1])
        self.down = nn.ModuleList(
            _block(self.config, before, after) for before, after in zip(incoming, channels, strict=True)
        )
        self.pool: nn.Module = nn.MaxPool2d(2) if two else nn.MaxPool3d(2)
        self.up = nn.ModuleList(upsampling(2 * width, width, 2, stride=2) for width in reversed(channels[:-1]))
        self.merge = nn.ModuleList(_block(self.config, 2 * width, width) for width in reversed(channels[:-1]))
        self.head = (nn.Conv2d if two else nn.Conv3d)(channels[0], self.config.classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Give the scores of the classes before the softmax.

        Parameters
        ----------
        image : Tensor
            Batch, channels, then YX or ZYX; of a legal size.

        Returns
        -------
        Tensor
            Batch, classes, then YX or ZYX; smaller by the margin on each side.
        """
        copies: list[Tensor] = []
        current = image
        for level, block in enumerate(self.down):
            current = block(current)
            if level < self.config.depth:
                copies.append(current)
                current = self.pool(current)
        for upsample, merge in zip(self.up, self.merge, strict=True):
            current = upsample(current)
            current = merge(torch.cat([_crop(copies.pop(), current), current], dim=1))
        scores: Tensor = self.head(current)
        return scores
