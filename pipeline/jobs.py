"""What is done to pixels for one index of each stage. Runs on workers: opens its own handles, writes its own shards.

Each job is idempotent: done twice, by whomever, it leaves the same bytes.
"""

from __future__ import annotations

import json
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.audit_windows import samples_note
from pipeline.bench import bench_for
from pipeline.images.intensity import wanted_percentiles
from pipeline.images.mirrored import read_window
from pipeline.images.statistics import Search
from pipeline.lowering import predict_in_pieces
from pipeline.notes import save_arrays
from pipeline.object_jobs import note_objects
from pipeline.stores.pyramid import build_region

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.bench import Bench
    from pipeline.geometry import Box, Tile
    from pipeline.planning import RunPlan

__all__ = [
    "PARTS",
    "TileJob",
    "count_values",
    "counted_channels",
    "make_level",
    "read_region",
    "read_scaled",
    "segment_tile",
]

Record = dict[str, Any]

PARTS = ("read", "compute", "write", "objects")
"""What the seconds of a tile are spent on, as `segment_tile` reports them."""


class TileJob(Protocol):
    """A job of a plan: what `Executor.map` takes."""

    def __call__(self, plan: RunPlan, index: int, /) -> Record:
        """Do the job and report on it."""
        ...


def counted_channels(plan: RunPlan, index: int) -> tuple[int, ...]:
    """Give the channels of a region of `plan.regions` that the model takes, so that their values are counted."""
    owned = plan.regions[index].owned
    return tuple(channel for channel in sorted(set(plan.channels)) if owned.start[1] <= channel < owned.stop[1])


def read_region(plan: RunPlan, index: int) -> Record:
    """Read a region of the input once: count its values for the statistics, and copy it into the result.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the region in `plan.regions`.
    """
    bench = bench_for(plan)
    owned = plan.regions[index].owned
    channels = counted_channels(plan, index)
    if not channels and not plan.copy_image:
        return {"pixels": owned.size}
    block = bench.source.read(owned)
    if plan.copy_image:
        bench.array("0").write(owned, block)
    search = Search(
        plan.source.dtype, wanted_percentiles(plan.intensity.method, plan.intensity.low, plan.intensity.high)
    )
    first = owned.start[1]
    counts = {f"c{channel}": search.count(block[:, channel - first]).to_array() for channel in channels}
    save_arrays(plan.work / "counts" / "0" / f"{index}.npz", counts)
    return {"pixels": owned.size}


def count_values(plan: RunPlan, index: int, *, level: int) -> Record:
    """Count a region's values in a later pass, for types of more than 16 bits.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the region in `plan.regions`.
    level : int
        Number of the pass, from 1 on. What it looks for lies in a note of the pass before.
    """
    bench = bench_for(plan)
    owned = plan.regions[index].owned
    channels = counted_channels(plan, index)
    if not channels:
        return {"pixels": owned.size}
    block = bench.read(owned)
    prefixes = json.loads((plan.work / "counts" / f"{level}.json").read_text())
    counts = {}
    for channel in channels:
        search = Search(plan.source.dtype, (), level, tuple(prefixes[f"{owned.start[0]},{channel}"]))
        counts[f"c{channel}"] = search.count(block[:, channel - owned.start[1]]).to_array()
    save_arrays(plan.work / "counts" / str(level) / f"{index}.npz", counts)
    return {"pixels": owned.size}


def read_scaled(bench: Bench, window: Box) -> NDArray[np.floating]:
    """Read what the network takes: the channels of a window, their intensities scaled.

    Parameters
    ----------
    bench : Bench
        The image, and how it is scaled.
    window : Box
        TZYX; one time point, and one plane where the network takes planes. It may reach beyond the image.

    Returns
    -------
    ndarray of float32 or float64
        Channels, then YX or ZYX.
    """
    plan = bench.plan
    scalings, time = bench.scalings, window.start[0]
    together = plan.image_shard[1] if plan.copy_image else plan.source.block[1]
    raw = read_window(bench.read, plan.source.shape, window, plan.channels, together)
    wide: type[np.float32] | type[np.float64] = np.float64 if plan.precision == "float64" else np.float32
    scaled = np.stack([scalings[time, at].apply(raw[number], wide) for number, at in enumerate(plan.channels)])
    return scaled[:, 0] if plan.spatial_ndim == 2 else scaled


def segment_tile(plan: RunPlan, index: int, *, cuts: int = 0) -> Record:
    """Run the network on a tile's window, and write what the tile owns.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the tile in `plan.tiles`.
    cuts : int
        How often the core is halved, where memory is too short for its window: one of `pipeline.geometry.ways_to_cut`.
    """
    began = perf_counter()
    bench = bench_for(plan)
    predictor = bench.predictor
    tile = plan.tiles[index]
    window = read_scaled(bench, tile.window)
    have_read = perf_counter()
    samples = bench.samples.get(index, {})
    scores, parts = plan.probabilities != "none", [_crop(plan, tile, box) for box in samples.values()]
    predicted = (
        predict_in_pieces(predictor, plan, window, cuts, scores=scores, samples=parts)
        if cuts
        else predictor.predict(window, scores=scores, samples=parts, reuse=True)
    )
    have_computed = perf_counter()
    crop = _crop(plan, tile, tile.owned)
    labels = predicted.classes[crop].reshape(tile.owned.shape)
    bench.array("labels/semantic/0").write(tile.owned, labels)
    if predicted.scores is not None:
        box = plan.image_box(tile.owned, (0, len(plan.classes)))
        kept = predicted.scores[(slice(None), *crop)].astype(plan.probabilities)
        bench.array("probabilities/0").write(box, kept.reshape(box.shape))
    if samples:
        save_arrays(samples_note(plan, index), dict(zip(samples, predicted.samples, strict=True)))
    have_written = perf_counter()
    if plan.instances != "none":
        note_objects(plan, index, labels)
    return {
        "pixels": tile.owned.size,
        "reused": int(predicted.reused),
        "cuts": cuts,
        "read": have_read - began,
        "compute": have_computed - have_read,
        "write": have_written - have_computed,
        "objects": perf_counter() - have_written,
    }


def _crop(plan: RunPlan, tile: Tile, box: Box) -> tuple[slice, ...]:
    """Give where a box of a tile's core lies in what the network gives for the tile's window: along spatial axes."""
    return box.relative_to(tile.core.start).shift(plan.footprint.inset).slices[4 - plan.spatial_ndim :]


def make_level(plan: RunPlan, index: int, *, level: int) -> Record:
    """Make one shard of one pyramid's level from the level before.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Counts the shards of all pyramids at this level.
    level : int
        From 1 on.
    """
    bench = bench_for(plan)
    for pyramid in plan.pyramids:
        if level >= len(pyramid.levels):
            continue
        grid = pyramid.shards(level)
        if index < len(grid):
            owned: Box = grid[index].owned
            finer, coarser = bench.array(pyramid.array(level - 1)), bench.array(pyramid.array(level))
            build_region(finer, coarser, owned, pyramid.method)
            return {"pixels": owned.size}
        index -= len(grid)
    raise IndexError(f"the pyramids' level {level} has {index} shards less")
