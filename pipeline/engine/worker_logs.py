"""What jobs log on workers comes back with their records, and is logged where the run is: by whoever asked for them.

Dask's own way sends what any worker logs to all clients of a cluster; runs that share one would log each other's words.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["MOST", "Line", "collecting", "log_again"]

MOST = 100
"""So many lines of jobs that are sent together are kept."""

_OURS = "pipeline"


@dataclass(frozen=True, slots=True)
class Line:
    """What was logged: by which logger, how grave, and the words."""

    logger: str
    level: int
    message: str


class _Collector(logging.Handler):
    """Keeps what is logged in one thread, where jobs run side by side in several."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        is_wanted = record.levelno >= logging.WARNING or record.name.partition(".")[0] == _OURS
        if record.thread == self._thread and is_wanted and len(self.lines) < MOST:
            self.lines.append(Line(record.name, record.levelno, record.getMessage()))


@contextmanager
def collecting() -> Iterator[list[Line]]:
    """Collect what is logged in this thread: warnings and what is graver, and all that seamfree's own code tells."""
    collector, ours = _Collector(), logging.getLogger(_OURS)
    if ours.getEffectiveLevel() > logging.INFO:
        ours.setLevel(logging.INFO)
    logging.getLogger().addHandler(collector)
    try:
        yield collector.lines
    finally:
        logging.getLogger().removeHandler(collector)


def log_again(lines: Sequence[Line]) -> None:
    """Log here what was logged on a worker; what is not of seamfree's own code under a name that tells so."""
    for line in lines:
        if line.logger.partition(".")[0] == _OURS:
            logging.getLogger(line.logger).log(line.level, "%s", line.message)
        else:
            logging.getLogger(f"{_OURS}.workers").log(line.level, "%s: %s", line.logger, line.message)
