"""The process that keeps a worker alive, with one race of Dask's taken out."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Nanny, Status

__all__ = ["SteadyNanny"]


class SteadyNanny(Nanny):
    """Restarts a worker that dies, once at a time.

    Where a worker dies at the moment in which it reports for duty, distributed's nanny starts the next one while it is
    still busy with the first: the end of the first start then marks the second as running before it has a process,
    and closing the cluster fails with "can only join a started process". Here one start ends before another begins.

    Parameters
    ----------
    *arguments, **settings
        As for `distributed.Nanny`.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 (distributed's own)
        self._turn = asyncio.Lock()
        super().__init__(*arguments, **settings)

    async def instantiate(self) -> Status:
        """Start a worker process, when no other start is under way and the nanny is not about to end."""
        async with self._turn:
            if self.status in (Status.closing, Status.closed):
                return self.status
            return await super().instantiate()
