"""Flows that segment: one image, or many. Tasks are an image's stages; tiles are Dask futures and never tasks.

Only references pass through Prefect: plans, names and addresses. Pixels stay with the workers and the stores.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, tags, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run, task_run

from flows.environment import can_be_recorded, named
from pipeline.batch import failed, open_batch, skipped, write_summary
from pipeline.config import RunConfig
from pipeline.engine.cluster import connect
from pipeline.errors import AuditError, ConfigError, ImageError, ModelError, PlanError, WorkersKilledError
from pipeline.images.discover import InputImage
from pipeline.planning import Intent, RunPlan
from pipeline.plates import finish_plates
from pipeline.precision import settle_precision
from pipeline.progress import ImageFinished, ImageStarted, tell
from pipeline.run import ImageReport, claim, finished, prepare
from pipeline.stages import run_stage, stage_names

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

__all__ = ["choose_precision", "plan_image", "run_plan_stage", "segment_folder", "segment_image"]


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


@task(name="precision", task_run_name="precision {plan.name}")
def choose_precision(plan: RunPlan, address: str) -> RunPlan:
    """Measure in which precision the network runs fastest with the same labels."""
    with connect(address) as executor:
        return settle_precision(plan, executor)


@flow(name="segment-image", flow_run_name=_flow_name, validate_parameters=True)
def segment_image(
    image: InputImage,
    output: str,
    config: RunConfig,
    address: str,
    intent: Intent,
    fresh: bool = False,
) -> ImageReport:
    """Segment one image, stage by stage.

    Parameters
    ----------
    image : InputImage
        The image and its result's name.
    output : str
        Folder under which results go.
    config : RunConfig
        All settings.
    address : str
        Of the Dask scheduler, or ``"serial"``.
    intent : Intent
        The device and the memory of one worker.
    fresh : bool
        Start over, even where there is a result.
    """
    logger = get_run_logger()
    began = perf_counter()
    plan = plan_image(config, image, output, intent)
    with claim(plan, fresh=fresh) as reason:
        if reason is not None:
            logger.info("%s: %s", image.name, reason)
            return skipped(image, plan, reason)
        if plan.precision_open:
            plan = choose_precision(plan, address)
        logger.info("%s: %d tiles of %s, plan %s", image.name, len(plan.tiles), plan.core, plan.digest[:16])
        facts: dict[str, Any] = {}
        for stage in stage_names(plan):
            facts = run_plan_stage(stage, plan, address)
    return finished(plan, facts, perf_counter() - began)


@flow(name="segment-folder", flow_run_name="{output}", validate_parameters=True)
def segment_folder(
    inputs: list[str],
    output: str,
    config: RunConfig,
    fresh: bool = False,
) -> list[ImageReport]:
    """Segment many images on one Dask cluster; one that fails never stops the others.

    Parameters
    ----------
    inputs : list of str
        Images, folders, globs.
    output : str
        Folder for the results and ``run-summary.json``.
    config : RunConfig
        All settings.
    fresh : bool
        Start over, even where there are results.
    """
    logger = get_run_logger()
    folder = Path(output)
    reports: list[ImageReport] = []
    with (
        tags("seamfree", config.model),
        open_batch(config, inputs, folder, fresh=fresh) as (images, site, address),
    ):
        for image in images:
            began = perf_counter()
            tell(ImageStarted(image.name))
            try:
                if not can_be_recorded(image.path):
                    raise ImageError(  # noqa: TRY301 (told like whatever else is wrong with an image)
                        f"{image.path}: a name that is not UTF-8 cannot be recorded; rename it, or use --direct"
                    )
                report = segment_image(image, output, config, address, site.intent, fresh)
            except Exception as error:  # noqa: BLE001 (one image that fails never stops the others)
                report = failed(image, named(error), perf_counter() - began)
                logger.error("%s", _recordable(f"{image.path}: {report.reason}"))  # noqa: TRY400 (the flow run has the traceback)
            reports.append(report)
            write_summary(folder, reports)
            tell(ImageFinished(image.name, report.status))
        reports = finish_plates(images, reports, folder, config)
        write_summary(folder, reports)
    _publish_summary(reports)
    return reports


def _recordable(text: str) -> str:
    """Replace what Prefect cannot send to its server."""
    return text.encode(errors="backslashreplace").decode()


def _publish_summary(reports: list[ImageReport]) -> None:
    """Put the outcome where people look: two artifacts of the flow run."""
    rows = [
        {
            "image": _recordable(report.name),
            "status": report.status,
            "objects": report.objects,
            "seconds": report.seconds,
            "result, or reason": _recordable("; ".join([report.reason or report.result or "", *report.notes])),
        }
        for report in reports
    ]
    create_table_artifact(rows, key="seamfree-images", description="What became of each image")
    counts = {status: sum(report.status == status for report in reports) for status in ("done", "skipped", "failed")}
    lines = [f"**{counts['done']} done, {counts['skipped']} skipped, {counts['failed']} failed**", ""]
    lines += [_recordable(f"- `{report.name}`: {report.reason}") for report in reports if report.status == "failed"]
    create_markdown_artifact("\n".join(lines), key="seamfree-summary", description="Summary of the run")
