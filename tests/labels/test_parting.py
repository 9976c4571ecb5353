"""Parted objects do not know where a core ended: equal to parting the whole image, number by number."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Box, Footprint, TileGrid
from pipeline.labels.parting import (
    CoreParts,
    OpenSummary,
    Parted,
    Piece,
    number_parts,
    part_core,
    part_crossing,
    unite_open,
)
from pipeline.labels.runs import Runs
from pipeline.labels.watershed import PartingRule

Ndim = Literal[2, 3]


def grid_of(shape: tuple[int, ...], core: tuple[int, ...]) -> TileGrid:
    nothing = Footprint((0,) * 4, (0,) * 4, (1,) * 4, (0,) * 4, (1,) * 4)
    return TileGrid(shape, core, nothing)


def whole(mask: NDArray[np.bool_], seeds: NDArray[np.bool_], ndim: Ndim, rule: PartingRule) -> NDArray[np.uint32]:
    parts = part_core(mask, seeds, Box.whole(mask.shape), mask.shape, ndim, rule)
    # What is too large to be parted is one object.
    firsts = np.concatenate([parts.summary.first, parts.summary.components.first])
    return np.asarray(np.concatenate([np.zeros(1, np.uint32), number_parts(firsts)])[parts.labels])


def tiled(
    mask: NDArray[np.bool_], seeds: NDArray[np.bool_], core: tuple[int, ...], ndim: Ndim, rule: PartingRule
) -> NDArray[np.uint32]:
    """Part core by core, gather what crosses, and number everything: by way of arrays, as between processes."""
    grid = grid_of(mask.shape, core)
    cores: list[CoreParts] = [
        part_core(mask[tile.owned.slices], seeds[tile.owned.slices], tile.owned, mask.shape, ndim, rule)
        for tile in (grid[index] for index in range(len(grid)))
    ]
    noted = [parts.summary.to_arrays() for parts in cores]
    crossing = unite_open(lambda index: OpenSummary.from_arrays(noted[index]), grid.counts, ndim)
    gathered: dict[int, Parted] = {}
    for numbers_together in crossing.batches(grid, rule.largest):
        batch = numbers_together.tolist()
        pieces = [
            Piece(mask[box.slices], seeds[box.slices], box, int(crossing.first[number - 1]))
            for number in batch
            for box in [crossing.box(number)]
        ]
        gathered.update(zip(batch, part_crossing(pieces, mask.shape, rule), strict=True))
    left = np.setdiff1d(np.arange(1, crossing.first.size + 1), list(gathered))
    assert (crossing.volume[left - 1] > rule.largest).all()
    firsts = [parts.summary.first for parts in cores] + [gathered[number].first for number in sorted(gathered)]
    firsts.append(crossing.first[left - 1])
    numbers = number_parts(np.concatenate([np.zeros(0, np.int64), *firsts]))
    result = np.zeros(mask.shape, dtype=np.uint32)
    at = 0
    for index, parts in enumerate(cores):
        count = parts.summary.first.size
        inside = np.concatenate([np.zeros(1, np.uint32), numbers[at : at + count]])
        result[grid[index].owned.slices] = inside[parts.objects]
        at += count
    for number in sorted(gathered):
        parted = gathered[number]
        here = parted.labels > 0
        result[crossing.box(number).slices][here] = numbers[at : at + parted.first.size][parted.labels[here] - 1]
        at += parted.first.size
    for index, parts in enumerate(cores):
        number_of = np.zeros(crossing.first.size + 1, dtype=np.uint32)
        number_of[left] = numbers[at:]
        members = number_of[crossing.table[crossing.offsets[index] : crossing.offsets[index + 1]]]
        result[grid[index].owned.slices] += np.concatenate([np.zeros(1, np.uint32), members])[parts.open]
    return result


def blobs(shape: tuple[int, ...], seed: int, density: float, smooth: float) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).random(shape)
    field = ndimage.gaussian_filter(noise, (0, 0, smooth, smooth)) if smooth else noise
    ranks: NDArray[np.float64] = field.ravel().argsort().argsort().reshape(shape) / field.size
    return ranks - (1 - density)


@st.composite
def cases(draw: st.DrawFn, ndim: Ndim) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[int, ...], PartingRule]:
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    relief = blobs(
        shape,
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from([0.2, 0.5, 0.8, 1.0])),
        draw(st.sampled_from([0, 1, 3])),
    )
    mask = relief > 0
    seeds = relief > draw(st.sampled_from([-1.0, 0.05, 0.2]))
    core = tuple(draw(st.integers(1, length + 2)) for length in shape)
    spacing = draw(st.sampled_from([(1, 1), (3, 2)] if ndim == 2 else [(1, 1, 1), (5, 2, 2)]))
    depth, size = draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])), draw(st.integers(0, 6))
    return mask, seeds, core, PartingRule(depth, size, spacing, draw(st.sampled_from([30, 400, 2**24])))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(cases(2))
def test_planes_in_cores_are_parted_as_whole_planes(
    case: tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[int, ...], PartingRule],
) -> None:
    mask, seeds, core, rule = case
    np.testing.assert_array_equal(tiled(mask, seeds, core, 2, rule), whole(mask, seeds, 2, rule))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(cases(3))
def test_volumes_in_cores_are_parted_as_whole_volumes(
    case: tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[int, ...], PartingRule],
) -> None:
    mask, seeds, core, rule = case
    np.testing.assert_array_equal(tiled(mask, seeds, core, 3, rule), whole(mask, seeds, 3, rule))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 6)] * 3), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_runs_say_what_the_image_says(shapes: list[tuple[int, int, int]], seed: int) -> None:
    random = np.random.default_rng(seed)
    for shape in shapes:
        labels = random.integers(0, 4, shape, dtype=np.uint32)
        runs = Runs.from_array(Runs.of(labels).to_array(), shape)
        np.testing.assert_array_equal(runs.paint(np.arange(4)), labels)
        start, stop = runs.boxes(3)
        for number in (1, 2, 3):
            at = np.argwhere(labels == number)
            assert runs.area(3)[number - 1] == len(at)
            if len(at):
                assert runs.first(3)[number - 1] == np.flatnonzero(labels == number)[0]
                assert start[number - 1].tolist() == at.min(axis=0).tolist()
                assert stop[number - 1].tolist() == (at.max(axis=0) + 1).tolist()


@pytest.mark.parametrize("core", [(1, 1, 16, 16), (1, 1, 48, 112), (1, 1, 160, 48)])
def test_spirals_combs_and_dense_blobs_are_parted_alike(core: tuple[int, ...]) -> None:
    rows, columns = np.mgrid[:160, :160] - 80.0
    radius, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
    spiral = np.cos(radius / 3 - angle) > 0.2
    comb = (columns % 12 < 6) | (rows > 60)
    dense = blobs((1, 1, 160, 160), 3, 0.7, 4)[0, 0] > 0
    for shape in (spiral, comb, dense, np.ones((160, 160), dtype=bool)):
        mask = shape[None, None]
        rule = PartingRule(1.5, 10, (1, 1))
        np.testing.assert_array_equal(tiled(mask, mask, core, 2, rule), whole(mask, mask, 2, rule))


def test_a_component_beyond_the_limit_is_left_whole_and_in_no_batch() -> None:
    mask = np.zeros((1, 1, 40, 40), dtype=bool)
    mask[0, 0, 5, :] = mask[0, 0, :, 5] = True  # a cross: its box is the image
    mask[0, 0, 20:24, 14:18] = True
    rule = PartingRule(1.0, 0, (1, 1), largest=100)
    grid = grid_of(mask.shape, (1, 1, 16, 16))
    cores = [part_core(mask[t.owned.slices], mask[t.owned.slices], t.owned, mask.shape, 2, rule)
             for t in (grid[index] for index in range(len(grid)))]  # fmt: skip
    crossing = unite_open(lambda index: cores[index].summary, grid.counts, 2)
    assert crossing.volume.tolist() == [1600, 16]
    assert [batch.tolist() for batch in crossing.batches(grid, rule.largest)] == [[2]]
