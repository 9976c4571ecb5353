"""How objects are measured, once they have their final numbers. Runs on workers, as `pipeline.jobs` does.

Each core is summed up, what cores know is merged by ranges of labels, and the ranges become one table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bench import bench_for
from pipeline.measure.columns import columns, measurements
from pipeline.measure.exact import PART
from pipeline.measure.merging import merge
from pipeline.measure.sums import EXTENT, CoreSums, sum_core
from pipeline.notes import load_arrays, save_array, save_arrays
from pipeline.stores.tables import write_table, write_table_group

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.planning import RunPlan

__all__ = ["measure_core", "measure_range", "note_ranges", "tabulate"]

Record = dict[str, Any]

RANGE = 2**15
"""Labels that are merged together, and rows in a row group: some tens of megabytes."""


def _note(plan: RunPlan, index: int, what: str) -> Path:
    return plan.work / "sums" / f"{index}.{what}.npy"


def _measured(plan: RunPlan, index: int) -> Path:
    return plan.work / "measured" / f"{index}.npz"


def measure_core(plan: RunPlan, index: int) -> Record:
    """Sum up what a core knows of the objects in it.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the tile in `plan.tiles`.
    """
    bench, subject = bench_for(plan), plan.subject
    owned = plan.tiles[index].owned
    together = 1 if plan.copy_image else plan.source.block[1]

    @lru_cache(maxsize=1)
    def channels(first: int) -> NDArray[np.generic]:
        """Read the channels that lie side by side."""
        return bench.read(plan.image_box(owned, (first, min(first + together, plan.source.shape[1]))))

    sums = sum_core(
        bench.array("labels/instances/0").read(owned),
        owned,
        subject,
        lambda channel: channels(channel // together * together)[:, channel % together],
        bench.array("labels/semantic/0").read(owned) if subject.counts_classes else None,
    )
    for what, rows in (("partials", sums.partials), ("extents", sums.extents), ("parts", sums.parts)):
        if rows.size:
            save_array(_note(plan, index, what), rows)
    ranges = np.unique((sums.partials["label"] - 1) // RANGE)
    return {"pixels": owned.size, "ranges": ranges.tolist()}


def note_ranges(plan: RunPlan, records: Iterable[Record]) -> int:
    """Note which cores know something of which range of labels, and give the number of ranges.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    records : iterable of dict
        What `measure_core` reported, of all cores in order.
    """
    pairs = np.fromiter(
        ((number, core) for core, record in enumerate(records) for number in record["ranges"]), np.dtype((np.int64, 2))
    )
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    save_array(plan.work / "ranges.npy", pairs.T)
    return int(pairs[-1, 0]) + 1 if len(pairs) else 0


def measure_range(plan: RunPlan, index: int) -> Record:
    """Merge what cores know of a range of labels, and measure these objects.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    index : int
        Of the range.
    """
    numbers, cores = bench_for(plan).noted("ranges")
    start, stop = np.searchsorted(numbers, [index, index + 1])
    found = [_known(plan, core, index) for core in cores[start:stop].tolist()]
    save_arrays(_measured(plan, index), measurements(merge(found, plan.subject), plan.subject))
    return {}


def _known(plan: RunPlan, core: int, number: int) -> CoreSums:
    """Read what a core knows of a range of labels."""
    limits = np.array([number * RANGE + 1, (number + 1) * RANGE + 1])
    partials = np.load(_note(plan, core, "partials"), mmap_mode="r", allow_pickle=False)
    mine = np.array(partials[slice(*np.searchsorted(partials["label"], limits))])
    extents, parts = np.zeros(0, EXTENT), np.zeros(0, PART)
    if plan.spatial_ndim == 2:
        rows = np.load(_note(plan, core, "extents"), mmap_mode="r", allow_pickle=False)
        last = mine[-1]
        extents = np.array(rows[mine["row"][0] : last["row"] + last["stop"][2] - last["start"][2]])
    if not plan.subject.sums_integers:
        everything = np.load(_note(plan, core, "parts"), mmap_mode="r", allow_pickle=False)
        parts = np.array(everything[slice(*np.searchsorted(everything["label"], limits))])
    return CoreSums(mine, extents, parts)


def tabulate(plan: RunPlan, _index: int = 0) -> Record:
    """Write the table of objects, range after range."""
    fields = columns(plan.subject)
    table = plan.work / "table.parquet"
    ranges = int(bench_for(plan).noted("ranges")[0].max(initial=-1)) + 1
    rows = write_table(table, fields, plan.classes, (load_arrays(_measured(plan, index)) for index in range(ranges)))
    write_table_group(plan.partial, fields, table, plan.ome_zarr)
    return {"rows": rows}
