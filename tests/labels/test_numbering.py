"""Numbers of objects are followed block by block as in the whole image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.labels.numbering import Numbers, follow_numbers
from pipeline.pyramids import plain_grid

SHAPES = [((1, 1, 23, 31), (1, 1, 8, 8)), ((2, 3, 9, 17), (1, 1, 4, 16)), ((2, 7, 12, 11), (1, 3, 5, 4)),
          ((1, 1, 1, 40), (1, 1, 1, 7)), ((3, 1, 9, 9), (1, 1, 8, 8)), ((1, 5, 9, 9), (1, 4, 16, 16))]  # fmt: skip


def scattered(shape: tuple[int, ...], seed: int) -> NDArray[np.uint32]:
    """Give labels that are numbered as they should be, scattered, so that many go on in other blocks."""
    labels = np.random.default_rng(seed).integers(0, 14, shape)
    numbers, first, place = np.unique(labels, return_index=True, return_inverse=True)
    begun = first.copy()
    begun[numbers == 0] = -1
    rank = np.empty(numbers.size, dtype=np.uint32)
    rank[np.argsort(begun)] = np.arange(numbers.size)
    return rank[place].reshape(shape)


def follow(labels: NDArray[np.uint32], edges: tuple[int, ...]) -> Numbers:
    def blocks() -> Iterator[tuple[Box, NDArray[np.uint32]]]:
        for tile in plain_grid(labels.shape, edges):
            yield tile.owned, labels[tile.owned.slices]

    return follow_numbers(blocks(), labels.shape)


@pytest.mark.parametrize(("shape", "edges"), SHAPES)
def test_right_numbers_are_right_however_they_are_read(shape: tuple[int, ...], edges: tuple[int, ...]) -> None:
    for seed in range(10):
        labels = scattered(shape, seed)
        assert follow(labels, edges) == Numbers(int(labels.max()), int(np.count_nonzero(labels)))


@pytest.mark.parametrize(("shape", "edges"), SHAPES)
def test_the_first_number_out_of_turn_is_named_with_its_place(shape: tuple[int, ...], edges: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    for seed in range(10):
        labels = scattered(shape, seed)
        one, other = random.permutation(int(labels.max()))[:2] + 1
        swapped = np.where(labels == one, other, np.where(labels == other, one, labels)).astype(np.uint32)
        gone = np.where(labels == one, 0, labels).astype(np.uint32)
        for wrong, number in ((swapped, max(one, other)), (gone, one + 1)):
            if number > wrong.max():
                continue
            place = tuple(int(at) for at in np.argwhere(wrong == number)[0])
            found = follow(wrong, edges)
            assert (found.highest, found.wrong) == (
                min(one, other) - 1 if wrong is swapped else one - 1,
                (number, place),
            )


def test_an_image_without_objects_has_no_numbers() -> None:
    assert follow(np.zeros((1, 1, 9, 9), dtype=np.uint32), (1, 1, 4, 4)) == Numbers(0, 0)
