"""Holes are those of the whole image, wherever cores end."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from pipeline.geometry import Box, Footprint, TileGrid
from pipeline.labels.components import label_core, open_components
from pipeline.labels.holes import HoleSummary, fill_core, find_holes, holes_in_region, note_holes

Ndim = Literal[2, 3]


def tiled(mask: NDArray[np.bool_], core: tuple[int, ...], ndim: Ndim) -> NDArray[np.bool_]:
    nothing = Footprint((0,) * 4, (0,) * 4, (1,) * 4, (0,) * 4, (1,) * 4)
    grid = TileGrid(mask.shape, core, nothing)
    noted = [note_holes(mask[tile.owned.slices], tile.owned, mask.shape, ndim).to_arrays() for tile in grid]
    table = find_holes(lambda index: HoleSummary.from_arrays(noted[index]), grid.counts, ndim)
    found = np.zeros(mask.shape, dtype=bool)
    for tile in grid:
        is_hole = table.is_hole[table.offsets[tile.index] : table.offsets[tile.index + 1]]
        found[tile.owned.slices] = fill_core(mask[tile.owned.slices], tile.owned, mask.shape, ndim, is_hole)
    return found


def whole(mask: NDArray[np.bool_], ndim: Ndim) -> NDArray[np.bool_]:
    """Look at each region of background by itself."""
    cross = ndimage.generate_binary_structure(ndim, 1)
    found = np.zeros(mask.shape, dtype=bool)
    for index in np.ndindex(*mask.shape[: 4 - ndim]):
        plane = mask[index]
        components, regions = measure.label(plane, connectivity=1), measure.label(~plane, connectivity=1)
        inner = np.zeros(plane.shape, dtype=bool)
        inner[(slice(1, -1),) * ndim] = True
        for number in range(1, int(regions.max()) + 1):
            region = regions == number
            around = ndimage.binary_dilation(region, cross) & ~region
            if inner[region].all() and len(set(components[around].tolist())) == 1:
                found[index] |= region
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 6)), draw(st.integers(1, 16)), draw(st.integers(1, 16)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = random.random(shape) < draw(st.sampled_from([0.4, 0.6, 0.8]))
    return mask, tuple(draw(st.integers(1, length + 1)) for length in shape)


@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from([2, 3]))
def test_cores_find_the_holes_of_the_whole(case: tuple[NDArray[np.bool_], tuple[int, ...]], ndim: Ndim) -> None:
    mask, core = case
    np.testing.assert_array_equal(tiled(mask, core, ndim), whole(mask, ndim))


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from([2, 3]), st.data())
def test_a_region_decides_about_all_holes_of_what_lies_in_it(
    case: tuple[NDArray[np.bool_], tuple[int, ...]], ndim: Ndim, data: st.DataObject
) -> None:
    mask, _ = case
    start = tuple(data.draw(st.integers(0, length - 1)) for length in mask.shape)
    stop = tuple(data.draw(st.integers(low + 1, length)) for low, length in zip(start, mask.shape, strict=True))
    region = Box(start, stop)
    holes, undecided = holes_in_region(mask[region.slices], region, mask.shape, ndim)
    expected = whole(mask, ndim)[region.slices]
    # What is said is true, and what is left open is background.
    np.testing.assert_array_equal(holes[undecided == 0], expected[undecided == 0])
    assert not ((undecided > 0) & (holes | mask[region.slices])).any()
    # Nothing is left open around components that lie wholly in the region.
    components = label_core(mask[region.slices], region, mask.shape, ndim)
    inside = ~open_components(components.summary, region, mask.shape)
    inside[0] = False
    near = ndimage.binary_dilation(
        inside[components.labels], np.expand_dims(ndimage.generate_binary_structure(ndim, 1), tuple(range(4 - ndim)))
    )
    assert not (near & (undecided > 0)).any()


@pytest.mark.parametrize("core", [(1, 1, 7, 5), (1, 1, 40, 40)])
def test_a_ring_is_filled_and_an_island_in_it_stays_an_object_of_its_own(core: tuple[int, ...]) -> None:
    rows, columns = np.mgrid[:40, :40] - 19.5
    radius = np.hypot(rows, columns)
    ring = ((radius > 10) & (radius < 15))[None, None]
    island = (radius < 4)[None, None]
    np.testing.assert_array_equal(tiled(ring, core, 2), (radius <= 10)[None, None])
    # What lies between two objects is a hole of neither.
    assert not tiled(ring | island, core, 2).any()
