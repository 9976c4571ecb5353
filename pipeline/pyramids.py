"""The pyramids of a result, as a plan lays them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.geometry import Footprint, TileGrid
from pipeline.stores.arrays import ArraySpec

__all__ = ["Pyramid", "coarse_shape", "plain_grid"]


@dataclass(frozen=True, slots=True)
class Pyramid:
    """One pyramid of a result.

    Parameters
    ----------
    path : str
        Of its group below the result's folder; empty for the image, which is the result's own group.
    frame, axes : str
        As for `ArraySpec`.
    dtype : str
        NumPy's name.
    levels : tuple of tuple of int
        Shapes in the frame, full resolution first.
    chunk, shard : tuple of int
        In the frame, the same at all levels.
    method : str
        How coarser levels are made.
    zarr_format : {2, 3}
        As for `ArraySpec`.
    """

    path: str
    frame: str
    axes: str
    dtype: str
    levels: tuple[tuple[int, ...], ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    method: Literal["mean", "nearest"]
    zarr_format: Literal[2, 3] = 3

    def array(self, level: int) -> str:
        """Give the path of a level's array."""
        return f"{self.path}/{level}" if self.path else str(level)

    def shards(self, level: int) -> TileGrid:
        """Give the shards of a level."""
        return plain_grid(self.levels[level], self.shard)

    def specs(self) -> list[ArraySpec]:
        """Give the arrays of all levels."""
        return [
            ArraySpec(
                self.array(level), self.frame, self.axes, shape, self.chunk, self.shard, self.dtype, self.zarr_format
            )
            for level, shape in enumerate(self.levels)
        ]


def plain_grid(shape: tuple[int, ...], edges: tuple[int, ...]) -> TileGrid:
    """Cut an array into pieces that need no context."""
    zeros, ones = (0,) * len(shape), (1,) * len(shape)
    return TileGrid(shape, edges, Footprint(zeros, zeros, ones, zeros, ones), unit=edges)


def coarse_shape(shape: tuple[int, ...], footprint: Footprint) -> tuple[int, int, int, int]:
    """Give the shape of label images, TZYX: of the image's, TCZYX, a pixel for each block that has begun."""
    time, depth, height, width = (
        -(-length // scale) for length, scale in zip((shape[0], *shape[2:]), footprint.scale, strict=True)
    )
    return (time, depth, height, width)
