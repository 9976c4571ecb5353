"""Where memory is too short for a tile: the network sees its window piece by piece, and says the same of each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.geometry import ways_to_cut
from pipeline.piecewise import predict_pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.models.predictor import Prediction, Predictor
    from pipeline.planning import RunPlan

__all__ = ["predict_in_pieces"]


def predict_in_pieces(
    predictor: Predictor,
    plan: RunPlan,
    window: NDArray[np.floating],
    cuts: int,
    *,
    scores: bool,
    samples: Sequence[tuple[slice, ...]],
) -> Prediction:
    """Do what `Predictor.predict` does, with less memory: each piece of the core is computed from its own window.

    Each has all the context that it needs, so that what is said of a pixel is the same, to the bit where the library
    that computes convolutions takes the same kernel for both shapes.

    Parameters
    ----------
    predictor : Predictor
        The network.
    plan : RunPlan
        Whose core is cut.
    window : ndarray of float32 or float64
        Channels, then YX or ZYX: the window of a tile.
    cuts : int
        How often the core is halved; of `pipeline.geometry.ways_to_cut`.
    scores, samples
        As for `Predictor.predict`; samples lie in the core.

    Returns
    -------
    Prediction
        In the frame of the whole window's output; what is not of the core is 0.
    """
    predictor.release()
    pieces = ways_to_cut(plan.core, plan.footprint)[cuts - 1]
    return predict_pieces(predictor, plan, window, pieces, scores=scores, samples=samples)
