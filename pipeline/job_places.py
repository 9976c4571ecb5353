"""Which pixels a job of a stage is about, in the user's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.planning import RunPlan

__all__ = ["where_is_job"]

_OF_TILES = ("segment", "fill", "compare", "paint", "relabel", "measure")
"""Stages with one job for each tile."""


def where_is_job(plan: RunPlan, stage: str, index: int) -> str:
    """Say which image a job is about, and which pixels, if it is about a box of them."""
    if stage in _OF_TILES:
        axes, box = "TZYX", plan.tiles[index].owned
    elif stage.startswith(("read", "statistics")):
        axes, box = "TCZYX", plan.regions[index].owned
    else:
        return plan.source.path
    spans = (f"{axis.lower()} {start} to {stop}" for axis, start, stop in zip(axes, box.start, box.stop, strict=True))
    return f"{plan.source.path}, {', '.join(spans)}"
