"""Objects that the seam audit makes again around a pixel, and what can be said of those that reach beyond.

All follows from the semantic labels of the result: which background is a hole, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.audit_windows import place_around
from pipeline.labels.components import edge_ids, label_core, linked_axes, of_classes, open_components
from pipeline.labels.holes import holes_in_region
from pipeline.labels.parting import part_core
from pipeline.labels.seams import complete_components, odd_neighbours, odd_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.bench import Bench
    from pipeline.geometry import Box
    from pipeline.planning import RunPlan

__all__ = ["LISTED", "compare_objects", "masks_of", "what_is_alike", "wrongly_left_out"]

Record = dict[str, Any]

OBJECT_EDGES = {2: 512, 3: 96}
"""Edge of the region around a point in which objects are found again, by number of spatial axes."""

LISTED = 4
"""Places that one job names, of each kind."""


@dataclass(frozen=True, eq=False, slots=True)
class _Region:
    """What a region should hold.

    Parameters
    ----------
    box : Box
        Where it lies in the image, TZYX.
    mask, seeds : ndarray of bool, TZYX
        As of `masks_of`, with the holes that can be seen to be some.
    complete : ndarray of uint32, TZYX
        Ids of the objects that are wholly in it, 0 elsewhere.
    opened : ndarray of uint32, TZYX
        Ids of the components that reach beyond it, or may, and of the background that is a hole in one of them, or
        may be; 0 elsewhere.
    """

    box: Box
    mask: NDArray[np.bool_]
    seeds: NDArray[np.bool_]
    complete: NDArray[np.uint32]
    opened: NDArray[np.uint32]


def compare_objects(bench: Bench, point: Sequence[int], *, grow: bool) -> Record:
    """Make the objects around a pixel anew, and compare those that are wholly there; of others, what can be seen.

    Parameters
    ----------
    bench : Bench
        Of the result.
    point : sequence of int
        The pixel, TZYX.
    grow : bool
        Whether the region is made larger until all of the pixel's component is in it, up to what is parted at all.
    """
    plan = bench.plan
    record: Record = {"objects": 0, "odd_objects": 0, "open": False, "decided": False, "object_faults": []}
    if plan.instances == "none":
        return record
    edge = OBJECT_EDGES[plan.spatial_ndim]
    while True:
        region = _make_again(bench, _box_around(plan, point, edge))
        at = tuple(place - start for place, start in zip(point, region.box.start, strict=True))
        record["decided"] = not region.opened[at]
        if record["decided"] or not grow or (2 * edge) ** plan.spatial_ndim > plan.parting.largest:
            break
        edge *= 2
    labels = bench.array("labels/instances/0").read(region.box)
    odd = np.concatenate([odd_pixels(region.complete, region.opened, labels), _odd_beyond(plan, region, labels)])
    record["objects"] = int(np.count_nonzero(np.unique(region.complete)))
    record["open"] = bool(region.mask[region.opened > 0].any())
    record["odd_objects"] = len(odd)
    record["object_faults"] = [
        {"what": "object", "at": at} for at in (odd[:LISTED] + np.array(region.box.start)).tolist()
    ]
    return record


def masks_of(plan: RunPlan, classes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Give the pixels of components, and those of them that are surely inside objects; holes are not filled."""
    seeds = of_classes(classes, plan.object_classes)
    return seeds if plan.instances == "components" else seeds | of_classes(classes, plan.contact_classes), seeds


def what_is_alike(plan: RunPlan, labels: NDArray[np.uint32]) -> NDArray[Any]:
    """Give what is the same for all pixels of a component, holes included, as `odd_neighbours` takes it."""
    if plan.instances == "components":
        return labels
    # All pixels of a component that is parted are in objects, or none is, if it has no object large enough. Where
    # those at the border are left out, there may be both.
    return labels > 0 if plan.border == "keep" else np.zeros(labels.shape, dtype=np.bool_)


def wrongly_left_out(
    plan: RunPlan, mask: NDArray[np.bool_], seeds: NDArray[np.bool_], labels: NDArray[np.uint32], box: Box
) -> NDArray[np.bool_]:
    """Find pixels without an object, though what a box holds of their component is enough to be one.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    mask, seeds : ndarray of bool, TZYX
        As of `masks_of`, with holes filled or not.
    labels : ndarray of uint32, TZYX
        The objects.
    box : Box
        Where all this lies in the image.
    """
    without = mask & (labels == 0)
    # Where those at the border are left out, each may be one, for all that is known. What is parted may be of objects
    # that are all too small, unless none is.
    if plan.border == "drop" or (plan.instances == "watershed" and plan.minimum_size > 1) or not without.any():
        return np.zeros(mask.shape, dtype=np.bool_)
    components = label_core(mask, box, plan.label_shape, plan.spatial_ndim)
    sizes = np.bincount(components.labels[seeds], minlength=components.summary.count + 1)
    large = sizes >= max(plan.minimum_size, 1)
    found: NDArray[np.bool_] = without & large[components.labels]
    return found


def _box_around(plan: RunPlan, point: Sequence[int], edge: int) -> Box:
    edges = (1,) * (4 - plan.spatial_ndim) + (edge,) * plan.spatial_ndim
    return place_around(point, edges, plan.label_shape).clip(plan.label_shape)


def _make_again(bench: Bench, box: Box) -> _Region:
    """Make the objects of a region anew, those that it holds wholly; and find all that may be part of others."""
    plan = bench.plan
    mask, seeds = masks_of(plan, bench.array("labels/semantic/0").read(box))
    undecided = np.zeros(mask.shape, dtype=np.uint32)
    if plan.fill_holes:
        holes, undecided = holes_in_region(mask, box, plan.label_shape, plan.spatial_ndim)
        mask, seeds = mask | holes, seeds | holes
    if plan.instances == "components":
        complete, opened = complete_components(mask, box, plan.label_shape, plan.spatial_ndim, plan.minimum_size)
    else:
        parts = part_core(mask, seeds, box, plan.label_shape, plan.spatial_ndim, plan.parting)
        # What is too large to be parted is one object, and known if it does not reach beyond.
        reaches = open_components(parts.summary.components, box, plan.label_shape)
        known = np.where(reaches, 0, np.arange(reaches.size) + parts.summary.first.size).astype(np.uint32)
        known[0] = 0
        complete, opened = parts.objects + known[parts.open], np.where(reaches[parts.open], parts.open, np.uint32(0))
    opened = np.where(undecided > 0, undecided + opened.max(initial=0), opened)
    return _Region(box, mask, seeds, _without_border(plan, complete, box), opened)


def _without_border(plan: RunPlan, objects: NDArray[np.uint32], box: Box) -> NDArray[np.uint32]:
    """Leave out the objects at the border of the image, where the plan does."""
    if plan.border == "keep":
        return objects
    at_edge = edge_ids(objects, box, plan.label_shape, plan.spatial_ndim)
    return np.where(np.isin(objects, at_edge), np.uint32(0), objects)


def _odd_beyond(plan: RunPlan, region: _Region, labels: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Give a pixel of each component that reaches beyond a region, or may, and cannot be as it is."""
    opened = region.opened > 0
    odd = wrongly_left_out(plan, region.mask, region.seeds, labels, region.box)
    if plan.border == "drop":
        odd |= np.isin(labels, edge_ids(labels, region.box, plan.label_shape, plan.spatial_ndim))
    alike = what_is_alike(plan, labels)
    for axis in linked_axes(plan.spatial_ndim):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        odd[low] |= odd_neighbours(region.mask, alike, axis) & opened[high]
    where = np.flatnonzero(odd & opened)
    _, first = np.unique(region.opened.ravel()[where], return_index=True)
    return np.stack(np.unravel_index(where[first], labels.shape), axis=1).astype(np.int64)
