"""One object by itself, measured as it is among all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.measure.columns import measurements
from pipeline.measure.merging import merge
from pipeline.measure.sums import sum_core

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.geometry import Box
    from pipeline.measure.subject import Subject

__all__ = ["measure_object"]


def measure_object(
    number: int,
    labels: NDArray[np.uint32],
    box: Box,
    subject: Subject,
    channel: Callable[[int], NDArray[Any]],
    semantic: NDArray[np.uint8] | None = None,
) -> dict[str, Any] | None:
    """Measure one object in a box around it.

    Parameters
    ----------
    number : int
        Its label.
    labels, box, subject, channel, semantic
        As for `sum_core`, of the box.

    Returns
    -------
    dict of str to Any, or None
        Its row of the table: plain values by the names of columns. None where the box has no pixel of it.
    """
    alone = np.where(labels == number, labels, np.uint32(0))
    sums = sum_core(alone, box, subject, channel, semantic)
    if not sums.partials.size:
        return None
    row = {name: values[0].item() for name, values in measurements(merge([sums], subject), subject).items()}
    return row | {"class": subject.classes[row["class"]]}
