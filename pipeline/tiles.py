"""Which tile: that of the least time where it was measured; else what is known to do well, or saves arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline import sizing
from pipeline.geometry import Footprint
from pipeline.rates import Rates

__all__ = ["Alternative", "Tiling", "Wanted", "candidates", "choose_tiling"]

LADDER = {2: (256, 384, 512, 640, 768, 1024, 1280, 1536, 2048), 3: (32, 48, 64, 96, 128, 160, 192, 256)}
"""Longest edges of cores that are compared, by number of spatial axes."""

WORTH_SECONDS = 10.0
"""Below this, what another tile could save is less than what it costs to think about it."""

MOST_VOXELS = 2**22
"""Of a core that is chosen by arithmetic: what is done for its objects takes memory by the voxel."""

AS_GOOD = 1.01
"""Times nearer to each other than this are the same; the tile that takes less memory is chosen."""


class Alternative(BaseModel):
    """A tile that could be taken."""

    model_config = ConfigDict(frozen=True)

    core: tuple[int, ...]
    window: tuple[int, ...]
    tiles: int
    window_bytes: int
    window_flops: int
    """Floating-point operations of a forward pass on a window."""
    seconds: float | None = None
    """Of the network, for the image, all workers at it, as measured or estimated from that; None where neither is."""
    fits: bool = True
    """Whether a worker has the memory."""


class Tiling(BaseModel):
    """How the tile was chosen. No array depends on anything of it but the tile."""

    model_config = ConfigDict(frozen=True)

    by: Literal["wish", "memory", "arithmetic", "time"]
    """What decided: the user, the memory at hand, the network's operations, or the time, as `Alternative` has it."""
    workers: int
    seconds: float | None
    """Expected of the network, as in `Alternative`."""
    alternatives: tuple[Alternative, ...]


class Wanted(BaseModel):
    """What a tile is chosen for."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    shape: tuple[int, ...]
    """Spatial shape of the label image."""
    planes: int
    """How often the network does all of it: time points, and planes where it is two-dimensional."""
    footprint: Footprint
    chunk: tuple[int, ...]
    """Longest edges of a chunk."""
    memory: Callable[[tuple[int, ...]], int]
    """Bytes of a forward pass on a window."""
    flops: Callable[[tuple[int, ...]], int]
    budget: int
    """Bytes that a worker may use for it."""
    workers: int
    device: Literal["cpu", "cuda"] = "cpu"

    def rounds(self, tiles: int) -> int:
        """Give how many tiles one of the workers has, at most: the last round may keep a few of them only."""
        return -(-tiles // self.workers)

    def weigh(self, core: tuple[int, ...], rates: Rates | None) -> Alternative:
        """Find out what a core would cost."""
        window = self.footprint.window_shape(core)
        flops, needed = self.flops(window), self.memory(window)
        tiles = self.planes * prod(-(-length // edge) for length, edge in zip(self.shape, core, strict=True))
        each = rates.seconds(window, flops) if rates is not None else None
        seconds = None if each is None else round(self.rounds(tiles) * each, 2)
        return Alternative(
            core=core,
            window=window,
            tiles=tiles,
            window_bytes=needed,
            window_flops=flops,
            seconds=seconds,
            fits=needed <= self.budget,
        )


def candidates(wanted: Wanted) -> Iterator[tuple[int, ...]]:
    """Give legal cores, from the smallest on, each once; none that is larger than the image needs."""
    footprint, seen = wanted.footprint, set()
    for rung in LADDER[footprint.ndim]:
        longest = max(rung // max(footprint.scale), *footprint.step)
        core = tuple(
            sizing.balanced_edge(length, longest, sizing.core_step(min(length, longest), step, limit))
            for length, step, limit in zip(wanted.shape, footprint.step, wanted.chunk, strict=True)
        )
        if core not in seen:
            seen.add(core)
            yield core


def _fewest_operations(wanted: Wanted, found: list[Alternative]) -> Alternative | None:
    """Give the tile with which the busiest worker has the least arithmetic; None in 2-D on a CPU, or where not known.

    In 2-D there is little to win, and larger windows fit into caches less well. But a GPU waits for what is done for
    each tile beside the network, and less is read twice of larger ones. In 3-D a core of 44 voxels costs 27 times its
    own arithmetic, and one of 128 five times.
    """
    if wanted.footprint.ndim == 2 and wanted.device == "cpu":
        return None
    possible = [each for each in found if each.fits and prod(each.core) <= MOST_VOXELS and each.window_flops]
    work = {each.core: wanted.rounds(each.tiles) * each.window_flops for each in possible}
    least = min(work.values(), default=0)
    good = [each for each in possible if work[each.core] <= AS_GOOD * least]
    return min(good, key=lambda each: (each.window_bytes, each.core), default=None)


def choose_tiling(
    wanted: Wanted,
    wish: int | None,
    most: int,
    rates: Rates | None,
    *,
    kept: Sequence[int] | None = None,
    always: bool = False,
) -> tuple[tuple[int, ...], Tiling]:
    """Choose the core.

    Parameters
    ----------
    wanted : Wanted
        What for.
    wish : int, optional
        The edge that the user wants, as for `pipeline.sizing.choose_core`.
    most : int
        The bytes that a worker has at all.
    rates : Rates, optional
        What was measured of the network on the device.
    kept : sequence of int, optional
        The core of an unfinished result that is gone on with.
    always : bool
        Whether to go by time however little there is to do.

    Returns
    -------
    core : tuple of int
        In pixels of the label image, along the spatial axes.
    tiling : Tiling
        How it came about.

    Raises
    ------
    PlanError
        As `pipeline.sizing.choose_core`.
    """
    core = sizing.choose_core(
        wanted.shape, wanted.footprint, wanted.chunk, wish, wanted.memory, wanted.budget, most
    )  # fmt: skip
    chosen = wanted.weigh(core, rates)
    by: Literal["wish", "memory", "arithmetic", "time"] = "memory" if wish is None else "wish"
    found = [wanted.weigh(each, rates) for each in candidates(wanted)]
    fewest = _fewest_operations(wanted, [chosen, *found]) if wish is None else None
    # Of a plane that is larger than what was measured nothing is known where larger ones were slower.
    slower = rates is not None and fewest is not None and fewest.seconds is None and wanted.footprint.ndim == 2
    if fewest is not None and not slower:
        chosen, by = fewest, "arithmetic"
    if kept is not None and wish is None:
        chosen, by = wanted.weigh(tuple(kept), rates), "time"
    elif wish is None and chosen.seconds is not None and (always or chosen.seconds >= WORTH_SECONDS):
        timed = [each for each in (chosen, *found) if each.fits and each.seconds is not None]
        least = min(each.seconds for each in timed if each.seconds is not None)
        good = [each for each in timed if each.seconds is not None and each.seconds <= AS_GOOD * least]
        chosen, by = min(good, key=lambda each: (each.window_bytes, each.core)), "time"
    others = {each.core: each for each in (*found, chosen)}
    alternatives = tuple(sorted(others.values(), key=lambda each: (prod(each.core), each.core)))
    tiling = Tiling(by=by, workers=wanted.workers, seconds=chosen.seconds, alternatives=alternatives)
    return chosen.core, tiling
