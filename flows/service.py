"""A watcher: Prefect's server, one Dask cluster, and runners that serve two deployments, `scan` and `segment-image`.

All of it lives as long as the watcher and listens on the loopback interface only. What must outlive it lies beside the
results, in the folder ``.seamfree``: the ledger of acquisitions, the server's database and log, and its address.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.environment import WATCHER
from flows.outages import in_words, note_failure, printing_aside, wait_for_server, why_no_answer
from flows.records import RETENTION, drop_old_runs, give_room_back, writable_again
from flows.server import Server, free_port, use_server
from flows.waking import wake
from pipeline.acquisitions.place import (
    SERVED,
    SERVER,
    check_folders,
    identity_of,
    ledger_of,
    place_of,
    trouble_of,
    watch_hold,
)
from pipeline.acquisitions.postponing import why_not_writable
from pipeline.engine.cluster import client_environment
from pipeline.engine.parent import dies_with_parent
from pipeline.errors import ClusterError, ConfigError, StoreError
from pipeline.remote.addresses import without_secrets
from pipeline.site import join_cluster
from pipeline.stores.hold import hold, is_held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.runner import Runner

    from pipeline.acquisitions.rules import WatchRules
    from pipeline.config import RunConfig

__all__ = ["Watch", "watch"]

log = logging.getLogger(__name__)

_DATABASE = "prefect.db"

_LOG = "server.log"
"""What Prefect says, the server and the processes of runs."""

_OURS = re.compile(".+ to .+")
"""What deployments of watchers are called."""

_PAUSE = 15.0
"""Seconds between two looks at the records of runs."""

_LONGEST_NAME = 60
"""Characters of a folder's name that are part of a deployment's."""

_LOST = timedelta(seconds=30)
"""A scan that has been about to start for so long, and is not at work, has lost its process."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What a watcher is told.

    Parameters
    ----------
    folder, output : Path
        The folder that is watched, and that of the results.
    config : RunConfig
        How acquisitions are segmented.
    rules : WatchRules
        When they are finished.
    every : float
        Seconds between two scans, where there is no `cron`.
    cron : str, optional
        When to scan, as cron has it.
    at_once : int
        Acquisitions that are segmented at the same time.
    hours : float, optional
        For how long one may be, until it is given up.
    notify : str, optional
        URL that is told what has become of each.
    keep_runs : int
        So many runs its own server keeps on record.
    identity : str
        Of the folder of results.
    """

    folder: Path
    output: Path
    config: RunConfig
    rules: WatchRules
    every: float = 30.0
    cron: str | None = None
    at_once: int = 1
    hours: float | None = None
    notify: str | None = None
    keep_runs: int = 2000
    identity: str = ""

    @property
    def name(self) -> str:
        """What its deployments are called: something for people, and what no other watcher of the server has."""
        told = self.identity, str(self.folder.absolute()), str(self.output.absolute())
        digest = hashlib.blake2b("\0".join(told).encode(errors="surrogateescape"), digest_size=4).hexdigest()
        return f"{_legal(self.folder.name)} to {_legal(self.output.name)} {digest}"


def _legal(name: str) -> str:
    """Give a name of a folder as Prefect takes it, and as it can stand in an address."""
    return re.sub(r"[^\w .,+=@()-]", "_", name)[:_LONGEST_NAME] or "root"


def watch(wanted: Watch) -> None:
    """Serve until the process is ended.

    Raises
    ------
    ConfigError
        If the folder is not there or lies in the output, or the output cannot be used.
    StoreError
        If another watcher is at work on the output, or it cannot be written to.
    ClusterError
        If Prefect's server does not start or answer.
    """
    check_folders(wanted.folder, wanted.output)
    _check_cron(wanted.cron)
    place = place_of(wanted.output)
    if (reason := why_not_writable(wanted.output)) is not None:
        raise StoreError(reason)
    wanted = replace(wanted, identity=identity_of(wanted.output))
    # On the server of a lab, its own rules hold.
    kept = None if os.environ.get("PREFECT_API_URL") else wanted.keep_runs
    with hold(watch_hold(wanted.output)), _server(place) as url:
        use_server(url)
        if (reason := why_no_answer()) is not None:
            raise ClusterError(
                f"{without_secrets(url)}: Prefect's server does not answer ({reason}); see that it runs, or unset "
                "PREFECT_API_URL to have one started"
            )
        os.environ[WATCHER] = str(os.getpid())
        with join_cluster(wanted.config) as address:
            os.environ.update(client_environment(address))
            _serve(wanted, url, kept)


def _check_cron(cron: str | None) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    if cron is not None:
        try:
            CronSchedule(cron=cron)
        except ValueError as error:
            raise ConfigError(f"--cron {cron!r}: five fields are wanted, such as '*/10 * * * *'") from error


@contextmanager
def _server(place: Path) -> Iterator[str]:
    """Give the server that Prefect's settings name, else start one and start it again whenever it ends."""
    if url := os.environ.get("PREFECT_API_URL"):
        yield url
        return
    give_room_back(place / _DATABASE)
    server = Server(
        partial(_start_server, place), _port(place), lambda: f"see {place / _LOG}",
        is_stale=writable_again(place / _DATABASE),
    )  # fmt: skip
    try:
        server.wait()
        (place / SERVER).write_text(json.dumps({"url": server.url, "pid": os.getpid()}), encoding="utf-8")
        yield server.url
    finally:
        server.end()
        (place / SERVER).unlink(missing_ok=True)


def _port(place: Path) -> int:
    """Give the port of the watcher before, so that bookmarks and runs that wait for the server find it, or another."""
    try:
        wanted = int(json.loads((place / "port.json").read_text()))
    except (OSError, ValueError, TypeError):
        wanted = 0
    found = free_port(wanted)
    (place / "port.json").write_text(str(found), encoding="utf-8")
    return found


def _start_server(place: Path, port: int) -> subprocess.Popen[bytes]:
    database = place / _DATABASE
    environment = {
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database.absolute()}",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        # Leases of a killed run end by themselves, also when the server was killed with it.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # What waits for a run of another watcher that was killed has its turn soon after that has been noticed.
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
        # Who waits for his turn is not late.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "86400",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (place / _LOG).open("ab") as output:
        return subprocess.Popen(
            command, env={**RETENTION, **os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, preexec_fn=dies_with_parent,
        )  # fmt: skip


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose processes end with this one from their first moment on.

    A run of a flow calls `dies_with_parent` itself, but not before it has imported Prefect and asked its server what to
    do, and for a server that has ended with the watcher it may ask for minutes.
    """

    async def subprocess_exec(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 (asyncio's own)
        """Start a process as asyncio does."""
        if sys.platform == "linux":
            named.setdefault("preexec_fn", partial(dies_with_parent, str(os.getpid())))
        return await super().subprocess_exec(*arguments, **named)


def _serve(wanted: Watch, url: str, kept: int | None) -> None:
    """Register both deployments, and run what is scheduled for them; again, should the runner lose its server."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.runner import Runner

    class QuietRunner(Runner):
        """One that leaves signals to the watcher, which ends all at once."""

        def handle_sigterm(self, *_args: Any, **_named: Any) -> None:  # noqa: ANN401
            """Do nothing: the watcher's own thread is about to end the process."""

    from flows.acquisitions import scan
    from flows.notify import save_webhook
    from flows.segment import segment_image

    if wanted.notify is not None:
        save_webhook(wanted.notify)
    config = wanted.config.model_copy(update={"identify": "content"})
    shared: dict[str, Any] = {"tags": ["seamfree"], "entrypoint_type": _module_path()}
    segmenting = segment_image.to_deployment(
        wanted.name,
        description=f"Segments an image of {wanted.folder}.",
        parameters={
            "output": str(wanted.output.absolute()), "config": config.model_dump(mode="json"), "renew": True,
            "hours": wanted.hours,
        },
        concurrency_limit=ConcurrencyLimitConfig(limit=wanted.at_once),
        **shared,
    )  # fmt: skip
    scanning = scan.to_deployment(
        wanted.name,
        description=f"Looks for acquisitions in {wanted.folder} that are finished, and has each segmented once.",
        parameters={
            "folder": str(wanted.folder.absolute()), "output": str(wanted.output.absolute()),
            "config": config.model_dump(mode="json"), "rules": wanted.rules.model_dump(mode="json"),
            "deployment": f"{segment_image.name}/{wanted.name}",
        },
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        **({"cron": wanted.cron} if wanted.cron else {"interval": timedelta(seconds=wanted.every)}),
        **shared,
    )  # fmt: skip
    if kept is not None:
        _drop_former({f"{flow.name}/{wanted.name}" for flow in (scan, segment_image)})
    _free_scans(f"{scan.name}/{wanted.name}", wanted.output, timedelta())
    tidied = (f"{scan.name}/{wanted.name}", segment_image.name, wanted.output, kept)
    threading.Thread(target=_keep_records_tidy, args=tidied, name="records", daemon=True).start()
    woken = (wanted.folder, wanted.output, wanted.rules.settle, f"{scan.name}/{wanted.name}")
    threading.Thread(target=wake, args=woken, name="wake", daemon=True).start()
    log.warning("watching %s; Prefect shows it at %s", wanted.folder, url.removesuffix("/api"))
    served = {"url": without_secrets(url), "deployment": f"{segment_image.name}/{wanted.name}"}
    while True:
        # One for each deployment. A run that is asked for before its turn is noted as waiting again every few seconds.
        runners: list[Runner] = []
        try:
            for deployment, limit in ((segmenting, wanted.at_once), (scanning, None)):
                runner = QuietRunner(
                    name="seamfree", pause_on_shutdown=False, query_seconds=2, prefetch_seconds=0, limit=limit
                )
                # Outside of an event loop, Prefect gives deployments themselves, and no coroutines.
                runner.add_deployment(deployment)  # type: ignore[arg-type]
                runners.append(runner)
            (place_of(wanted.output) / SERVED).write_text(json.dumps(served), encoding="utf-8")
            with printing_aside(place_of(wanted.output) / _LOG), asyncio.Runner(loop_factory=_Loop) as loop:
                loop.get_loop().set_exception_handler(note_failure)
                loop.run(_run_all(runners))
        except Exception as error:  # noqa: BLE001 (whatever ended it, what is finished must still be segmented)
            log.warning("serving was interrupted (%s) and goes on", in_words(error))
            wait_for_server()


async def _run_all(runners: list[Runner]) -> None:
    """Run until one of them ends, and end the others with it."""
    running = [asyncio.ensure_future(runner.start()) for runner in runners]
    ended, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for each in left:
        each.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for each in ended:
        each.result()


def _keep_records_tidy(scan: str, segmenting: str, output: Path, kept: int | None) -> None:
    """Free scans whose process has died, remove old runs, and tell what is wrong, for as long as the process lives."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    pause = threading.Event()
    told: str | None = None
    while not pause.wait(_PAUSE):
        lost = _free_scans(scan, output, _LOST)
        # What keeps results from being written keeps the server, and scans, from their work, too.
        if (trouble := why_not_writable(output) or lost or trouble_of(output)) != told:
            log.warning("%s", trouble or "the folder is looked through again")
            told = trouble
        if kept is None:
            continue
        try:
            with get_client(sync_client=True) as client:
                drop_old_runs(client, kept, flow=segmenting)
        except (HTTPError, PrefectException) as error:
            log.info("old runs could not be removed (%s), and are later", type(error).__name__)


def _drop_former(kept: set[str]) -> None:
    """Remove deployments that the folder's own server knows from before one of the folders was moved or renamed.

    What waits for them nobody would run.
    """
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.exceptions import PrefectException

    try:
        with get_client(sync_client=True) as client:
            for flow in sorted({name.partition("/")[0] for name in kept}):
                for found in client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[flow]))):
                    if _OURS.fullmatch(found.name) and f"{flow}/{found.name}" not in kept:
                        client.delete_deployment(found.id)
    except (HTTPError, PrefectException) as error:
        log.info("former deployments could not be removed (%s)", type(error).__name__)


def _free_scans(deployment: str, output: Path, age: timedelta) -> str | None:
    """End the records of scans that no process is at work on: while one counts as running, no other one starts.

    A scan loses its process with a watcher that is killed, or before it has one, with a server that is. Says why the
    server could not be asked, None if it could.
    """
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.exceptions import ObjectNotFound, PrefectException
    from prefect.states import Crashed

    try:
        with get_client(sync_client=True) as client:
            served = client.read_deployment_by_name(deployment)
            at_work = FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[served.id]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])),
            )
            for run in client.read_flow_runs(
                flow_run_filter=at_work, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=100
            ):
                if is_held(ledger_of(output).with_name("scan")):
                    break
                if run.state is not None and datetime.now(UTC) - run.state.timestamp >= age:
                    client.set_flow_run_state(run.id, Crashed(message="its process has ended"), force=True)
    except ObjectNotFound:
        return None  # the first watcher of this name
    except (HTTPError, PrefectException) as error:
        return f"Prefect's server does not answer ({in_words(error)}); the folder is looked through when it does"
    return None


def _module_path() -> Any:  # noqa: ANN401 (an enumeration of Prefect's)
    from prefect.types.entrypoint import EntrypointType

    return EntrypointType.MODULE_PATH
