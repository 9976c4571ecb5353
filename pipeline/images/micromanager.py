"""Stacks of Micro-Manager: TIFF files with an index of their own, one file after the other, for each position."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.remote.paths import AnyPath

__all__ = ["continues_a_stack", "note_what_is_missing", "series_of"]

_PLANNED = ("Frames", "Slices", "Channels", "Positions")
_POSITION = 3
"""Where the index has it, behind channel, slice and frame."""


_CONTINUED = re.compile(r"(.*_MMStack.*)_\d+(\.ome\.tiff?)")
"""The second file of a stack is called as the first, and ``_1``."""


def continues_a_stack(path: Path) -> bool:
    """Say whether a file holds but the later planes of a stack, of which the first file lies beside it."""
    named = _CONTINUED.fullmatch(path.name)
    return named is not None and path.with_name(named[1] + named[2]).is_file()


def series_of(file: tifffile.TiffFile) -> Sequence[Any]:
    """Give the images of a TIFF file as tifffile finds them; of a stack of Micro-Manager, the positions in this file.

    tifffile puts all positions of an acquisition into one image, whichever of its files is opened.
    """
    found = file.series
    if not found or found[0].kind != "mmstack":
        return found
    whole = found[0]
    axes, shape = whole.get_axes(squeeze=False), whole.get_shape(squeeze=False)
    at = axes.index("R")
    if shape[at] == 1:
        return found
    frames = np.empty(len(whole.pages), dtype=object)
    frames[:] = list(whole.pages)
    frames = frames.reshape(shape[: len(axes) - len(whole.keyframe.axes)])
    own = np.unique(_metadata(file)["IndexMap"][:, _POSITION])
    if len(own) == frames.shape[at] and not whole.is_multifile:
        own -= own.min()  # tifffile counts from the first that is there
    return [
        tifffile.TiffPageSeries(
            list(frames.take(int(position), axis=at).flat), shape=shape[:at] + shape[at + 1 :], dtype=whole.dtype,
            axes=axes[:at] + axes[at + 1 :], parent=file, kind="mmstack", multifile=whole.is_multifile,
        )
        for position in own
    ]  # fmt: skip


def note_what_is_missing(path: AnyPath, file: tifffile.TiffFile) -> list[str]:
    """Say how many planes of an acquisition are not there: it was ended early, or files were left behind."""
    summary = _metadata(file)["Summary"]
    planned = prod(max(1, int(summary.get(name, 1))) for name in _PLANNED)
    held = sum(page is not None and page.dataoffsets[0] > 0 for page in file.series[0].pages)
    if held >= planned:
        return []
    return [
        f"{path}: Micro-Manager was to take {planned} planes, and {held} are there; the others were not taken, or lie "
        "in files that are not beside this one"
    ]


def _metadata(file: tifffile.TiffFile) -> dict[str, Any]:
    return file.micromanager_metadata or {}
