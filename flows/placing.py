"""Where the jobs of a run are done: on the cluster that its caller has opened, or on one of the run's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.runtime import deployment as served
from prefect.runtime import flow_run

from flows.environment import WATCHER
from pipeline.acquisitions.place import place_of, run_hold
from pipeline.engine.parent import dies_with_parent
from pipeline.site import join_site
from pipeline.stores.hold import hold

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.planning import Intent

__all__ = ["Place", "at", "given_place", "own_place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs are done.

    Parameters
    ----------
    address : str
        Of the Dask scheduler, or ``"serial"``.
    intent : Intent
        The device and the memory of one worker.
    """

    address: str
    intent: Intent


# No parameter of a flow: it is nothing that people could give.
_given: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def at(place: Place) -> Iterator[None]:
    """Have the flows that are called here work at a place."""
    token = _given.set(place)
    try:
        yield
    finally:
        _given.reset(token)


def given_place() -> Place | None:
    """Give the place that the caller of a flow has decided on, None where the flow was not called by another one."""
    return _given.get()


@contextmanager
def own_place(config: RunConfig, output: Path) -> Iterator[Place]:
    """Open a place for a run that was started by itself, by a deployment most often; it shows by a lock that it lives.

    Parameters
    ----------
    config : RunConfig
        All settings.
    output : Path
        Folder under which results go.
    """
    if served.id is not None:
        dies_with_parent(os.environ.get(WATCHER))
    place_of(output)
    with hold(run_hold(output, str(flow_run.id))), join_site(config, output) as (site, address):
        yield Place(address, site.intent)
