"""Which edges tiles, chunks and shards get: integers from integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, lcm, prod

from pipeline.errors import PlanError
from pipeline.geometry import Footprint, legal_core, round_up

__all__ = [
    "balanced_edge",
    "check_region",
    "choose_core",
    "chunk_edge",
    "image_shard",
    "reading_region",
    "whole_spacing",
]

LONGEST_CORE = {2: 1024, 3: 128}
"""Edge of a core, by number of spatial axes, where nothing else limits it: larger ones waste less on context."""

SHARD_PIXELS = 2**20
"""Pixels in a shard of the image's copy: some megabytes, so few files, but little to rewrite."""

LONGEST_CHUNK_Z = 16


def balanced_edge(length: int, longest: int, step: int) -> int:
    """Cut a length into equal pieces not longer than `longest`, each a multiple of `step`.

    Equal pieces overhang the image least, and pixels beyond the image are computed for nothing.
    """
    pieces = -(-length // max(longest, step))
    return round_up(-(-length // pieces), step)


def chunk_edge(edge: int, longest: int) -> int:
    """Give the largest divisor of `edge` that is not above `longest`."""
    pieces = -(-edge // longest)
    while edge % pieces:
        pieces += 1
    return edge // pieces


def core_step(edge: int, stride: int, longest_chunk: int) -> int:
    """Give what the edge of a core must be a multiple of: the stride and, for what holds several chunks, their quarter.

    Else a core of 1018 pixels would have a longest divisor of 2 for the edge of its chunks.
    """
    return stride if edge <= longest_chunk else lcm(stride, max(1, longest_chunk // 4))


def choose_core(
    shape: Sequence[int],
    footprint: Footprint,
    chunk: Sequence[int],
    wish: int | None,
    memory: Callable[[tuple[int, ...]], int],
    budget: int,
    most: int,
) -> tuple[int, ...]:
    """Choose the edges of a core.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape of the label image.
    footprint : Footprint
        The network's, on the same axes.
    chunk : sequence of int
        Longest edges of a chunk, on the same axes.
    wish : int, optional
        The edge that the user wants, in pixels of the image; rounded up to a legal one, and down to the image where
        that is smaller.
    memory : callable
        Gives the bytes that a forward pass needs for a window of a given shape.
    budget : int
        The bytes that a worker may use for it.
    most : int
        The bytes that a worker has at all, which even a core that the user wants must not exceed.

    Returns
    -------
    tuple of int
        In pixels of the label image: multiples of the footprint's step, and of a quarter of the longest chunk where
        they are longer than that.

    Raises
    ------
    PlanError
        If even the smallest core does not fit into the budget, or the wanted one into a worker.
    """
    axes = tuple(zip(shape, footprint.step, chunk, strict=True))
    if wish is not None:
        edges = tuple(min(-(-wish // scale), length) for length, scale in zip(shape, footprint.scale, strict=True))
        core = legal_core(edges, tuple(core_step(edge, *rest) for edge, (_, *rest) in zip(edges, axes, strict=True)))
        if (needed := memory(footprint.window_shape(core))) > most:
            raise PlanError(
                f"a tile of {core} pixels needs {needed / 2**30:.1f} GiB and a worker has {most / 2**30:.1f} GiB; "
                "give a smaller --tile, or leave it out"
            )
        return core
    longest = max(LONGEST_CORE[footprint.ndim] // max(footprint.scale), *footprint.step)
    while True:
        core = tuple(balanced_edge(length, longest, core_step(min(length, longest), step, limit))
                     for length, step, limit in axes)  # fmt: skip
        if memory(footprint.window_shape(core)) <= budget:
            return core
        if longest <= max(footprint.step):
            raise PlanError(
                f"even a tile of {core} pixels needs {memory(footprint.window_shape(core)) / 2**30:.1f} GiB and a "
                f"worker has {budget / 2**30:.1f} GiB; use fewer --workers or a smaller model"
            )
        longest //= 2


def image_shard(shape: Sequence[int], chunk: int, rows_at_once: int = 1024) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose chunk and shard of the image's copy.

    Parameters
    ----------
    shape : sequence of int
        The image's shape, TCZYX.
    chunk : int
        Largest edge of a chunk in Y and X.
    rows_at_once : int
        Largest edge of a shard in Y. Strips as wide as the image must be read whole; fewer rows bound the memory.

    Returns
    -------
    chunk, shard : tuple of int
        TCZYX; one time point and one channel each.
    """
    _, _, depth, height, width = shape
    rows, columns = (
        balanced_edge(length, longest, chunk) if length > chunk else length
        for length, longest in ((height, rows_at_once), (width, 1024))
    )
    planes = max(1, min(depth, SHARD_PIXELS // (rows * columns)))
    shard = (1, 1, planes, rows, columns)
    return (1, 1, chunk_edge(planes, LONGEST_CHUNK_Z), chunk_edge(rows, chunk), chunk_edge(columns, chunk)), shard


def reading_region(shape: Sequence[int], block: Sequence[int], shard: Sequence[int]) -> tuple[int, ...]:
    """Choose the region that one reading job takes: whole shards, and whole strips or tiles of the source.

    A strip that crosses several shards is then decoded once, not once for each of them.

    Parameters
    ----------
    shape, block, shard : sequence of int
        The image's shape, what its file decodes at once, and the copy's shards, TCZYX.

    Returns
    -------
    tuple of int
        TCZYX; one time point, and the channels of one block: mostly one, for memory must not grow with their number.
    """
    spatial = tuple(
        round_up(max(unit, min(piece, length)), unit)
        for length, piece, unit in zip(shape[2:], block[2:], shard[2:], strict=True)
    )
    return (1, min(shape[1], block[1]), *spatial)


def check_region(path: str, region: Sequence[int], block: Sequence[int], itemsize: int, budget: int) -> None:
    """Refuse an image that must be decoded in pieces larger than a worker's memory.

    Parameters
    ----------
    path : str
        The image's, for the message.
    region : sequence of int
        What one reading job takes, TCZYX.
    block : sequence of int
        What its file decodes at once, TCZYX: whole, even where it reaches beyond the image.
    itemsize : int
        Bytes of a pixel.
    budget : int
        The bytes that a worker may use for it.

    Raises
    ------
    PlanError
        If a piece does not fit.
    """
    largest = max(region, block, key=prod)
    if (needed := prod(largest) * itemsize) > budget:
        raise PlanError(
            f"{path}: the file is written in strips, tiles or chunks so large that {tuple(largest)} pixels (TCZYX), "
            f"{needed / 2**30:.1f} GiB, must be read at once, and a worker has {budget / 2**30:.1f} GiB for it; "
            "write it anew in tiles, such as 512 x 512, or use fewer --workers"
        )


def whole_spacing(sizes: Sequence[float]) -> tuple[int, ...]:
    """Give pixel sizes as whole numbers in about their ratio, to a quarter of the smallest.

    Squared distances are then whole, too, and exact, wherever in the image they are computed.
    """
    # What is farther away than that is as good as not there.
    quarters = [max(1, round(min(4 * size / min(sizes), 2.0**16))) for size in sizes]
    common = gcd(*quarters)
    return tuple(quarter // common for quarter in quarters)
