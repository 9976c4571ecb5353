"""What the seam audit makes of all that was counted across the faces of cores, and half a core away from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.audit_face_jobs import profile_reach
from pipeline.labels.components import AXES, linked_axes
from pipeline.labels.seams import FaceCounts, chance_of

if TYPE_CHECKING:
    from pipeline.planning import RunPlan

__all__ = ["list_faults", "sum_up_faces", "worst_spots"]

Report = dict[str, Any]

SUSPICIOUS = 1e-6
"""What is less likely than this at seams is looked at again."""

SPOTS = 16
"""Places that are."""


def sum_up_faces(plan: RunPlan, records: list[dict[str, Any]]) -> Report:
    """Add up what was counted across faces, axis by axis."""
    table, profile = [], {}
    everywhere = {"seams": FaceCounts(), "halfway": FaceCounts()}
    for axis in linked_axes(plan.spatial_ndim):
        name = AXES[axis]
        for where in everywhere:
            counts = sum((FaceCounts(*record["counts"][f"{name} {where}"]) for record in records), FaceCounts())
            everywhere[where] += counts
            table.append({"axis": name, "where": where, **_rates(counts)})
        if plan.label_shape[axis] <= plan.core[axis]:
            continue
        facing, boundary = np.sum([record["profile"][name] for record in records], axis=0)
        reach = profile_reach(plan, axis)
        profile[name] = {
            "offset": list(range(1 - reach, reach)),
            "straight": [round(float(part), 4) for part in boundary / np.maximum(facing, 1)],
        }
    chance = chance_of(everywhere["seams"], everywhere["halfway"])
    return {
        "table": table,
        "profile": profile,
        "chance": chance,
        "suspicious": chance is not None and chance < SUSPICIOUS,
        "breaks": sum(record["breaks"] for record in records),
    }


def _rates(counts: FaceCounts) -> Report:
    """Give a row of the table: objects per 1000 pixels of plane, pixels of a section, and shares of what there is."""
    return {
        "pixels": counts.pixels,
        "objects": counts.sections,
        "density": round(1000 * counts.sections / max(2 * counts.pixels, 1), 4),
        "size": round(counts.covered / max(counts.sections, 1), 3),
        "straight": round(counts.boundary / max(counts.facing, 1), 6),
        "ending": round(counts.ends / max(counts.sections, 1), 6),
        "touching": counts.touching,
    }


def worst_spots(counted: list[dict[str, Any]]) -> list[list[int]]:
    """Give the places where the largest sections of objects end at seams."""
    places = sorted((spot for record in counted for spot in record["spots"]), key=lambda spot: -spot[0])
    return [spot[1:] for spot in places[:SPOTS]]


def list_faults(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give all faults that jobs have named."""
    return [fault for record in records for fault in [*record["faults"], *record.get("object_faults", ())]]
