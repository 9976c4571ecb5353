"""Fewer operations for the same network: what follows a convolution becomes part of it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from pipeline.models.unet import UNet

__all__ = ["InRange", "RectifiedConvolution", "fold_normalisation", "fuses_rectification", "growth", "rectified"]


def fold_normalisation(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation with fixed statistics into the convolution before it.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode; changed in place.

    Returns
    -------
    nn.Module
        The same network, with one operation where there were two.
    """
    for block in network.modules():
        if not isinstance(block, nn.Sequential):
            continue
        folded: list[nn.Module] = []
        for layer in block:
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d) and folded:
                convolution = folded[-1]
                if isinstance(convolution, nn.Conv2d | nn.Conv3d):
                    folded[-1] = fuse_conv_bn_eval(convolution, layer)
                    continue
            folded.append(layer)
        _exchange(block, folded)
    return network


class RectifiedConvolution(nn.Module):
    """A convolution and the ReLU after it in one operation: its output goes through memory once, not several times.

    Where all numbers are finite they are those of the two, one after the other, to rounding. But oneDNN makes 0 of what
    is not a number, and cuDNN promises nothing, so that an overflow before it could go unseen. For evaluation only.

    Parameters
    ----------
    convolution : Conv2d or Conv3d
        Of stride, dilation and groups 1, padded with zeros or not at all; its weights are taken over.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.padding = tuple(int(edge) for edge in convolution.padding)

    def forward(self, image: Tensor) -> Tensor:
        """Convolve and rectify.

        Parameters
        ----------
        image : Tensor
            Batch, channels, then YX or ZYX; channels last in memory.
        """
        return self.padded(image, self.padding)

    def padded(self, image: Tensor, padding: tuple[int, ...]) -> Tensor:
        """Do it with so many zeros at both ends of each spatial axis."""
        ones = [1] * len(padding)
        if image.is_cuda:
            return torch.cudnn_convolution_relu(image, self.weight, self.bias, ones, list(padding), ones, 1)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            image, self.weight, self.bias, list(padding), ones, ones, 1, "relu", [], ""
        )
        return found


def fuses_rectification(device: str, dtype: torch.dtype) -> bool:
    """Say whether this machine's torch has that operation for a kind of device and numbers.

    On a CPU it is what torch's own compiler makes of the two. Of the numbers that oneDNN knows, processors compute
    some. The range of float16 is so small that the bound of most networks is beyond it.
    """
    if device == "cuda":
        available = torch.backends.cudnn.is_available()  # type: ignore[no-untyped-call]
        return bool(available) and dtype in (torch.float32, torch.bfloat16)
    if device != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def rectified(network: UNet) -> UNet:
    """Give the network with one operation for each convolution that a ReLU follows; both have the same weights.

    Parameters
    ----------
    network : UNet
        In evaluation mode; left as it is.

    Returns
    -------
    UNet
        The faster one, for finite numbers only: see `growth`.
    """
    faster = copy.deepcopy(network, {id(weights): weights for weights in network.parameters()})
    for block in faster.modules():
        if not isinstance(block, nn.Sequential):
            continue
        fused: list[nn.Module] = []
        for layer in block:
            if isinstance(layer, nn.ReLU) and fused and isinstance(fused[-1], nn.Conv2d | nn.Conv3d):
                fused[-1] = RectifiedConvolution(fused[-1])
            else:
                fused.append(layer)
        _exchange(block, fused)
    return faster


def growth(network: UNet) -> tuple[float, float]:
    """Bound what a U-Net's numbers can grow to, by the weights alone.

    Parameters
    ----------
    network : UNet
        Without normalisation, as `fold_normalisation` leaves it.

    Returns
    -------
    slope, offset : float
        No number in it, partial sums included, exceeds ``slope * largest + offset`` in magnitude, where `largest` is
        the largest magnitude of the input.
    """
    slope, offset, most = 1.0, 0.0, (1.0, 0.0)
    copies: list[tuple[float, float]] = []

    def through(layers: nn.Module) -> None:
        nonlocal slope, offset, most
        for layer in layers.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                gain = layer.weight.detach().double().abs().flatten(1).sum(1)
            elif isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d):
                # Kernels that do not overlap: each output pixel has one tap.
                gain = layer.weight.detach().double().abs().sum(0)
            else:
                continue
            bias = 0.0 if layer.bias is None else float(layer.bias.detach().double().abs().max())
            slope, offset = slope * float(gain.max()), offset * float(gain.max()) + bias
            most = max(most[0], slope), max(most[1], offset)

    for level, block in enumerate(network.down):
        through(block)
        if level < network.config.depth:
            copies.append((slope, offset))
    for upsample, merge in zip(network.up, network.merge, strict=True):
        through(upsample)
        beside = copies.pop()
        slope, offset = max(slope, beside[0]), max(offset, beside[1])
        through(merge)
    through(network.head)
    return most


class InRange(nn.Module):
    """A U-Net that takes the faster way where no number in it can leave the range of its type.

    On a GPU, where to look at a number is to wait for it, the faster way is taken at once, and `doubts` tell afterwards
    whether it may not be trusted.

    Parameters
    ----------
    network : Module
        That tells what is not finite.
    faster : Module
        That gives the same where all is.
    bounds : tuple of float
        The network's `growth`.
    """

    def __init__(self, network: nn.Module, faster: nn.Module, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.network, self.faster = network, faster
        self._slope, self._offset = bounds
        self._doubts: list[Tensor] = []
        self.careful = False
        """Whether the faster way is left alone."""

    def doubts(self) -> list[Tensor]:
        """Give, and forget, what is known of the last passes on a GPU: of each, whether it has to be done again.

        Returns
        -------
        list of Tensor
            A truth value each, on the device.
        """
        found, self._doubts = self._doubts, []
        return found

    def forward(self, image: Tensor) -> Tensor:
        """Give what the network gives.

        Parameters
        ----------
        image : Tensor
            Batch, channels, then YX or ZYX.
        """
        if self.careful:
            found: Tensor = self.network(image)
            return found
        least, largest = torch.aminmax(image)
        # In float64, for the bound may be beyond the type. Both are NaN where one pixel is, and NaN is below nothing.
        bound = self._slope * torch.maximum(-least, largest).double() + self._offset
        within = bound < torch.finfo(image.dtype).max / 2
        if image.is_cuda:
            self._doubts.append(~within)
            found = self.faster(image)
        else:
            found = (self.faster if within else self.network)(image)
        return found


def _exchange(block: nn.Sequential, layers: list[nn.Module]) -> None:
    """Give a block other layers, numbered anew, where there are fewer."""
    if len(layers) == len(block):
        return
    for name in list(block._modules):
        del block._modules[name]
    block.extend(layers)
