"""What a run tells about itself while it runs, as typed events.

Whoever wants to show or log progress listens; the code that works never prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Event", "ImageFinished", "ImageStarted", "JobDone", "StageStarted", "listening", "listening_too", "tell"]


@dataclass(frozen=True, slots=True)
class ImageStarted:
    """The work on one image begins."""

    name: str


@dataclass(frozen=True, slots=True)
class ImageFinished:
    """The work on one image has ended, well or not."""

    name: str
    status: str


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage of an image begins: `total` jobs, `done` of which an earlier run has left finished."""

    name: str
    stage: str
    total: int
    done: int


@dataclass(frozen=True, slots=True)
class JobDone:
    """One job of a stage is done; `pixels` is what it produced."""

    name: str
    stage: str
    pixels: int


Event = ImageStarted | ImageFinished | StageStarted | JobDone

_listener: ContextVar[Callable[[Event], None] | None] = ContextVar("seamfree_listener", default=None)


@contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Send the events of everything that runs inside to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def listening_too(listener: Callable[[Event], None]) -> Iterator[None]:
    """Send the events of everything that runs inside to `listener`, after whoever listens already."""
    first = _listener.get()

    def both(event: Event) -> None:
        if first is not None:
            first(event)
        listener(event)

    with listening(both):
        yield


def tell(event: Event) -> None:
    """Send an event to whoever listens."""
    listener = _listener.get()
    if listener is not None:
        listener(event)
