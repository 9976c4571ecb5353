"""Where the time went, tile by tile: from what the provenance keeps of the tiles' times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pipeline.report.charts import heat_map
from pipeline.report.words import duration, plural

if TYPE_CHECKING:
    from pipeline.planning import RunPlan

__all__ = ["TileMap", "describe_map", "describe_network", "draw_maps"]

PARTS = {"read": "reading", "compute": "the network", "write": "writing", "objects": "objects"}


@dataclass(frozen=True)
class TileMap:
    """A map of one part of the tiles' time, or of all."""

    name: str
    seconds: float
    low: str
    high: str
    drawing: Markup | None


def draw_maps(plan: RunPlan, timings: dict[str, Any]) -> list[TileMap]:
    """Draw how long each tile took, all in all and by parts.

    Parameters
    ----------
    plan : RunPlan
        The result's.
    timings : dict
        Those of its provenance; empty maps where an earlier version has kept none.
    """
    noted = timings.get("tile_map")
    if not noted:
        return []
    milliseconds = {part: [[int(value) for value in row.split()] for row in rows]
                    for part, rows in noted["milliseconds"].items()}  # fmt: skip
    parts = list(milliseconds)
    together = [[sum(cell) for cell in zip(*rows, strict=True)] for rows in zip(*milliseconds.values(), strict=True)]
    edges = [
        [min(at * plan.core[axis] * by, plan.label_shape[axis]) for at in range(len(found) + 1)]
        for axis, by, found in ((2, noted["merged"][0], together), (3, noted["merged"][1], together[0]))
    ]

    def told(row: int, column: int) -> str:
        each = ", ".join(
            f"{PARTS.get(part, part)} {duration(milliseconds[part][row][column] / 1000)}" for part in parts
        )
        return (
            f"x {edges[1][column]:,} to {edges[1][column + 1]:,}, y {edges[0][row]:,} to {edges[0][row + 1]:,}: "
            f"{duration(together[row][column] / 1000)} ({each})"
        )

    def drawn(name: str, rows: list[list[int]], seconds: float) -> TileMap:
        values = [value for row in rows for value in row]
        low, high = duration(min(values) / 1000), duration(max(values) / 1000)
        label = f"Time for {name} of each tile: {low} to {high}"
        drawing = heat_map(rows, edges[0], edges[1], label, told) if len(values) > 1 else None
        return TileMap(name, seconds, low, high, drawing)

    sums = timings["tiles"]
    return [drawn("all parts", together, sum(sums.values())),
            *(drawn(PARTS.get(part, part), milliseconds[part], sums[part]) for part in parts)]  # fmt: skip


def describe_map(noted: dict[str, Any]) -> str:
    """Say what a cell of the map stands for."""
    times, planes, rows, columns = noted["tiles"]
    per_cell = noted["merged"][0] * noted["merged"][1] * times * planes
    text = f"{plural(times * planes * rows * columns, 'tile')}"
    return text if per_cell == 1 else f"{text}; a cell is the mean of up to {per_cell:,}"


_CHOSEN = {
    "wish": "Its tile is the one that was wished for.",
    "memory": "Its tile is the largest that is known to do well and fits into memory.",
    "arithmetic": "Its tile is the one that needs the least arithmetic, of those that fit into memory.",
    "time": "Its tile is the one that takes the least time, as measured on the device or estimated from that.",
}


def describe_network(timings: dict[str, Any]) -> list[str]:
    """Say how the tile was chosen, how close the expected time was, and what did not have to be computed.

    Parameters
    ----------
    timings : dict
        Those of a result's provenance; nothing is said where an earlier version has kept nothing.
    """
    network = timings.get("network") or {}
    lines = [_CHOSEN[by]] if (by := (network.get("tiling") or {}).get("by")) in _CHOSEN else []
    if network.get("expected"):
        ratio = network["took"] / network["expected"]
        lines.append(
            f"{duration(network['expected'])} were expected of each worker, {duration(network['took'])} it took: "
            f"{ratio:.2f} times as long."
        )
    if constant := timings.get("constant_windows", 0):
        lines.append(
            f"{plural(constant, 'window')} had a single value that the network had seen before, and "
            f"{'was' if constant == 1 else 'were'} not computed again: the result is the same to the bit."
        )
    if in_part := timings.get("windows_in_part", 0):
        lines.append(
            f"{plural(in_part, 'window')} had a single value along a side, and {'was' if in_part == 1 else 'were'} "
            f"computed beside that only, which spared {timings['spared']:.1f} windows."
        )
    return lines
