"""What a scheduler remembers of clients that have gone, taken out."""

from __future__ import annotations

from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

__all__ = ["ForgetsClients"]


class ForgetsClients(SchedulerPlugin):
    """Lets a scheduler forget a client when it goes.

    distributed 2026.8 empties the record of what a client did after a while, and keeps the empty record: a watcher, of
    which each image has many clients, would never stop growing.
    """

    name = "forgets-clients"

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to look after a scheduler."""
        self._scheduler = scheduler

    def log_event(self, topic: str, msg: Any) -> None:  # noqa: ANN401 (distributed's own)
        """Drop the record of a client when the last is noted there: that it goes, mostly twice."""
        if isinstance(msg, dict) and msg.get("action") == "remove-client" and msg.get("client") == topic:
            self._scheduler._broker._topics.pop(topic, None)
