"""Reading windows that reach beyond the image: what lies outside is mirrored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.geometry import Box, mirror_indices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["read_window"]


def read_window(
    read: Callable[[Box], NDArray[np.generic]],
    shape: Sequence[int],
    window: Box,
    channels: Sequence[int],
    together: int = 1,
) -> NDArray[np.generic]:
    """Read a window of one time point.

    Parameters
    ----------
    read : callable
        Gives a TCZYX region that lies inside the image.
    shape : sequence of int
        The image's shape, TCZYX.
    window : Box
        TZYX; one time point inside the image. The other axes may reach beyond it, any number of times its length.
    channels : sequence of int
        Which channels, in the wanted order. Those between them are not read.
    together : int, optional
        How many channels the image decodes at once. Those of one such group are read at once, too.

    Returns
    -------
    ndarray
        Channels, then ZYX of the window's shape. Outside the image it is mirrored without repeating the edge.
    """
    wanted = [
        np.asarray(mirror_indices(start, stop, length))
        for start, stop, length in zip(window.start[1:], window.stop[1:], shape[2:], strict=True)
    ]
    lows = [int(indices.min()) for indices in wanted]
    highs = [int(indices.max()) + 1 for indices in wanted]
    found: dict[int, NDArray[np.generic]] = {}
    for run in _runs(channels, together):
        first, last = run[0], run[-1] + 1
        block: NDArray[np.generic] = read(Box((window.start[0], first, *lows), (window.stop[0], last, *highs)))[0]
        if len(run) < last - first:
            block = block[[channel - first for channel in run]]
        for axis, (indices, low, high) in enumerate(zip(wanted, lows, highs, strict=True)):
            if indices.size != high - low or indices[0] != low or indices[-1] != high - 1:
                block = block.take(indices - low, axis=axis + 1)
        if tuple(run) == tuple(channels):
            return block
        found |= zip(run, block, strict=True)
    return np.stack([found[channel] for channel in channels])


def _runs(channels: Sequence[int], together: int) -> list[list[int]]:
    """Sort channels, and split them where one is neither the next one nor decoded with the one before."""
    runs: list[list[int]] = []
    for channel in sorted(set(channels)):
        if runs and (channel == runs[-1][-1] + 1 or channel // together == runs[-1][-1] // together):
            runs[-1].append(channel)
        else:
            runs.append([channel])
    return runs
