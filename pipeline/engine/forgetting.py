"""What a scheduler remembers of clients that have gone, taken out."""

from __future__ import annotations

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

__all__ = ["ForgetsClients"]


class ForgetsClients(SchedulerPlugin):
    """Lets a scheduler forget a client when it goes.

    distributed 2026.8 empties the record of what a client did after a while, and keeps the empty record: a watcher, of
    which each image has many clients, would never stop growing.
    """

    name = "forgets-clients"

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Drop the record."""
        scheduler._broker._topics.pop(client, None)
