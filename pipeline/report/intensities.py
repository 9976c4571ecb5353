"""How bright the image is, and what of that range the network was given as 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipeline.planning import RunPlan
    from pipeline.report.pixels import ImagePixels

__all__ = ["Intensities", "look_at"]

BINS = 64

MOST_LOOKED_AT = 2**24
"""Pixels of each channel."""

PLANES = 8
"""Planes of a series that are looked at."""


@dataclass(frozen=True)
class Intensities:
    """A histogram of a channel.

    Parameters
    ----------
    channel : int
        Of the image.
    edges, counts : list
        Intensities, one more than counts; pixels.
    darker, brighter : int
        Pixels beyond the edges.
    looked_at : int
        Pixels that were counted.
    """

    channel: int
    edges: list[float]
    counts: list[int]
    darker: int
    brighter: int
    looked_at: int


def look_at(pixels: ImagePixels, plan: RunPlan, intensity: list[dict[str, Any]], channel: int) -> Intensities | None:
    """Count a channel's intensities around those that the statistics of the whole image name.

    Parameters
    ----------
    pixels : ImagePixels
        The image.
    plan : RunPlan
        The result's.
    intensity : list of dict
        What the provenance says.
    channel : int
        Of the image.

    Returns
    -------
    Intensities or None
        None where no pixel is a finite number.
    """
    times, _, planes, *_ = plan.source.shape
    total = times * planes
    chosen = list(range(total)) if total <= PLANES else [int((at + 0.5) * total / PLANES) for at in range(PLANES)]
    found = [pixels.samples(*divmod(at, planes), channel, MOST_LOOKED_AT // len(chosen)) for at in chosen]
    values = np.concatenate(found)
    values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not values.size:
        return None
    named = [value for entry in intensity if entry["channel"] == channel for value in entry["percentiles"].values()]
    low, high = float(min(named)), float(max(named))
    low, high = max(low - 0.1 * (high - low), float(values.min())), min(high + 0.25 * (high - low), float(values.max()))
    if plan.source.dtype[0] in "ui" and high < 2**52:
        # Whole steps, or some bars would stand for more numbers than others.
        step = max(1, -(-int(high - low + 1) // BINS))
        edges = np.floor(low) + step * np.arange(int(high - low) // step + 2) - 0.5
    else:
        edges = np.linspace(low, max(high, np.nextafter(low, np.inf)), BINS + 1)
    counts, _ = np.histogram(values, edges)
    return Intensities(
        channel, [float(edge) for edge in edges], counts.tolist(), int(np.count_nonzero(values < edges[0])),
        int(np.count_nonzero(values > edges[-1])), int(values.size),
    )  # fmt: skip
