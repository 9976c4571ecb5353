"""Which pixels a job of a stage is about, and what makes it take less memory, in the user's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.labels.parting import Crossing
from pipeline.notes import load_arrays

if TYPE_CHECKING:
    from pipeline.planning import RunPlan

__all__ = ["less_memory", "where_is_job"]

_OF_TILES = ("segment", "fill", "compare", "paint", "relabel", "measure")
"""Stages with one job for each tile."""


def where_is_job(plan: RunPlan, stage: str, index: int) -> str:
    """Say which image a job is about, and which pixels, if it is about a box of them."""
    if stage in _OF_TILES:
        axes, box = "TZYX", plan.tiles[index].owned
    elif stage.startswith(("read", "statistics")):
        axes, box = "TCZYX", plan.regions[index].owned
    elif stage == "part":
        crossing = Crossing(**load_arrays(plan.work / "crossing.npz"))
        axes, box = "TZYX", crossing.box(int(crossing.batches(plan.tiles, plan.parting.largest)[index][0]))
    else:
        return plan.source.path
    spans = (f"{axis.lower()} {start} to {stop}" for axis, start, stop in zip(axes, box.start, box.stop, strict=True))
    return f"{plan.source.path}, {', '.join(spans)}"


def less_memory(stage: str) -> str:
    """Say what a user can do where the memory of a worker is too short for a job of a stage."""
    if stage == "part":
        return (
            "use fewer --workers, or a smaller instances.largest: touching objects in a box of more pixels stay one "
            "object, and are counted"
        )
    if stage in ("cross", "number", "choose"):
        return "one job looks at all objects: use fewer --workers"
    return "use a smaller --tile or fewer --workers"
