"""Many images, one after the other on one cluster: a bad one never stops the others."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pipeline.calibration import settle_plan
from pipeline.checking import check_settings
from pipeline.destination import destined, local_folder, send_summary
from pipeline.engine.cluster import check_scheduler, connect
from pipeline.errors import ConfigError, SeamfreeError, StoreError
from pipeline.images.discover import InputImage, discover
from pipeline.plates import finish_plates, hold_plates
from pipeline.printing import in_one_line, unexpected
from pipeline.progress import ImageFinished, ImageStarted, tell
from pipeline.remote.paths import is_url, to_path
from pipeline.run import ImageReport, claim, prepare, prepare_anew, run_image
from pipeline.site import choose_site, is_elsewhere, join_site
from pipeline.stores.hold import EXPIRY, hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.config import RunConfig
    from pipeline.engine.executor import Executor
    from pipeline.planning import Intent, RunPlan
    from pipeline.site import Site

__all__ = ["SUMMARY", "attempt", "failed", "open_batch", "segment", "skipped", "write_summary"]

SUMMARY = "run-summary.json"

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
    images = destined(discover(inputs), output)
    check_settings(config)
    here = None if is_elsewhere(config) else choose_site(config)
    check_scheduler(config.execution.scheduler)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be used as output folder ({error.strerror or error})") from error
    with hold_plates(images, folder, config, fresh=fresh) as held:
        paths = [Path(image.path) for image in held if not is_url(image.path)]
        with join_site(config, folder, paths, here) as (site, address):
            yield held, site, address


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
    reports = []
    with (
        open_batch(settings, [str(path) for path in given], output, fresh=fresh) as (images, site, address),
        connect(address) as executor,
    ):
        for image in images:
            reports.append(attempt(settings, image, folder, site.intent, executor, fresh=fresh))
            write_summary(folder, reports)
        reports = finish_plates(images, reports, folder, settings)
        send_summary(write_summary(folder, reports), output)
    return reports


def write_summary(output: Path, reports: Sequence[ImageReport]) -> Path:
    """Write ``run-summary.json``: one entry per input, whole at any moment.

    It tells of the folder, not of a run: what other runs have noted of other inputs stays, also that of one which is at
    work at the same moment. What goes is an entry whose result is now that of another input, and one of which neither
    the input nor a result is left.

    Parameters
    ----------
    output : Path
        The folder of the results.
    reports : sequence of ImageReport
        Of this run.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    path = output / SUMMARY
    beside = path.with_name(f".{SUMMARY}.{uuid4().hex}.tmp")
    entries = [asdict(report) for report in reports]
    try:
        with hold(path, patience=EXPIRY):
            entries = _noted_of_others(path, entries) + entries
            counts = Counter(str(entry["status"]) for entry in entries)
            facts = {"counts": dict(sorted(counts.items())), "images": entries}
            # In ASCII: a name of a file that is not UTF-8 comes back as it was, and cannot be written otherwise.
            beside.write_text(json.dumps(facts, indent=2) + "\n", encoding="ascii")
            beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: the summary cannot be written ({error.strerror or error}); make room or give another folder with "
            "-o, and run again: what is done is kept"
        ) from error
    return path


def _is_left(place: str) -> bool:
    """Say whether an input or a result is still there; of what is not on a disk, nobody asks."""
    return is_url(place) or os.path.lexists(place)


def _noted_of_others(path: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the entries of a summary that other runs have made, as far as they still hold."""
    try:
        noted = json.loads(path.read_text(encoding="ascii"))["images"]
        # Another version may have noted more, or less.
        others = [entry for entry in noted if {"name", "input", "status", "result"} <= set(entry)]
        inputs = {entry["input"] for entry in entries}
        results = {entry["result"] for entry in entries if entry["status"] != "failed"} - {None}
        return [
            entry for entry in others
            if entry["input"] not in inputs and entry["result"] not in results
            and (_is_left(entry["input"]) or (entry["result"] and _is_left(entry["result"])))
        ]  # fmt: skip
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        log.warning("%s: the summary of earlier runs is damaged and made anew", path)
        return []
