"""What the audit of a function's objects computes for one index. Runs on workers, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from pipeline.audit_face_jobs import face_cores
from pipeline.audit_jobs import audit_bench
from pipeline.detect import HALO, DetectorFunction
from pipeline.detect_objects import find_objects
from pipeline.geometry import Box, Margin
from pipeline.labels.components import linked_axes
from pipeline.labels.seams import broken_objects
from pipeline.overlap_jobs import read_channels
from pipeline.seam_stretches import Seams, Stretch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.bench import Bench
    from pipeline.planning import RunPlan

__all__ = ["find_again", "seams_of", "survey_seams"]

KEPT = 64
"""Stretches that one job names: what all jobs report stays small however large the image."""

LISTED = 4
"""Places that one job names."""

Record = dict[str, Any]


def seams_of(plan: RunPlan) -> Seams:
    """Cut the seams of a plan into stretches of four diameters, as long as the context of a window on both sides."""
    return Seams.of(plan, [2 * HALO * extent for extent in _diameter(plan)])


def _diameter(plan: RunPlan) -> tuple[int, ...]:
    assert isinstance(plan.network, DetectorFunction)  # others are not audited here
    return plan.network.diameter


def survey_seams(plan: RunPlan, index: int, *, finished: bool, seed: int) -> Record:
    """Find the stretches at which the result has objects.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Below `pipeline.audit_face_jobs.face_jobs`.
    finished : bool
        Whether the result has its name.
    seed : int
        Chooses which ones are named, where there are many.

    Returns
    -------
    dict
        ``met``, stretches and how many objects touch each; whether there are ``more``; ``pixels``.
    """
    labels, seams = audit_bench(plan, finished=finished).array("labels/instances/0"), seams_of(plan)
    met: dict[int, int] = {}
    pixels = 0
    for owned in (plan.tiles[number].owned for number in face_cores(plan, index)):
        for axis in seams.axes:
            if not (face := owned.start[axis]):
                continue
            margins = tuple(
                Margin(int(at == axis), face + 1 - owned.stop[axis] if at == axis else 0) for at in range(4)
            )
            both = owned.grow(margins)
            slab = labels.read(both)
            pixels += slab.size
            where = np.nonzero(slab)
            points = [at + start for at, start in zip(where, both.start, strict=True)]
            pairs = np.unique(np.stack([seams.numbers(axis, face, points), slab[where].astype(np.int64)]), axis=1)
            for number, objects in zip(*map(np.ndarray.tolist, np.unique(pairs[0], return_counts=True)), strict=True):
                met[number] = met.get(number, 0) + objects
    named = sorted(met)
    if len(named) > KEPT:
        named = np.random.default_rng([seed, index]).choice(named, size=KEPT, replace=False).tolist()
    return {"pixels": pixels, "met": [[number, met[number]] for number in named], "more": len(met) > len(named)}


def find_again(plan: RunPlan, index: int, *, stretches: list[int], finished: bool) -> Record:
    """Call the function on two windows around a stretch of a seam, and compare with the objects of the result.

    Parameters
    ----------
    plan : RunPlan
        The plan of the result. Its tiles say where seams are, and nothing else.
    index : int
        Of the stretch among `stretches`.
    stretches : list of int
        Their numbers in `seams_of` the plan.
    finished : bool
        Whether the result has its name.

    Returns
    -------
    dict
        ``objects`` across this stretch, no larger than a diameter, how many of them are ``odd_objects`` in the
        result and how many are ``ambivalent`` between the two windows, ``pixels``, and ``object_faults``.
    """
    bench = audit_bench(plan, finished=finished)
    stretch = seams_of(plan)[stretches[index]]
    free = 4 - plan.spatial_ndim
    halo = (0,) * free + tuple(HALO * extent for extent in _diameter(plan))
    place = stretch.around(halo[stretch.axis], plan.label_shape)
    # Of another size, and with another place in it: a function that rounds or pools sees other windows.
    window = _grown(place, halo, plan)
    other = _grown(place, tuple(edge + edge // 4 + 1 if edge else 0 for edge in halo), plan)
    found, again = _find(bench, window), _find(bench, other)
    again = again[window.relative_to(other.start).slices]
    wanted = _across(plan, found, window, stretch)
    broken = broken_objects(found, bench.array("labels/instances/0").read(window), wanted)
    ambivalent = broken_objects(found, again, wanted)
    places = [np.argwhere(found == label)[0] + np.array(window.start) for label in broken[:LISTED].tolist()]
    return {
        "pixels": place.size,
        "objects": int(wanted.size),
        "odd_objects": int(broken.size),
        "ambivalent": int(ambivalent.size),
        "object_faults": [{"what": "object", "at": at.tolist()} for at in places],
        "faults": [],
    }


def _grown(box: Box, halo: tuple[int, ...], plan: RunPlan) -> Box:
    return box.grow(tuple(Margin(edge, edge) for edge in halo)).clip(plan.label_shape)


def _find(bench: Bench, window: Box) -> NDArray[np.int64]:
    """Give the function's objects in a window, TZYX."""
    detector = bench.detector
    labels, _ = find_objects(detector.function, read_channels(bench, window), detector.name, **detector.options)
    return labels.reshape(window.shape)


def _across(plan: RunPlan, labels: NDArray[np.int64], window: Box, stretch: Stretch) -> NDArray[np.int64]:
    """Give the objects across a stretch, no larger than a diameter. Each object belongs to a single one.

    That is the first seam that it crosses, axis by axis, and the stretch in which its middle lies.
    """
    chosen = []
    linked = linked_axes(plan.spatial_ndim)
    extents = dict(zip(linked, _diameter(plan), strict=True))
    for label, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None:
            continue
        low = [part.start + start for part, start in zip(place, window.start, strict=True)]
        last = [part.stop - 1 + start for part, start in zip(place, window.start, strict=True)]
        crossed = [axis for axis in linked if low[axis] // plan.core[axis] != last[axis] // plan.core[axis]]
        if not crossed or crossed[0] != stretch.axis or any(last[axis] - low[axis] >= extents[axis] for axis in linked):
            continue
        middle = [(first + end) // 2 for first, end in zip(low, last, strict=True)]
        middle[stretch.axis] = (low[stretch.axis] // plan.core[stretch.axis] + 1) * plan.core[stretch.axis]
        if all(
            start <= at < stop for start, at, stop in zip(stretch.plane.start, middle, stretch.plane.stop, strict=True)
        ):
            chosen.append(label)
    return np.array(chosen, dtype=np.int64)
