"""Whether a result has room on its disk, looked at before work starts."""

from __future__ import annotations

import logging
import shutil
from math import prod
from pathlib import Path
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING

from pipeline.errors import StoreError
from pipeline.stores.publish import PROVENANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.images.discover import InputImage
    from pipeline.planning import RunPlan

__all__ = ["check_room", "disk_bytes", "expected_bytes", "survey_room"]

log = logging.getLogger(__name__)

SURVEY_SECONDS = 2.0
"""For so long images are looked at before work starts, to find out what all of them want."""

_BYTES = {"float16": 2, "float32": 4, "float64": 8}
"""Of a probability."""

LABELS_SHRINK = 10
"""Label images shrink to a thirtieth and less; what stages note for one another and the table come on top."""


def disk_bytes(plan: RunPlan) -> int:
    """Give an upper bound of what a result takes uncompressed, pyramids included."""
    per_pixel = 1.0 + (4.0 if plan.instances != "none" else 0.0)
    if plan.probabilities != "none":
        per_pixel += len(plan.classes) * _BYTES[plan.probabilities]
    if plan.table:
        # A row of some 8 byte columns for every 16 x 16 pixels; objects are hardly ever smaller.
        per_pixel += (24 + 4 * plan.source.shape[1]) * 8 / 16**2
    image = prod(plan.source.shape) * plan.source.itemsize if plan.copy_image else 0
    return int(plan.pixels * per_pixel * 4 / 3 + image * 4 / 3)


def expected_bytes(plan: RunPlan) -> int:
    """Give what a result and the notes for it take at most, but for labels like noise.

    Pixels of images and probabilities may hardly shrink, labels do.
    """
    pixels = prod(plan.source.shape) * plan.source.itemsize if plan.copy_image else 0
    if plan.probabilities != "none":
        pixels += plan.pixels * len(plan.classes) * _BYTES[plan.probabilities]
    full = pixels * 4 // 3
    return full + max(0, disk_bytes(plan) - full) // LABELS_SHRINK


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
        wanted -= _taken(plan)
    if wanted > free:
        less = ", --no-image" if plan.copy_image else ""
        raise StoreError(
            f"{plan.output}: about {_mebibytes(wanted)} are wanted and {_mebibytes(free)} are free; make room, or use "
            f"another -o{less}"
        )


def survey_room(
    images: Sequence[InputImage], planned: Callable[[InputImage], RunPlan], output: Path, *, fresh: bool
) -> None:
    """Tell, before work starts, that a disk has no room for the results of all images together.

    It is told and not refused: what is expected is an upper bound, and each image is looked at again when it has its
    turn. Finished results are left alone, and count for nothing; what unfinished ones have counts as there.

    Parameters
    ----------
    images : sequence of InputImage
        All inputs. Where it takes long to look at them all, those that are looked at, drawn at random, stand for all.
    planned : callable
        Plans the run of an image. Whatever hinders that is told when the image has its turn.
    output : Path
        Folder of the results.
    fresh : bool
        Whether finished results are made again.
    """
    if len(images) < 2:
        return
    wanted, looked, copies, until = 0, 0, False, perf_counter() + SURVEY_SECONDS
    for image in Random(0).sample(images, len(images)):
        looked += 1
        try:
            plan = planned(image)
            finished = not fresh and (Path(plan.output) / PROVENANCE).exists()
            wanted += 0 if finished else max(0, expected_bytes(plan) - _taken(plan))
        except Exception:  # noqa: BLE001 (this is about the others)
            continue
        copies |= plan.copy_image
        if perf_counter() > until:
            break
    wanted, free = wanted * len(images) // looked, shutil.disk_usage(output).free
    if wanted > free:
        log.warning(
            "%s: the results of %d images want about %s together, and %s are free; those that find no room will fail, "
            "and can be run again when there is some: make room, or use another -o%s",
            output, len(images), _mebibytes(wanted), _mebibytes(free), ", --no-image" if copies else "",
        )  # fmt: skip


def _taken(plan: RunPlan) -> int:
    """Give what an unfinished result has already."""
    return sum(path.stat().st_size for path in plan.partial.rglob("*") if path.is_file())


def _mebibytes(number: int) -> str:
    return f"{-(-number // 2**20):,} MiB"
