"""The seam audit: is a result what it would be without tiles? Some windows are computed again, all seams are counted.

Windows decide: what they and the result disagree about is a fault. The statistics of objects at seams, against planes
half a core away from them, decide nothing, for an image can be made of pieces that end where tiles do; where objects
end at seams oftener than chance allows, those very objects are made again, and decide.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.audit_face_jobs import count_faces, face_jobs
from pipeline.audit_faces import list_faults, sum_up_faces, worst_spots
from pipeline.audit_jobs import check_spot, recompute_window
from pipeline.audit_windows import choose_core, nearest_seam
from pipeline.errors import PlanError
from pipeline.labels.components import AXES
from pipeline.models.facts import learn_facts
from pipeline.overlap_audit import audit_function, describe_function

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.geometry import Footprint
    from pipeline.jobs import TileJob
    from pipeline.planning import RunPlan

__all__ = ["Mapper", "audit_result", "describe_faults", "describe_report", "learn_footprint", "noted_lists"]

Report = dict[str, Any]

LISTED = 100
"""Entries of each list in a report; how many there are in all stands beside it."""


class Mapper(Protocol):
    """Runs so many jobs of one kind somewhere."""

    def __call__(self, stage: str, job: TileJob, total: int, /) -> list[dict[str, Any]]:
        """Give the jobs' records in the order of their indices."""
        ...


def audit_result(plan: RunPlan, run: Mapper, *, finished: bool, seed: int = 0, ask: bool = False) -> Report:
    """Audit a result.

    Parameters
    ----------
    plan : RunPlan
        The plan that it was made by.
    run : Mapper
        Runs the jobs.
    finished : bool
        Whether the result has its name; else it is the unfinished one.
    seed : int
        Chooses another sample of windows.
    ask : bool
        Whether the function that stands in the network's place, if one does, may be called for a finished result.

    Returns
    -------
    dict
        What JSON can hold: ``passed``, ``windows``, ``seams`` (None without objects), and ``faults``. Where a
        network is not local and the user insists, ``windows`` is None, and ``passed`` is None unless a fault is found:
        objects are counted at seams only. It is None, too, where objects end at seams oftener than by chance, and not
        one of those ends could be looked at; and where objects were parted and not one was compared, for all that the
        windows hold reach beyond what was looked at. Of functions, see `pipeline.overlap_audit.audit_function`.
    """
    if plan.instances == "overlap":
        report = audit_function(plan, run, finished=finished, ask=ask or not finished, seed=seed)
    else:
        report = _audit_network(plan, run, finished=finished, seed=seed)
    named = [{**fault, "seam": nearest_seam(plan, fault["at"])} for fault in report["faults"]["listed"]]
    named.sort(key=lambda fault: fault["seam"] or (0,))
    return report | {"faults": report["faults"] | {"listed": named[:LISTED]}}


def _audit_network(plan: RunPlan, run: Mapper, *, finished: bool, seed: int) -> Report:
    """Audit what a network has computed."""
    windows, faults, total, undecided = None, [], 0, False
    recomputable = plan.seams is None
    if recomputable:
        footprint = learn_footprint(plan)
        recompute = partial(recompute_window, footprint=footprint, finished=finished, seed=seed)
        records = run("audit windows", recompute, plan.audit_windows)
        windows = _sum_up_windows(plan, records, footprint) | {"seed": seed}
        faults = list_faults(records)
        total = windows["differing"] + windows["odd_scores"] + windows["odd_objects"]
        # Of components, what reaches beyond is compared, too: each is one object, or none.
        undecided = plan.instances == "watershed" and not windows["objects"] and windows["open"] > 0
    seams = None
    if plan.instances != "none":
        counted = run("audit faces", partial(count_faces, finished=finished), face_jobs(plan))
        seams = sum_up_faces(plan, counted)
        faults += list_faults(counted)
        total += seams["breaks"]
        if seams["suspicious"] and recomputable:
            spots = worst_spots(counted)
            check = partial(check_spot, footprint=footprint, finished=finished, spots=spots)
            looked = run("audit spots", check, len(spots))
            found = _sum_up_windows(plan, looked, footprint)
            seams["spots"] = found | {"undecided": sum(not record["decided"] for record in looked)}
            undecided = seams["spots"]["undecided"] == len(looked) or (undecided and not found["objects"])
            faults += list_faults(looked)
            total += found["differing"] + found["odd_scores"] + found["odd_objects"]
    return {
        "passed": False if total else True if recomputable and not undecided else None,
        "windows": windows,
        "seams": seams,
        "faults": {"total": total, "listed": faults},
    }


def learn_footprint(plan: RunPlan) -> Footprint:
    """Give what a plan's network needs around a core: from the network, not from the plan.

    Raises
    ------
    ModelError
        If the model is gone, or cannot be loaded.
    PlanError
        If its network is not local: nothing can be said of its seams.
    """
    context = learn_facts(plan.model, factory=plan.factory, trust=plan.trust_model_code, use=plan.use).context
    if context.footprint is None:
        raise PlanError(f"{plan.model}: seams cannot be audited, for the network is not local: {context.reason}")
    return context.footprint


def _sum_up_windows(plan: RunPlan, records: list[dict[str, Any]], footprint: Footprint) -> Report:
    """Add up what was found in windows."""
    core = choose_core(plan.label_shape[4 - plan.spatial_ndim :], footprint)
    deviations = [record["deviation"] for record in records if record["deviation"] is not None]
    counted = ("pixels", "differing", "ties", "scores", "odd_scores", "objects", "odd_objects", "open")
    sums = {name: sum(record[name] for record in records) for name in counted}
    return {
        "number": len(records),
        "core": list(core),
        "window": list(footprint.window_shape(core)),
        **sums,
        "largest_difference_of_scores": max(deviations, default=None),
    }


FAULTS = {"class": "a class that differs", "score": "a score that differs", "object": "an object that differs"}
"""What may be wrong at a place."""


def describe_faults(report: Report) -> str:
    """Say in one line what is wrong: the first fault, where it is, and how many there are."""
    listed = report["faults"]["listed"]
    first = listed[0]
    _, axis, seam = first["seam"] or (0, "", 0)
    place = ", ".join(f"{letter} {at}" for letter, at in zip(AXES, first["at"], strict=True))
    beside = f", nearest to the seam at {axis} {seam}" if axis else ""
    return f"{report['faults']['total']} faults, such as {FAULTS[first['what']]} at {place}{beside}"


def describe_report(report: Report) -> str:
    """Say in one line what was found."""
    windows, seams = report["windows"], report["seams"]
    if windows is None:
        why = "nothing can be computed again as without tiles, for a function or a network that sees the whole image"
        if seams is None or seams["chance"] is None:
            return why
        share = 100 * float(f"{seams['chance']:.2g}")
        return f"{why}; by chance as many objects end at seams, or more, in {share:g} % of images"
    if "ambivalent" in windows:
        return describe_function(report)
    ties = f", {windows['ties']} ties within rounding" if windows["ties"] else ""
    text = f"{windows['number']} windows, {windows['pixels']:,} pixels: {windows['differing']} differ{ties}"
    if windows["scores"]:
        text += f", scores by at most {windows['largest_difference_of_scores']:.1e}"
    if seams is None:
        return text
    text += f"; {windows['objects']:,} objects compared"
    if not windows["objects"] and windows.get("open"):
        text += ", for none lies wholly in what was looked at"
    if seams["suspicious"]:
        decided = seams["spots"]["number"] - seams["spots"]["undecided"]
        text += f"; objects end at seams oftener than by chance ({seams['chance']:.1e}), and "
        if decided:
            text += f"{decided} places where they do are as without tiles: the image has edges there"
        else:
            text += "whether they do without tiles, too, could not be found out"
    return text


def noted_lists(plan: RunPlan, crossed: Mapping[str, Any]) -> Report:
    """Give what was undecided while objects were made: places, some of them, and how many there are in all.

    Parameters
    ----------
    plan : RunPlan
        The plan of an unfinished result, among whose notes are the ambiguous pairs of objects, if there are any.
    crossed : mapping
        What the stage ``cross`` has reported: the components that are too large to be parted.
    """
    ambiguous: Report = {"total": 0, "listed": []}
    noted = plan.work / "ambiguous.json"
    if noted.exists():
        found = json.loads(noted.read_text(encoding="utf-8"))
        ambiguous = {"total": found["ambiguous"], "listed": found["list"][:LISTED]}
    return {
        "ambiguous": ambiguous,
        "too_large_to_part": {"total": crossed.get("too_large", 0), "listed": crossed.get("boxes", [])},
    }
