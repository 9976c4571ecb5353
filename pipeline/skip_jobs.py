"""What it changes that background is skipped: looked at in some windows, and told."""

from __future__ import annotations

from hashlib import blake2b
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bench import bench_for
from pipeline.images.background import find_background
from pipeline.jobs import crop_of, read_raw, scale_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.engine.ledger import Mark
    from pipeline.planning import RunPlan

__all__ = ["choose_windows", "describe_skipped", "look_anyway", "sum_up_skipped"]

Record = dict[str, Any]

SHARE, FEWEST, MOST = 0.01, 4, 32
"""Tiles in which the network runs all the same: this share of those with skipped pixels, within limits."""


def choose_windows(plan: RunPlan, marks: Iterable[Mark]) -> list[int]:
    """Draw the tiles, with the plan's digest as seed, of those in which pixels were skipped."""
    wanted = min(MOST, max(FEWEST, int(SHARE * len(plan.tiles))))
    skipped = (mark.job for mark in marks if mark.record.get("skipped"))
    return nsmallest(wanted, skipped, key=lambda index: blake2b(f"{plan.digest} {index}".encode()).digest())


def look_anyway(plan: RunPlan, index: int, *, tiles: Sequence[int]) -> Record:
    """Run the network on a tile, and count the skipped pixels that it would have labelled otherwise.

    Parameters
    ----------
    plan : RunPlan
        A plan that skips background.
    index : int
        Of the tile in `tiles`, which are indices of `plan.tiles`.
    """
    assert plan.skip_below is not None  # else nothing is skipped
    bench, tile = bench_for(plan), plan.tiles[tiles[index]]
    raw = read_raw(bench, tile.window)
    background = find_background(raw, plan.footprint, tile.core.shape, plan.skip_below)
    background = background[tile.owned.relative_to(tile.core.start).slices[1:]]
    classes = bench.predictor.predict(scale_raw(bench, tile.window, raw)).classes[crop_of(plan, tile, tile.owned)]
    otherwise = background & (classes.reshape(background.shape) != 0)
    return {"skipped": int(np.count_nonzero(background)), "otherwise": int(np.count_nonzero(otherwise))}


def sum_up_skipped(plan: RunPlan, marks: Iterable[Mark], looked: Iterable[Record]) -> Record:
    """Sum up what was skipped.

    Returns
    -------
    dict
        ``below``, the threshold; ``pixels`` of the label image that were taken for background without the network, and
        their ``share``; ``windows`` on which the network did not run; and what was ``sampled``: ``windows`` on which it
        ran all the same, their skipped ``pixels``, and how many of these it would have labelled ``otherwise``.
    """
    pixels = windows = 0
    for mark in marks:
        pixels += int(mark.record.get("skipped", 0))
        windows += int(mark.record.get("unseen", 0))
    sampled = {"windows": 0, "pixels": 0, "otherwise": 0}
    for record in looked:
        sampled["windows"] += 1
        sampled["pixels"] += record["skipped"]
        sampled["otherwise"] += record["otherwise"]
    return {
        "below": plan.skip_below,
        "pixels": pixels,
        "share": round(pixels / plan.pixels, 6),
        "windows": windows,
        "sampled": sampled,
    }


def describe_skipped(noted: Record) -> str:
    """Say in a sentence what was skipped, and what that changes."""
    text = (
        f"{noted['pixels']:,} pixels ({noted['share']:.1%}) were taken for background without the network, as all that "
        f"it could see there is below {noted['below']:g}"
    )
    sampled = noted["sampled"]
    if not sampled["windows"]:
        return text
    otherwise = f"{sampled['otherwise']:,} of {sampled['pixels']:,}"
    return f"{text}; looked at in {sampled['windows']} windows, it would have labelled {otherwise} otherwise"
