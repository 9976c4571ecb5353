"""What the seam audit counts across the faces of cores. Runs on workers, as `pipeline.audit_jobs` does."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.audit_jobs import audit_bench
from pipeline.audit_objects import LISTED, masks_of, what_is_alike, wrongly_left_out
from pipeline.geometry import Box
from pipeline.labels.components import AXES, linked_axes
from pipeline.labels.seams import FaceCounts, count_face, longest_ends, odd_neighbours, profile_face

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.bench import Bench
    from pipeline.planning import RunPlan

__all__ = ["FACE_JOBS", "count_faces", "face_cores", "face_jobs", "profile_reach"]

Record = dict[str, Any]

PROFILE = 16
"""Planes before and after the faces of cores that are counted."""

FACE_JOBS = 2048
"""At most so many jobs count faces, each for several cores: what they report stays small however large the image."""


def face_jobs(plan: RunPlan) -> int:
    """Give how many jobs count the faces of all cores."""
    return -(-len(plan.tiles) // -(-len(plan.tiles) // FACE_JOBS))


def face_cores(plan: RunPlan, index: int) -> range:
    """Give the tiles whose near faces are the work of one job."""
    together = -(-len(plan.tiles) // FACE_JOBS)
    return range(index * together, min((index + 1) * together, len(plan.tiles)))


def profile_reach(plan: RunPlan, axis: int) -> int:
    """Give how far from the faces planes are counted along an axis."""
    return max(1, min(PROFILE, plan.core[axis] // 2))


def count_faces(plan: RunPlan, index: int, *, finished: bool) -> Record:
    """Count what meets across the near faces of some cores, and across planes half a core away from them.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Below `face_jobs`.
    finished : bool
        Whether the result has its name.
    """
    bench = audit_bench(plan, finished=finished)
    linked = linked_axes(plan.spatial_ndim)
    counts = {(AXES[axis], where): FaceCounts() for axis in linked for where in ("seams", "halfway")}
    profile = {AXES[axis]: np.zeros((2, 2 * profile_reach(plan, axis) - 1), dtype=np.int64) for axis in linked}
    record: Record = {"pixels": 0, "breaks": 0, "faults": [], "spots": []}
    for number in face_cores(plan, index):
        owned = plan.tiles[number].owned
        low = tuple(
            max(0, start - profile_reach(plan, axis)) if axis in linked else start
            for axis, start in enumerate(owned.start)
        )
        read = Box(low, owned.stop)
        labels = bench.array("labels/instances/0").read(read)
        record["pixels"] += owned.size
        for axis in linked:
            name, face, half = AXES[axis], owned.start[axis], owned.start[axis] + plan.core[axis] // 2
            if half < owned.stop[axis] and half > face:
                counts[name, "halfway"] += count_face(*_across(labels, read, owned, axis, half))
            if face == 0:
                continue
            before, after = _across(labels, read, owned, axis, face)
            counts[name, "seams"] += count_face(before, after)
            _add_profile(profile[name], labels, read, owned, axis, profile_reach(plan, axis))
            spots = [[size, *_in_image(at, owned, axis, face)] for size, at in longest_ends(before, after, LISTED)]
            record["spots"] = sorted(record["spots"] + spots, key=lambda spot: -spot[0])[:LISTED]
            _add_breaks(record, bench, owned, axis, face, before, after)
    record["counts"] = {f"{name} {where}": astuple(found) for (name, where), found in counts.items()}
    record["profile"] = {name: found.tolist() for name, found in profile.items()}
    return record


def _cut(read: Box, owned: Box, axis: int, start: int, stop: int) -> tuple[slice, ...]:
    """Give the index, in what was read, of the slices of a core from `start` to `stop` along an axis."""
    box = Box(
        tuple(start if at == axis else low for at, low in enumerate(owned.start)),
        tuple(stop if at == axis else high for at, high in enumerate(owned.stop)),
    )
    return box.relative_to(read.start).slices


def _across(
    labels: NDArray[np.uint32], read: Box, owned: Box, axis: int, at: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Give the slices on either side of a plane."""
    return labels[_cut(read, owned, axis, at - 1, at)], labels[_cut(read, owned, axis, at, at + 1)]


def _in_image(at: tuple[int, ...], owned: Box, axis: int, face: int) -> list[int]:
    """Give the pixel of the image behind a face, from its position on the face."""
    return [face if number == axis else start + at[number] for number, start in enumerate(owned.start)]


def _add_profile(
    profile: NDArray[np.int64], labels: NDArray[np.uint32], read: Box, owned: Box, axis: int, reach: int
) -> None:
    face = owned.start[axis]
    slab = labels[_cut(read, owned, axis, face - reach, min(face + reach, owned.stop[axis]))]
    found = np.array(profile_face(slab, axis))
    profile[:, : found.shape[1]] += found


def _add_breaks(
    record: Record,
    bench: Bench,
    owned: Box,
    axis: int,
    face: int,
    before: NDArray[np.uint32],
    after: NDArray[np.uint32],
) -> None:
    """Find what cannot be on a face: pixels of one component that are not alike, or of none, and objects elsewhere."""
    plan = bench.plan
    if plan.instances not in ("components", "watershed"):
        return
    both = Box(
        tuple(face - 1 if at == axis else low for at, low in enumerate(owned.start)),
        tuple(face + 1 if at == axis else high for at, high in enumerate(owned.stop)),
    )
    labels = np.concatenate([before, after], axis=axis)
    mask, seeds = masks_of(plan, bench.array("labels/semantic/0").read(both))
    wrong = odd_neighbours(mask, what_is_alike(plan, labels), axis)
    odd = wrongly_left_out(plan, mask, seeds, labels, both)
    if not plan.fill_holes:
        odd |= (labels > 0) & ~mask
    broken = np.argwhere(wrong | odd.any(axis=axis, keepdims=True))
    record["breaks"] += len(broken)
    room = LISTED - len(record["faults"])
    record["faults"] += [
        {"what": "object", "at": _in_image(tuple(at), owned, axis, face)} for at in broken[: max(room, 0)].tolist()
    ]
