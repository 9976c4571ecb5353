"""What the making of objects takes of a worker's memory at most: said before the run starts, from its plan alone."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.planning import RunPlan

__all__ = ["NUMBERING_BYTES", "OBJECT_PIXELS", "numbering_bytes", "parting_bytes"]

PARTING_BYTES = {2: 90, 3: 170}
"""Of each pixel of a component's bounding box, by number of spatial axes: as much as dense noise takes. A box that is
full takes 55 and 110."""

NUMBERING_BYTES = 64
"""Of each object and core that it lies in, in the one job that numbers them all."""

OBJECT_PIXELS = 16**2
"""Of an object and its surroundings: images are hardly ever fuller."""


def parting_bytes(plan: RunPlan) -> int | None:
    """Give what parting the largest component takes that is parted at all; None where none is."""
    if plan.instances != "watershed":
        return None
    whole = prod(plan.label_shape[4 - plan.spatial_ndim :])
    return PARTING_BYTES[plan.spatial_ndim] * min(plan.largest, whole)


def numbering_bytes(plan: RunPlan) -> int | None:
    """Give what numbering takes where there is an object in each 16 x 16 pixels; None where there are no objects."""
    if plan.instances == "none":
        return None
    return NUMBERING_BYTES * -(-plan.pixels // OBJECT_PIXELS)
