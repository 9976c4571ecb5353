"""How an image is cut: each pixel has one owner, and each owner reads what it needs to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm, prod
from typing import overload

from pipeline.errors import GeometryError
from pipeline.geometry.box import Box
from pipeline.geometry.footprint import Footprint, Margin, round_up

__all__ = ["Tile", "TileGrid", "legal_core", "window_around"]


def legal_core(wish: Sequence[int], stride: Sequence[int], unit: Sequence[int] | None = None) -> tuple[int, ...]:
    """Round core edges up to legal ones.

    Parameters
    ----------
    wish : sequence of int
        Wanted edge lengths, in pixels.
    stride : sequence of int
        The network's stride per axis.
    unit : sequence of int, optional
        Edges of the chunks (or shards) that a core must cover wholly.

    Returns
    -------
    tuple of int
        The smallest multiples of both stride and unit that are not below the wish.
    """
    units = unit if unit is not None else (1,) * len(stride)
    return tuple(
        round_up(max(edge, 1), lcm(step, whole)) for edge, step, whole in zip(wish, stride, units, strict=True)
    )


def window_around(core: Box, footprint: Footprint) -> Box:
    """Give what a network must see to compute a core: in pixels of the image, as the core is in those of the output."""
    return core.times(footprint.scale).grow(footprint.surrounding(core.shape))


@dataclass(frozen=True, slots=True)
class Tile:
    """A piece of work: what it owns and what it must read.

    Boxes are in coordinates of the output, but the window, which is in those of the image. These are the same where
    the network's scale is 1. Along one axis, at the far edge of an image::

                     window
        ├────────────────────────────────┤
        ·  context  ·     core    · context + surplus
                    ├─────────────┤
                    ├───owned──┤
        ───────image───────────┤╌╌mirrored╌╌

    Parameters
    ----------
    index : int
        Position in the grid, C order.
    position : tuple of int
        Position in the grid per axis.
    core : Box
        What the tile computes. The last ones along an axis reach beyond the image: all cores have one shape.
    window : Box
        What the network must see to compute the core. Outside the image it is mirrored.
    owned : Box
        The core's part inside the image: the only pixels that this tile, and no other, writes.
    """

    index: int
    position: tuple[int, ...]
    core: Box
    window: Box
    owned: Box


@dataclass(frozen=True, slots=True)
class TileGrid(Sequence[Tile]):
    """All tiles of an image, computed when asked for: length and indexing take constant time and memory.

    Parameters
    ----------
    shape : tuple of int
        The output's shape: the image's, or, for a coarser output, one pixel for each `footprint.scale` begun.
    core : tuple of int
        Edges of a core: multiples of the footprint's step and of `unit`.
    footprint : Footprint
        What the network needs around a core.
    unit : tuple of int, optional
        Edges of the chunks, or shards, of the output. No two tiles then write to one of them.

    Raises
    ------
    GeometryError
        If the numbers of axes differ, an edge is below 1, or a core is off the stride or the unit; the
        message names the nearest legal sizes.
    """

    shape: tuple[int, ...]
    core: tuple[int, ...]
    footprint: Footprint
    unit: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.unit:
            object.__setattr__(self, "unit", (1,) * len(self.shape))
        if not len(self.shape) == len(self.core) == self.footprint.ndim == len(self.unit):
            raise GeometryError(
                f"image {self.shape}, core {self.core}, chunk {self.unit} and a footprint of {self.footprint.ndim} "
                "axes do not have the same number of axes"
            )
        for axis, (length, edge) in enumerate(zip(self.shape, self.core, strict=True)):
            if length < 1 or self.unit[axis] < 1:
                raise GeometryError(f"axis {axis}: an image of {length} pixels in chunks of {self.unit[axis]}")
            step = lcm(self.footprint.step[axis], self.unit[axis])
            if edge < 1 or edge % step:
                below, above = edge // step * step, round_up(max(edge, 1), step)
                nearest = f"{below} or {above}" if below > 0 else f"{above}"
                raise GeometryError(
                    f"axis {axis}: a core of {edge} pixels would show seams, because the network's stride is "
                    f"{self.footprint.step[axis]} and the output's chunks are {self.unit[axis]}; legal are "
                    f"multiples of {step}, nearest {nearest}"
                )

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of tiles per axis."""
        return tuple(-(-length // edge) for length, edge in zip(self.shape, self.core, strict=True))

    @property
    def window_shape(self) -> tuple[int, ...]:
        """Shape of every window."""
        return self.footprint.window_shape(self.core)

    @property
    def surrounding(self) -> tuple[Margin, ...]:
        """What every window has before and after its core, per axis, in pixels of the image."""
        return self.footprint.surrounding(self.core)

    def __len__(self) -> int:
        return prod(self.counts)

    @overload
    def __getitem__(self, index: int) -> Tile: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Tile]: ...

    def __getitem__(self, index: int | slice) -> Tile | Sequence[Tile]:
        if isinstance(index, slice):
            return [self.tile(i) for i in range(*index.indices(len(self)))]
        return self.tile(index)

    def __iter__(self) -> Iterator[Tile]:
        return (self.tile(index) for index in range(len(self)))

    def tile(self, index: int) -> Tile:
        """Give one tile.

        Raises
        ------
        IndexError
            If there is none of that index.
        """
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of a grid of {len(self)}")
        position = self.position(index)
        start = tuple(at * edge for at, edge in zip(position, self.core, strict=True))
        core = Box(start, tuple(at + edge for at, edge in zip(start, self.core, strict=True)))
        return Tile(
            index=index,
            position=position,
            core=core,
            window=window_around(core, self.footprint),
            owned=core.clip(self.shape),
        )

    def position(self, index: int) -> tuple[int, ...]:
        """Give the position per axis of a flat index, C order."""
        position: list[int] = []
        for count in reversed(self.counts):
            index, at = divmod(index, count)
            position.append(at)
        return tuple(reversed(position))

    def owner(self, pixel: Sequence[int]) -> int:
        """Give the index of the tile that owns a pixel.

        Raises
        ------
        GeometryError
            If the pixel lies outside the image.
        """
        index = 0
        for axis, (at, length, edge, count) in enumerate(zip(pixel, self.shape, self.core, self.counts, strict=True)):
            if not 0 <= at < length:
                raise GeometryError(f"axis {axis}: pixel {at} lies outside an image of {length}")
            index = index * count + at // edge
        return index

    def touching(self, box: Box) -> list[int]:
        """Give the indices of the tiles whose cores share pixels with a box inside the image, ascending."""
        index = [0]
        for start, stop, edge, count in zip(box.start, box.stop, self.core, self.counts, strict=True):
            along = range(start // edge, -(-stop // edge))
            index = [before * count + at for before in index for at in along]
        return index
