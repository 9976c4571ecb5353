"""The tile by time: measures a network on this device where that pays, and plans anew with what was found.

A run that is gone on with keeps the tile that it began with, whatever has been measured meanwhile.
"""

from __future__ import annotations

import logging
from functools import partial
from math import prod
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bench import Bench
from pipeline.errors import ModelError
from pipeline.precision import decided, held_decision, noted_plans, settle_precision
from pipeline.rates import Measured, Rates, RatesKey, device_name, load_rates, save_rates
from pipeline.site import is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.config import RunConfig
    from pipeline.engine.executor import Executor
    from pipeline.planning import RunPlan

__all__ = ["is_settled", "known_rates", "measure_windows", "settle_plan"]

Record = dict[str, Any]

log = logging.getLogger(__name__)

SHARE = 0.01
"""A window is measured where its pass is at most so much of what a worker has to do: all of them are a twentieth."""

PASSES = 2
"""Of each window; the faster counts. Another one before all of them, of the largest, finds the memory for all."""

FEWEST_WINDOWS = 3
"""Fewer than these say nothing of which is best."""


def _key(plan: RunPlan) -> RatesKey:
    assert plan.tiling is not None  # plans that are made now have one
    return RatesKey(
        weights_sha256=plan.weights_sha256,
        use=f"{plan.use.model_dump_json()} {plan.factory}",
        precision=plan.precision,
        device=device_name(plan.device),
        workers=plan.tiling.workers,
        versions={name: plan.versions[name] for name in ("seamfree", "torch")},
    )


def _has_choice(plan: RunPlan, config: RunConfig) -> bool:
    """Say whether the tile is ours to choose."""
    return config.tile is None and plan.instances != "overlap"


def is_settled(plan: RunPlan, config: RunConfig) -> bool:
    """Say whether there is nothing for `settle_plan` to decide."""
    return not plan.precision_open and not _has_choice(plan, config)


def known_rates(plan: RunPlan, config: RunConfig) -> Rates | None:
    """Give what was measured before of a plan's network on this device; nothing is known of other machines."""
    if config.planner == "off" or not _has_choice(plan, config) or is_elsewhere(config):
        return None
    return load_rates(_key(plan))


def settle_plan(
    plan: RunPlan, config: RunConfig, remake: Callable[[dict[str, Any]], RunPlan], executor: Executor
) -> RunPlan:
    """Decide what is still open: in which precision the network runs, and on which tile.

    Parameters
    ----------
    plan : RunPlan
        The plan, of a result that is held against other runs.
    config : RunConfig
        The user's wishes.
    remake : callable
        Makes the plan anew, with some facts of its `Intent` changed.
    executor : Executor
        Where its jobs run, and so where it is measured.

    Returns
    -------
    RunPlan
        With all decisions in it; those of an unfinished run of the same plan, if there is one.
    """
    choice = _has_choice(plan, config)
    if choice and (kept := _kept(plan, remake)) is not None:
        return kept
    settled = settle_precision(plan, executor)
    if config.planner == "off" or not choice:
        return settled
    known = known_rates(settled, config)
    rates = _measured(settled, known, executor, always=config.planner == "measure")
    if rates is None:
        return settled
    if rates != known and not is_elsewhere(config):
        save_rates(_key(settled), rates)
    remade = remake({"rates": rates})
    if settled.precision_measured is None:
        return remade
    return decided(remade, settled.precision, settled.precision_measured)


def _kept(plan: RunPlan, remake: Callable[[dict[str, Any]], RunPlan]) -> RunPlan | None:
    """Give the plan with the tile of an earlier result, if that was left by a run of the same plan but for it."""
    for earlier in noted_plans(plan):
        facts = earlier.get("plan", {})
        core = facts.get("core")
        if not isinstance(core, list) or _chosen_by(earlier) not in ("memory", "arithmetic", "time"):
            continue
        again = plan if tuple(core) == plan.core else remake({"core": tuple(core[4 - plan.spatial_ndim :])})
        found = held_decision(again) if again.precision_open else again
        if found is not None and found.digest == earlier.get("digest"):
            return found
    return None


def _chosen_by(earlier: Record) -> str | None:
    """Say what decided the tile of an unfinished result, or of a finished one, which notes it beside its times."""
    held = earlier.get("plan", {}).get("tiling") or earlier.get("timings", {}).get("network", {}).get("tiling") or {}
    return held.get("by")


def _measured(plan: RunPlan, known: Rates | None, executor: Executor, *, always: bool) -> Rates | None:
    """Measure what is worth it, beside what is known."""
    tiling = plan.tiling
    assert tiling is not None
    share = min(each.tiles * each.window_flops for each in tiling.alternatives) / tiling.workers
    largest = known.largest if known is not None else 0
    wanted = [
        (each.window, each.window_flops)
        for each in tiling.alternatives
        if each.fits and prod(each.window) > largest and (always or PASSES * each.window_flops <= SHARE * share)
    ]
    if not wanted or (known is None and len(wanted) < FEWEST_WINDOWS and not always):
        return known
    job = partial(measure_windows, windows=[window for window, _ in wanted])
    try:
        records = [record for _, record in executor.map("calibrate", job, plan, range(tiling.workers))]
    except ModelError as error:
        log.info("%s: not measured: %s", plan.name, error)
        return known
    seconds = np.mean([record["seconds"] for record in records], axis=0)
    found = tuple(
        Measured(window=window, flops=flops, seconds=float(each))
        for (window, flops), each in zip(wanted, seconds, strict=True)
    )
    return Rates(measured=(*(known.measured if known is not None else ()), *found))


def measure_windows(plan: RunPlan, index: int, *, windows: Sequence[tuple[int, ...]]) -> Record:
    """Run the network on windows of noise, and give the seconds of each.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the worker, or nearly: each does the same at about the same time.
    windows : sequence of tuple of int
        Spatial shapes.

    Returns
    -------
    dict
        ``seconds`` of the faster pass, in the order of `windows`. On a CPU those that this thread computed, so that
        other programs do not count.
    """
    predictor = Bench(plan).predictor
    clock = thread_time if plan.device == "cpu" else perf_counter
    random = np.random.default_rng(index)
    seconds: dict[tuple[int, ...], float] = {}
    for window in sorted(windows, key=prod, reverse=True):
        noise = random.normal(0.3, 0.3, (len(plan.channels), *window))
        image = noise if plan.precision == "float64" else noise.astype(np.float32)
        passes = []
        for _ in range(PASSES if seconds else PASSES + 1):
            began = clock()
            predictor.predict(image)
            passes.append(clock() - began)
        seconds[window] = min(passes)
    return {"seconds": [seconds[window] for window in windows]}
