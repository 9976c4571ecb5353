"""One image from beginning to end: plan, stages, publication. The composition root; knows everything but Prefect.

Its stages are in `pipeline.stages`; who orchestrates runs them one by one: `run_image` here, a flow elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from pipeline.calibration import known_rates
from pipeline.choices import as_stated, choose_rescaling
from pipeline.destination import prepare_destination, sent_destination, set_aside, stages_left
from pipeline.detect import check_detector, learn_detector
from pipeline.errors import PlanError, StoreError
from pipeline.identity import differences
from pipeline.images.content import content_sha256
from pipeline.images.discover import check_name
from pipeline.images.opening import open_image
from pipeline.images.zarrs import ZarrSource
from pipeline.models.facts import learn_facts
from pipeline.package_check import check_pixels
from pipeline.planning import Intent, RunPlan, Target, make_plan
from pipeline.remote.paths import RemotePath, to_path
from pipeline.report.writing import refuse_foreign_report, report_beside, report_path
from pipeline.stages import discard, run_stage, stage_names
from pipeline.stores.hold import hold
from pipeline.stores.in_place import recover_addition, refuse_taken_names
from pipeline.stores.publish import (
    PROVENANCE,
    noted_damage,
    read_provenance,
    recover,
    refuse_foreign,
    refuse_foreign_partial,
)

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.detect import DetectorFacts
    from pipeline.engine.executor import Executor
    from pipeline.images.discover import InputImage
    from pipeline.images.source import ImageSource
    from pipeline.models.facts import ModelFacts
    from pipeline.models.network import NetworkUse
    from pipeline.remote.paths import AnyPath

__all__ = ["SETTINGS", "ImageReport", "claim", "finished", "is_outdated", "prepare", "prepare_anew", "run_image"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What became of one image.

    Parameters
    ----------
    name, input : str
        The result's name and the input's absolute path.
    status : str
        ``"done"``, ``"skipped"`` (there was a finished result) or ``"failed"``.
    result : str, optional
        Path of the result.
    reason : str, optional
        Why it failed, or was skipped.
    objects : int, optional
        Number of objects.
    seconds : float
        How long it took.
    notes : tuple of str
        What a user should know of a result that is done: that seams are possible, or what was skipped.
    """

    name: str
    input: str
    status: str
    result: str | None = None
    reason: str | None = None
    objects: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def prepare(config: RunConfig, image: InputImage, output: Path, intent: Intent, *, survey: bool = False) -> RunPlan:
    """Look at an image and decide everything about its run.

    Parameters
    ----------
    config : RunConfig
        The user's wishes.
    image : InputImage
        The input.
    output : Path
        Folder under which results go.
    intent : Intent
        The device and the memory at hand.
    survey : bool
        Whether only the extent of the run is of interest: nothing is told, and the image's bytes are not looked at.

    Raises
    ------
    ImageError, ModelError, PlanError
        If the image or the model cannot be read, or they do not fit together.
    """
    model: ModelFacts | None = None
    check_name(image)
    if image.refused:
        raise StoreError(image.refused)
    if not check_detector(config):
        model = _learn(config, config.network_use)
    source = open_image(to_path(image.path).absolute(), config.series)
    try:
        facts: ModelFacts | DetectorFacts
        info, stated = as_stated(config, source.info)
        if model is None:
            facts = learn_detector(config, info)
        else:
            check_pixels(model.card, info)
            ratios, told = choose_rescaling(config, info, model)
            if told and not survey:
                log.warning("%s", told)
            facts = model if ratios is None else _learn(config, config.network_use.at(ratios))
        for note in () if survey else (*source.notes, *stated):
            log.warning("%s", note)
        content = content_sha256(source) if config.identify == "content" and not survey else None
        target = _find_target(source) if config.output.in_place else None
        made = make_plan(config, image, info, facts, output.absolute(), intent, content, target)
        if intent.rates is None and intent.core is None and (rates := known_rates(made, config)) is not None:
            known = intent.model_copy(update={"rates": rates})
            made = make_plan(config, image, info, facts, output.absolute(), known, content, target)
        return made
    finally:
        source.close()


def _learn(config: RunConfig, use: NetworkUse) -> ModelFacts:
    return learn_facts(config.model, factory=config.factory, trust=config.trust_model_code, use=use)


def _find_target(source: ImageSource) -> Target:
    """Find the group that labels become a part of.

    Raises
    ------
    PlanError
        If the image is no OME-Zarr on a disk.
    """
    path = source.info.path
    if not isinstance(source, ZarrSource) or source.group is None:
        raise PlanError(f"{path}: --in-place is for OME-Zarr, this is {source.info.kind}; leave it out")
    if isinstance(source.group, RemotePath):
        raise PlanError(f"{path}: --in-place writes beside pixels on a disk, and these are elsewhere; leave it out")
    version: Literal["0.4", "0.5"] = "0.5" if (source.group / "zarr.json").is_file() else "0.4"
    return Target(str(source.group.absolute()), version, len(source.levels))


def prepare_anew(
    config: RunConfig, image: InputImage, output: Path, intent: Intent, changed: dict[str, Any]
) -> RunPlan:
    """Decide again, with some facts of the intent changed; as `prepare`."""
    return prepare(config, image, output, intent.model_copy(update=changed))


@contextmanager
def claim(plan: RunPlan, *, fresh: bool, renew: bool = False) -> Iterator[str | None]:
    """Hold a plan's result against other runs, and find out whether there is anything to do.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    fresh : bool
        Whether to start over even where there is a result, finished or not.
    renew : bool
        Whether a finished result of another image, or with other settings, is made anew; the same one is left alone,
        and an unfinished one gone on with.

    Yields
    ------
    str or None
        Why there is nothing to do, or None.

    Raises
    ------
    StoreError
        If another run is at work on the result, or something else has its name.
    PlanError
        If there is a finished result of another input, and no `fresh`.
    """
    final = Path(plan.output)
    if not plan.in_place:
        refuse_foreign(final)
    refuse_foreign_partial(plan.partial)
    if plan.report:
        refuse_foreign_report(report_path(plan.held))
    with hold(plan.held), hold(final) if plan.in_place else nullcontext():
        if plan.in_place:
            recover_addition(plan.partial, final, plan.work.name)
            refuse_taken_names(final, plan.parts)
        else:
            recover(plan.partial, final, plan.work.name)
        prepare_destination(plan, fresh=fresh)
        reason = None
        if fresh:
            discard(plan)
        elif (found := _finished_result(plan)) is not None:
            provenance = read_provenance(found)
            other = _other_image(plan, provenance, found)
            settings = _other_settings(plan, provenance)
            if not renew and other:
                raise PlanError(other)
            if not (renew and (other or settings)):
                reason = settings or "there is a finished result; use --fresh to make it again"
            if damage := noted_damage(found):
                log.warning("%s: the finished result is damaged and made again: %s", plan.name, ", ".join(damage))
                reason = None
            elif plan.destination is None and not report_path(plan.held).exists():
                # A run was killed after it had published the result.
                report_beside(plan)
        yield reason


def _finished_result(plan: RunPlan) -> AnyPath | None:
    """Find the finished result: where it goes to an object store, there; what waits to be sent is no result yet."""
    final = Path(plan.output)
    made = (final / PROVENANCE).exists()
    if plan.destination is None:
        return final if made else None
    sent = sent_destination(plan)
    if made:
        provenance = read_provenance(final)
        if sent is not None or _other_image(plan, provenance, final) or _other_settings(plan, provenance):
            set_aside(plan)
    return sent


_INPUT = ("shape", "dtype", "size_bytes", "modified_ns", "files_sha256")

SETTINGS = ("series", "network", "use", "weights_sha256", "channels", "instances", "object_classes", "minimum_size",
             "fill_holes", "border", "parting_depth", "largest", "table", "probabilities", "precision", "skip_below",
             "copy_image", "ome_zarr", "intensity")  # fmt: skip
"""Fields of a plan that stand for what the user chose, and not for the image."""


def _other_image(plan: RunPlan, provenance: dict[str, Any], result: AnyPath) -> str | None:
    """Say that a finished result is of another image than the plan's, None if it is not."""
    held, wanted = provenance.get("plan", {}), plan.identity
    known_by = {"source": {name: wanted["source"][name] for name in _INPUT if name in wanted["source"]}}
    if held.get("content_sha256") is not None:
        known_by["content_sha256"] = wanted["content_sha256"]
    changed = differences(held, known_by)
    if not changed:
        return None
    return (
        f"{result}: there is a finished result of another image, {held.get('source', {}).get('path')}, or the "
        f"image has changed since: {', '.join(changed)}; --fresh replaces it, another -o keeps both"
    )


def _other_settings(plan: RunPlan, provenance: dict[str, Any]) -> str | None:
    """Say that a finished result was made with other settings than the plan's, None if it was not."""
    held, wanted = {"ome_zarr": "0.5"} | provenance.get("plan", {}), plan.identity
    # A precision that is chosen by measuring was chosen then.
    settings = [name for name in SETTINGS if name != "precision" or not plan.precision_open]
    # What a file says of the size of its pixels may have been stated.
    sizes = {name: wanted["source"][name] for name in ("pixel_size", "units")}
    changed = differences(held, {"source": sizes} | {name: wanted[name] for name in settings})
    if not changed:
        return None
    return f"there is a finished result with other settings: {', '.join(changed)}; use --fresh to make it again"


def is_outdated(plan: RunPlan) -> bool:
    """Say whether where a plan's result belongs there is none, or one of another image or with other settings.

    Raises
    ------
    StoreError
        If the one that is there cannot be read.
    """
    final = Path(plan.output)
    if not (final / PROVENANCE).exists():
        return True
    provenance = read_provenance(final)
    return bool(_other_image(plan, provenance, final) or _other_settings(plan, provenance))


def run_image(plan: RunPlan, executor: Executor) -> ImageReport:
    """Run all stages of a plan.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    executor : Executor
        Where its jobs run.

    Returns
    -------
    ImageReport

    Raises
    ------
    SeamfreeError
        If a stage fails. What is done is kept for the next run, unless the image itself is at fault.
    """
    began = perf_counter()
    facts: dict[str, Any] = {}
    for name in stages_left(plan, stage_names(plan)):
        facts = run_stage(name, plan, executor)
    return finished(plan, facts, perf_counter() - began)


def finished(plan: RunPlan, facts: dict[str, Any], seconds: float) -> ImageReport:
    """Report on an image that is done, from what its last stage has told."""
    notes = [note for note in (plan.seams, facts.get("skipped")) if note is not None]
    return ImageReport(
        plan.name, plan.source.path, "done", plan.destination or plan.output, None, facts["objects"], round(seconds, 3),
        tuple(notes),
    )  # fmt: skip
