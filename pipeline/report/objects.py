"""What the table of objects says, in one pass over it: sizes, classes, how many there are in each plane."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.stores.tables import open_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.planning import RunPlan
    from pipeline.remote.paths import AnyPath
    from pipeline.report.pixels import LabelPixels

__all__ = ["Objects", "class_areas", "histogram", "read_objects"]

ROWS = 2**16
"""Of the table that are held at a time."""

BINS = 36

MOST_LOOKED_AT = 2**25
"""Pixels of the labels that are counted to find the classes' areas."""


@dataclass
class Objects:
    """The facts of all objects.

    Parameters
    ----------
    sizes, numbers : ndarray of int64
        The sizes in pixels that occur, ascending, and how many objects have each.
    classes : Counter of str
        Objects by class.
    touching : int
        Objects at the image's edge.
    series : dict of str to Counter of int
        Objects by time point, ``"t"``, and by plane, ``"z"``, where the objects are told apart by these.
    """

    sizes: NDArray[np.int64]
    numbers: NDArray[np.int64]
    classes: Counter[str] = field(default_factory=Counter)
    touching: int = 0
    series: dict[str, Counter[int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.numbers.sum())

    def percentile(self, wanted: float) -> float:
        """Give the size below which a share of the objects lies: of two in the middle the mean."""
        ranks = self.numbers.cumsum()
        position = (self.count - 1) * wanted / 100
        low, high = (int(np.searchsorted(ranks, at, side="right")) for at in (int(position), int(-(-position // 1))))
        return float(self.sizes[low] + (self.sizes[high] - self.sizes[low]) * (position % 1))


def read_objects(result: AnyPath, plan: RunPlan) -> Objects:
    """Go through the table of objects, some rows at a time.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    sizes: Counter[int] = Counter()
    found = Objects(np.zeros(0, np.int64), np.zeros(0, np.int64))
    with open_table(result) as file:
        names = file.schema_arrow.names
        series = [name for name in ("t", "z")[: 4 - plan.spatial_ndim] if name in names]
        for batch in file.iter_batches(batch_size=ROWS, columns=["area", "class", "touches_border", *series]):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            for counter, name in ((sizes, "area"), *((found.series.setdefault(at, Counter()), at) for at in series)):
                values, numbers = np.unique(columns[name].to_numpy(), return_counts=True)
                counter.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
            for entry in columns["class"].value_counts().to_pylist():
                found.classes[entry["values"]] += entry["counts"]
            found.touching += int(np.count_nonzero(columns["touches_border"].to_numpy(zero_copy_only=False)))
    found.sizes = np.array(sorted(sizes), dtype=np.int64)
    found.numbers = np.array([sizes[size] for size in found.sizes.tolist()], dtype=np.int64)
    return found


def histogram(objects: Objects) -> tuple[list[int], list[int], int]:
    """Count objects by size, in steps of whole pixels, up to a size that hardly any exceeds.

    Returns
    -------
    edges, counts : list of int
        In pixels; one edge more than counts.
    larger : int
        How many objects are larger than the last edge.
    """
    top, largest = int(objects.percentile(99.5)), int(objects.sizes[-1])
    # A few that are hardly larger are drawn, too.
    top = largest if largest <= 2 * top or objects.count < 200 else top
    step = max(1, -(-(top + 1) // BINS))
    edges = np.arange(0, top + step + 1, step)
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    inside = objects.sizes < edges[-1]
    np.add.at(counts, objects.sizes[inside] // step, objects.numbers[inside])
    return edges.tolist(), counts.tolist(), int(objects.numbers[~inside].sum())


def class_areas(labels: LabelPixels, classes: int) -> tuple[list[int], int]:
    """Count the pixels of each class: of all, or at a coarser level, or of some planes.

    Parameters
    ----------
    labels : LabelPixels
        The semantic ones.
    classes : int
        Number of classes.

    Returns
    -------
    counts : list of int
        By class.
    left_out : int
        How many pixels there are for each one that is counted, 1 for all.
    """
    times, planes = labels.planes
    sizes = [level.shape[2] * level.shape[3] for level in labels.levels]
    level = next((at for at, size in enumerate(sizes) if size * times * planes <= MOST_LOOKED_AT), len(sizes) - 1)
    most = max(1, MOST_LOOKED_AT // sizes[level])
    counts = np.zeros(classes, dtype=np.int64)
    stride = -(-times * planes // most)
    for at in range(stride // 2, times * planes, stride):
        found = labels.strips(*divmod(at, planes), level)
        for strip in found:
            counts += np.bincount(strip.ravel(), minlength=classes)[:classes]
    return counts.tolist(), round(sizes[0] * times * planes / max(int(counts.sum()), 1))
