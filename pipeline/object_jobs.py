"""What is done about objects, after the semantic labels are there. Runs on workers, as `pipeline.jobs` does.

Components: each core is labelled (with its semantic labels), all are united and numbered, each core is written.
Watershed: each core parts what lies inside it (with its semantic labels), the rest is united, parted in bounding
boxes, and everything is numbered, each core is written.
Where holes are filled, each core notes its background first, and objects are looked for when it is known what of it is
a hole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bench import bench_for
from pipeline.labels.components import CoreComponents, CoreSummary, label_core, of_classes
from pipeline.labels.holes import HoleSummary, fill_core, find_holes, note_holes
from pipeline.labels.parting import (
    OpenSummary,
    Piece,
    number_parts,
    part_core,
    part_crossing,
    unite_open,
)
from pipeline.labels.runs import Runs
from pipeline.labels.union import join, leave_out, relabel, unite
from pipeline.notes import load_arrays, load_labels, save_array, save_arrays, save_labels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.geometry import Box
    from pipeline.planning import RunPlan

__all__ = [
    "fill_tile",
    "find_all_holes",
    "note_objects",
    "number_objects",
    "part_batch",
    "relabel_tile",
    "unite_crossing",
]

Record = dict[str, Any]

_LISTED = 100
"""So many of the components that are too large to be parted are listed; all are counted."""


def _core_note(plan: RunPlan, index: int) -> Path:
    """Give the file in which a core leaves what the union needs of it."""
    return plan.work / "components" / f"{index}.npz"


def _kept(plan: RunPlan, what: str, index: int) -> Path:
    return plan.work / what / f"{index}.blosc"


def _background(plan: RunPlan, index: int) -> Path:
    return plan.work / "background" / f"{index}.npz"


def _parted(plan: RunPlan, batch: int) -> Path:
    return plan.work / "parted" / f"{batch}.npz"


def _masks(plan: RunPlan, labels: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Give the pixels of objects and of contact together, and those of objects alone."""
    seeds = of_classes(labels, plan.object_classes)
    return seeds | of_classes(labels, plan.contact_classes), seeds


def _around_holes(plan: RunPlan, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Give the pixels of what components are made of, which may enclose holes."""
    mask, seeds = _masks(plan, labels)
    return seeds if plan.instances == "components" else mask


def note_objects(plan: RunPlan, index: int, labels: NDArray[np.uint8]) -> None:
    """Find what objects there are in the semantic labels of one core, and note what other stages need of them.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the tile in `plan.tiles`.
    labels : ndarray of uint8, TZYX
        Its classes.
    """
    owned = plan.tiles[index].owned
    if plan.fill_holes:
        holes = note_holes(_around_holes(plan, labels), owned, plan.label_shape, plan.spatial_ndim)
        save_arrays(_background(plan, index), holes.to_arrays())
    else:
        _find_objects(plan, index, labels)


def find_all_holes(plan: RunPlan, _index: int = 0) -> Record:
    """Find out which regions of background are holes."""
    table = find_holes(
        lambda index: HoleSummary.from_arrays(load_arrays(_background(plan, index))),
        plan.tiles.counts,
        plan.spatial_ndim,
    )
    save_array(plan.work / "holes.npy", table.is_hole)
    save_array(plan.work / "hole_offsets.npy", table.offsets)
    return {}


def fill_tile(plan: RunPlan, index: int) -> Record:
    """Fill the holes of one core, and find its objects.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the tile in `plan.tiles`.
    """
    bench = bench_for(plan)
    owned = plan.tiles[index].owned
    labels = bench.array("labels/semantic/0").read(owned)
    start, stop = bench.noted("hole_offsets")[index : index + 2]
    holes = fill_core(
        _around_holes(plan, labels), owned, plan.label_shape, plan.spatial_ndim, bench.noted("holes")[start:stop]
    )
    # A hole is as surely inside as can be.
    filled = np.where(holes, np.uint8(plan.object_classes[0]), labels)
    save_labels(_kept(plan, "filled", index), filled)
    _find_objects(plan, index, filled)
    return {"pixels": owned.size}


def _find_objects(plan: RunPlan, index: int, labels: NDArray[np.uint8]) -> None:
    """Find the objects of one core, and note what the other cores need to know of them."""
    owned = plan.tiles[index].owned
    if plan.instances == "components":
        save_arrays(_core_note(plan, index), _components(plan, labels, owned).summary.to_arrays())
        return
    mask, seeds = _masks(plan, labels)
    found = part_core(mask, seeds, owned, plan.label_shape, plan.spatial_ndim, plan.parting)
    save_labels(_kept(plan, "parts", index), found.runs.to_array())
    save_arrays(_core_note(plan, index), found.summary.to_arrays())


def _components(plan: RunPlan, labels: NDArray[np.uint8], owned: Box) -> CoreComponents:
    return label_core(of_classes(labels, plan.object_classes), owned, plan.label_shape, plan.spatial_ndim)


def unite_crossing(plan: RunPlan, _index: int = 0) -> Record:
    """Unite the components that cross from core to core, for the watershed."""
    crossing = unite_open(
        lambda index: OpenSummary.from_arrays(load_arrays(_core_note(plan, index))),
        plan.tiles.counts,
        plan.spatial_ndim,
    )
    save_arrays(plan.work / "crossing.npz", crossing.to_arrays())
    batches = crossing.batches(plan.tiles, plan.parting.largest)
    too_large = np.setdiff1d(np.arange(1, crossing.first.size + 1), np.concatenate([[0], *batches]))
    listed = [crossing.box(number) for number in too_large[:_LISTED].tolist()]
    boxes = [{"start": list(box.start), "stop": list(box.stop)} for box in listed]
    return {"batches": len(batches), "too_large": int(too_large.size), "boxes": boxes}


def part_batch(plan: RunPlan, index: int) -> Record:
    """Part a batch of crossing components, each in its bounding box.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the batch.
    """
    bench = bench_for(plan)
    crossing = bench.crossing
    pieces = []
    for number in bench.batches[index].tolist():
        box = crossing.box(number)
        mask, seeds = _masks(plan, bench.classes_in(box))
        pieces.append(Piece(mask, seeds, box, int(crossing.first[number - 1])))
    parted = part_crossing(pieces, plan.label_shape, plan.parting)
    # A few long arrays: there may be many thousand components.
    found = {
        "counts": np.array([part.first.size for part in parted]),
        "first": np.concatenate([part.first for part in parted]),
        "at_edge": np.concatenate([part.at_edge for part in parted]),
    }
    save_arrays(_parted(plan, index), found)
    # By themselves, to be mapped: a core needs few of them.
    offsets = np.cumsum([0, *(part.labels.size for part in parted)])
    save_array(plan.work / "parted" / f"{index}-offsets.npy", offsets)
    save_array(plan.work / "parted" / f"{index}.npy", np.concatenate([part.labels.ravel() for part in parted]))
    return {"pixels": int(offsets[-1])}


def number_objects(plan: RunPlan, _index: int = 0) -> Record:
    """Give all objects their final numbers."""
    if plan.instances == "watershed":
        return _number_parts(plan)
    at_edge: list[NDArray[np.int64]] = []

    def summary_of(index: int) -> CoreSummary:
        summary = CoreSummary.from_arrays(load_arrays(_core_note(plan, index)))
        at_edge.append(summary.at_edge)
        return summary

    numbering = unite(summary_of, plan.tiles.counts, plan.spatial_ndim, plan.minimum_size)
    if plan.border == "drop":
        unwanted = [numbering.of_core(index)[ids - 1] for index, ids in enumerate(at_edge)]
        numbering = leave_out(numbering, np.concatenate(unwanted).astype(np.int64))
    save_array(plan.work / "table.npy", numbering.table)
    save_array(plan.work / "offsets.npy", numbering.offsets)
    return {"objects": numbering.count, "dropped": numbering.dropped}


def _number_parts(plan: RunPlan) -> Record:
    """Give the objects of the watershed their numbers: inside cores, parted in boxes, too large to be parted."""
    bench = bench_for(plan)
    crossing = bench.crossing
    firsts: list[NDArray[np.int64]] = []
    at_edge: list[NDArray[np.bool_]] = []
    for index in range(len(plan.tiles)):
        with np.load(_core_note(plan, index), allow_pickle=False) as arrays:
            firsts.append(arrays["objects_first"])
            at_edge.append(arrays["objects_at_edge"])
    # What is in no batch is one object, and starts where its component does.
    counts = np.ones(crossing.first.size, dtype=np.int64)
    for batch, numbers in enumerate(bench.batches):
        with np.load(_parted(plan, batch), allow_pickle=False) as arrays:
            counts[numbers - 1] = arrays["counts"]
    offsets = np.cumsum([0, *(first.size for first in firsts)])
    firsts.append(np.repeat(crossing.first, counts))
    crossing_offsets = offsets[-1] + np.concatenate([[0], np.cumsum(counts)])
    first = join(firsts)
    reaches = np.repeat(crossing.at_edge(plan.label_shape, plan.spatial_ndim), counts)
    is_at_edge = np.concatenate([np.zeros(0, dtype=np.bool_), *at_edge, reaches])
    for batch, numbers in enumerate(bench.batches):
        with np.load(_parted(plan, batch), allow_pickle=False) as arrays:
            own = arrays["counts"]
            within = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
            where = np.repeat(crossing_offsets[numbers - 1], own) + within
            first[where], is_at_edge[where] = arrays["first"], arrays["at_edge"]
    table = number_parts(first, ~is_at_edge if plan.border == "drop" else None)
    save_array(plan.work / "table.npy", table)
    save_array(plan.work / "offsets.npy", offsets)
    save_array(plan.work / "crossing_offsets.npy", crossing_offsets)
    count = int(np.count_nonzero(table))
    return {"objects": count, "dropped": int(table.size) - count}


def relabel_tile(plan: RunPlan, index: int) -> Record:
    """Write a tile's objects with their final numbers.

    Components are found again: they are a function of the semantic labels alone, and quickly found.

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
    inside = bench.noted("table")[start:stop]
    if plan.instances == "components":
        numbered = relabel(_components(plan, bench.classes(index), owned).runs, inside)
    else:
        parts = Runs.from_array(load_labels(_kept(plan, "parts", index), (2, -1), np.uint32), owned.shape)
        numbered = relabel(parts, np.concatenate([inside, _unparted(plan, index)]))
        _paint_crossing(plan, index, numbered)
    bench.array("labels/instances/0").write(owned, numbered)
    return {"pixels": owned.size}


def _crossing_in(plan: RunPlan, index: int) -> NDArray[np.uint32]:
    """Give the crossing component of each open one of a core."""
    crossing = bench_for(plan).crossing
    return crossing.table[crossing.offsets[index] : crossing.offsets[index + 1]]


def _unparted(plan: RunPlan, index: int) -> NDArray[np.uint32]:
    """Give the number of each open component of a core that is too large to be parted, 0 for the others."""
    bench = bench_for(plan)
    members = _crossing_in(plan, index)
    found = np.zeros(members.size, dtype=np.uint32)
    whole = np.flatnonzero(bench.places[members - 1, 0] < 0)
    found[whole] = bench.noted("table")[bench.noted("crossing_offsets")[members[whole] - 1]]
    return found


def _paint_crossing(plan: RunPlan, index: int, numbered: NDArray[np.uint32]) -> None:
    """Paint the parts of crossing components into a core."""
    bench = bench_for(plan)
    owned, crossing = plan.tiles[index].owned, bench.crossing
    table, offsets = bench.noted("table"), bench.noted("crossing_offsets")
    places = bench.places[_crossing_in(plan, index) - 1]
    for batch in np.unique(places[:, 0][places[:, 0] >= 0]).tolist():
        labels_of, ends = bench.noted(f"parted/{batch}"), bench.noted(f"parted/{batch}-offsets")
        for place in np.unique(places[places[:, 0] == batch, 1]).tolist():
            number = int(bench.batches[batch][place])
            box = crossing.box(number)
            shared = box.intersect(owned)
            start, stop = ends[place : place + 2]
            labels = labels_of[start:stop].reshape(box.shape)[shared.relative_to(box.start).slices]
            first, last = offsets[number - 1 : number + 1]
            numbers = np.concatenate([np.zeros(1, dtype=np.uint32), table[first:last]])
            view = numbered[shared.relative_to(owned.start).slices]
            np.copyto(view, numbers[labels], where=labels > 0)
