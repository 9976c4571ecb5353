"""Cores in pieces: every pixel in one, each with a window that lies in the core's own and takes less memory."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Box, Footprint, ways_to_cut, window_in
from pipeline.geometry.pieces import WORTH
from tests.geometry.strategies import footprints


@st.composite
def cores(draw: st.DrawFn) -> tuple[Footprint, tuple[int, ...]]:
    ndim = draw(st.integers(1, 3))
    footprint = draw(footprints(ndim))
    longest = {1: 60, 2: 30, 3: 12}[ndim]
    return footprint, tuple(step * draw(st.integers(1, longest)) for step in footprint.step)


@given(cores())
def test_pieces_partition_the_core_and_each_way_saves_memory(given: tuple[Footprint, tuple[int, ...]]) -> None:
    footprint, core = given
    window = footprint.window_shape(core)
    before = prod(window)
    for pieces in ways_to_cut(core, footprint):
        covered = np.zeros(core, dtype=np.uint8)
        for piece in pieces:
            covered[piece.slices] += 1
            assert all(start % step == 0 for start, step in zip(piece.start, footprint.step, strict=True))
            assert Box.whole(window).contains(window_in(piece, footprint))
        assert (covered == 1).all()
        largest = max(window_in(piece, footprint).size for piece in pieces)
        assert largest <= WORTH * before
        before = largest


def test_the_largest_tile_of_the_bundled_model_is_cut_to_less_than_a_fourteenth_of_its_memory() -> None:
    footprint = Footprint((92, 92), (0, 0), (16, 16), (12, 12), (188, 188))
    ways = ways_to_cut((1024, 1024), footprint)
    assert [len(pieces) for pieces in ways] == [2, 4, 8, 16, 32, 64]
    smallest = max(window_in(piece, footprint).size for piece in ways[-1])
    assert prod(footprint.window_shape((1024, 1024))) / smallest > 14
    # Less than this is hardly more than context, and is not cut.
    assert ways_to_cut((208, 208), footprint) == []
