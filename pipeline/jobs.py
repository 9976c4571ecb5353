"""What is done to pixels for one index of each stage. Runs on workers: opens its own handles, writes its own shards.

Each job is idempotent: done twice, by whomever, it leaves the same bytes.
"""

from __future__ import annotations

import json
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pipeline.audit_windows import samples_note
from pipeline.bench import bench_for
from pipeline.geometry import ways_to_cut
from pipeline.ground import find_varying, predict_varying
from pipeline.images.background import fill_background, find_background
from pipeline.images.intensity import wanted_percentiles
from pipeline.images.mirrored import read_window
from pipeline.images.statistics import Search
from pipeline.notes import save_arrays
from pipeline.object_jobs import note_objects
from pipeline.piecewise import predict_pieces
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
    "crop_of",
    "make_level",
    "read_raw",
    "read_region",
    "read_scaled",
    "scale_raw",
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
    bench.wake_gpu()
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


def read_raw(bench: Bench, window: Box) -> NDArray[np.number]:
    """Read a window as it is in the file: the channels that the network takes, in their order, then ZYX.

    Parameters
    ----------
    bench : Bench
        The image.
    window : Box
        TZYX; one time point, and one plane where the network takes planes. It may reach beyond the image.
    """
    plan = bench.plan
    together = plan.image_shard[1] if plan.copy_image else plan.source.block[1]
    raw = read_window(bench.read, plan.source.shape, window, plan.channels, together)
    return np.stack([raw[number] for number in range(len(plan.channels))])


def scale_raw(bench: Bench, window: Box, raw: NDArray[np.number]) -> NDArray[np.floating]:
    """Make of a window what the network takes: intensities scaled.

    Parameters
    ----------
    bench : Bench
        The image, and how it is scaled.
    window : Box
        TZYX, as for `read_raw`.
    raw : ndarray
        What that gave.

    Returns
    -------
    ndarray of float32 or float64
        Channels, then YX or ZYX.
    """
    plan = bench.plan
    scalings, time = bench.scalings, window.start[0]
    wide: type[np.float32] | type[np.float64] = np.float64 if plan.precision == "float64" else np.float32
    scaled = np.stack([scalings[time, at].apply(raw[number], wide) for number, at in enumerate(plan.channels)])
    return scaled[:, 0] if plan.spatial_ndim == 2 else scaled


def read_scaled(bench: Bench, window: Box) -> NDArray[np.floating]:
    """Read what the network takes: `scale_raw` of `read_raw`."""
    return scale_raw(bench, window, read_raw(bench, window))


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
    tile = plan.tiles[index]
    raw = read_raw(bench, tile.window)
    samples = bench.samples.get(index, {})
    background = None
    if plan.skip_below is not None:
        background = find_background(raw, plan.footprint, tile.core.shape, plan.skip_below)
    seen = background is None or not background[tile.owned.relative_to(tile.core.start).slices[1:]].all()
    window = scale_raw(bench, tile.window, raw) if seen else None
    have_read = perf_counter()
    predicted = _predict(bench, tile, window, [tile.owned, *samples.values()], background, cuts)
    have_computed = perf_counter()
    labels = predicted.classes.reshape(tile.owned.shape)
    bench.array("labels/semantic/0").write(tile.owned, labels)
    if plan.probabilities != "none":
        box = plan.image_box(tile.owned, (0, len(plan.classes)))
        bench.array("probabilities/0").write(box, predicted.scores[0].astype(plan.probabilities).reshape(box.shape))
    if samples:
        save_arrays(samples_note(plan, index), dict(zip(samples, predicted.scores[1:], strict=True)))
    have_written = perf_counter()
    if plan.instances != "none":
        note_objects(plan, index, labels)
    record = {
        "pixels": tile.owned.size,
        "reused": int(predicted.reused),
        "cuts": cuts,
        "read": have_read - began,
        "compute": have_computed - have_read,
        "write": have_written - have_computed,
        "objects": perf_counter() - have_written,
    }
    if predicted.spared:
        record["spared"] = round(predicted.spared, 4)
    if plan.skip_below is not None:
        record |= {"skipped": predicted.skipped, "unseen": int(predicted.unseen)}
    return record


def crop_of(plan: RunPlan, tile: Tile, box: Box) -> tuple[slice, ...]:
    """Give where a box of a tile's core lies in what the network gives for the tile's window: along spatial axes."""
    return box.relative_to(tile.core.start).shift(plan.footprint.inset).slices[4 - plan.spatial_ndim :]


class _Predicted(NamedTuple):
    """What is known of a tile: the classes of what it owns, and scores of boxes, of the first only where wanted."""

    classes: NDArray[np.uint8]
    scores: list[NDArray[np.floating]]
    reused: bool
    skipped: int = 0
    unseen: bool = False
    spared: float = 0.0


def _predict(
    bench: Bench,
    tile: Tile,
    window: NDArray[np.floating] | None,
    boxes: list[Box],
    background: NDArray[np.bool_] | None,
    cuts: int,
) -> _Predicted:
    """Run the network, where anything can be seen.

    Parameters
    ----------
    bench : Bench
        The network.
    tile : Tile
        The tile.
    window : ndarray, optional
        What the network takes; None where all that the tile owns is background.
    boxes : list of Box
        What the tile owns, and parts of it of which scores are wanted, TZYX.
    background : ndarray of bool, optional
        The pixels of the core, ZYX, that are background without the network.
    cuts : int
        As for `segment_tile`.
    """
    plan, free = bench.plan, 4 - bench.plan.spatial_ndim
    whole = plan.probabilities != "none"
    wide: type[np.float32] | type[np.float64] = np.float64 if plan.precision == "float64" else np.float32
    first: list[NDArray[np.floating]] = [] if whole else [np.empty(0, dtype=wide)]
    parts = [] if background is None else [
        background[box.relative_to(tile.core.start).slices[1:]].reshape(box.shape[free:]) for box in boxes
    ]  # fmt: skip
    skipped = int(np.count_nonzero(parts[0])) if parts else 0
    if window is None:
        nothing = [np.zeros((len(plan.classes), *part.shape), dtype=wide) for part in parts[not whole :]]
        for scores in nothing:
            scores[0] = 1
        return _Predicted(np.zeros(parts[0].shape, dtype=np.uint8), [*first, *nothing], False, skipped, unseen=True)
    crops = [crop_of(plan, tile, box) for box in boxes]
    varying = find_varying(window, plan) if not cuts else None
    predictor, samples = bench.predictor, crops[1:]
    if cuts:
        # Memory is short.
        predictor.release()
        pieces = ways_to_cut(plan.core, plan.footprint)[cuts - 1]
        predicted = predict_pieces(predictor, plan, window, pieces, scores=whole, samples=samples)
    elif varying is not None:
        predicted = predict_varying(predictor, plan, window, varying, scores=whole, samples=samples)
    else:
        predicted = predictor.predict(window, scores=whole, samples=samples, reuse=True)
    classes = predicted.classes[crops[0]]
    given = [*first, *predicted.samples] if predicted.scores is None else [
        predicted.scores[(slice(None), *crops[0])], *predicted.samples
    ]  # fmt: skip
    if skipped:
        classes[parts[0]] = 0
        for scores, part in list(zip(given, parts, strict=True))[not whole :]:
            fill_background(scores, part)
    return _Predicted(classes, given, predicted.reused, skipped, spared=varying.spared if varying is not None else 0.0)


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
