"""Images that people hand to a watcher which is at work, and what becomes of them."""

from __future__ import annotations

import logging
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from httpx import HTTPError, HTTPStatusError
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException

from flows.environment import SKIPPED
from flows.handed_over import GIVEN_UP, started_again_as
from pipeline.acquisitions.place import watch_hold
from pipeline.errors import ClusterError, ConfigError
from pipeline.images.discover import discover, with_whole_plates
from pipeline.printing import is_unicode
from pipeline.progress import ImageFinished, ImageStarted, tell
from pipeline.remote.paths import to_path
from pipeline.run import ImageReport
from pipeline.stores.hold import is_held
from pipeline.stores.publish import count_objects

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun, State

    from pipeline.images.discover import InputImage

__all__ = ["follow", "submit"]

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds between two looks at runs."""

_TOGETHER = 100
"""Runs that the server is asked about at once; it gives no more than 200."""

_ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


def submit(inputs: Sequence[str], deployment: str, *, fresh: bool) -> list[tuple[InputImage, UUID]]:
    """Have images segmented by the watcher that is at work on a folder of results, with its settings.

    Parameters
    ----------
    inputs : sequence of str
        Images, plates, folders, globs; they need not lie in the folder that is watched.
    deployment : str
        Its deployment that segments, ``flow/name``, on the server that ``PREFECT_API_URL`` names.
    fresh : bool
        Whether to start over even where there is a result.

    Returns
    -------
    list of tuple
        Each image, or plate, with the run that was scheduled for it.

    Raises
    ------
    ConfigError
        If there is an input that it cannot take.
    ClusterError
        If its server does not answer.
    """
    images = with_whole_plates(discover(inputs))
    for image in images:
        if not is_unicode(image.path):
            raise ConfigError(f"{image.path}: a name that is not UTF-8 cannot be recorded; rename it")
    scheduled: list[tuple[InputImage, UUID]] = []
    for image in images:
        # A watcher's own runs replace what a file was before; whoever names another file has to ask for that.
        parameters = {
            "image": {"path": str(to_path(image.path).absolute()), "name": image.name}, "fresh": fresh, "renew": False,
        }  # fmt: skip
        try:
            # Outside of an event loop it is no coroutine.
            run: Any = run_deployment(
                deployment, parameters=parameters, timeout=0, as_subflow=False, tags=["seamfree", "submit"]
            )
        except Exception as error:
            raise ClusterError(
                f"{image.path}: the watcher's server did not take it ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); {len(scheduled)} of {len(images)} were handed over"
            ) from error
        scheduled.append((image, run.id))
    return scheduled


def follow(scheduled: Sequence[tuple[InputImage, UUID]], output: Path) -> list[ImageReport]:
    """Wait until runs have ended, and say what has become of each image; tells of progress meanwhile.

    One that was postponed, or has died, the watcher starts again: then that one is followed.

    Raises
    ------
    ClusterError
        If the watcher ends before them. What was handed over is done when the next one starts.
    """
    waiting = {run: (at, image) for at, (image, run) in enumerate(scheduled)}
    begun: set[int] = set()
    reports: dict[int, ImageReport] = {}
    put_off: set[UUID] = set()
    while waiting:
        if not is_held(watch_hold(output)):
            raise ClusterError(
                f"{output}: its watcher has ended, and {len(waiting)} of {len(scheduled)} images wait for the next "
                f"one: `seamfree watch DIR -o {output}`"
            )
        for run in _look(list(waiting)):
            if run.state is None:
                continue
            at, image = waiting[run.id]
            if run.state.type == StateType.RUNNING and at not in begun:
                begun.add(at)
                tell(ImageStarted(image.name))
            if run.state.type == StateType.CRASHED and GIVEN_UP not in run.tags:
                if (later := started_again_as(run)) is not None:
                    waiting[later] = waiting.pop(run.id)
                elif run.id not in put_off:
                    put_off.add(run.id)
                    log.warning("%s: waits to be started again: %s", image.name, _told(run.state))
            elif run.state.type in _ENDED:
                del waiting[run.id]
                reports[at] = report = _report(run, image, output)
                tell(ImageFinished(report.name, report.status))
        if waiting:
            sleep(_PAUSE)
    return [reports[at] for at in range(len(scheduled))]


def _look(runs: Sequence[UUID]) -> list[FlowRun]:
    """Ask the server about runs. It may have been killed; its watcher starts it again."""
    found = []
    try:
        with get_client(sync_client=True) as client:
            for start in range(0, len(runs), _TOGETHER):
                some = FlowRunFilter(id=FlowRunFilterId(any_=list(runs[start : start + _TOGETHER])))
                found += client.read_flow_runs(
                    flow_run_filter=some, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=_TOGETHER
                )
    except (HTTPError, PrefectException) as error:
        if isinstance(error, HTTPStatusError) and error.response.is_client_error:
            raise ClusterError(
                f"the watcher's server refuses to tell of runs ({' '.join(str(error).split())[:200]})"
            ) from error
        log.info("the server could not be asked (%s), and is again in a moment", type(error).__name__)
    return found


def _report(run: FlowRun, image: InputImage, output: Path) -> ImageReport:
    """Say what has become of an image, from the last state of its run and, where it is done, from the result."""
    assert run.state is not None  # it has ended
    path, result = str(to_path(image.path).absolute()), image.result_in(output.absolute())
    seconds = round(run.total_run_time.total_seconds(), 3)
    told = _told(run.state)
    if run.state.type != StateType.COMPLETED:
        return ImageReport(image.name, path, "failed", reason=told, seconds=seconds)
    if run.state.name == SKIPPED:
        return ImageReport(image.name, path, "skipped", str(result), told)
    return ImageReport(image.name, path, "done", str(result), None, count_objects(result), seconds)


def _told(state: State[Any]) -> str:
    return " ".join((state.message or str(state.name)).split())
