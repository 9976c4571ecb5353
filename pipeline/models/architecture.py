"""The shape of a U-Net, and what follows from it by arithmetic: footprint, memory, work. Knows no torch."""

from __future__ import annotations

from math import prod
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.geometry import Footprint

__all__ = ["Precision", "UNetConfig"]

Precision = Literal["float32", "bfloat16", "float16", "float64"]

ITEM_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


class UNetConfig(BaseModel):
    """A U-Net after Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597).

    The defaults are the paper's network: 572 x 572 x 1 in, 388 x 388 x 2 out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dims: Literal[2, 3] = Field(default=2, description="Spatial axes: YX or ZYX.")
    depth: int = Field(default=4, ge=0, le=8, description="Number of poolings.")
    base_channels: int = Field(default=64, ge=1, le=1024, description="Of the first level; poolings double them.")
    in_channels: int = Field(default=1, ge=1, le=1024, description="Channels of the image.")
    classes: int = Field(default=2, ge=1, le=256, description="Channels of the output; labels are bytes.")
    padding: Literal["valid", "same"] = Field(default="valid", description="Whether 3x3 convolutions are padded.")
    norm: Literal["none", "batch"] = Field(default="none", description="Normalisation after each convolution.")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, from full resolution down."""
        return tuple(self.base_channels * 2**level for level in range(self.depth + 1))

    @property
    def footprint(self) -> Footprint:
        """What the network eats and leaves, by arithmetic.

        Two 3x3 convolutions reach 2 pixels of their level to each side, so ``2 * 2**level`` pixels of the image. They
        stand on the way down and up at every level but the lowest, where they stand once. In a valid network this sum
        is the margin, and a legal size leaves an even one before each pooling. In a same-padded one, an output pixel
        sees the sum and, at the worst phase of the poolings, all of its pooling block beside, ``2**depth - 1`` more.
        """
        stride = 2**self.depth
        reach = sum(2 * 2 * 2**level for level in range(self.depth)) + 2 * stride
        if self.padding == "same":
            margin, halo, phase, smallest = 0, reach + stride - 1, 0, stride
        else:
            margin, halo = reach, 0
            phase = -4 % stride
            least = 2 * reach + 1
            smallest = least + (phase - least) % stride
        axes = self.dims
        return Footprint((margin,) * axes, (halo,) * axes, (stride,) * axes, (phase,) * axes, (smallest,) * axes)

    def level_sizes(self, window: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Give, per level, the size that enters its convolutions on the way down and leaves them there."""
        crop = 0 if self.padding == "same" else 4
        sizes = []
        current = window
        for level in range(self.depth + 1):
            after = tuple(edge - crop for edge in current)
            sizes.append((current, after))
            if level < self.depth:
                current = tuple(edge // 2 for edge in after)
        return sizes

    def in_slabs(self, device: str) -> bool:
        """Say whether windows are computed slab by slab on a device, as torch names its kind."""
        return self.dims == 3 and device == "cpu"

    def lag(self, level: int) -> int:
        """Count the pixels of a level by which what comes up from below lies behind what went down."""
        # Two convolutions of three pixels at the lowest level, and twice two at each one between.
        return (2 << self.depth - level) + sum(4 << below - level for below in range(level + 1, self.depth))

    def crop(self, level: int) -> int:
        """Count the pixels that are cut from each side of what is copied across at a level."""
        return 0 if self.padding == "same" else self.lag(level)

    def flops(self, window: tuple[int, ...]) -> int:
        """Count floating-point operations, two per multiply-add, of the convolutions on one window.

        Parameters
        ----------
        window : tuple of int
            Spatial shape of the input; a legal one.
        """
        shrink = 0 if self.padding == "same" else 2
        taps = 3**self.dims
        total = 0
        incoming = self.in_channels
        sizes = self.level_sizes(window)
        for (entering, leaving), width in zip(sizes, self.channels, strict=True):
            middle = prod(edge - shrink for edge in entering)
            total += taps * width * (incoming * middle + width * prod(leaving))
            incoming = width
        current = sizes[-1][1]
        for width in reversed(self.channels[:-1]):
            current = tuple(2 * edge for edge in current)
            total += 2 * width * width * prod(current)
            total += taps * 2 * width * width * prod(edge - shrink for edge in current)
            current = tuple(edge - 2 * shrink for edge in current)
            total += taps * width * width * prod(current)
        return 2 * (total + self.base_channels * self.classes * prod(current))

    def window_bytes(self, window: tuple[int, ...], precision: Precision, *, streamed: bool = False) -> int:
        """Estimate the memory that a forward pass on one window allocates beside the weights.

        The copies that wait for the way up, and the widest step at full resolution: the upsampled half and the
        copied half, joined, the same in the order that the processor's fastest convolution wants, what it makes of
        them, and as much again as one of these that is free but too small or too cut up to be used. Which of these
        there are differs from processor to processor; this is the sum.

        Parameters
        ----------
        window : tuple of int
            Spatial shape of the input; a legal one.
        precision : str
            Arithmetic of the network.
        streamed : bool
            Whether it is computed slab by slab, as by `pipeline.models.streaming.StreamedUNet`.

        Returns
        -------
        int
            Bytes.
        """
        item, ends = ITEM_BYTES[precision], prod(window) * self.in_channels * 8
        if streamed:
            left = prod(edge - 2 * margin for edge, margin in zip(window, self.footprint.margin, strict=True))
            return self._slab_items(window) * item + left * self.classes * (8 + 2 * item) + ends
        sizes = self.level_sizes(window)
        waiting = sum(width * prod(after) for (_, after), width in zip(sizes, self.channels, strict=True))
        full = self.base_channels * prod(sizes[0][1])
        scores = self.classes * prod(window) * 4
        return (waiting + 7 * full) * item + 2 * scores + ends

    def _slab_items(self, window: tuple[int, ...]) -> int:
        """Count the numbers that are held at once where a window is computed slab by slab, but for both ends."""
        total = 0
        for level, ((_, (_, *across)), width) in enumerate(zip(self.level_sizes(window), self.channels, strict=True)):
            planes = 2 ** (self.depth - level)
            # Two planes before each of four convolutions; the widest step, as above, of the top level: those below it
            # have not given their slabs back yet.
            total += (10 + 10 * (planes + 2)) * width * prod(across)
            if level < self.depth:
                waiting = prod(edge - 2 * self.crop(level) for edge in across)
                total += (self.lag(level) + 2 * planes) * width * waiting
        return total
