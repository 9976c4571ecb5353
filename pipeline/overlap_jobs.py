"""What is done where a function finds objects in overlapping windows. Runs on workers, as `pipeline.jobs` does.

Each window's objects are found and noted; the views of windows that overlap are compared; the objects are chosen, from
what was noted of pairs; each core is painted, which also gives its semantic labels; the objects are numbered; each core
is written. Every job reads what its own and the neighbouring tiles have left, and no more.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bench import bench_for
from pipeline.detect_objects import find_objects
from pipeline.images.mirrored import read_window
from pipeline.labels.overlap import CandidateTable, Pairs, compare_views, find_candidates, neighbours
from pipeline.labels.overlap_choice import choose
from pipeline.labels.overlap_painting import PaintedSummary, View, number_painted, paint_core
from pipeline.labels.runs import Runs
from pipeline.labels.union import relabel
from pipeline.notes import load_arrays, load_labels, save_array, save_arrays, save_facts, save_labels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.bench import Bench
    from pipeline.geometry import Box
    from pipeline.planning import RunPlan

__all__ = [
    "LISTED",
    "choose_objects",
    "compare_tile",
    "detect_tile",
    "number_objects",
    "paint_tile",
    "read_channels",
    "relabel_tile",
]

LISTED = 1000
"""How many ambiguous pairs the provenance tells one by one."""

Record = dict[str, Any]


def _table(plan: RunPlan, index: int) -> Path:
    return plan.work / "candidates" / f"{index}.npz"


def _view(plan: RunPlan, index: int) -> Path:
    return plan.work / "candidates" / f"{index}.blosc"


def _pairs(plan: RunPlan, index: int) -> Path:
    return plan.work / "pairs" / f"{index}.npz"


def _painted(plan: RunPlan, index: int) -> Path:
    return plan.work / "painted" / f"{index}.npz"


def _painted_labels(plan: RunPlan, index: int) -> Path:
    return plan.work / "painted" / f"{index}.blosc"


def _window(plan: RunPlan, index: int) -> Box:
    """Give a tile's window without what lies outside the image: a function ends there as it does for a whole image."""
    return plan.tiles[index].window.clip(plan.label_shape)


def detect_tile(plan: RunPlan, index: int) -> Record:
    """Find the objects in a tile's window, and note those with a pixel in its core.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the tile in `plan.tiles`.
    """
    began = perf_counter()
    bench = bench_for(plan)
    detector = bench.detector
    owned, window = plan.tiles[index].owned, _window(plan, index)
    image = read_channels(bench, window)
    have_read = perf_counter()
    labels, scores = find_objects(detector.function, image, detector.name, **detector.options)
    have_computed = perf_counter()
    found = find_candidates(
        labels.reshape(window.shape), scores, window, owned, plan.label_shape, plan.spatial_ndim, detector.diameter
    )
    save_labels(_view(plan, index), found.labels)
    save_arrays(_table(plan, index), found.table.to_arrays())
    return {
        "pixels": owned.size,
        "read": have_read - began,
        "compute": have_computed - have_read,
        "write": perf_counter() - have_computed,
    }


def read_channels(bench: Bench, window: Box) -> NDArray[np.float32]:
    """Read the channels of a window, their intensities scaled: CYX or CZYX."""
    plan, time = bench.plan, window.start[0]
    together = plan.image_shard[1] if plan.copy_image else plan.source.block[1]
    raw = read_window(bench.read, plan.source.shape, window, plan.channels, together)
    scaled = [bench.scalings[time, at].apply(raw[number], np.float32) for number, at in enumerate(plan.channels)]
    image: NDArray[np.float32] = np.stack(scaled)
    return image[:, 0] if plan.spatial_ndim == 2 else image


def compare_tile(plan: RunPlan, index: int) -> Record:
    """Compare what a tile's window saw with what later tiles' windows saw of the same place.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the tile in `plan.tiles`.
    """
    tiles, window = plan.tiles, _window(plan, index)
    cut = _cut(plan, index)
    view = load_labels(_view(plan, index), window.shape, np.uint32)
    found = []
    for other in neighbours(tiles, index):
        # A window without candidates has nothing to compare.
        if other < index or not cut.size or not (other_cut := _cut(plan, other)).size:
            continue
        theirs = _window(plan, other)
        found.append(
            compare_views(
                view,
                load_labels(_view(plan, other), theirs.shape, np.uint32),
                (cut, other_cut),
                (window, theirs),
                (tiles[index].owned, tiles[other].owned),
                other,
                plan.label_shape,
            )
        )
    save_arrays(_pairs(plan, index), Pairs.join(found).to_arrays())
    return {"pixels": tiles[index].owned.size}


def _cut(plan: RunPlan, index: int) -> NDArray[np.bool_]:
    """Say which candidates of a tile touch an edge of its window."""
    with np.load(_table(plan, index), allow_pickle=False) as arrays:
        cut: NDArray[np.bool_] = arrays["clearance"] <= 0
    return cut


def choose_objects(plan: RunPlan, _index: int = 0) -> Record:
    """Choose the objects among all candidates, and tell of what pairs there were."""
    choice = choose(
        lambda index: CandidateTable.from_arrays(load_arrays(_table(plan, index))),
        lambda index: Pairs.from_arrays(load_arrays(_pairs(plan, index))),
        len(plan.tiles),
        LISTED,
    )
    save_array(plan.work / "identity.npy", choice.identity)
    save_array(plan.work / "rank.npy", choice.rank)
    save_array(plan.work / "candidate_offsets.npy", choice.offsets)
    axes = plan.source.axes.replace("C", "")
    listed = []
    for doubt in choice.doubts:
        place = dict(zip("TZYX", map(int, np.unravel_index(doubt.first, plan.label_shape)), strict=True))
        listed.append(
            {
                "at": {axis: place[axis] for axis in axes},
                "iou": doubt.union,
                "containment": doubt.within,
                "larger_than_diameter": doubt.cut,
                "decision": doubt.decision,
            }
        )
    told = {
        "merged": choice.merged,
        "apart": choice.apart,
        "ambiguous": choice.ambiguous,
        "larger_than_diameter": choice.cut,
        "list": listed,
    }
    save_facts(plan.work / "ambiguous.json", told)
    return {name: told[name] for name in ("merged", "apart", "ambiguous", "larger_than_diameter")}


def paint_tile(plan: RunPlan, index: int) -> Record:
    """Paint the chosen objects into a core, from all windows that reach into it, and write its semantic labels.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the tile in `plan.tiles`.
    """
    bench = bench_for(plan)
    owned = plan.tiles[index].owned
    painted = paint_core(
        (view for other in (index, *neighbours(plan.tiles, index)) if (view := _seen(bench, other, index)) is not None),
        owned,
        plan.label_shape,
    )
    save_labels(_painted_labels(plan, index), Runs.of(painted.labels).to_array())
    save_arrays(_painted(plan, index), painted.summary.to_arrays())
    bench.array("labels/semantic/0").write(owned, (painted.labels > 0).astype(np.uint8))
    return {"pixels": owned.size}


def _seen(bench: Bench, other: int, index: int) -> View | None:
    """Give what a window saw of a core; None where it does not reach it, or has nothing to show there."""
    plan = bench.plan
    start, stop = bench.noted("candidate_offsets")[other : other + 2]
    window = _window(plan, other)
    place = window.intersect(plan.tiles[index].owned)
    identity = np.asarray(bench.noted("identity")[start:stop])
    if other != index:
        # The pieces of a cut object come from the core of their own window.
        identity = np.where(_cut(plan, other), -1, identity)
    if not place.size or not (identity >= 0).any():
        return None
    labels = load_labels(_view(plan, other), window.shape, np.uint32)
    rank = np.asarray(bench.noted("rank")[start:stop])
    return View(labels[place.relative_to(window.start).slices], place, identity, rank)


def number_objects(plan: RunPlan, _index: int = 0) -> Record:
    """Give all objects their final numbers."""
    numbering = number_painted(
        (PaintedSummary.from_arrays(load_arrays(_painted(plan, index))) for index in range(len(plan.tiles))),
        plan.minimum_size,
    )
    save_array(plan.work / "table.npy", numbering.table)
    save_array(plan.work / "offsets.npy", numbering.offsets)
    return {"objects": numbering.count, "dropped": numbering.dropped}


def relabel_tile(plan: RunPlan, index: int) -> Record:
    """Write a tile's objects with their final numbers.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the tile in `plan.tiles`.
    """
    bench = bench_for(plan)
    owned = plan.tiles[index].owned
    start, stop = bench.noted("offsets")[index : index + 2]
    numbers = np.asarray(bench.noted("table")[start:stop])
    runs = Runs.from_array(load_labels(_painted_labels(plan, index), (2, -1), np.uint32), owned.shape)
    bench.array("labels/instances/0").write(owned, relabel(runs, numbers))
    return {"pixels": owned.size}
