"""What a plan is made for, beside the image and the model."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pipeline.rates import Rates

__all__ = ["Intent", "Target"]


class Target(NamedTuple):
    """An OME-Zarr image that labels and table are added to: its group's folder, its version, and number of levels."""

    group: str
    version: Literal["0.4", "0.5"]
    levels: int


class Intent(BaseModel):
    """What a plan is made for, beside the image and the model."""

    model_config = ConfigDict(frozen=True)

    device: Literal["cpu", "cuda"]
    worker_memory: int
    """Bytes that one worker process may use, of a GPU where it computes on one."""
    host_memory: int | None = None
    """Bytes that each of its threads may use of the machine, where those are others."""
    workers: int = 1
    rates: Rates | None = None
    """How fast the network was measured to be, where it was."""
    core: tuple[int, ...] | None = None
    """Of an unfinished result that is gone on with, along the spatial axes."""
