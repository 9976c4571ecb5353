"""The audit of objects that a function has found in overlapping windows: the function is asked again on other windows.

A function may look as far as it likes, so two windows may part the same objects differently, and that is no fault of
the tiles. How often they do is measured with two windows around the same place; objects that seams cut or double are
so oftener than that. Places are stretches of seams: some are drawn blindly, and then as many of those where the result
has objects as it takes to see enough of them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.audit_face_jobs import count_faces, face_jobs
from pipeline.audit_faces import list_faults, sum_up_faces, worst_spots
from pipeline.detect import DetectorFunction
from pipeline.labels.seams import chance_of_broken, least_broken
from pipeline.overlap_audit_jobs import find_again, seams_of, survey_seams

if TYPE_CHECKING:
    from pipeline.audit import Mapper
    from pipeline.planning import RunPlan
    from pipeline.seam_stretches import Seams

__all__ = ["audit_function", "describe_function"]

ENOUGH = 100
"""Objects across seams that are looked at, where there are so many: then seven in pieces are told from chance."""

FEWEST, MOST = 4, 1000
"""Stretches that are looked at in one go, and in all."""

ODD = 0.005
"""Share of objects that may be others than in one call on the whole image: what this method promises."""

UNLIKELY = 1e-6
"""Chance below which so many broken objects are a fault."""

Record = dict[str, Any]


def audit_function(plan: RunPlan, run: Mapper, *, finished: bool, ask: bool, seed: int) -> Record:
    """Audit the objects that a function has found.

    Parameters
    ----------
    plan : RunPlan
        The plan that the result was made by.
    run : Mapper
        Runs the jobs.
    finished : bool
        Whether the result has its name.
    ask : bool
        Whether the function may be called. A finished result alone is no permission to run code.
    seed : int
        Chooses other places; which ones depends on it and on the shapes of image and tiles, and on nothing else.

    Returns
    -------
    dict
        As of `pipeline.audit.audit_result`; ``windows`` is None where the function was not asked. ``passed`` is None
        where it was asked of fewer objects than it takes to fail. Where it may not be asked, it is None, too, unless
        objects end at seams oftener than by chance: then it is False.
    """
    counted = run("audit faces", partial(count_faces, finished=finished), face_jobs(plan))
    seams = sum_up_faces(plan, counted)
    faults, total = list_faults(counted), int(seams["breaks"])
    passed, windows = None, None
    if ask:
        windows, found = _ask(plan, run, finished=finished, seed=seed)
        passed = True if not len(seams_of(plan)) or _can_fail(windows) else None
        if windows["odd"]:
            faults, total = faults + found, total + windows["odd_objects"]
    if seams["suspicious"]:
        spots = worst_spots(counted)
        if ask:
            all_seams = seams_of(plan)
            chosen = sorted({all_seams.number_at(spot) for spot in spots})
            again = run("audit spots", partial(find_again, stretches=chosen, finished=finished), len(chosen))
            seams["spots"] = _sum_up(again)
            if seams["spots"]["odd"]:
                faults, total = faults + list_faults(again), total + seams["spots"]["odd_objects"]
        else:
            faults += [{"what": "object", "at": spot} for spot in spots]
            total += len(spots)
    return {
        "passed": False if total else passed,
        "windows": windows,
        "seams": seams,
        "faults": {"total": total, "listed": faults},
    }


def _ask(plan: RunPlan, run: Mapper, *, finished: bool, seed: int) -> tuple[Record, list[Record]]:
    """Call the function again until enough objects are seen, or all that there are; sum up, and give the faults."""
    assert isinstance(plan.network, DetectorFunction)  # others are not audited here
    seams = seams_of(plan)
    surveyed = run("audit seams", partial(survey_seams, finished=finished, seed=seed), face_jobs(plan))
    met: dict[int, int] = {}
    for record in surveyed:
        for number, objects in record["met"]:
            met[number] = met.get(number, 0) + objects
    random = np.random.default_rng([seed, *plan.label_shape, *plan.core])
    blind = min(plan.audit_windows, len(seams))
    chosen = sorted(random.choice(len(seams), size=blind, replace=False).tolist()) if blind else []
    waiting = [number for number in random.permutation(sorted(met)).tolist() if number not in set(chosen)]
    stage, records, looked = "audit windows", list[Record](), list[int]()
    while True:
        records += run(stage, partial(find_again, stretches=chosen, finished=finished), len(chosen))
        looked += chosen
        lacking = ENOUGH - sum(record["objects"] for record in records)
        most = min(len(waiting), MOST - len(looked))
        if lacking <= 0 or most <= 0:
            break
        # Of the objects that a plane meets, some only touch it; the next round makes up for them.
        expected = np.cumsum([met[number] for number in waiting[:most]])
        many = min(most, max(FEWEST, int(np.searchsorted(expected, lacking)) + 1))
        chosen, waiting = waiting[:many], waiting[many:]
        stage = f"audit windows from {len(looked)}"
    everywhere = not waiting and not any(record["more"] for record in surveyed)
    windows = _sum_up(records) | {
        "seed": seed,
        "enough": ENOUGH,
        "seams_looked_at": _share(seams, looked),
        "all_objects_at_seams": everywhere,
    }
    return windows, list_faults(records)


def _share(seams: Seams, looked: list[int]) -> float:
    """Give the share of all seams that was looked at."""
    return round(sum(seams[number].plane.size for number in looked) / max(seams.pixels, 1), 6)


def _sum_up(records: list[Record]) -> Record:
    """Add up what was found, and say how likely so many broken objects are where only the function is to blame.

    Of a binomial test, with the share of objects that two windows see differently, and what is promised at least.
    """
    sums = {name: sum(int(record[name]) for record in records)
            for name in ("pixels", "objects", "odd_objects", "ambivalent")}  # fmt: skip
    share = max(ODD, sums["ambivalent"] / max(sums["objects"], 1))
    chance = chance_of_broken(sums["odd_objects"], sums["objects"], share)
    return {
        "number": len(records),
        **sums,
        "chance": chance,
        "odd": chance < UNLIKELY,
        "fails_from": least_broken(sums["objects"], share, UNLIKELY),
    }


def _can_fail(windows: Record) -> bool:
    """Say whether so many objects were seen that the audit could have failed."""
    return windows["fails_from"] is not None


def describe_function(report: Record) -> str:
    """Say in one line what was found when the function was asked again."""
    windows, seams = report["windows"], report["seams"]
    if not windows["number"]:
        return "the image is a single tile and has no seams"
    looked = f"{windows['number']} places, {100 * windows['seams_looked_at']:.3g} % of all seams"
    found = f"{windows['objects']:,} objects across seams found again by the function"
    odd = f"{windows['odd_objects']} in pieces, {windows['ambivalent']} differ between two windows of its own"
    text = f"{looked}, {found}: {odd}"
    if not _can_fail(windows):
        text += "; these are too few to tell whether seams show"
    elif windows["objects"] < windows["enough"]:
        text += f"; few objects: only {windows['fails_from']} or more in pieces would have failed"
    if windows["objects"] < windows["enough"] and windows["all_objects_at_seams"]:
        text += "; there are no more at seams"
    if seams["suspicious"]:
        text += f"; objects end at seams oftener than by chance ({seams['chance']:.1e}), for the function, too"
    return text
