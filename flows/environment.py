"""How Prefect behaves when seamfree starts it: quiet, on the loopback interface, and silent towards the world."""

from __future__ import annotations

import logging
import os

from pipeline.errors import ClusterError

__all__ = ["POSTPONED", "REPLACED", "SKIPPED", "WATCHER", "named", "prepare_environment"]

POSTPONED = "Postponed"
"""Name of the state of a run that crashed for the place of its result, which was full, away, or held by another run."""

REPLACED = "Replaced"
"""Name of the state of a run that found another content than it was asked to segment."""

SKIPPED = "Skipped"
"""Name of the state of a run that found a finished result."""

WATCHER = "SEAMFREE_WATCHER"
"""Variable by which a watcher tells the processes that it starts its own number."""

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The terminal shows seamfree's own progress; the server keeps the logs of flows and of the pipeline.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
    # One server, which is named: Prefect shall not start another one by itself where it has not heard of it.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}


def prepare_environment() -> None:
    """Set Prefect's settings that the user has not set. Must come before Prefect is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Prefect takes this for whether to print that its server could not be sent a log.
    logging.raiseExceptions = False
    ours = logging.getLogger("pipeline")
    if ours.getEffectiveLevel() > logging.INFO:
        ours.setLevel(logging.INFO)


def named(error: Exception) -> Exception:
    """Give an error of the server that records a run in seamfree's words; any other as it is."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    if isinstance(error, HTTPError | PrefectException):
        kind = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        return ClusterError(
            f"Prefect's server cannot be reached ({kind}); what is done is kept: run again, or use --direct"
        )
    return error
