"""A bound on what may be allocated, so that an allocation as large as damaged metadata say fails."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOM", "little_room"]

ROOM = 1 << 30
"""Bytes of addresses that a case may take beside those in use. What claims to be huge claims a thousandfold."""


@contextlib.contextmanager
def little_room(room: int = ROOM) -> Iterator[None]:
    """Let an allocation that is as large as damaged metadata say fail, rather than be promised by the system."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
