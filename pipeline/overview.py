"""What would be done: plans, and what they cost, without computing anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.checking import check_settings
from pipeline.errors import SeamfreeError
from pipeline.images.discover import discover
from pipeline.run import prepare
from pipeline.site import choose_site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import RunConfig
    from pipeline.planning import RunPlan

__all__ = ["Overview", "plan"]


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
        told = {
            "image": f"{dict(zip('TCZYX', plan.source.shape, strict=True))} {plan.source.dtype}",
            "tiles": f"{len(plan.tiles):,}, core {plan.core[spatial]}, window {plan.tiles.window_shape[spatial]}",
            "network": f"{plan.model}, {arithmetic} on {plan.device}",
            "memory": f"about {plan.window_bytes / 2**20:,.0f} MiB for a tile, in each worker",
            "disk": f"at most {plan.disk_bytes / 2**20:,.0f} MiB",
            "plan": plan.digest[:16],
        }
        return [self.input, *(f"  {name:<8}{text}" for name, text in told.items())]


def plan(
    inputs: Sequence[str | Path] | str | Path, config: RunConfig | None = None, output: str | Path = "."
) -> list[Overview]:
    """Plan the runs of images; computes nothing and writes nothing.

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
    from pipeline.config import RunConfig

    settings = config if config is not None else RunConfig()
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    check_settings(settings)
    site = choose_site(settings)
    found = []
    for image in discover([str(path) for path in given]):
        try:
            found.append(Overview(image.path, prepare(settings, image, Path(output), site.intent)))
        except SeamfreeError as error:
            found.append(Overview(image.path, None, str(error)))
    return found
