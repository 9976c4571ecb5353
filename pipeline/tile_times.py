"""What is kept of the tiles' times when a result is finished: their sums, and a map of bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.jobs import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.engine.ledger import Mark
    from pipeline.planning import RunPlan

__all__ = ["hold_to_expectation", "sum_up_times"]

MOST = 40
"""Cells of the map along Y and X."""


def sum_up_times(plan: RunPlan, marks: Iterable[Mark]) -> dict[str, Any]:
    """Sum up how long the tiles took, one after the other: however many there are, what is held is the map.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    marks : iterable of Mark
        Those of the stage ``segment``.

    Returns
    -------
    dict
        ``tiles``: seconds by part, of all. ``tile_map``: ``tiles``, how many there are along TZYX; ``merged``, how
        many of them along Y and X make a cell of the map; ``milliseconds``, by part, a text for each row of cells with
        the mean of a tile in each, over T and Z, too. ``constant_windows``: how many tiles had a window of one value
        that the network had seen before, and were not computed again; ``windows_in_part``: how many were computed
        beside such a value only, and ``spared``, what that left out, in windows; ``skipped_windows``: how many were all
        background; ``tiles_in_pieces``: how many were computed piece by piece, for memory was too short.
    """
    counts = plan.tiles.counts
    merged = [-(-count // MOST) for count in counts[2:]]
    shape = [-(-count // by) for count, by in zip(counts[2:], merged, strict=True)]
    constant = unseen = in_pieces = in_part = 0
    spared = 0.0
    sums, numbers = np.zeros((len(PARTS), *shape)), np.zeros(shape, dtype=np.int64)
    for mark in marks:
        if not mark.sound:
            continue
        position = plan.tiles.position(mark.job)
        cell = (position[2] // merged[0], position[3] // merged[1])
        sums[:, *cell] += [float(mark.record.get(part, 0)) for part in PARTS]
        numbers[cell] += 1
        constant += int(mark.record.get("reused", 0))
        unseen += int(mark.record.get("unseen", 0))
        in_part += "spared" in mark.record
        spared += float(mark.record.get("spared", 0))
        in_pieces += bool(mark.record.get("cuts", 0))
    means = np.rint(1000 * sums / np.maximum(numbers, 1)).astype(np.int64)
    return {
        "constant_windows": constant,
        "windows_in_part": in_part,
        "spared": round(spared, 2),
        "skipped_windows": unseen,
        "tiles_in_pieces": in_pieces,
        "tiles": {part: round(float(sums[at].sum()), 3) for at, part in enumerate(PARTS)},
        "tile_map": {
            "tiles": list(counts),
            "merged": merged,
            "milliseconds": {
                part: [" ".join(map(str, row)) for row in means[at].tolist()] for at, part in enumerate(PARTS)
            },
        },
    }


def hold_to_expectation(plan: RunPlan, tiles: dict[str, Any]) -> dict[str, Any]:
    """Say how the tile was chosen, and hold the seconds that the network took against those that were expected.

    Of a worker, while all are at work. It belongs to the times: of two runs, one may have known less.
    """
    if plan.tiling is None:
        return {}
    expected, total = plan.tiling.seconds, len(plan.tiles)
    if expected is not None:
        # What is not computed again takes no time.
        left_out = tiles["constant_windows"] + tiles["skipped_windows"] + tiles["spared"]
        expected = round(expected * (total - left_out) / total, 3)
    took = round(tiles["tiles"]["compute"] / min(plan.tiling.workers, total), 3)
    return {"expected": expected, "took": took, "tiling": plan.tiling.model_dump(mode="json")}
