"""The self-check of a run: before tiles are computed, two of them are held against one larger pass.

What was derived of a network may be right, and yet its tiles show on a device or in a precision that computes otherwise
than expected. So it is tried, with this image, where the run will run, at a fraction of the run's cost.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.audit_jobs import beyond_rounding, compute_core, measure_rounding, tolerance_of
from pipeline.audit_windows import draw_points, place_around
from pipeline.bench import bench_for
from pipeline.errors import AuditError
from pipeline.geometry import Box, Footprint, window_around
from pipeline.jobs import read_scaled
from pipeline.labels.components import AXES, linked_axes

if TYPE_CHECKING:
    from pipeline.planning import RunPlan

__all__ = ["compare_passes", "judge_passes", "why_unchecked"]

Record = dict[str, Any]

SHARE = 0.05
"""Of the pixels that enter the network, how many the self-check may add."""

EDGES = {2: 32, 3: 12}
"""Pixels of the image along an edge of a tile that is tried, at least, by number of spatial axes."""

SEED = 1
"""Other places than those of the audit."""


def why_unchecked(plan: RunPlan) -> str | None:
    """Say why a run is not checked beforehand; None where it is.

    Parameters
    ----------
    plan : RunPlan
        A plan, whose ``self_check`` is what the user wants: ``auto`` leaves out what costs too much or has no seam.
    """
    if plan.self_check == "off":
        return "it was left out, by the setting self_check"
    if plan.instances == "overlap":
        return "a function takes the network's place"
    if plan.seams is not None:
        return "the network is not local, and the user insists"
    axis = _cut_axis(plan)
    if axis is None:
        small = " to put one into, for it is too small" if plan.self_check == "always" else ""
        return f"the image is a single tile, and has no seam{small}"
    if plan.self_check == "always":
        return None
    footprint, edges = _edges(plan)
    edges = edges[4 - plan.spatial_ndim :]
    doubled = _doubled(edges, axis - (4 - plan.spatial_ndim))
    added = 2 * prod(footprint.window_shape(edges)) + prod(footprint.window_shape(doubled))
    if added > SHARE * len(plan.tiles) * prod(plan.tiles.window_shape):
        return f"it would add more than {SHARE:.0%} to the network's work"
    return None


def _cut_axis(plan: RunPlan) -> int | None:
    """Give the first axis along which tiles meet; None where there is but one.

    Of a single tile that is to be checked nevertheless, the first axis along which two small ones have pixels.
    """
    axes = linked_axes(plan.spatial_ndim)
    met = next((at for at in axes if plan.label_shape[at] > plan.core[at]), None)
    if met is None and plan.self_check == "always":
        _, edges = _edges(plan)
        return next((at for at in axes if plan.label_shape[at] > edges[at]), None)
    return met


def _edges(plan: RunPlan) -> tuple[Footprint, tuple[int, ...]]:
    """Give what a tile needs along the network's axes, and the edges of a small one, TZYX."""
    free, whole = 4 - plan.spatial_ndim, plan.footprint
    footprint = Footprint(
        whole.margin[free:], whole.halo[free:], whole.stride[free:], whole.phase[free:], whole.smallest[free:],
        whole.scale[free:],
    )  # fmt: skip
    edges = []
    for length, step, scale in zip(plan.label_shape[free:], footprint.step, footprint.scale, strict=True):
        # An odd number of steps: were the stride larger than the plan knows, the second tile would be off it.
        steps = -(-EDGES[plan.spatial_ndim] // (step * scale)) // 2 * 2 + 1
        edges.append(min(steps, -(-length // step)) * step)
    return footprint, (1,) * free + tuple(edges)


def _doubled(edges: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(2 * edge if at == axis else edge for at, edge in enumerate(edges))


def compare_passes(plan: RunPlan, _index: int = 0) -> Record:
    """Compute two small tiles on either side of a seam, and both in one pass, and compare their scores.

    Of some places, drawn with the plan's digest as seed, the one is taken where intensities vary most.

    Parameters
    ----------
    plan : RunPlan
        A plan that `why_unchecked` has nothing against, whose statistics are noted.

    Returns
    -------
    dict
        ``pixels`` that were compared, the largest ``difference`` of their scores, the ``tolerance`` for it on this
        device and in this precision, how many pixels are ``beyond`` it, and where, ``at``.

    Raises
    ------
    AuditError
        If the network does not even give what it should of these sizes.
    """
    bench, axis = bench_for(plan), _cut_axis(plan)
    assert axis is not None  # such runs are not checked
    footprint, edges = _edges(plan)
    free = 4 - plan.spatial_ndim
    places = [
        place_around(point, _doubled(edges, axis), plan.label_shape, plan.footprint.step)
        for point in draw_points(plan, 1, SEED)
    ]
    both = max(places, key=lambda place: float(read_scaled(bench, window_around(place, plan.footprint)).std()))
    tiles = [Box(start, tuple(at + edge for at, edge in zip(start, edges, strict=True)))
             for start in (both.start, tuple(at + edges[axis] * (number == axis)
                                             for number, at in enumerate(both.start)))]  # fmt: skip
    parts = np.concatenate([compute_core(bench, tile, footprint)[1] for tile in tiles], axis=1 + axis - free)
    _, whole = compute_core(bench, both, footprint)
    if parts.shape != whole.shape:
        raise AuditError(
            f"{plan.source.path}: the self-check before the run has failed: the network gives other sizes than were "
            f"derived of it, {whole.shape[1:]} in place of {parts.shape[1:]}; please report this, with the model"
        )
    owned = both.clip(plan.label_shape)
    inside = (slice(None), *owned.relative_to(both.start).slices[free:])
    scores = whole[inside]
    apart = np.abs(parts[inside].astype(np.float64) - scores).max(axis=0)
    tolerance = tolerance_of(plan)
    beyond = np.argwhere(beyond_rounding(apart, tolerance, partial(measure_rounding, bench, both, footprint, scores)))
    at = None
    if len(beyond):
        at = [start + by for start, by in zip(owned.start, [0] * free + beyond[0].tolist(), strict=True)]
    return {
        "pixels": owned.size,
        "difference": float(apart.max(initial=0)),
        "tolerance": tolerance,
        "beyond": len(beyond),
        "at": at,
    }


def judge_passes(plan: RunPlan, record: Record) -> None:
    """Stop a run whose tiles would show.

    Raises
    ------
    AuditError
        If scores differed by more than rounding explains.
    """
    if not record["beyond"]:
        return
    place = ", ".join(f"{axis} {at}" for axis, at in zip(AXES, record["at"], strict=True))
    wider = "; try --precision float32" if plan.precision in ("bfloat16", "float16") else ""
    other = "; try --device cpu" if plan.device != "cpu" else ""
    raise AuditError(
        f"{plan.source.path}: the self-check before the run has failed: tiles and one larger pass differ by "
        f"{record['difference']:.2e} in {plan.precision} on {plan.device}, more than {record['tolerance']:.0e}, "
        f"such as at {place}{wider}{other}; please report this, with the model"
    )
