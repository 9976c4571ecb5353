from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import measure, morphology

from pipeline.errors import GeometryError
from pipeline.geometry import Box, Footprint, TileGrid
from pipeline.labels.components import CoreComponents, CoreSummary, label_core
from pipeline.labels.runs import Runs
from pipeline.labels.union import relabel, unite
from tests.benchmarks.labels import by_cores, by_dask_image, canonical

Ndim = Literal[2, 3]

# scikit-image's own functions have no annotations.
label: Callable[..., NDArray[np.int64]] = measure.label
remove_small_objects: Callable[..., NDArray[np.bool_]] = morphology.remove_small_objects


def grid_of(shape: tuple[int, ...], core: tuple[int, ...]) -> TileGrid:
    nothing = Footprint((0,) * 4, (0,) * 4, (1,) * 4, (0,) * 4, (1,) * 4)
    return TileGrid(shape, core, nothing)


def label_cores(mask: NDArray[np.bool_], grid: TileGrid, ndim: Ndim, order: list[int]) -> dict[int, CoreComponents]:
    """Label core by core, each by itself, in the given order."""
    return {index: label_core(mask[grid[index].owned.slices], grid[index].owned, mask.shape, ndim) for index in order}


def tiled(
    mask: NDArray[np.bool_], core: tuple[int, ...], ndim: Ndim, minimum_size: int = 0, seed: int = 0
) -> NDArray[np.uint32]:
    """Label a TZYX mask as the pipeline does: cores in any order, summaries by way of arrays, then final numbers."""
    grid = grid_of(mask.shape, core)
    order = np.random.default_rng(seed).permutation(len(grid)).tolist()
    cores = label_cores(mask, grid, ndim, order)
    noted = {index: cores[index].summary.to_arrays() for index in order}
    numbering = unite(lambda index: CoreSummary.from_arrays(noted[index]), grid.counts, ndim, minimum_size)
    result = np.full(mask.shape, 0xFFFFFFFF, dtype=np.uint32)
    for index in order:
        result[grid[index].owned.slices] = relabel(cores[index].runs, numbering.of_core(index))
    assert numbering.count == result.max(initial=0)
    return result


def test_dask_image_finds_the_same_objects() -> None:
    mask = np.random.default_rng(7).random((150, 170)) < 0.55
    ours, theirs = by_cores(mask, 64, 2), canonical(by_dask_image(mask, 64, 2))
    np.testing.assert_array_equal(ours, label(mask, connectivity=1))
    np.testing.assert_array_equal(theirs, ours)


def whole(mask: NDArray[np.bool_], ndim: Ndim, minimum_size: int = 0) -> NDArray[np.int64]:
    """Label each plane, or each volume, of a TZYX mask in one piece, and count on from one to the next."""
    parts = mask.reshape(-1, *mask.shape[-ndim:])
    result = np.zeros(parts.shape, dtype=np.int64)
    found = 0
    for number, part in enumerate(parts):
        kept = remove_small_objects(part, max_size=minimum_size - 1, connectivity=1) if minimum_size > 1 else part
        labels = label(kept, connectivity=1)
        result[number] = np.where(labels > 0, labels + found, 0)
        found += int(labels.max())
    return result.reshape(mask.shape)


@st.composite
def masks_and_cores(draw: st.DrawFn) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 17)), draw(st.integers(1, 17)))
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.1, 0.4, 0.6, 0.8, 0.95]))
    mask = np.random.default_rng(seed).random(shape) < density
    core = tuple(draw(st.integers(1, length + 2)) for length in shape)
    return mask, core


@settings(max_examples=200, deadline=None)
@given(masks_and_cores(), st.sampled_from([0, 1, 2, 5]), st.integers(0, 3))
def test_volumes_in_cores_equal_scikit_images_labels_of_the_whole(
    case: tuple[NDArray[np.bool_], tuple[int, ...]], minimum_size: int, seed: int
) -> None:
    mask, core = case
    np.testing.assert_array_equal(tiled(mask, core, 3, minimum_size, seed), whole(mask, 3, minimum_size))


@settings(max_examples=200, deadline=None)
@given(masks_and_cores(), st.sampled_from([0, 1, 2, 5]), st.integers(0, 3))
def test_planes_in_cores_equal_scikit_images_labels_of_each_plane(
    case: tuple[NDArray[np.bool_], tuple[int, ...]], minimum_size: int, seed: int
) -> None:
    mask, core = case
    np.testing.assert_array_equal(tiled(mask, core, 2, minimum_size, seed), whole(mask, 2, minimum_size))


def spiral(edge: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:edge, :edge] - edge // 2
    turns = np.hypot(rows, columns) / 6 + np.arctan2(rows, columns) / (2 * np.pi)
    return np.asarray((turns % 1 < 0.5) & (np.hypot(rows, columns) < edge / 2))


def rings(edge: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:edge, :edge] - edge // 2
    return np.asarray((np.hypot(rows, columns) // 4) % 2 == 0)


PICTURES = {
    "spiral": spiral(97),
    "rings": rings(97),
    "checkerboard": np.indices((64, 64)).sum(axis=0) % 2 == 0,
    "stripes": np.tile(np.arange(80) % 2 == 0, (80, 1)),
    "full": np.ones((70, 70), dtype=np.bool_),
    "empty": np.zeros((70, 70), dtype=np.bool_),
    "one pixel": np.ones((1, 1), dtype=np.bool_),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("edge", [1, 7, 16, 33, 200])
def test_objects_that_span_many_cores_stay_whole(name: str, edge: int) -> None:
    image = PICTURES[name][None, None]
    np.testing.assert_array_equal(tiled(image, (1, 1, edge, edge), 2), whole(image, 2))


@pytest.mark.parametrize("core", [(1, 1, 1, 1), (1, 2, 16, 9), (1, 5, 33, 97), (1, 9, 200, 200)])
def test_a_spiral_staircase_is_one_object_in_three_dimensions(core: tuple[int, ...]) -> None:
    volume = np.stack([np.rot90(spiral(33), turn) for turn in range(5)])[None]
    np.testing.assert_array_equal(tiled(volume, core, 3), whole(volume, 3))


def test_planes_and_time_points_are_never_linked() -> None:
    mask = np.ones((2, 3, 4, 4), dtype=np.bool_)
    flat, solid = tiled(mask, (1, 1, 2, 2), 2), tiled(mask, (1, 2, 2, 2), 3)
    assert flat[:, :, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert solid[:, :, 0, 0].tolist() == [[1, 1, 1], [2, 2, 2]]


def test_an_object_is_measured_over_all_cores_before_it_counts_as_small() -> None:
    mask = np.zeros((1, 1, 4, 9), dtype=np.bool_)
    mask[0, 0, 1, :] = True
    mask[0, 0, 3, 0:8] = True
    assert np.unique(tiled(mask, (1, 1, 2, 2), 2, minimum_size=9)).tolist() == [0, 1]
    assert tiled(mask, (1, 1, 2, 2), 2, minimum_size=9)[0, 0, 1].tolist() == [1] * 9


def test_dropped_objects_are_counted() -> None:
    mask = np.zeros((1, 1, 3, 9), dtype=np.bool_)
    mask[0, 0, 0, ::2] = True
    mask[0, 0, 2, :] = True
    core = label_core(mask, Box.whole(mask.shape), mask.shape, 2)
    numbering = unite(lambda _: core.summary, (1, 1, 1, 1), 2, minimum_size=2)
    assert (numbering.count, numbering.dropped) == (1, 5)


def test_a_summary_says_where_components_begin_in_the_whole_image() -> None:
    mask = np.zeros((1, 1, 2, 3), dtype=np.bool_)
    mask[0, 0, 0, 2] = mask[0, 0, 1, 0] = mask[0, 0, 1, 1] = True
    made = label_core(mask, Box((1, 2, 4, 6), (2, 3, 6, 9)), (2, 3, 10, 20), 2)
    start = (1 * 3 + 2) * 200
    assert sorted(made.summary.first.tolist()) == [start + 4 * 20 + 8, start + 5 * 20 + 6]
    assert sorted(made.summary.area.tolist()) == [1, 2]
    assert made.summary.high[2].tolist() == made.labels[:, :, -1].tolist()


def test_a_mask_that_does_not_fill_its_core_is_refused() -> None:
    with pytest.raises(GeometryError, match="cannot fill a core of shape"):
        label_core(np.ones((1, 1, 3, 3), dtype=np.bool_), Box.whole((1, 1, 4, 4)), (1, 1, 4, 4), 2)


def test_a_core_outside_the_image_is_refused() -> None:
    with pytest.raises(GeometryError, match="not inside an image"):
        label_core(np.ones((1, 1, 4, 4), dtype=np.bool_), Box.whole((1, 1, 4, 4)), (1, 1, 3, 4), 2)


def test_neighbours_whose_faces_differ_are_refused() -> None:
    wide, narrow = (np.ones((1, 1, 2, width), dtype=np.bool_) for width in (3, 2))
    cores = [
        label_core(wide, Box.whole(wide.shape), (1, 1, 4, 3), 2),
        label_core(narrow, Box((0, 0, 2, 0), (1, 1, 4, 2)), (1, 1, 4, 3), 2),
    ]
    with pytest.raises(GeometryError, match="cores 0 and 1 share a face along y"):
        unite(lambda index: cores[index].summary, (1, 1, 2, 1), 2)


def test_labels_that_the_numbers_do_not_know_are_refused() -> None:
    with pytest.raises(GeometryError, match="local component 3 in a core for which 2 are known"):
        relabel(Runs.of(np.array([[0, 3]], dtype=np.uint32)), np.array([5, 6], dtype=np.uint32))
