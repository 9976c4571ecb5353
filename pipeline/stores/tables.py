"""The table of objects: one Parquet file in a group that ngio and Fractal read as a feature table.

Arrow is imported when a table is at hand: a driver that never touches one is 50 MiB smaller.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.errors import StoreError
from pipeline.stores.metadata import group_of
from pipeline.stores.written import note_written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from pipeline.remote.paths import AnyPath
    from pipeline.stores.metadata import Version

__all__ = [
    "TABLE",
    "Field",
    "find_row",
    "first_rows",
    "first_values",
    "odd_columns",
    "open_table",
    "read_table",
    "stream_columns",
    "write_table",
    "write_table_group",
]

TABLE = "tables/instances"
"""Group of the table of objects, below the result's folder."""

FILE = "table.parquet"


class Field(Protocol):
    """What is said of a column."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def dtype(self) -> str:
        """NumPy's name, or ``"string"`` for what is given as numbers of names."""
        ...

    @property
    def kind(self) -> str:
        """``"index"``, ``"metadata"``, ``"categorical"`` or ``"measurement"``."""
        ...

    @property
    def unit(self) -> str | None:
        """None for plain numbers."""
        ...


def _schema(fields: Sequence[Field]) -> pa.Schema:
    """Give the columns' types; each field says its unit, where it has one."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(
                field.name,
                pa.string() if field.dtype == "string" else pa.from_numpy_dtype(np.dtype(field.dtype)),
                nullable=False,
                metadata={"unit": field.unit} if field.unit else None,
            )
            for field in fields
        ]
    )


def _as_arrow(values: NDArray[Any]) -> pa.Array:
    """Give numbers or booleans as Arrow has them.

    As `pyarrow.array` does, which loads pandas to ask whether values are of its kind: a fifth of a second, and 50 MiB.
    """
    import pyarrow as pa

    plain = np.ascontiguousarray(values)
    held = np.packbits(plain, bitorder="little") if plain.dtype == np.bool_ else plain
    return pa.Array.from_buffers(pa.from_numpy_dtype(plain.dtype), plain.size, [None, pa.py_buffer(held)])


def _as_strings(values: Sequence[str]) -> pa.Array:
    """Give strings as Arrow has them, likewise."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def write_table(
    path: Path, fields: Sequence[Field], names: Sequence[str], pieces: Iterable[dict[str, NDArray[Any]]]
) -> int:
    """Write a table, one row group for each piece.

    Parameters
    ----------
    path : Path
        The file; what a killed process has left there is overwritten.
    fields : sequence of Field
        The columns, in order.
    names : sequence of str
        What the numbers in columns of strings stand for.
    pieces : iterable of dict of str to ndarray
        The columns of some rows each; only one piece is held at a time.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(fields)
    known, kinds = _as_strings(names), {field.name: field.dtype for field in fields}
    rows = 0
    try:
        # Arrow takes no name that is not UTF-8, but an open file.
        with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd", compression_level=1) as writer:
            for piece in pieces:
                held = {field.name: _as_arrow(piece[field.name]) for field in fields}
                arrays = [known.take(held[name]) if kind == "string" else held[name] for name, kind in kinds.items()]
                table = pa.Table.from_arrays(arrays, schema=schema)
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                rows += table.num_rows
    except OSError as error:
        raise StoreError(f"{path}: the table cannot be written ({error.strerror or error})") from error
    return rows


def write_table_group(result: Path, fields: Sequence[Field], table: Path, version: Version = "0.5") -> None:
    """Describe the table of objects as a feature table, and move its file into its group.

    Parameters
    ----------
    result : Path
        The result's folder.
    fields : sequence of Field
        The columns, in order.
    table : Path
        The file, on the same disk.
    version : {"0.5", "0.4"}
        Of OME-Zarr.

    Raises
    ------
    StoreError
        If the disk refuses.

    Notes
    -----
    The layout is that of https://biovisioncenter.github.io/ngio, feature tables with the Parquet backend.
    """
    tables, name = TABLE.split("/")
    attributes: dict[str, Any] = {
        "type": "feature_table",
        "table_version": "1",
        "region": {"path": "../labels/instances"},
        "backend": "parquet",
        "index_key": "label",
        "index_type": "int",
        "instance_key": "label",
        **{
            f"{kind}_columns": [field.name for field in fields if field.kind == kind]
            for kind in ("categorical", "measurement", "metadata")
        },
        "units": {field.name: field.unit for field in fields if field.unit},
    }
    try:
        group_of(result / tables, version).attrs.put({"tables": [name]})
        group_of(result / TABLE, version).attrs.put(attributes)
        if table.exists():
            table.replace(result / TABLE / FILE)
    except OSError as error:
        raise StoreError(f"{result / TABLE}: the table cannot be written ({error.strerror or error})") from error
    metadata = (".zgroup", ".zattrs") if version == "0.4" else ("zarr.json",)
    note_written(*(result / group / name for group in (tables, TABLE) for name in metadata), result / TABLE / FILE)


@contextmanager
def open_table(result: AnyPath) -> Iterator[pq.ParquetFile]:
    """Open the table of objects for reading.

    Raises
    ------
    StoreError
        If there is none, or it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = result / TABLE / FILE
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise StoreError(f"{result}: this result has no table of objects (no {TABLE}/{FILE} in it)") from error
    except OSError as error:
        raise StoreError(f"{path}: the table cannot be read ({error.strerror or error})") from error
    with file:
        try:
            yield pq.ParquetFile(file, read_dictionary=["class"])
        except (pa.ArrowException, OSError) as error:
            # Of pages that are cut off Arrow says what it says of a disk.
            raise StoreError(f"{path}: the table cannot be read ({' '.join(str(error).split())})") from error


def read_table(result: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of the table of objects, all where none are named.

    Raises
    ------
    StoreError
        If there is no table, it cannot be read, or it has no such column.
    """
    with open_table(result) as file:
        known = file.schema_arrow.names
        for name in columns or ():
            if name not in known:
                raise StoreError(f"{result}: the table has no column {name!r}; it has {', '.join(known)}")
        return file.read(None if columns is None else list(columns))


def find_row(result: AnyPath, label: int) -> dict[str, Any] | None:
    """Read the row of one object; only the part of the file in which it lies.

    Returns
    -------
    dict of str to Any, or None
        Values by the names of columns; None where there is no such object.

    Raises
    ------
    StoreError
        If there is no table, or it cannot be read.
    """
    import pyarrow.compute as pc

    with open_table(result) as file:
        at = file.schema_arrow.names.index("label")
        for number in range(file.metadata.num_row_groups):
            bounds = file.metadata.row_group(number).column(at).statistics
            if bounds is not None and bounds.has_min_max and not bounds.min <= label <= bounds.max:
                continue
            rows = file.read_row_group(number)
            found = rows.filter(pc.equal(rows["label"], label)).to_pylist()
            if found:
                return dict(found[0])
    return None


def first_rows(result: AnyPath, column: str, count: int, *, largest: bool) -> list[dict[str, Any]]:
    """Read labels and values of a column of the objects in which it is largest, or smallest.

    Parameters
    ----------
    result : Path
        The result's folder.
    column : str
        Name of a column.
    count : int
        How many, at most.
    largest : bool
        Or else the smallest.

    Raises
    ------
    StoreError
        If there is no table, it cannot be read, or it has no such column.
    """
    import pyarrow.compute as pc

    table = read_table(result, list(dict.fromkeys(["label", column])))
    order = pc.select_k_unstable(
        table, count, [(column, "descending" if largest else "ascending"), ("label", "ascending")][: table.num_columns]
    )
    return [dict(row) for row in table.take(order).to_pylist()]


def first_values(result: AnyPath, column: str) -> NDArray[Any]:
    """Read a column of the objects that come first in the table, some thousands; none where there are no objects.

    Raises
    ------
    StoreError
        If there is no table, or it cannot be read.
    """
    with open_table(result) as file:
        if file.metadata.num_row_groups == 0:
            return np.zeros(0)
        return np.asarray(file.read_row_group(0, columns=[column])[column])


def stream_columns(result: AnyPath, names: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
    """Read columns of numbers piece by piece, as many rows at a time as hold few megabytes, however long the table is.

    Raises
    ------
    StoreError
        If there is no table, it cannot be read, or it has no such column.
    """
    with open_table(result) as file:
        for name in names:
            if name not in file.schema_arrow.names:
                raise StoreError(f"{result}: the table has no column {name!r}")
        for piece in file.iter_batches(batch_size=2**16, columns=list(names)):
            yield [np.asarray(piece[name]) for name in names]


def odd_columns(result: AnyPath, fields: Sequence[Field]) -> list[str]:
    """Name the columns of the table that are not what they are said to be: missing, of another type or unit, or new.

    Raises
    ------
    StoreError
        If there is no table, or it cannot be read.
    """
    with open_table(result) as file:
        # Strings are read as numbers of strings, see `open_table`.
        held = {field.name: (str(getattr(field.type, "value_type", field.type)), field.metadata)
                for field in file.schema_arrow}  # fmt: skip
    wanted = {field.name: (str(field.type), field.metadata) for field in _schema(fields)}
    return [name for name in {**wanted, **held} if held.get(name) != wanted.get(name)]
