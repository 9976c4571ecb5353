"""A window piece by piece: each piece of its core is computed from a window of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.geometry import Box, window_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.models.predictor import Prediction, Predictor
    from pipeline.planning import RunPlan

__all__ = ["predict_pieces"]


def predict_pieces(
    predictor: Predictor,
    plan: RunPlan,
    window: NDArray[np.floating],
    pieces: Sequence[Box],
    *,
    scores: bool,
    samples: Sequence[tuple[slice, ...]],
    elsewhere: Prediction | None = None,
) -> Prediction:
    """Run the network on pieces of a core.

    Each has all the context that it needs, so that the same is said of a pixel as in the whole window: to the bit where
    the library that computes convolutions takes the same kernel for both shapes.

    Parameters
    ----------
    predictor : Predictor
        The network.
    plan : RunPlan
        Whose core it is.
    window : ndarray of float32 or float64
        Channels, then YX or ZYX: the window of a tile.
    pieces : sequence of Box
        In the frame of the core, as `pipeline.geometry.window_in` takes them.
    scores, samples
        As for `Predictor.predict`; samples lie in the core.
    elsewhere : Prediction, optional
        What is said of the pixels outside of the pieces, as of the whole window, with the same scores and samples; it
        is written into. Without it that is 0.

    Returns
    -------
    Prediction
        In the frame of the whole window's output.
    """
    # Loads torch, which the process that hands out tiles does without.
    from pipeline.models.predictor import Prediction

    footprint, free = plan.footprint, 4 - plan.spatial_ndim
    leading = (slice(0, 1),) * free
    boxes = [Box(tuple(part.start for part in whole), tuple(part.stop for part in whole))
             for whole in ((*leading, *sample) for sample in samples)]  # fmt: skip
    if elsewhere is None:
        shape = footprint.output_shape(footprint.window_shape(plan.core))[free:]
        dtype = np.float64 if plan.precision == "float64" else np.float32
        elsewhere = Prediction(
            np.zeros(shape, dtype=np.uint8),
            np.zeros((len(plan.classes), *shape), dtype=dtype) if scores else None,
            [np.zeros((len(plan.classes), *box.shape[free:]), dtype=dtype) for box in boxes],
        )
    classes, whole, parts = elsewhere.classes, elsewhere.scores, elsewhere.samples
    for piece in pieces:
        outer = piece.shift(footprint.inset)
        inner = outer.relative_to(piece.start)
        shared = [(number, box.intersect(outer)) for number, box in enumerate(boxes)]
        shared = [(number, box) for number, box in shared if box.size]
        found = predictor.predict(
            np.ascontiguousarray(window[(slice(None), *window_in(piece, footprint).slices[free:])]),
            scores=scores,
            samples=[box.relative_to(piece.start).slices[free:] for _, box in shared],
        )
        classes[outer.slices[free:]] = found.classes[inner.slices[free:]]
        if whole is not None and found.scores is not None:
            whole[(slice(None), *outer.slices[free:])] = found.scores[(slice(None), *inner.slices[free:])]
        for (number, box), sample in zip(shared, found.samples, strict=True):
            parts[number][(slice(None), *box.relative_to(boxes[number].start).slices[free:])] = sample
    return Prediction(classes, whole, parts)
