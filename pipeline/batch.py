"""Many images, one after the other on one cluster: a bad one never stops the others."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from pipeline.acquisitions.outcome import note_by_hand
from pipeline.calibration import settle_plan
from pipeline.checking import check_settings, find_images
from pipeline.destination import destined, local_folder, send_summary
from pipeline.engine.cluster import check_scheduler, connect
from pipeline.errors import ConfigError, SeamfreeError
from pipeline.images.discover import InputImage
from pipeline.images.sequences import on_disk
from pipeline.plates import finish_plates, hold_plates
from pipeline.printing import in_one_line, unexpected
from pipeline.progress import ImageFinished, ImageStarted, tell
from pipeline.remote.paths import is_url, to_path
from pipeline.room import survey_room
from pipeline.run import ImageReport, claim, prepare, prepare_anew, run_image
from pipeline.site import choose_site, is_elsewhere, join_site
from pipeline.summary import keeping_summary, write_summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.config import RunConfig
    from pipeline.engine.executor import Executor
    from pipeline.planning import Intent, RunPlan
    from pipeline.site import Site

__all__ = ["attempt", "check_batch", "failed", "finish_batch", "open_batch", "segment", "skipped"]

log = logging.getLogger(__name__)


def attempt(
    config: RunConfig, image: InputImage, output: Path, intent: Intent, executor: Executor, *, fresh: bool
) -> ImageReport:
    """Segment one image, whatever happens to it.

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
    executor : Executor
        Where jobs run.
    fresh : bool
        Whether to start over even if there is a result, finished or not.

    Returns
    -------
    ImageReport
        With the reason, if it failed.
    """
    began = perf_counter()
    tell(ImageStarted(image.name))
    try:
        plan = prepare(config, image, output, intent)
        remake = partial(prepare_anew, config, image, output, intent)
        with claim(plan, fresh=fresh) as reason:
            if reason is None:
                report = run_image(settle_plan(plan, config, remake, executor), executor)
            else:
                report = skipped(image, plan, reason)
    except Exception as error:
        log.debug("%s failed", image.path, exc_info=True)
        report = failed(image, error, perf_counter() - began)
    tell(ImageFinished(image.name, report.status))
    return report


def failed(image: InputImage, error: Exception, seconds: float) -> ImageReport:
    """Report on an image that failed, with a reason of one line."""
    known = isinstance(error, SeamfreeError)
    reason = in_one_line(str(error)) if known else unexpected(error)
    return ImageReport(
        image.name, str(to_path(image.path).absolute()), "failed", reason=reason, seconds=round(seconds, 3)
    )


def skipped(image: InputImage, plan: RunPlan, reason: str) -> ImageReport:
    """Report on an image that has a finished result already."""
    return ImageReport(image.name, plan.source.path, "skipped", plan.destination or plan.output, reason)


def check_batch(config: RunConfig, inputs: Sequence[str]) -> tuple[list[InputImage], Site | None]:
    """Check what can be checked without anything being made.

    Parameters
    ----------
    config, inputs
        As for `open_batch`.

    Returns
    -------
    tuple
        The images, and the site, None where jobs are done by a cluster that has to be asked.

    Raises
    ------
    ConfigError, ModelError
        As `open_batch`, but for the output.
    """
    images = find_images(config, inputs)
    check_settings(config)
    here = None if is_elsewhere(config) else choose_site(config)
    check_scheduler(config.execution.scheduler)
    return images, here


@contextmanager
def open_batch(
    config: RunConfig, inputs: Sequence[str], output: str | Path, *, fresh: bool = False
) -> Iterator[tuple[list[InputImage], Site, str]]:
    """Check everything that can be checked before work starts, then start the cluster.

    Parameters
    ----------
    config : RunConfig
        All settings.
    inputs : sequence of str
        Images, folders, globs.
    output : str or Path
        Folder under which results go, or the URL of one.
    fresh : bool
        Whether to start over even where there are results.

    Yields
    ------
    tuple
        The images, the site, and the cluster's address.

    Raises
    ------
    ConfigError, ModelError
        If there are no images, two would share a result, the output cannot be used, there is no such model, or no
        scheduler answers.
    ClusterError
        If the workers of a cluster cannot do the work.
    """
    folder = local_folder(output, config)
    images, here = check_batch(config, inputs)
    images = destined(images, output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be used as output folder ({error.strerror or error})") from error
    with hold_plates(images, folder, config, fresh=fresh) as held:
        paths = [on_disk(image.path) for image in held if not is_url(image.path)]
        with join_site(config, folder, paths, here) as (site, address):
            survey_room(
                images, lambda image: prepare(config, image, folder, site.intent, survey=True), folder, fresh=fresh
            )
            yield held, site, address


def finish_batch(
    images: Sequence[InputImage], reports: Sequence[ImageReport], folder: Path, output: str | Path, config: RunConfig
) -> list[ImageReport]:
    """Make plates of the fields' results once all images are through, and sum up what has become of all.

    Parameters
    ----------
    images : sequence of InputImage
        As `open_batch` gave them.
    reports : sequence of ImageReport
        What became of each.
    folder : Path
        Where results are made.
    output : str or Path
        Where they go: that folder, or the URL of one.
    config : RunConfig
        All settings.

    Returns
    -------
    list of ImageReport
        Those of the images, and of the plates.
    """
    found = finish_plates(images, reports, folder, config)
    fields = {image.name for image in images}
    for plate in (report for report in found if report.name not in fields):
        note_by_hand(folder, config, plate)
    send_summary(write_summary(folder, found), output)
    return found


def segment(
    inputs: Sequence[str | Path] | str | Path,
    output: str | Path,
    config: RunConfig | None = None,
    *,
    fresh: bool = False,
) -> list[ImageReport]:
    """Segment images without Prefect.

    Parameters
    ----------
    inputs : str, Path or sequence of them
        Images, folders, globs.
    output : str or Path
        Folder under which results go, or the URL of one in an object store, ``s3://bucket/prefix``.
    config : RunConfig, optional
        Settings; the defaults where absent.
    fresh : bool
        Whether to start over even where there is a result.

    Returns
    -------
    list of ImageReport
        One for each image, also for those that failed, and for each plate; also written to ``run-summary.json``.

    Raises
    ------
    ConfigError, ModelError
        If no work can start at all.
    """
    from pipeline.config import RunConfig

    given = [inputs] if isinstance(inputs, str | Path) else inputs
    settings = config if config is not None else RunConfig()
    folder = local_folder(output, settings)
    reports: list[ImageReport] = []
    with (
        open_batch(settings, [str(path) for path in given], output, fresh=fresh) as (images, site, address),
        connect(address) as executor,
    ):
        with keeping_summary(folder, reports) as note:
            for image in images:
                reports.append(attempt(settings, image, folder, site.intent, executor, fresh=fresh))
                note_by_hand(folder, settings, reports[-1])
                note()
        return finish_batch(images, reports, folder, output, settings)
