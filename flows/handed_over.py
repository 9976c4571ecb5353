"""Runs that people have asked for, by `seamfree submit` or on Prefect's pages: started again as a watcher's own are.

Its own are in the ledger, which says what is to be done. Of these, all that is known are the records of the server: the
key of one that was started again names the one before, so that it happens once, and that one has a tag that tells of
it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from pipeline.acquisitions.postponing import next_delay, why_not_writable
from pipeline.images.discover import InputImage
from pipeline.stores.hold import is_held

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

    from pipeline.acquisitions.scanning import RunState

__all__ = ["GIVEN_UP", "WATCH", "started_again_as", "take_up"]

log = logging.getLogger(__name__)

WATCH = "watch"
"""Tag of a watcher's own runs."""

GIVEN_UP = "given-up"
"""Tag of a run that is not started again, for too many died."""

_AGAIN = "again-as:"
"""What a tag begins with that says as what a run was started again."""

_LATEST = 200
"""So many runs are looked at; the server gives no more at once."""


def started_again_as(run: FlowRun) -> UUID | None:
    """Give the run that has taken the place of one, None if none has."""
    found = [tag.removeprefix(_AGAIN) for tag in run.tags if tag.startswith(_AGAIN)]
    return UUID(found[0]) if found else None


def take_up(
    client: SyncPrefectClient, deployment: str, output: Path, look: Callable[[str], RunState], attempts: int
) -> list[UUID]:
    """Start runs again that people have asked for, and that were postponed or have died.

    Parameters
    ----------
    client : SyncPrefectClient
        Of the server.
    deployment : str
        The deployment that segments one image, as flow/name.
    output : Path
        Folder of the results; a run for another one, which the form may name, is left alone.
    look : callable
        Says what has become of a run.
    attempts : int
        After so many that died by themselves, one after the other, an image is given up.

    Returns
    -------
    list of UUID
        The runs that were started.
    """
    try:
        served = client.read_deployment_by_name(deployment).id
    except ObjectNotFound:
        return []
    left = FlowRunFilter(
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CRASHED])
        )
    )
    started: list[UUID] = []
    for run in client.read_flow_runs(
        flow_run_filter=left,
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[served])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_LATEST,
    ):
        if {WATCH, GIVEN_UP} & set(run.tags) or started_again_as(run) is not None:
            continue
        if Path(run.parameters["output"]).absolute() != output.absolute():
            continue  # it shows elsewhere that it lives
        seen = look(str(run.id))
        delay, died = _so_far(run)
        died += seen.kind == "dead"
        if seen.kind == "postponed":
            delay = next_delay(delay)
        if seen.kind == "dead" and died >= attempts:
            client.update_flow_run(run.id, tags=[*run.tags, GIVEN_UP])
        elif seen.kind in ("dead", "interrupted") or (seen.kind == "postponed" and _has_place(run, output, delay)):
            # Outside of an event loop it is no coroutine.
            later: Any = run_deployment(
                deployment, parameters=run.parameters, timeout=0, as_subflow=False, tags=run.tags,
                idempotency_key=f"{_AGAIN}{run.id}:{delay}:{died}",
            )  # fmt: skip
            client.update_flow_run(run.id, tags=[*run.tags, f"{_AGAIN}{later.id}"])
            log.info("%s is started again (%s)", run.name, seen.reason)
            started.append(later.id)
    return started


def _so_far(run: FlowRun) -> tuple[float, int]:
    """Say how long the run was put off that one has taken the place of, and how many had died before."""
    key = run.idempotency_key or ""
    if not key.startswith(_AGAIN):
        return 0.0, 0
    _, delay, died = key.removeprefix(_AGAIN).split(":")
    return float(delay), int(died)


def _has_place(run: FlowRun, output: Path, delay: float) -> bool:
    """Say whether it is time to see if a result has a place, and nothing is known that speaks against it."""
    assert run.state is not None  # it was postponed
    if datetime.now(UTC) - run.state.timestamp < timedelta(seconds=delay):
        return False
    image = InputImage(**run.parameters["image"])
    return not is_held(image.result_in(output.absolute())) and why_not_writable(output) is None
