"""What a flow has found, kept for who called it in the same process.

Prefect gives it by the flow's last state. Where the server's answer to that was lost, and it is asked again, it answers
with the state as it has it on record, without what was found: the run is over, and nobody knows how it ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from prefect.exceptions import MissingResult

__all__ = ["keep", "outcome_of"]

T = TypeVar("T")

_kept: ContextVar[list[object] | None] = ContextVar("seamfree_outcomes", default=None)


def keep(found: object) -> None:
    """Keep what a flow has found for who called it, if that was by `outcome_of`."""
    kept = _kept.get()
    if kept is not None:
        kept[:] = [found]


def outcome_of(run: Callable[[], T]) -> T:
    """Run a flow in this process, and give what it has found: by its state, or else what it has kept.

    Parameters
    ----------
    run : callable
        Runs the flow, and gives the result of its state.

    Raises
    ------
    MissingResult
        If neither has it.
    """
    kept: list[T] = []
    token = _kept.set(kept)  # type: ignore[arg-type]
    try:
        return run()
    except MissingResult:
        if not kept:
            raise
        return kept[0]
    finally:
        _kept.reset(token)
