"""What Prefect's own server keeps, and for how long: a watcher is at work for months, and its database stays small.

Results, reports and the ledger are no part of this; they stay.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["RETENTION", "drop_old_runs", "give_room_back", "writable_again"]

log = logging.getLogger(__name__)

RETENTION = {
    # Events are acted upon, but not stored: they would be most of what is written, and while they are, others wait.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    # Of runs that were removed, artifacts are left, pictures among them.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS": "900",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 86400),
}
"""Prefect's settings for it, in its own words; what people have set themselves goes before."""

_AT_ONCE = 50
"""So many runs are removed at a time: the server has other things to do."""

_WORTH = 64 * 2**20
"""Bytes that a database may hold in vain."""


def drop_old_runs(client: SyncPrefectClient, kept: int, *, flow: str, deployment: UUID | None = None) -> int:
    """Remove the records of runs that have ended, but for the latest.

    The latest are those that have ended last: what has just ended is on record until somebody has looked at it.

    Parameters
    ----------
    client : SyncPrefectClient
        Of the server.
    kept : int
        So many are kept.
    flow : str
        The flow whose runs they are, also where another run has called it.
    deployment : UUID, optional
        Its deployment, where only the runs of that one are meant.

    Returns
    -------
    int
        The number of those that were removed, 50 at most.
    """
    old = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
        deployment_filter=None if deployment is None else DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES)))
        ),
        sort=FlowRunSort.END_TIME_DESC,
        offset=kept,
        limit=_AT_ONCE,
    )
    for run in old:
        # People, and the server itself, remove runs, too.
        with suppress(ObjectNotFound):
            client.delete_flow_run(run.id)
    return len(old)


def give_room_back(database: Path) -> None:
    """Make a database small again that holds little in a large file. Its server must not be at work.

    What is removed leaves room in the file for what comes, and the file never gets smaller by itself.

    Parameters
    ----------
    database : Path
        An SQLite file; nothing is done where there is none.
    """
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=1, isolation_level=None)) as connection:
            pages, unused, size = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
            if unused * size > _WORTH and 2 * unused > pages:
                connection.execute("VACUUM")
    except sqlite3.Error as error:
        log.warning("%s: cannot be made smaller (%s); it stays as it is", database, error)


def writable_again(database: Path) -> Callable[[], bool]:
    """Give what says, each time that it is asked, whether a database can be written to that could not the last time.

    SQLite opens for reading alone what it cannot write to at that moment, and a connection stays as it was opened: the
    server that has some like that has to be started anew.

    Parameters
    ----------
    database : Path
        An SQLite file; while its disk is away, it cannot be written to either.
    """
    could = True

    def is_again() -> bool:
        nonlocal could
        before, could = could, os.access(database, os.W_OK)
        return could and not before

    return is_again
