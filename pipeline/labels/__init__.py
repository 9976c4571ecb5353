"""Classes to objects: nothing here depends on how an image was cut into tiles."""

from pipeline.labels.components import CoreComponents, CoreSummary, label_core, linked_axes
from pipeline.labels.union import Numbering, relabel, unite

__all__ = [
    "CoreComponents",
    "CoreSummary",
    "Numbering",
    "label_core",
    "linked_axes",
    "relabel",
    "unite",
]
