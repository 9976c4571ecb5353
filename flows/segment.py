"""Flows that segment: one image, or many. Tasks are an image's stages; tiles are Dask futures and never tasks.

Only references pass through Prefect: plans, names and addresses. Pixels stay with the workers and the stores. Prefect
reads what its forms say of the parameters in the flows' docstrings, which for that are written as Google does it.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, get_run_logger, tags, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run, task_run
from prefect.states import Completed, Crashed, Failed
from prefect.utilities.timeout import timeout
from pydantic import Field

from flows.environment import POSTPONED, REPLACED, SKIPPED, named
from flows.notify import announce
from flows.outcomes import keep, outcome_of
from flows.placing import Place, at, given_place, own_place
from flows.telling import as_code, as_text, publish_outcome, recordable, showing_progress
from pipeline.acquisitions.outcome import note_by_hand
from pipeline.acquisitions.postponing import tells_of_disks, why_not_writable, why_postponed
from pipeline.acquisitions.readiness import content_of
from pipeline.batch import failed, finish_batch, open_batch, skipped
from pipeline.calibration import is_settled, settle_plan
from pipeline.config import RunConfig
from pipeline.destination import local_folder, stages_left
from pipeline.engine.cluster import connect
from pipeline.errors import (
    AuditError,
    ClusterError,
    ConfigError,
    ImageError,
    ModelError,
    PlanError,
    SeamfreeError,
    WorkersKilledError,
)
from pipeline.images.discover import InputImage, images_in
from pipeline.images.plates import is_plate, read_plate
from pipeline.planning import Intent, RunPlan
from pipeline.plates import finish_plates, hold_plates
from pipeline.printing import in_one_line, is_unicode, unexpected
from pipeline.progress import ImageFinished, ImageStarted, tell
from pipeline.remote.paths import to_path
from pipeline.run import ImageReport, claim, finished, is_outdated, prepare, prepare_anew
from pipeline.stages import run_stage, stage_names
from pipeline.summary import keeping_summary

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

__all__ = ["plan_image", "run_plan_stage", "segment_folder", "segment_image", "settle"]


def _may_recover(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry what may pass, such as a lost worker or a busy disk; not what is wrong with the input."""
    try:
        state.result()
    except (AuditError, ConfigError, ImageError, ModelError, PlanError, WorkersKilledError):
        return False
    except Exception:  # noqa: BLE001 (whatever else it is, a second attempt is worth it)
        return True
    return False


def _task_name() -> str:
    parameters = task_run.parameters
    return f"{parameters['stage']} {parameters['plan'].name}"


def _flow_name() -> str:
    parameters = flow_run.parameters
    return f"{parameters['image'].name} · {parameters['config'].model}"


@task(name="plan", task_run_name="plan {image.name}")
def plan_image(config: RunConfig, image: InputImage, output: str, intent: Intent) -> RunPlan:
    """Look at an image and decide everything about its run."""
    return prepare(config, image, Path(output), intent)


@task(name="stage", task_run_name=_task_name, retries=2, retry_delay_seconds=[1, 10], retry_condition_fn=_may_recover)
def run_plan_stage(stage: str, plan: RunPlan, address: str) -> dict[str, Any]:
    """Run one stage of a plan on the Dask cluster at an address; what a former attempt has done is not done again."""
    with connect(address) as executor:
        return run_stage(stage, plan, executor)


@task(name="settle", task_run_name="settle {plan.name}")
def settle(plan: RunPlan, image: InputImage, output: str, config: RunConfig, intent: Intent, address: str) -> RunPlan:
    """Decide what is to be measured: the precision and the tile with which the network runs fastest."""
    with connect(address) as executor:
        return settle_plan(plan, config, partial(prepare_anew, config, image, Path(output), intent), executor)


Hours = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]

_NAMED = 10
"""So many images that failed are named in the state of a run; the summary names all."""


@flow(
    name="segment-image",
    flow_run_name=_flow_name,
    validate_parameters=True,
    on_completion=[announce],
    on_failure=[announce],
    on_crashed=[announce],
)
def segment_image(
    image: InputImage,
    output: str,
    config: RunConfig = RunConfig(),  # noqa: B008 (immutable)
    fresh: bool = False,
    renew: bool = False,
    content: str | None = None,
    hours: Hours | None = None,
) -> Any:  # noqa: ANN401 (an `ImageReport`, in a state of Prefect's)
    """Segment one image, stage by stage, or the fields of a plate one after the other.

    Args:
        image: The image, or an OME-Zarr plate.
        output: Folder under which results go.
        config: All settings.
        fresh: Start over, even where there is a result.
        renew: Replace a finished result of another image or with other settings; go on with what is unfinished.
        content: SHA-256 of what is to be segmented, as `seamfree status` tells it; should there be something else
            when the run begins, it is left alone.
        hours: Give up after so many; what is done is kept.
    """
    began = perf_counter()
    given = given_place()
    try:
        with (
            timeout(None if hours is None else hours * 3600),
            own_place(config, Path(output)) if given is None else nullcontext(given) as where,
        ):
            if content is not None and (gone := _why_gone(config, image, content)):
                return Completed(name=REPLACED, message=gone)
            work = _segment_plate if not image.plate and is_plate(to_path(image.path)) else _segment
            report = work(image, output, config, where, began, fresh=fresh, renew=renew)
    except Exception as error:
        if given is not None:
            raise
        if content is not None and isinstance(error, ImageError) and (gone := _why_gone(config, image, content)):
            return Completed(name=REPLACED, message=gone)
        if hours is not None and perf_counter() - began >= hours * 3600:
            return Failed(message=f"given up after {hours:g} h; what is done is kept, and the next run goes on with it")
        return _unfinished(error, Path(output))
    keep(report)
    if report.status == "failed":
        return _failed(report, Path(output))
    if report.reason is not None:
        return Completed(name=SKIPPED, message=recordable(report.reason), data=report)
    if given is None and content is None:
        note_by_hand(Path(output), config, report)
    return Completed(message=_found(report), data=report)


def _found(report: ImageReport) -> str:
    return "labels of classes" if report.objects is None else f"{report.objects:,} objects"


def _why_gone(config: RunConfig, image: InputImage, content: str) -> str | None:
    """Say that an image is not what it was when its run was asked for, None if it is."""
    try:
        if content_of(Path(image.path).absolute(), config.series) == content:
            return None
    except ImageError as error:
        return recordable(f"left alone, for it has changed since: {error}")
    return recordable(f"{image.path}: left alone, for it has changed since; what it is now has a run of its own")


def _unfinished(error: Exception, output: Path) -> State[Any]:
    """Give the state of a run that a deployment has started: failed, or crashed for what may be over the next time."""
    known = named(error)
    if (reason := why_postponed(known, output)) is not None:
        return Crashed(name=POSTPONED, message=recordable(in_one_line(reason)), data=error)
    told = in_one_line(str(known)) if isinstance(known, SeamfreeError) else unexpected(known)
    if isinstance(known, ClusterError):
        return Crashed(message=recordable(told), data=error)
    return Failed(message=recordable(told), data=error)


def _failed(report: ImageReport, output: Path) -> State[Any]:
    """Give the state of a run of a plate some of whose fields have failed."""
    reason = recordable(str(report.reason))
    if (why := why_not_writable(output)) is not None or tells_of_disks(reason):
        return Crashed(name=POSTPONED, message=recordable(why or reason), data=report)
    return Failed(message=reason, data=report)


def _segment(
    image: InputImage, output: str, config: RunConfig, where: Place, began: float, *, fresh: bool, renew: bool
) -> ImageReport:
    logger = get_run_logger()
    plan = plan_image(config, image, output, where.intent)
    with claim(plan, fresh=fresh, renew=renew) as reason:
        if reason is not None:
            logger.info("%s: %s", image.name, reason)
            return skipped(image, plan, reason)
        if not is_settled(plan, config):
            plan = settle(plan, image, output, config, where.intent, where.address)
        logger.info("%s: %d tiles of %s, plan %s", image.name, len(plan.tiles), plan.core, plan.digest[:16])
        facts: dict[str, Any] = {}
        # A limit of this name on the server, where a lab has made one, is how many images may use its GPUs at once.
        gpus = ["seamfree-gpus"] if where.intent.device == "cuda" else []
        with showing_progress(plan), concurrency(gpus, strict=False):
            for stage in stages_left(plan, stage_names(plan)):
                facts = run_plan_stage(stage, plan, where.address)
    report = finished(plan, facts, perf_counter() - began)
    publish_outcome(report)
    return report


def _segment_plate(
    image: InputImage, output: str, config: RunConfig, where: Place, began: float, *, fresh: bool, renew: bool
) -> ImageReport:
    """Segment the fields of a plate, each in a run of its own, and make a plate of what comes out."""
    path, folder = to_path(image.path).absolute(), Path(output)
    if not read_plate(path).fields:
        raise ImageError(f"{path}: the plate lists no fields that can be read")
    images = images_in(path, image.name)
    # A finished plate stays as it is until a whole new one takes its place.
    final = folder / f"{image.name}.ome.zarr"
    anew = fresh or (
        renew and final.exists() and any(is_outdated(prepare(config, field, folder, where.intent)) for field in images)
    )
    with tags("seamfree", config.model), hold_plates(images, folder, config, fresh=anew) as held, at(where):
        reports = [_attempt(field, output, config, fresh=fresh, renew=renew) for field in held]
        plate = finish_plates(held, reports, folder, config)[-1]
    reason = "there is a finished result; use --fresh to make it again" if plate.status == "skipped" else plate.reason
    return replace(plate, reason=reason, seconds=round(perf_counter() - began, 3))


def _attempt(image: InputImage, output: str, config: RunConfig, *, fresh: bool, renew: bool = False) -> ImageReport:
    """Segment one image of several in a run of its own; that it fails never stops the others."""
    began = perf_counter()
    try:
        if not is_unicode(image.path):
            raise ImageError(  # noqa: TRY301 (told like whatever else is wrong with an image)
                f"{image.path}: a name that is not UTF-8 cannot be recorded; rename it, or use --direct"
            )
        # Prefect's overloads take "Any" for a flow that never returns.
        report: ImageReport = outcome_of(lambda: segment_image(image, output, config, fresh, renew))  # type: ignore[assignment]
    except Exception as error:  # noqa: BLE001 (whatever it is)
        report = failed(image, named(error), perf_counter() - began)
        get_run_logger().error("%s", recordable(f"{image.path}: {report.reason}"))
    return report


@flow(name="segment-folder", flow_run_name="{output}", validate_parameters=True)
def segment_folder(
    inputs: list[str],
    output: str,
    config: RunConfig,
    fresh: bool = False,
) -> Any:  # noqa: ANN401 (a list of `ImageReport`, in a state of Prefect's)
    """Segment many images on one Dask cluster; one that fails never stops the others, but the run has failed, then.

    Args:
        inputs: Images, folders, globs.
        output: Folder for the results and ``run-summary.json``, or its URL in an object store.
        config: All settings.
        fresh: Start over, even where there are results.
    """
    folder = local_folder(output, config)
    reports: list[ImageReport] = []
    with (
        tags("seamfree", config.model),
        open_batch(config, inputs, output, fresh=fresh) as (images, site, address),
        at(Place(address, site.intent)),
    ):
        with keeping_summary(folder, reports) as note:
            for image in images:
                tell(ImageStarted(image.name))
                reports.append(_attempt(image, str(folder), config, fresh=fresh))
                note_by_hand(folder, config, reports[-1])
                note()
                tell(ImageFinished(image.name, reports[-1].status))
        reports = finish_batch(images, reports, folder, output, config)
    _publish_summary(reports)
    keep(reports)
    return _told_of(reports)


def _told_of(reports: list[ImageReport]) -> State[Any]:
    """Give the state of a run of many images: failed where one of them did, as the exit code says it."""
    counts = Counter(report.status for report in reports)
    told = ", ".join(f"{counts[status]} {status}" for status in ("done", "skipped", "failed"))
    if not counts["failed"]:
        return Completed(message=told, data=reports)
    bad = [report.name for report in reports if report.status == "failed"]
    few = ", ".join(bad[:_NAMED]) + (", ..." if len(bad) > _NAMED else "")
    return Failed(
        message=recordable(f"{told}: {few}; the others are finished, and the summary has the reasons"), data=reports
    )


def _publish_summary(reports: list[ImageReport]) -> None:
    """Put the outcome where people look: two artifacts of the flow run."""
    rows = [
        {
            "image": recordable(report.name),
            "status": report.status,
            "objects": report.objects,
            "seconds": report.seconds,
            "result, or reason": recordable("; ".join([report.reason or report.result or "", *report.notes])),
        }
        for report in reports
    ]
    create_table_artifact(rows, key="seamfree-images", description="What became of each image")
    counts = {status: sum(report.status == status for report in reports) for status in ("done", "skipped", "failed")}
    lines = [f"**{counts['done']} done, {counts['skipped']} skipped, {counts['failed']} failed**", ""]
    lines += [
        f"- {as_code(report.name)}: {as_text(str(report.reason))}" for report in reports if report.status == "failed"
    ]
    create_markdown_artifact("\n".join(lines), key="seamfree-summary", description="Summary of the run")
