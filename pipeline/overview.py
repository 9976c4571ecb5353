"""What would be done: plans, and what they cost, without computing anything."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.calibration import settle_plan
from pipeline.checking import check_settings, find_images
from pipeline.engine.cluster import connect, open_cluster
from pipeline.errors import SeamfreeError
from pipeline.memory import NUMBERING_BYTES, OBJECT_PIXELS, numbering_bytes, parting_bytes
from pipeline.room import disk_bytes
from pipeline.run import prepare, prepare_anew
from pipeline.site import choose_site, is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import RunConfig
    from pipeline.planning import RunPlan

__all__ = ["Overview", "plan"]


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Overview:
    """What one image's run would be.

    Parameters
    ----------
    input : str
        The image's path.
    plan : RunPlan, optional
        All decisions; None where the image cannot be run.
    reason : str, optional
        Why it cannot be run.
    """

    input: str
    plan: RunPlan | None
    reason: str | None = None

    def lines(self) -> list[str]:
        """Tell the essence of it."""
        if self.plan is None:
            return [self.input, f"  cannot be run: {self.reason}"]
        plan = self.plan
        spatial = slice(4 - plan.spatial_ndim, None)
        arithmetic = "a precision to be measured" if plan.precision_open else plan.precision
        tiling = plan.tiling
        told = {
            "image": f"{dict(zip('TCZYX', plan.source.shape, strict=True))} {plan.source.dtype}",
            "tiles": f"{len(plan.tiles):,}, core {plan.core[spatial]}, window {plan.tiles.window_shape[spatial]}",
            "network": f"{plan.model}, {arithmetic} on {plan.device}",
            "memory": f"about {plan.window_bytes / 2**20:,.0f} MiB for a tile, in each worker",
            **self._objects(),
            "disk": f"at most {disk_bytes(plan) / 2**20:,.0f} MiB",
            "time": "not measured on this device; --planner measure does it"
            if tiling is None or tiling.seconds is None
            else f"about {tiling.seconds:,.1f} s for the network, by {tiling.workers} workers",
            "plan": plan.digest[:16],
        }
        return [self.input, *(f"  {name:<8}{text}" for name, text in told.items()), *self._alternatives()]

    def _objects(self) -> dict[str, str]:
        """Tell what objects take of a worker's memory, beside a tile."""
        plan = self.plan
        told: dict[str, str] = {}
        if plan is None:
            return told
        if (parting := parting_bytes(plan)) is not None:
            told["parting"] = (
                f"up to {parting / 2**20:,.0f} MiB, in a worker, for objects that touch, in a box of at most "
                f"{plan.largest:,} pixels"
            )
        if (numbering := numbering_bytes(plan)) is not None:
            told["numbers"] = (
                f"{NUMBERING_BYTES} bytes for each object, in one worker: {numbering / 2**20:,.0f} MiB if there is one "
                f"in each {OBJECT_PIXELS} pixels"
            )
        return told

    def _alternatives(self) -> list[str]:
        """Tell which tiles there were to choose from, and what each would cost."""
        plan = self.plan
        if plan is None or plan.tiling is None or len(plan.tiling.alternatives) < 2 or plan.instances == "overlap":
            return []
        reasons = {"wish": "as you wish", "memory": "the largest known to do well",
                   "arithmetic": "needs the least arithmetic", "time": "takes the least time"}  # fmt: skip
        lines = [f"  tile chosen: {reasons[plan.tiling.by]}; kFLOP per pixel, memory and time of each:"]
        for each in plan.tiling.alternatives:
            mark = "*" if each.core == plan.core[4 - plan.spatial_ndim :] else " "
            seconds = "" if each.seconds is None else f"  {each.seconds:9,.1f} s"
            edges = " x ".join(map(str, each.core))
            work = each.tiles * each.window_flops / plan.pixels / 1000
            short = "" if each.fits else "  too much memory"
            lines.append(f"  {mark} {edges:<17}{work:8,.0f}{each.window_bytes / 2**20:9,.0f} MiB{seconds}{short}")
        return lines


def plan(
    inputs: Sequence[str | Path] | str | Path, config: RunConfig | None = None, output: str | Path = "."
) -> list[Overview]:
    """Plan the runs of images; computes nothing and writes nothing, unless the planner is told to measure.

    Parameters
    ----------
    inputs : str, Path or sequence of them
        Images, folders, globs.
    config : RunConfig, optional
        Settings; the defaults where absent.
    output : str or Path
        Folder under which results would go.

    Returns
    -------
    list of Overview

    Raises
    ------
    ConfigError, ModelError
        If no work could start at all.
    """
    from pipeline.config import ExecutionConfig, RunConfig

    settings = config if config is not None else RunConfig()
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    check_settings(settings)
    if is_elsewhere(settings):
        log.warning("planned for this machine: the workers of a cluster are asked when a run begins")
        settings = settings.model_copy(update={"execution": ExecutionConfig()})
    site = choose_site(settings)
    found = []
    with ExitStack() as stack:
        executor = None
        if settings.planner == "measure":
            executor = stack.enter_context(connect(stack.enter_context(open_cluster(site.cluster))))
        for image in find_images(settings, [str(path) for path in given]):
            try:
                decided = prepare(settings, image, Path(output), site.intent)
                if executor is not None:
                    remake = partial(prepare_anew, settings, image, Path(output), site.intent)
                    decided = settle_plan(decided, settings, remake, executor)
                found.append(Overview(image.path, decided))
            except SeamfreeError as error:
                found.append(Overview(image.path, None, str(error)))
    return found
