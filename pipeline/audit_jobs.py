"""What the seam audit computes for one index. Runs on workers, as `pipeline.jobs` does, and changes nothing.

What the plan says of tiles is what is audited, so nothing here relies on it: windows are placed and enlarged by what
follows from the network alone.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.audit_objects import LISTED, compare_objects
from pipeline.audit_windows import choose_core, draw_points, place_around, sample_boxes, samples_note
from pipeline.bench import OPENING, Bench, Unseen, bench_for, opened_once
from pipeline.geometry import Box, Margin, window_around
from pipeline.images.background import fill_background, find_background
from pipeline.images.intensity import Scaling
from pipeline.jobs import read_raw, scale_raw
from pipeline.notes import load_arrays
from pipeline.remote.paths import AnyPath, to_path
from pipeline.stores.publish import PROVENANCE, read_provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.geometry import Footprint
    from pipeline.planning import RunPlan

__all__ = [
    "audit_bench",
    "beyond_rounding",
    "check_spot",
    "compute_core",
    "measure_rounding",
    "recompute_window",
    "tolerance_of",
]

Record = dict[str, Any]
Samples = list[tuple[Box, "NDArray[np.floating]"]]
"""Boxes, TZYX, and the scores of their pixels: classes, then the spatial axes."""

TOLERANCE = {"float64": 1e-12, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}
"""How much two scores may differ that the convolution library computes for windows of different shapes."""

CUDA_FACTOR = 20
"""On a GPU it has more kernels to choose from, some of which round more."""

ROUNDING_FACTOR, MOST_ROUNDING = 4, 1e-3
"""Where scores differ by more, so many times what two honest windows differ by there is allowed, up to a limit."""


class _FinishedBench(Bench):
    """Open handles for a result that has its name: read only, nothing of the notes between stages is left."""

    @opened_once
    def scalings(self) -> dict[tuple[int, int], Scaling]:
        noted = read_provenance(to_path(self.plan.output))["intensity"]
        return {(entry["time"], entry["channel"]): Scaling.from_note(entry) for entry in noted}

    @property
    def folder(self) -> AnyPath:
        return to_path(self.plan.output)


@lru_cache(maxsize=1)
def _finished(output: str, digest: str, written: int, plan: Unseen) -> Bench:  # noqa: ARG001 (the key)
    return _FinishedBench(plan.plan)


def audit_bench(plan: RunPlan, *, finished: bool) -> Bench:
    """Give this process' bench for a plan, whose result has its name, or not yet."""
    if not finished:
        return bench_for(plan)
    written = (to_path(plan.output) / PROVENANCE).stat().st_mtime_ns
    with OPENING:
        return _finished(plan.output, plan.digest, written, Unseen(plan))


def recompute_window(plan: RunPlan, index: int, *, footprint: Footprint, finished: bool, seed: int) -> Record:
    """Run the network on one window that straddles a seam, and compare with what the result holds.

    Parameters
    ----------
    plan : RunPlan
        The plan. Only the image, the model and where cores end are taken from it.
    index : int
        Of the window.
    footprint : Footprint
        What follows from the network, whatever the plan says; along its own axes.
    finished : bool
        Whether the result has its name.
    seed : int
        As for `draw_points`. Of these, the one is taken around which classes vary most: where all is background,
        labels tell nothing.
    """
    bench = audit_bench(plan, finished=finished)
    semantic = bench.array("labels/semantic/0")
    points = draw_points(plan, index, seed)
    cores = [_core_around(plan, point, footprint) for point in points]
    varieties = [_variety(semantic.read(core.clip(plan.label_shape))) for core in cores]
    place = varieties.index(max(varieties))
    samples = [] if finished else _kept_samples(plan, f"{index}-{place}", points[place])
    found = _compare_scores(bench, cores[place], footprint, samples)
    return found | compare_objects(bench, points[place], grow=False)


def check_spot(plan: RunPlan, index: int, *, footprint: Footprint, finished: bool, spots: list[list[int]]) -> Record:
    """Do the same around one place, and find its objects again in a region as large as their component needs.

    Parameters
    ----------
    plan, footprint, finished
        As for `recompute_window`.
    index : int
        Of the place.
    spots : list of list of int
        The places: pixels of the image, TZYX.
    """
    bench = audit_bench(plan, finished=finished)
    core = _core_around(plan, spots[index], footprint)
    return _compare_scores(bench, core, footprint, []) | compare_objects(bench, spots[index], grow=True)


def _core_around(plan: RunPlan, point: Sequence[int], footprint: Footprint) -> Box:
    """Place what a window computes around a pixel; it may reach beyond the far end of the image."""
    free = 4 - plan.spatial_ndim
    edges = (1,) * free + choose_core(plan.label_shape[free:], footprint)
    return place_around(point, edges, plan.label_shape, footprint.behind(free).step)


def compute_core(bench: Bench, core: Box, footprint: Footprint) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """Run the network so that it sees all that a core's pixels depend on, and give their classes and scores.

    Background that a plan skips is background here, too.
    """
    free = 4 - bench.plan.spatial_ndim
    whole, below = footprint.behind(free), bench.plan.skip_below
    window = window_around(core, whole)
    raw = read_raw(bench, window)
    classes, scores, *_ = bench.predictor.predict(scale_raw(bench, window, raw), scores=True)
    assert scores is not None
    crop = tuple(slice(start, start + edge) for start, edge in zip(footprint.inset, core.shape[free:], strict=True))
    classes, scores = classes[crop], scores[(slice(None), *crop)]
    if below is not None:
        background = find_background(raw, whole, core.shape, below).reshape(classes.shape)
        classes[background] = 0
        fill_background(scores, background)
    return classes, scores


def _compare_scores(bench: Bench, core: Box, footprint: Footprint, samples: Samples) -> Record:
    """Compute one window, and compare its classes, and the scores where there are any."""
    plan = bench.plan
    free = 4 - plan.spatial_ndim
    owned = core.clip(plan.label_shape)
    inside = owned.relative_to(core.start).slices[free:]
    wanted, scores = compute_core(bench, core, footprint)
    wanted, scores = wanted[inside], scores[(slice(None), *inside)]
    rounding = partial(measure_rounding, bench, core, footprint, scores)
    held = bench.array("labels/semantic/0").read(owned).reshape(wanted.shape)
    differ = wanted != held
    held_scores = np.take_along_axis(scores, np.minimum(held, len(scores) - 1)[None].astype(np.intp), axis=0)[0]
    lead = np.where(differ, scores.max(axis=0) - held_scores, 0)
    wrong = beyond_rounding(lead, tolerance_of(plan), rounding)
    faults = [_fault("class", owned, at, free) for at in np.argwhere(wrong)[:LISTED]]
    compared, deviation, odd = 0, None, 0
    for box, kept in [*_stored_scores(bench, owned), *samples]:
        shared = box.intersect(owned)
        part = shared.relative_to(owned.start).slices[free:]
        theirs = kept[(slice(None), *shared.relative_to(box.start).slices[free:])]
        apart = np.abs(theirs.astype(np.float64) - scores[(slice(None), *part)]).max(axis=0)
        tolerance = tolerance_of(plan) + (float(np.finfo(kept.dtype).eps) / 2 if kept.dtype != scores.dtype else 0)
        beyond = beyond_rounding(apart, tolerance, rounding)
        compared += shared.size
        deviation = max(deviation or 0.0, float(apart.max(initial=0)))
        odd += int(np.count_nonzero(beyond))
        faults += [_fault("score", shared, at, free) for at in np.argwhere(beyond)[:LISTED]]
    return {
        "pixels": owned.size,
        "differing": int(np.count_nonzero(wrong)),
        "ties": int(np.count_nonzero(differ & ~wrong)),
        "scores": compared,
        "deviation": deviation,
        "odd_scores": odd,
        "faults": faults,
    }


def tolerance_of(plan: RunPlan) -> float:
    """Give how much two scores may differ, in the plan's precision on its device."""
    return TOLERANCE[plan.precision] * (CUDA_FACTOR if plan.device == "cuda" else 1)


def beyond_rounding(apart: NDArray[np.floating], tolerance: float, rounding: Callable[[], float]) -> NDArray[np.bool_]:
    """Find where scores differ by more than rounding explains; how much that is, is measured where it matters."""
    beyond: NDArray[np.bool_] = ~(apart <= tolerance)
    if beyond.any():
        beyond = ~(apart <= tolerance + rounding())
    return beyond


def measure_rounding(bench: Bench, core: Box, footprint: Footprint, scores: NDArray[np.floating]) -> float:
    """Measure how much two windows of different shapes disagree here, both with all that the network looks at.

    Intensities far beyond what the network knows make large numbers inside it, which round by more than is usual.
    """
    plan = bench.plan
    free = 4 - plan.spatial_ndim
    around = tuple(Margin(step, step) for step in footprint.step)
    larger = core.grow((Margin(0, 0),) * free + around)
    _, found = compute_core(bench, larger, footprint)
    same = core.clip(plan.label_shape).relative_to(larger.start).slices[free:]
    apart = float(np.abs(found[(slice(None), *same)].astype(np.float64) - scores).max(initial=0))
    return min(ROUNDING_FACTOR * apart, MOST_ROUNDING)


def _stored_scores(bench: Bench, owned: Box) -> Samples:
    """Give the scores that a result holds, of a box."""
    plan = bench.plan
    if plan.probabilities == "none":
        return []
    kept = bench.array("probabilities/0").read(plan.image_box(owned, (0, len(plan.classes))))
    return [(owned, kept.reshape(len(plan.classes), *owned.shape[4 - plan.spatial_ndim :]))]


def _kept_samples(plan: RunPlan, name: str, point: Sequence[int]) -> Samples:
    """Give the scores that tiles have kept around a place."""
    return [(box, load_arrays(samples_note(plan, index))[name]) for index, box in sample_boxes(plan, point).items()]


def _variety(classes: NDArray[np.uint8]) -> int:
    """Count the pixels whose class is not that of the one before."""
    return int(np.count_nonzero(np.diff(classes)))


def _fault(what: str, owned: Box, at: NDArray[np.intp], free: int) -> Record:
    """Name a fault by the pixel of the image, given its position along the spatial axes of a box."""
    inside = [0] * free + at.tolist()
    return {"what": what, "at": [start + offset for start, offset in zip(owned.start, inside, strict=True)]}
