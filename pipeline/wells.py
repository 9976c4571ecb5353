"""What the objects of a plate are like, well by well: one row for each well, as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import StoreError
from pipeline.results import open_result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

__all__ = ["read_wells", "summarise_wells", "wells_path", "write_wells"]


def wells_path(output: Path, plate: str) -> Path:
    """Give the place of a plate's summary."""
    return output / f"{plate}.wells.csv"


def summarise_wells(wells: Mapping[tuple[str, str], Sequence[Path]]) -> pd.DataFrame:
    """Sum up the fields of each well.

    Parameters
    ----------
    wells : mapping of (str, str) to sequence of Path
        By row and column, the finished results of the fields.

    Returns
    -------
    pandas.DataFrame
        One row per well: ``well`` (row and column), ``row``, ``column``, ``fields``, ``objects``; where objects were
        measured, the medians of ``area`` and ``area_physical`` over all objects of the well with the latter's unit, and
        of ``intensity_mean-0`` and so on the mean over them. Only one well's objects are held at a time.

    Raises
    ------
    StoreError
        If a result cannot be read.
    """
    import pandas as pd

    rows = []
    for (row, column), paths in wells.items():
        results = [open_result(path) for path in paths]
        counts = [result.objects for result in results if result.objects is not None]
        entry: dict[str, object] = {"well": f"{row}{column}", "row": row, "column": column, "fields": len(paths)}
        entry["objects"] = sum(counts) if counts else None
        measured = [result for result in results if result.provenance["plan"]["table"]]
        if measured:
            units = measured[0].units
            wanted = [name for name in units if name in ("area", "area_physical")]
            means = [name for name in measured[0].columns if name.startswith("intensity_mean-")]
            table = pd.concat([result.read_table([*wanted, *means]) for result in measured])
            entry |= {f"{name}_median": table[name].median() for name in wanted}
            entry |= {"area_unit": units.get("area_physical")}
            entry |= {name: table[name].mean() for name in means}
        rows.append(entry)
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["well", "row", "column", "fields", "objects"])


def write_wells(path: Path, summary: pd.DataFrame) -> None:
    """Write a summary as CSV, whole or not at all.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    beside = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        summary.to_csv(beside, index=False)
        beside.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: the summary cannot be written ({error.strerror or error})") from error


def read_wells(paths: Iterable[Path]) -> list[tuple[Path, pd.DataFrame]]:
    """Read the summaries that are there; names of wells stay texts."""
    import pandas as pd

    texts = {"well": str, "row": str, "column": str}
    return [(path, pd.read_csv(path, dtype=texts)) for path in paths if path.is_file()]
