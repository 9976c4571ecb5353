"""What a flow has found, kept for who called it in the same process.

Prefect gives it by the flow's last state. Where the server's answer to that was lost, and it is asked again, it answers
with the state as it has it on record, without what was found: the run is over, and nobody knows how it ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["keep", "keeping"]

_kept: ContextVar[list[Any] | None] = ContextVar("seamfree_outcomes", default=None)


@contextmanager
def keeping() -> Iterator[list[Any]]:
    """Collect what a flow that is called inside keeps: one thing at most."""
    found: list[Any] = []
    token = _kept.set(found)
    try:
        yield found
    finally:
        _kept.reset(token)


def keep(found: Any) -> None:  # noqa: ANN401 (whatever a flow gives)
    """Keep what a flow has found for who called it, if anybody in this process did."""
    kept = _kept.get()
    if kept is not None:
        kept[:] = [found]
