"""Windows part of which is ground of one value: the network computes what varies, and the ground is known."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.geometry import SHORTEST_PIECE, Box, round_up, window_in
from pipeline.models import constants
from pipeline.models.architecture import UNetConfig
from pipeline.piecewise import predict_pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.models.predictor import Prediction, Predictor
    from pipeline.planning import RunPlan

__all__ = ["Varying", "find_varying", "predict_varying"]

WORTH = 0.8
"""A window is computed in part where that part is at most so much of it."""

PARTS = 8
"""Edges of a part are eighths of the core's: of few shapes, the library of convolutions keeps its code."""


class Varying(NamedTuple):
    """What of a core the network has to compute."""

    piece: Box
    """In the frame of the core."""
    value: NDArray[np.floating]
    """Of each channel, in all that the rest of the core sees."""
    spared: float
    """Share of the window's pixels that are left out."""


def find_varying(window: NDArray[np.floating], plan: RunPlan) -> Varying | None:
    """Find the part of a core beside which the network sees one value.

    Only for seamfree's own networks on a CPU: there parts of a window gave the labels of the whole in all trials, and
    its scores to the bit or to the last digits, as two tile sizes do. Not in float64, for those who want more.

    Parameters
    ----------
    window : ndarray of float32 or float64
        Channels, then YX or ZYX: the window of a tile.
    plan : RunPlan
        The plan.

    Returns
    -------
    Varying or None
        None where that is not worth it, or not possible.
    """
    own = isinstance(plan.network, UNetConfig) and plan.rescaling is None and plan.stitching is None
    if not own or plan.use.tta or plan.device != "cpu" or plan.coarse or plan.precision == "float64":
        return None
    # What is said of the ground is held beside what is said of the rest.
    if len(plan.classes) * prod(window.shape[1:]) * 4 > constants.MOST_BYTES:
        return None
    ground = constants.ground_of(window)
    if ground is None:
        return None
    footprint, free = plan.footprint, 4 - plan.spatial_ndim
    start, stop = [0] * free, list(plan.core[:free])
    for axis in range(free, 4):
        edge, context, step = plan.core[axis], footprint.context[axis], footprint.step[axis]
        grain = max(round_up(-(-edge // PARTS), step), step)
        first, last = ground.start[axis - free], ground.stop[axis - free]
        # A block of pixels, a step long, sees its context on both sides, and what a legal size has beyond that.
        low = max(0, (first - 2 * context - 2 * step) // grain * grain)
        high = min(edge, round_up(last, grain))
        shortest = min(edge, round_up(SHORTEST_PIECE[plan.spatial_ndim], step))
        if high - low < shortest:
            low = max(0, min(low, edge - shortest))
            high = min(edge, low + shortest)
        start.append(low)
        stop.append(high)
    piece = Box(tuple(start), tuple(stop))
    whole, part = Box.whole(footprint.window_shape(plan.core)), window_in(piece, footprint)
    spared = 1 - prod(part.shape) / prod(whole.shape)
    if 1 - spared > WORTH or not whole.contains(part):
        return None
    return Varying(piece, ground.value, spared)


def predict_varying(
    predictor: Predictor,
    plan: RunPlan,
    window: NDArray[np.floating],
    varying: Varying,
    *,
    scores: bool,
    samples: Sequence[tuple[slice, ...]],
) -> Prediction:
    """Do what `Predictor.predict` does, and compute only what varies.

    Parameters
    ----------
    predictor : Predictor
        The network.
    plan : RunPlan
        The plan.
    window : ndarray of float32 or float64
        Channels, then YX or ZYX: the window of a tile.
    varying : Varying
        What `find_varying` has found in it.
    scores, samples
        As for `Predictor.predict`; samples lie in the core.

    Returns
    -------
    Prediction
        In the frame of the whole window's output, of which what is not of the core is as for the ground.
    """
    value = varying.value.reshape(-1, *[1] * plan.spatial_ndim)
    ground = np.ascontiguousarray(np.broadcast_to(value, window.shape))
    known = predictor.predict(ground, scores=scores, samples=samples, reuse=True)
    return predict_pieces(
        predictor, plan, window, [varying.piece], scores=scores, samples=samples, elsewhere=known
    )  # fmt: skip
