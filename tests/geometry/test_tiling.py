from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import GeometryError
from pipeline.geometry import Box, Footprint, TileGrid, legal_core
from tests.geometry.strategies import grids

CLASSIC = Footprint(margin=(92,), halo=(0,), stride=(16,), phase=(12,), smallest=(188,))
SAME = Footprint(margin=(0,), halo=(107,), stride=(16,), phase=(0,), smallest=(16,))


@given(grids())
def test_every_pixel_has_exactly_one_owner(grid: TileGrid) -> None:
    owners = np.zeros(grid.shape, dtype=np.int64)
    for tile in grid:
        owners[tile.owned.slices] += 1
    assert (owners == 1).all()


@given(grids(), st.data())
def test_the_owner_of_a_pixel_owns_it(grid: TileGrid, data: st.DataObject) -> None:
    pixel = tuple(data.draw(st.integers(0, length - 1)) for length in grid.shape)
    tile = grid[grid.owner(pixel)]
    assert tile.owned.contains(Box(pixel, tuple(at + 1 for at in pixel)))


@given(grids())
def test_a_window_is_its_core_with_context_and_the_surplus_on_the_far_side(grid: TileGrid) -> None:
    for tile in grid:
        core = tile.core.times(grid.footprint.scale)
        for axis in range(len(grid.shape)):
            before = core.start[axis] - tile.window.start[axis]
            after = tile.window.stop[axis] - core.stop[axis]
            assert before == grid.footprint.context[axis]
            assert after >= before
            surplus = after - before
            smallest = grid.footprint.smallest[axis]
            assert surplus < grid.footprint.stride[axis] or tile.window.shape[axis] == smallest


@given(grids())
def test_every_window_has_the_same_legal_shape(grid: TileGrid) -> None:
    output = grid.footprint.output_shape(grid.window_shape)
    assert {tile.window.shape for tile in grid} == {grid.window_shape}
    for edge, inset, core in zip(output, grid.footprint.inset, grid.core, strict=True):
        assert edge >= inset + core


@given(grids())
def test_windows_keep_the_phase_of_the_poolings(grid: TileGrid) -> None:
    starts = [tile.window.start for tile in grid]
    for start, axis in itertools.product(starts, range(len(grid.shape))):
        assert (start[axis] - starts[0][axis]) % grid.footprint.stride[axis] == 0


@given(grids())
def test_a_tile_reaches_beyond_the_image_only_at_its_edges(grid: TileGrid) -> None:
    for tile in grid:
        for axis, count in enumerate(grid.counts):
            inside_core = 0 <= tile.core.start[axis] < grid.shape[axis]
            assert inside_core
            if tile.position[axis] < count - 1:
                assert tile.core.stop[axis] <= grid.shape[axis]
                assert tile.owned.shape[axis] == grid.core[axis]


@given(grids())
def test_a_grid_indexes_like_the_list_of_its_tiles(grid: TileGrid) -> None:
    tiles = list(grid)
    assert len(tiles) == len(grid)
    assert [tile.index for tile in tiles] == list(range(len(grid)))
    assert grid[-1] == tiles[-1]
    assert list(grid[1::2]) == tiles[1::2]
    assert [tile.position for tile in tiles] == list(np.ndindex(*grid.counts))
    with pytest.raises(IndexError):
        grid[len(grid)]


def test_a_grid_of_a_quadrillion_tiles_is_indexed_at_once() -> None:
    side = 16 * 10**5
    grid = TileGrid((side,) * 3, (16,) * 3, Footprint((0,) * 3, (0,) * 3, (16,) * 3, (0,) * 3, (16,) * 3))
    assert len(grid) == 10**15
    assert grid[10**15 - 1].core.stop == (side,) * 3


def test_the_papers_stride_is_refused_and_the_legal_neighbours_are_named() -> None:
    with pytest.raises(GeometryError, match=r"core of 388 pixels would show seams.*nearest 384 or 400"):
        TileGrid((1000,), (388,), CLASSIC)
    assert TileGrid((1000,), (384,), CLASSIC).window_shape == (572,)


def test_a_core_that_covers_no_whole_chunk_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"core of 48 .* chunks are 32.*multiples of 32, nearest 32 or 64"):
        TileGrid((1000,), (48,), CLASSIC, unit=(32,))


def test_a_same_padded_network_reads_its_halo_rounded_up_to_the_stride() -> None:
    tile = TileGrid((1000,), (256,), SAME)[1]
    assert tile.window == Box((256 - 112,), (512 + 112,))


def test_axes_that_are_taken_one_by_one_need_no_context() -> None:
    grid = TileGrid((3, 2, 40, 50), (1, 1, 32, 32), Footprint((2, 2), (0, 0), (2, 2), (0, 0), (6, 6)).behind(2))
    assert grid.counts == (3, 2, 2, 2)
    assert grid[5].window == Box((0, 1, -2, 30), (1, 2, 34, 66))


@given(st.integers(1, 5000), st.sampled_from([1, 2, 16, 24]), st.sampled_from([1, 16, 100, 256]))
def test_a_legal_core_is_the_smallest_that_fits(wish: int, stride: int, unit: int) -> None:
    (edge,) = legal_core((wish,), (stride,), (unit,))
    assert edge >= wish
    assert edge % stride == edge % unit == 0
    assert all(size % stride or size % unit for size in range(wish, edge))


def test_tiles_are_values() -> None:
    tile = TileGrid((1000,), (384,), CLASSIC)[1]
    assert pickle.loads(pickle.dumps(tile)) == tile
    assert hash(tile) == hash(TileGrid((1000,), (384,), CLASSIC)[1])
    with pytest.raises(AttributeError):
        tile.index = 2  # type: ignore[misc]
