"""Where the seam audit looks: how many windows, how large, and around which points. Integers, from the seed alone."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pipeline.geometry import Box, round_up
from pipeline.labels.components import AXES, linked_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.geometry import Footprint
    from pipeline.planning import RunPlan

__all__ = [
    "choose_core",
    "choose_count",
    "draw_points",
    "nearest_seam",
    "place_around",
    "sample_boxes",
    "samples_note",
    "tile_samples",
]

SHARE = 0.02
"""Of the pixels that enter the network, how many the audit's windows may add."""

FEWEST, MOST = 4, 1000
"""Windows, where an image has seams and nobody says otherwise."""

LEAST_EDGE = 32

CANDIDATES = 4
"""Places drawn for each window."""

SAMPLE_EDGES = {2: 16, 3: 8}
"""Edge of the sample of scores that tiles keep around each place, by number of spatial axes."""


def choose_core(shape: Sequence[int], footprint: Footprint) -> tuple[int, ...]:
    """Choose the edges of what an audit's window computes: as long as the network's context, so neither is wasted.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape of the label image.
    footprint : Footprint
        The network's, on the same axes.

    Returns
    -------
    tuple of int
        Multiples of the footprint's step, at least two of them, so that a core that starts on one can straddle any
        seam.
    """
    return tuple(
        min(round_up(max(-(-context // scale), 2 * step, -(-LEAST_EDGE // scale)), step), round_up(length, step))
        for length, context, scale, step in zip(shape, footprint.context, footprint.scale, footprint.step, strict=True)
    )


def choose_count(shape: Sequence[int], core: Sequence[int], footprint: Footprint) -> int:
    """Choose how many windows are computed again.

    Parameters
    ----------
    shape : sequence of int
        Shape of the label image, TZYX.
    core : sequence of int
        Edges of a tile's core, TZYX.
    footprint : Footprint
        The network's spatial one.

    Returns
    -------
    int
        As many as add a fiftieth to the network's work, but 4 at least and 1000 at most; 1 where there is no seam.
    """
    ndim = footprint.ndim
    counts = [-(-length // edge) for length, edge in zip(shape, core, strict=True)]
    if max(counts[-ndim:]) == 1:
        return 1
    tiles = prod(counts) * prod(footprint.window_shape(tuple(core[-ndim:])))
    window = prod(footprint.window_shape(choose_core(shape[-ndim:], footprint)))
    return min(max(FEWEST, int(SHARE * tiles / window)), MOST)


def draw_points(plan: RunPlan, index: int, seed: int) -> list[tuple[int, int, int, int]]:
    """Draw the pixels, TZYX, around one of which a window is computed again.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the window. Even ones stand where the seams of all axes meet, odd ones on a seam of one axis, in turns; any
        place will do where there are no seams.
    seed : int
        Chooses another sample. Nothing else does but the shapes of image and tiles: not where the image lies, nor when
        it was written.
    """
    random = np.random.default_rng([seed, index, *plan.label_shape, *plan.core])
    cut = [axis for axis in linked_axes(plan.spatial_ndim) if plan.label_shape[axis] > plan.core[axis]]
    if cut and index % 2:
        cut = [cut[index // 2 % len(cut)]]
    points = []
    for _ in range(CANDIDATES):
        point = [int(random.integers(length)) for length in plan.label_shape]
        for axis in cut:
            seams = (plan.label_shape[axis] - 1) // plan.core[axis]
            point[axis] = plan.core[axis] * int(random.integers(1, seams + 1))
        time, depth, row, column = point
        points.append((time, depth, row, column))
    return points


def place_around(
    point: Sequence[int], edges: Sequence[int], shape: Sequence[int], step: Sequence[int] | None = None
) -> Box:
    """Give a box around a point that starts inside the image, on multiples of `step`; it may reach beyond the far end.

    Parameters
    ----------
    point : sequence of int
        TZYX.
    edges : sequence of int
        Of the box.
    shape : sequence of int
        Of the image.
    step : sequence of int, optional
        What the starts must be multiples of; 1 where absent.
    """
    steps = step if step is not None else (1,) * len(edges)
    start = tuple(
        max(0, min(at - edge // 2, round_up(length - edge, unit))) // unit * unit
        for at, edge, length, unit in zip(point, edges, shape, steps, strict=True)
    )
    return Box(start, tuple(at + edge for at, edge in zip(start, edges, strict=True)))


def sample_boxes(plan: RunPlan, point: Sequence[int]) -> dict[int, Box]:
    """Give the pixels around a place whose scores are kept until the audit, by the index of the tile that owns them.

    Classes alone hide most faults: where the network is sure, they are right though the scores are not.
    """
    edges = (1,) * (4 - plan.spatial_ndim) + (SAMPLE_EDGES[plan.spatial_ndim],) * plan.spatial_ndim
    around = Box.whole(edges).shift(tuple(at - edge // 2 for at, edge in zip(point, edges, strict=True)))
    box = around.clip(plan.label_shape)
    return {index: box.intersect(plan.tiles[index].owned) for index in plan.tiles.touching(box)}


def tile_samples(plan: RunPlan) -> dict[int, dict[str, Box]]:
    """Give the samples of each tile, by names: all that the audit of a run may want. None where there will be none."""
    found: dict[int, dict[str, Box]] = {}
    for window in range(plan.audit_windows):
        for place, point in enumerate(draw_points(plan, window, seed=0)):
            for index, box in sample_boxes(plan, point).items():
                found.setdefault(index, {})[f"{window}-{place}"] = box
    return found


def samples_note(plan: RunPlan, index: int) -> Path:
    """Give the file in which a tile leaves its samples."""
    return plan.work / "samples" / f"{index}.npz"


def nearest_seam(plan: RunPlan, pixel: Sequence[int]) -> tuple[int, str, int] | None:
    """Give distance, axis and position of the seam that lies nearest to a pixel; None where there is none."""
    found: list[tuple[int, int, int]] = []
    for axis in linked_axes(plan.spatial_ndim):
        core, last = plan.core[axis], (plan.label_shape[axis] - 1) // plan.core[axis]
        if last:
            seam = core * min(max(round(pixel[axis] / core), 1), last)
            # The pixels on either side of it are equally near.
            found.append((max(seam - 1 - pixel[axis], pixel[axis] - seam), axis, seam))
    if not found:
        return None
    distance, axis, seam = min(found)
    return distance, AXES[axis], seam
