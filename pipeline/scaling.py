"""A card's rule for intensities, applied to statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.images.intensity import PixelStep, Scaling, make_scaling, wanted_percentiles
from pipeline.images.statistics import Counts, Search

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.images.statistics import Summary
    from pipeline.models.card import IntensityRule

__all__ = ["scale_by", "scale_by_own"]


def scale_by(rule: IntensityRule, summary: Summary, channel: int) -> Scaling:
    """Tell how intensities of one channel are scaled.

    Parameters
    ----------
    rule : IntensityRule
        What the model wants.
    summary : Summary
        Of the whole image, of this channel or, where the rule says so, of all that the model takes.
    channel : int
        Number of the channel among those that the model takes.
    """
    before, after = (
        tuple(PixelStep(step.kind, *step.numbers(channel)) for step in steps) for steps in (rule.before, rule.after)
    )
    return make_scaling(rule.method, summary, rule.eps, before, after)


def scale_by_own(rule: IntensityRule, channels: Sequence[NDArray[np.generic]]) -> list[Scaling]:
    """Tell how intensities of an image in memory are scaled, by its own statistics.

    Parameters
    ----------
    rule : IntensityRule
        What the model wants.
    channels : sequence of ndarray
        The channels that the model takes, of any shape and one data type in this machine's byte order.

    Returns
    -------
    list of Scaling
        One for each channel.
    """
    wanted = wanted_percentiles(rule.method, rule.low, rule.high)
    searches = [Search(channel.dtype.name, wanted) for channel in channels]
    while not all(search.finished for search in searches):
        counts = [search.count(channel) for search, channel in zip(searches, channels, strict=True)]
        if rule.together:
            counts = [sum(counts, Counts.none())] * len(counts)
        searches = [search.advance(each) for search, each in zip(searches, counts, strict=True)]
    return [scale_by(rule, search.summary(), number) for number, search in enumerate(searches)]
