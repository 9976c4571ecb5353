"""How the command line reaches the flows: an entry point, so that the pipeline need not know them."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from flows.environment import named, prepare_environment
from pipeline.acquisitions.place import served_by
from pipeline.errors import ConfigError
from pipeline.printing import is_unicode

if TYPE_CHECKING:
    from pathlib import Path

    from prefect.client.schemas.objects import State

    from flows.server import Server
    from pipeline.acquisitions.rules import WatchRules
    from pipeline.config import RunConfig
    from pipeline.run import ImageReport

__all__ = ["segment_with_prefect", "submit_with_prefect", "watch_with_prefect"]


def segment_with_prefect(inputs: list[str], output: str, config: RunConfig, *, fresh: bool) -> list[ImageReport]:
    """Segment images through the flow `segment_folder`.

    On the server that Prefect's settings name (``PREFECT_API_URL``), else on one that lives as long as this process,
    listens on the loopback interface, and keeps its records in Prefect's home. What is wrong with the arguments is
    found before it starts.

    Parameters
    ----------
    inputs, output, config, fresh
        As for `flows.segment.segment_folder`.

    Returns
    -------
    list of ImageReport

    Raises
    ------
    ConfigError, ModelError
        If a path cannot be recorded, or as `pipeline.batch.check_batch`.
    ClusterError
        If Prefect's server does not start or cannot be reached.
    """
    for path in (*inputs, output):
        if not is_unicode(path):
            raise ConfigError(f"{path}: a name that is not UTF-8 cannot be recorded; rename it, or use --direct")
    from pipeline.batch import check_batch

    check_batch(config, inputs)
    prepare_environment()
    server = _server_of_its_own()
    from flows.outcomes import outcome_of
    from flows.segment import segment_folder

    if server is not None:
        from flows.server import use_server

        server.wait()
        use_server(server.url)

    def run() -> Any:  # noqa: ANN401 (reports, or an error)
        # Outside of an event loop it is no coroutine.
        state: State[Any] = segment_folder(  # type: ignore[assignment]
            inputs=inputs, output=output, config=config, fresh=fresh, return_state=True
        )
        # A run in which an image failed has failed, and gives its reports all the same.
        return state.result(raise_on_failure=False)

    try:
        found = outcome_of(run)
    except Exception as error:  # noqa: BLE001 (told below, in our words)
        found = error
    if isinstance(found, Exception):
        told = named(found)
        raise told from (found.__cause__ if told is found else found)
    reports: list[ImageReport] = found
    return reports


def _server_of_its_own() -> Server | None:
    """Start a server, unless Prefect's settings name one; it ends after all that Prefect has to tell it at the end."""
    from flows.server import recording_server

    # Those that end at the end of the process do it in the order opposite to this: Prefect's threads before the server.
    ends = ExitStack()
    atexit.register(ends.close)
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return None
    server = recording_server()
    ends.callback(server.end)
    return server


def watch_with_prefect(
    folder: Path,
    output: Path,
    config: RunConfig,
    rules: WatchRules,
    *,
    every: float,
    cron: str | None,
    at_once: int,
    hours: float | None,
    notify: str | None,
    keep_runs: int,
) -> None:
    """Serve deployments that segment each finished acquisition of a folder once; see `flows.service.Watch`."""
    for place in (folder.absolute(), output.absolute()):
        if not is_unicode(str(place)):
            raise ConfigError(f"{place}: a name that is not UTF-8 cannot be recorded; rename it")
    prepare_environment()
    from flows.service import Watch, watch

    watch(Watch(folder.absolute(), output.absolute(), config, rules, every, cron, at_once, hours, notify, keep_runs))


def submit_with_prefect(inputs: list[str], output: Path, *, fresh: bool, wait: bool) -> list[ImageReport] | None:
    """Hand images to the watcher at work on a folder of results; see `flows.submitting`. None where nobody waits."""
    url, deployment = served_by(output)
    os.environ["PREFECT_API_URL"] = url
    prepare_environment()
    # Prefect reads its settings when it is imported.
    from flows.submitting import follow, submit

    scheduled = submit(inputs, deployment, fresh=fresh)
    return follow(scheduled, output) if wait else None
