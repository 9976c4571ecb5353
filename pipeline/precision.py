"""`--precision auto`: the fastest arithmetic whose labels agree with those of float32, measured on tiles of the image.

It is decided once, before a run starts, for the result depends on it; who goes on with a run goes on with its decision.
"""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bench import Bench, opened_once
from pipeline.errors import ModelError, StoreError
from pipeline.jobs import read_scaled
from pipeline.planning import RunPlan
from pipeline.remote.paths import to_path
from pipeline.scaling import scale_by_own
from pipeline.stores.publish import read_provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.engine.executor import Executor
    from pipeline.geometry import Box, Tile
    from pipeline.images.intensity import Scaling
    from pipeline.models.architecture import Precision

__all__ = ["decided", "held_decision", "measure_precisions", "noted_plans", "settle_precision"]

Record = dict[str, Any]

CANDIDATES: tuple[Precision, ...] = ("float32", "bfloat16", "float16")

FEWEST_TILES = 8
"""Below these, measuring would cost about as much as can be won."""

WORTH = 1.2
"""How many times faster than float32 another arithmetic must be to be taken: what is less may be chance.

That is also why networks are not compiled. They run channels-last, with batch normalisation folded, and what is left
are calls of the library of convolutions, which `torch.compile` makes as well: on a window of 572 x 572 it made the
bundled network 1.06 times as fast in float32 and 1.13 in bfloat16, after 16 to 32 seconds of compiling for that one
shape, on a core of an AMD EPYC; and each worker would need a C++ compiler.
"""


def settle_precision(plan: RunPlan, executor: Executor) -> RunPlan:
    """Decide in which arithmetic a network runs, where that was left open.

    Parameters
    ----------
    plan : RunPlan
        The plan, of a result that is held against other runs.
    executor : Executor
        Where its jobs run, and so where it is measured.

    Returns
    -------
    RunPlan
        With the decision in it, and what was measured. That of an unfinished run of the same plan, if there is one.
    """
    if not plan.precision_open:
        return plan
    held = held_decision(plan)
    if held is not None:
        return held
    why: str | None = None
    measured: Record = {}
    if len(plan.tiles) < FEWEST_TILES:
        why = f"fewer than {FEWEST_TILES} tiles: not worth measuring"
    else:
        ((_, measured),) = executor.map("precision", measure_precisions, plan, [0])
    chosen = max(
        (entry for entry in measured.get("candidates", ()) if entry["taken"]),
        key=lambda entry: float(entry["speed"]),
        default={"precision": "float32"},
    )
    facts = {"reason": why} if why else measured
    return decided(plan, chosen["precision"], {"tolerance": plan.precision_tolerance, **facts})


def decided(plan: RunPlan, precision: str, measured: Record) -> RunPlan:
    """Give the plan with a decision, made anew, so that nothing is kept that followed from the open one."""
    facts = {name: getattr(plan, name) for name in RunPlan.model_fields}
    return RunPlan.model_validate(facts | {"precision": precision, "precision_measured": measured})


def held_decision(plan: RunPlan) -> RunPlan | None:
    """Find the decision of the run that left the unfinished or the finished result of the same plan."""
    for found in noted_plans(plan):
        earlier = found.get("plan", {})
        if earlier.get("precision_measured") is not None and earlier.get("precision") in CANDIDATES:
            again = decided(plan, earlier["precision"], earlier["precision_measured"])
            if again.digest == found.get("digest"):
                return again
    return None


def noted_plans(plan: RunPlan) -> Iterator[Record]:
    """Give what the unfinished and the finished result that are there say of their plans: its digest, and itself."""
    yield _noted(plan.work / "plan.json")
    yield _published(plan)


def _noted(path: Path) -> Record:
    """Read the note of an unfinished result; what is wrong with it is told where the result is gone on with."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _published(plan: RunPlan) -> Record:
    try:
        return read_provenance(to_path(plan.destination or plan.output))
    except StoreError:
        return {}


class _SampleBench(Bench):
    """Open handles for a plan whose run has not begun: intensities are scaled by what a sample says of the image."""

    def __init__(self, plan: RunPlan, tile: Tile) -> None:
        super().__init__(plan)
        self.tile = tile

    def read(self, box: Box) -> NDArray[np.generic]:
        return self.source.read(box)

    @opened_once
    def scalings(self) -> dict[tuple[int, int], Scaling]:
        plan, box = self.plan, self.tile.window
        inside = box.clip(plan.source.shape[:1] + plan.source.shape[2:])
        blocks = [self.source.read(plan.image_box(inside, (channel, channel + 1))) for channel in plan.channels]
        scalings = scale_by_own(plan.intensity, blocks)
        return {(box.start[0], channel): each for channel, each in zip(plan.channels, scalings, strict=True)}


def _samples(plan: RunPlan) -> list[tuple[Tile, NDArray[np.floating]]]:
    """Choose a few tiles, of some that are spread over the image those where intensities vary most."""
    number = min(max(1, len(plan.tiles) // 32), 4)
    places = np.unique(np.linspace(0, len(plan.tiles) - 1, 4 * number + 2).round().astype(int)[1:-1]).tolist()
    found = []
    for index in places:
        tile = plan.tiles[index]
        window = read_scaled(_SampleBench(plan, tile), tile.window)
        found.append((float(window.std()), index, tile, window))
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    return [(tile, window) for _, _, tile, window in found[:number]]


def measure_precisions(plan: RunPlan, _index: int = 0) -> Record:
    """Run the network on some tiles in each arithmetic, and compare times, and labels with those of float32.

    Parameters
    ----------
    plan : RunPlan
        A plan whose precision is open.

    Returns
    -------
    dict
        ``tiles``, ``pixels``, and for each of ``candidates`` its ``precision``, ``speed`` as a multiple of float32's,
        ``differing`` pixels, and whether it may be ``taken``; or why not.
    """
    samples = _samples(plan)
    small = _small_window(plan, samples[0][1])
    first = 4 - plan.spatial_ndim
    inset = plan.footprint.inset[first:]
    crops = [
        tuple(slice(start, start + edge) for start, edge in zip(inset, tile.owned.shape[first:], strict=True))
        for tile, _ in samples
    ]
    pixels = sum(tile.owned.size for tile, _ in samples)
    candidates: list[Record] = []
    wanted: list[NDArray[np.uint8]] = []
    seconds: dict[str, tuple[float, float]] = {}
    for precision in CANDIDATES:
        entry: Record = {"precision": precision, "taken": False}
        candidates.append(entry)
        predictor = Bench(plan.model_copy(update={"precision": precision})).predictor
        try:
            predictor.predict(small)
            began = perf_counter()
            predictor.predict(small)
            quick = perf_counter() - began
            if wanted and quick > seconds["float32"][0]:
                entry["reason"] = f"{quick / seconds['float32'][0]:.1f} times slower than float32 on a small window"
                continue
            began = perf_counter()
            classes = [
                predictor.predict(window).classes[crop] for (_, window), crop in zip(samples, crops, strict=True)
            ]
            seconds[precision] = quick, perf_counter() - began
        except (ModelError, RuntimeError) as error:
            if precision == "float32":
                raise
            # Such as a range that is too small, or an operation that the device does not have.
            entry["reason"] = " ".join(str(error).split())[:200]
            continue
        wanted = wanted or classes
        differing = sum(int(np.count_nonzero(one != other)) for one, other in zip(classes, wanted, strict=True))
        speed = seconds["float32"][1] / max(seconds[precision][1], 1e-9)
        entry |= {"speed": round(speed, 2), "differing": differing}
        entry["taken"] = _is_taken(precision, speed, differing, pixels, plan.precision_tolerance or 0.0)
    return {"tiles": [tile.index for tile, _ in samples], "pixels": pixels, "candidates": candidates}


def _is_taken(precision: str, speed: float, differing: int, pixels: int, tolerance: float) -> bool:
    """Say whether an arithmetic is fast enough, and its labels are those of float32 but for the tolerance."""
    return precision == "float32" or (speed >= WORTH and differing <= tolerance * pixels)


def _small_window(plan: RunPlan, window: NDArray[np.floating]) -> NDArray[np.floating]:
    """Cut the smallest window out of a tile's that gives at least 32 pixels, or 8 in three dimensions."""
    first, edge = 4 - plan.spatial_ndim, 32 if plan.spatial_ndim == 2 else 8
    core = tuple(min(-(-edge // step) * step, whole)
                 for step, whole in zip(plan.footprint.step[first:], plan.core[first:], strict=True))  # fmt: skip
    shape = plan.footprint.window_shape((1,) * first + core)[first:]
    small: NDArray[np.floating] = np.ascontiguousarray(window[(slice(None), *(slice(0, each) for each in shape))])
    return small
