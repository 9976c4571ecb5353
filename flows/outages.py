"""What a watcher does while Prefect's server is away: it waits, and tells of it in one line."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

from pipeline.printing import in_one_line, short

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

__all__ = ["in_words", "note_failure", "printing_aside", "wait_for_server", "why_no_answer"]

log = logging.getLogger(__name__)

_REST = 5.0
"""Seconds until deployments are served again after that was interrupted, and between two looks for their server."""


def why_no_answer() -> str | None:
    """Say why Prefect's server does not answer, None if it does."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    return None if error is None else in_words(error)


class _Aside(io.TextIOBase):
    """Appends to a file what is printed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> int:
        """Keep it, unless the disk is full or away: what is told of that must not end what is served."""
        with suppress(OSError), self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return len(text)


@contextmanager
def printing_aside(path: Path) -> Iterator[None]:
    """Have what Prefect prints, here and in the processes of runs, with tracebacks, go into a file.

    It is there for who looks for more; what is wrong is told in one line by others.
    """
    aside = _Aside(path)
    with redirect_stdout(aside), redirect_stderr(aside):
        yield


def note_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep what a callback of Prefect's has failed at, which has no say in what is served."""
    log.info("%s", context.get("message"), exc_info=context.get("exception"))


def in_words(error: BaseException) -> str:
    """Name what has ended several tasks, where that is one thing."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {short(in_one_line(str(error)))}"


def wait_for_server() -> None:
    """Wait until Prefect's server answers: one that is the watcher's own is started again, a lab's comes back."""
    pause = threading.Event()
    # Whatever else has ended what is served may do so again at once.
    pause.wait(_REST)
    while why_no_answer() is not None:
        pause.wait(_REST)
