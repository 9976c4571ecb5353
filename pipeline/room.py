"""Whether a result has room on its disk, looked at before work starts."""

from __future__ import annotations

import shutil
from math import prod
from typing import TYPE_CHECKING

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.planning import RunPlan

__all__ = ["check_room", "expected_bytes"]

LABELS_SHRINK = 10
"""Label images shrink to a thirtieth and less; what stages note for one another and the table come on top."""


def expected_bytes(plan: RunPlan) -> int:
    """Give what a result and the notes for it take at most, but for labels like noise.

    Pixels of images and probabilities may hardly shrink, labels do.
    """
    pixels = prod(plan.source.shape) * plan.source.itemsize if plan.copy_image else 0
    if plan.probabilities != "none":
        pixels += plan.pixels * len(plan.classes) * {"float16": 2, "float32": 4, "float64": 8}[plan.probabilities]
    full = pixels * 4 // 3
    return full + max(0, plan.disk_bytes - full) // LABELS_SHRINK


def check_room(plan: RunPlan, folder: Path) -> None:
    """Refuse a plan whose result its disk has no room for; what an earlier run has left counts as there.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    folder : Path
        On the same disk.

    Raises
    ------
    StoreError
        If there is too little room: says how much is wanted.
    """
    wanted, free = expected_bytes(plan), shutil.disk_usage(folder).free
    if wanted > free and plan.partial.exists():
        wanted -= sum(path.stat().st_size for path in plan.partial.rglob("*") if path.is_file())
    if wanted > free:
        less = ", --no-image" if plan.copy_image else ""
        raise StoreError(
            f"{plan.output}: about {_mebibytes(wanted)} are wanted and {_mebibytes(free)} are free; make room, or use "
            f"another -o{less}"
        )


def _mebibytes(number: int) -> str:
    return f"{-(-number // 2**20):,} MiB"
