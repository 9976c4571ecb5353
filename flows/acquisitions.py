"""The flow that looks through a watched folder, and starts one run of `segment_image` for each finished acquisition."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import flow, get_client, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment as served
from prefect.states import Cancelled, Completed, Crashed

from flows.environment import POSTPONED, REPLACED, WATCHER, named
from flows.handed_over import WATCH, take_up
from flows.records import drop_old_runs
from flows.telling import as_code, as_text, recordable
from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.place import ledger_of, note_trouble, run_hold, watch_hold
from pipeline.acquisitions.recipe import recipe_of
from pipeline.acquisitions.rules import WatchRules
from pipeline.acquisitions.scanning import Found, RunState, Scan
from pipeline.acquisitions.scanning import scan as look_through
from pipeline.config import RunConfig
from pipeline.engine.parent import dies_with_parent
from pipeline.errors import SeamfreeError
from pipeline.printing import in_one_line, unexpected
from pipeline.stores.hold import TakenError, clear_left, held_since, hold, is_held

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    from pipeline.acquisitions.ledger import Acquisition

__all__ = ["scan"]

_DIED = "its process has ended without a word"

_INTERRUPTED = "it ended with its watcher"

_OTHER = "it waited for a watcher of other folders"

_KEPT_SCANS = 200
"""So many scans are kept on record: a day of them would hide what people look for."""


class PrefectRuns:
    """Runs of the deployment that segments.

    Parameters
    ----------
    client : SyncPrefectClient
        Of the server.
    deployment : str
        Name of the deployment, ``flow/name``.
    output : Path
        Folder of the results.
    begin : timedelta
        A run that has been given to a process, or says that it runs, for so long, and that no process holds, has died:
        it holds its name from its first moment on. Should it only have been slow, the result's own lock lets one run at
        a time work on it, and the second finds it finished.
    """

    def __init__(self, client: SyncPrefectClient, deployment: str, output: Path, begin: timedelta) -> None:
        self._client, self._deployment, self._output, self._begin = client, deployment, output, begin
        self._identity: UUID | None = None

    def start(self, acquisition: Acquisition, key: str) -> str:
        """Schedule a run, once for each key.

        Prefect knows keys by the flow, and not by the deployment: another folder of results may want the same content.
        """
        run: Any = run_deployment(
            self._deployment,
            parameters={
                "image": {"path": acquisition.path, "name": acquisition.name}, "content": acquisition.content,
            },
            timeout=0,
            as_subflow=False,
            idempotency_key=f"{self._deployment}:{self._output.absolute()}:{key}",
            tags=["seamfree", WATCH],
        )  # fmt: skip
        return str(run.id)

    def look(self, run: str) -> RunState:
        """Say what has become of a run; one that has died without a word is marked as crashed."""
        try:
            found = self._client.read_flow_run(UUID(run))
        except ObjectNotFound:
            return RunState("dead", "the server knows nothing of it any more")
        state = found.state
        if state is not None and state.type == StateType.SCHEDULED and self._waits_for_another(found):
            self._client.set_flow_run_state(found.id, Cancelled(message=_OTHER), force=True)
            return RunState("dead", _OTHER)
        if state is None or state.type in (StateType.SCHEDULED, StateType.PAUSED):
            return RunState("alive")
        message = " ".join((state.message or str(state.name)).split())
        if state.type == StateType.COMPLETED:
            return RunState("replaced", message) if state.name == REPLACED else RunState("done")
        if state.type == StateType.FAILED:
            return RunState("failed", message.removeprefix("Flow run encountered an exception: "))
        if state.type in (StateType.CANCELLED, StateType.CANCELLING):
            return RunState("cancelled", "cancelled by a person")
        if state.type == StateType.CRASHED:
            return RunState("postponed" if state.name == POSTPONED else "dead", message)
        return self._is_alive(found, state)

    def _waits_for_another(self, run: FlowRun) -> bool:
        """Say whether a run waits for a deployment that is not this one: a folder has been moved, or renamed."""
        if self._identity is None:
            try:
                self._identity = self._client.read_deployment_by_name(self._deployment).id
            except ObjectNotFound:
                return False
        return run.deployment_id != self._identity

    def _is_alive(self, found: FlowRun, state: State[Any]) -> RunState:
        held = run_hold(self._output, str(found.id))
        if is_held(held):
            return RunState("alive")
        watching = held_since(watch_hold(self._output))
        interrupted = watching is not None and state.timestamp <= watching
        if not clear_left(held) and not interrupted:
            # It may not have come so far.
            age = datetime.now(UTC) - state.timestamp
            if age < self._begin:
                return RunState("alive")
        # Or else its process has died, or the watcher that was to start it.
        told = _INTERRUPTED if interrupted else _DIED
        self._client.set_flow_run_state(found.id, Crashed(message=told), force=True)
        return RunState("interrupted" if interrupted else "dead", told)


@flow(name="scan", flow_run_name="scan {folder}", validate_parameters=True)
def scan(
    folder: str,
    output: str,
    deployment: str,
    config: RunConfig = RunConfig(),  # noqa: B008 (immutable)
    rules: WatchRules = WatchRules(),  # noqa: B008 (immutable)
) -> Any:  # noqa: ANN401 (a state of Prefect's)
    """Look through a folder once, and have each acquisition segmented that is finished, and was not yet.

    Args:
        folder: Where acquisitions come in.
        output: Folder of the results; what is known of acquisitions lies in it, too.
        deployment: The deployment that segments one image, as flow/name.
        config: How images are segmented; part of what tells whether one was segmented already.
        rules: When an acquisition is finished.
    """
    logger = get_run_logger()
    if served.id is not None:
        dies_with_parent(os.environ.get(WATCHER))
    place = Path(output)
    try:
        with (
            hold(ledger_of(place).with_name("scan")),
            AcquisitionLedger(ledger_of(place)) as ledger,
            get_client(sync_client=True) as client,
        ):
            order = Scan(Path(folder).absolute(), place.absolute(), recipe_of(config), rules, config.series)
            runs = PrefectRuns(client, deployment, place, timedelta(seconds=rules.begin))
            found = look_through(order, ledger, runs)
            take_up(client, deployment, place, runs.look, rules.attempts)
            states = {held.name: held for held in ledger.acquisitions()} if found.notable else {}
            if served.id is not None:
                drop_old_runs(client, _KEPT_SCANS, flow=scan.name, deployment=UUID(str(served.id)))
    except TakenError:
        return Completed(message="another scan is at work")
    except Exception as error:
        known = named(error)
        note_trouble(place, in_one_line(str(known)) if isinstance(known, SeamfreeError) else unexpected(known))
        raise
    note_trouble(place, None)
    for path, reason in found.news.items():
        logger.info("%s: %s", recordable(path), recordable(reason))
    if found.notable:
        _publish(found, list(states.values()))
    return Completed(message=found.summary)


def _publish(found: Found, acquisitions: list[Acquisition]) -> None:
    """Put what is known of the folder where people look."""
    lines = [f"**{found.summary}**", "", "| acquisition | state | objects | |", "|---|---|---|---|"]
    for held in reversed(acquisitions[-200:]):
        told = as_text(held.reason or "")
        objects = "" if held.objects is None else f"{held.objects:,}"
        lines.append(f"| {as_text(held.name)} | {held.state} | {objects} | {told} |")
    for title, entries in (("Waited for", found.waiting), ("In quarantine", found.quarantined)):
        if entries:
            lines += ["", f"### {title}", ""]
            lines += [f"- {as_code(path)}: {as_text(reason)}" for path, reason in entries.items()]
    create_markdown_artifact("\n".join(lines), key="seamfree-folder", description="All acquisitions of the folder")
