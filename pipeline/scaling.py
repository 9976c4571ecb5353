"""A card's rule for intensities, applied to statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.images.intensity import PixelStep, Scaling, make_scaling

if TYPE_CHECKING:
    from pipeline.images.statistics import Summary
    from pipeline.models.card import IntensityRule

__all__ = ["scale_by"]


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
