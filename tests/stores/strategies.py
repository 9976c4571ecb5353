"""Results to write: specs of arrays and pyramids, as small as they can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Footprint, TileGrid
from pipeline.stores.arrays import ArraySpec, ResultArray, create_array
from pipeline.stores.levels import level_shapes
from pipeline.stores.pyramid import Method, build_region


def shards(spec: ArraySpec) -> TileGrid:
    """Give the shards of an array."""
    zeros, ones = (0,) * len(spec.shape), (1,) * len(spec.shape)
    return TileGrid(spec.shape, spec.shard, Footprint(zeros, zeros, ones, zeros, ones))


def write_pyramid(
    result: Path,
    group: str,
    axes: str,
    pixels: NDArray[np.generic],
    chunk: int,
    shard: int,
    method: Method,
    smallest: int,
    order: int = 0,
) -> list[ArraySpec]:
    """Make a pyramid from pixels in the frame, shard by shard in a random order; give its arrays."""
    frame = "TCZYX"[-pixels.ndim :] if pixels.ndim == 5 else "TZYX"
    ones = (1,) * (pixels.ndim - 2)
    specs = [
        ArraySpec(
            path=f"{group}/{level}" if group else str(level),
            frame=frame,
            axes=axes,
            shape=shape,
            chunk=(*ones, chunk, chunk),
            shard=(*ones, shard, shard),
            dtype=pixels.dtype.name,
        )
        for level, shape in enumerate(level_shapes(pixels.shape, smallest))
    ]
    rng = np.random.default_rng(order)
    for level, spec in enumerate(specs):
        create_array(result, spec)
        array, grid = ResultArray(result, spec), shards(spec)
        finer = ResultArray(result, specs[level - 1]) if level else None
        for index in rng.permutation(len(grid)).tolist():
            owned: Box = grid[index].owned
            if finer is None:
                array.write(owned, pixels[owned.slices])
            else:
                build_region(finer, array, owned, method)
    return specs
