"""Opening finished results."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from pipeline.errors import ConfigError, ImageError, StoreError
from pipeline.printing import short
from pipeline.remote.paths import RemotePath, to_path
from pipeline.stores.publish import PROVENANCE, read_provenance
from pipeline.stores.tables import open_table, read_table
from pipeline.views import as_dask, as_xarray, input_as_dask, input_as_xarray, levels_below, levels_of_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata
    import dask.array
    import pandas as pd
    import polars as pl
    import xarray

    from pipeline.inputs import InputArray
    from pipeline.remote.paths import AnyPath

__all__ = ["FieldResult", "PlateResult", "Result", "check_result", "open_result"]


@dataclass(frozen=True)
class Result:
    """A finished result, opened for reading. Nothing is loaded until it is indexed.

    Parameters
    ----------
    path : Path or RemotePath
        Its folder.
    provenance : dict
        How it came about.
    image, semantic, instances, probabilities : list of zarr.Array
        The levels of each pyramid, full resolution first; empty where the result has none. Where it has no copy of the
        image, `dask` and `xarray` give the input itself.
    """

    path: AnyPath
    provenance: dict[str, Any]
    image: list[zarr.Array[Any]] = field(default_factory=list)
    semantic: list[zarr.Array[Any]] = field(default_factory=list)
    instances: list[zarr.Array[Any]] = field(default_factory=list)
    probabilities: list[zarr.Array[Any]] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers in the semantic labels."""
        return tuple(self.provenance["plan"]["classes"])

    @property
    def objects(self) -> int | None:
        """Number of objects."""
        count = self.provenance["objects"]
        return None if count is None else int(count)

    def _one(self) -> Result:
        """Give what has pixels."""
        return self

    def _input(self, level: int) -> InputArray:
        """Give a level of the image that was segmented, where the result has no copy of it.

        Raises
        ------
        StoreError
            If the input is gone or has changed: says which, and where it was.
        """
        from pipeline.inputs import InputArray, Segmented

        self._one()
        try:
            return InputArray(Segmented.noted(self.provenance["plan"]), level)
        except (ImageError, StoreError) as error:
            raise StoreError(f"{self.path}: this result has no copy of the image, and the input: {error}") from error

    def _level(self, name: str, level: int) -> zarr.Array[Any]:
        self._one()
        pyramids = {"image": self.image, "semantic": self.semantic, "instances": self.instances,
                    "probabilities": self.probabilities}  # fmt: skip
        levels = pyramids.get(name)
        if levels is None:
            raise StoreError(f"{self.path}: a result has no {name!r}, but {', '.join(pyramids)}")
        if not levels:
            raise StoreError(f"{self.path}: this result has no {name!r}")
        if not 0 <= level < len(levels):
            raise StoreError(f"{self.path}: {name!r} has levels 0 to {len(levels) - 1}, not {level}")
        return levels[level]

    def dask(self, name: str = "image", level: int = 0) -> dask.array.Array:
        """Give a level of a pyramid as a dask array; nothing is loaded until it is computed.

        Parameters
        ----------
        name : {"image", "semantic", "instances", "probabilities"}
            Which pyramid.
        level : int
            0 for full resolution.

        Raises
        ------
        StoreError
            If the result has none; for the image, if it has no copy, and the input is gone or has changed.
        """
        if name == "image" and not self.image:
            return input_as_dask(self._input(level))
        return as_dask(self._level(name, level))

    def xarray(self, name: str = "image", level: int = 0) -> xarray.DataArray:
        """Give a level of a pyramid with named axes, pixel centres in physical units, and names of channels; lazily.

        Parameters
        ----------
        name : {"image", "semantic", "instances", "probabilities"}
            Which pyramid.
        level : int
            0 for full resolution.

        Raises
        ------
        StoreError
            If the result has none; for the image, if it has no copy, and the input is gone or has changed.
        """
        if name == "image" and not self.image:
            return input_as_xarray(self._input(level)).rename(name)
        array = self._level(name, level)
        group = self.path / {"image": "", "probabilities": name}.get(name, f"labels/{name}")
        channels = (
            self.classes if name == "probabilities" else tuple(self.provenance["plan"]["source"]["channel_names"])
        )
        return as_xarray(group, level, array, channels).rename(name)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the table of objects.

        Raises
        ------
        StoreError
            If the result has no table.
        """
        with open_table(self.path) as file:
            return tuple(file.schema_arrow.names)

    @property
    def units(self) -> dict[str, str]:
        """Units of the columns of the table of objects, of those that have one.

        Raises
        ------
        StoreError
            If the result has no table.
        """
        with open_table(self.path) as file:
            return {
                field.name: field.metadata[b"unit"].decode()
                for field in file.schema_arrow
                if field.metadata and b"unit" in field.metadata
            }

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table of objects, by label; read once, when it is asked for."""
        return self.read_table()

    def read_table(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read some columns of the table of objects, all where none are named.

        Parameters
        ----------
        columns : sequence of str, optional
            Their names.

        Returns
        -------
        pandas.DataFrame
            Indexed by label.

        Raises
        ------
        StoreError
            If the result has no table, or the table no such column.
        """
        wanted = None if columns is None else ["label", *(name for name in columns if name != "label")]
        frame: pd.DataFrame = read_table(self.path, wanted).to_pandas()
        return frame.set_index("label")

    def table_polars(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read the table of objects, or some columns of it, into polars.

        Raises
        ------
        ConfigError
            If polars is not installed.
        StoreError
            As for `read_table`.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise ConfigError("polars is not installed; install it with: pip install polars") from error
        return pl.DataFrame(pl.from_arrow(read_table(self._one().path, columns)))

    def to_anndata(self) -> anndata.AnnData:
        """Give the table of objects as AnnData; see `pipeline.exports.to_anndata`."""
        from pipeline.exports import to_anndata

        return to_anndata(self._one())

    def write_anndata(self, path: str | Path) -> int:
        """Write the table of objects as AnnData, and give their number; see `pipeline.exports.write_anndata`."""
        from pipeline.exports import write_anndata

        return write_anndata(self._one(), path)

    def write_geojson(self, path: str | Path) -> int:
        """Write outlines for QuPath, and give their number; see `pipeline.exports.write_geojson`."""
        from pipeline.exports import write_geojson

        return write_geojson(self._one(), path)

    def write_ome_tiff(self, path: str | Path) -> list[str]:
        """Write image and labels as one OME-TIFF, and say what is in it; see `pipeline.export_tiff`."""
        from pipeline.export_tiff import write_result_as_tiff

        return write_result_as_tiff(self._one(), path)


@dataclass(frozen=True)
class FieldResult:
    """One field of view of a plate.

    Parameters
    ----------
    path : Path or RemotePath
        Its folder, which is a result of its own.
    row, column : str
        Of its well.
    name : str
        In its well.
    acquisition : int, optional
        In which acquisition it was taken.
    """

    path: AnyPath
    row: str
    column: str
    name: str
    acquisition: int | None = None

    @property
    def well(self) -> str:
        """Name of its well: row and column, such as ``"B03"``."""
        return f"{self.row}{self.column}"

    @cached_property
    def result(self) -> Result:
        """The result, opened."""
        return open_result(self.path)


@dataclass(frozen=True)
class PlateResult(Result):
    """A finished plate, opened for reading; pixels are those of its fields.

    Parameters
    ----------
    fields : tuple of FieldResult
        In the order of the wells.
    """

    fields: tuple[FieldResult, ...] = ()

    @classmethod
    def of(cls, folder: AnyPath, provenance: dict[str, Any]) -> PlateResult:
        """Open a plate whose provenance is known.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        try:
            fields = tuple(
                FieldResult(folder / entry["path"], entry["row"], entry["column"], entry["name"], entry["acquisition"])
                for entry in provenance["fields"]
            )
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"{folder / PROVENANCE}: the provenance is damaged ({type(error).__name__}: {error})"
            ) from error
        for each in fields:
            names = (each.row, each.column, each.name)
            if ".." in names or each.path.parts != (*folder.parts, *names):
                raise StoreError(
                    f"{folder / PROVENANCE}: the provenance is damaged, it names {str(each.path)!r}, which is no field "
                    f"of the plate"
                )
        if not fields:
            raise StoreError(f"{folder / PROVENANCE}: the provenance is damaged, it lists no fields")
        return cls(folder, provenance, fields=fields)

    @property
    def wells(self) -> dict[str, tuple[FieldResult, ...]]:
        """The fields of each well, by its name, such as ``"B03"``."""
        names = dict.fromkeys(field.well for field in self.fields)
        return {name: tuple(field for field in self.fields if field.well == name) for name in names}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.fields[0].result.classes

    @property
    def objects(self) -> int | None:
        """Number of objects in all fields."""
        counts = [field.result.objects for field in self.fields]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the fields' tables."""
        return self.fields[0].result.columns

    @property
    def units(self) -> dict[str, str]:
        """Units of these columns."""
        return self.fields[0].result.units

    def read_table(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read some columns of the tables of all fields into one, all where none are named.

        Parameters
        ----------
        columns : sequence of str, optional
            Their names.

        Returns
        -------
        pandas.DataFrame
            One row per object. First come ``well``, ``row``, ``column``, ``field``, and ``label``, which tells objects
            of one field apart.

        Raises
        ------
        StoreError
            If a field has no table, or the tables no such column.
        """
        import pandas as pd

        tables = []
        for each in self.fields:
            table = each.result.read_table(columns).reset_index()
            place = {"well": each.well, "row": each.row, "column": each.column, "field": each.name}
            for at, (name, value) in enumerate(place.items()):
                table.insert(at, name, value)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def _one(self) -> Result:
        raise StoreError(f"{self.path}: this is a plate; take the result of a field, such as {self.fields[0].path}")


def check_result(path: str | AnyPath) -> AnyPath:
    """Refuse what is no finished result, and say where there are some.

    Parameters
    ----------
    path : str or Path
        What a user takes for the folder ``NAME.ome.zarr``.

    Raises
    ------
    ConfigError
        If it is none.
    """
    folder = to_path(path)
    try:
        is_result, is_there = (folder / PROVENANCE).exists(), folder.exists()
    except OSError as error:
        raise ConfigError(f"{short(str(folder))}: cannot be looked at ({error.strerror or error})") from error
    if is_result:
        return folder
    if not is_there:
        raise ConfigError(f"{folder}: no such folder; the folder NAME.ome.zarr of a result is wanted")
    if folder.name.endswith(".partial"):
        raise ConfigError(f"{folder}: this result is unfinished; the same seamfree run as before goes on with it")
    if isinstance(folder, RemotePath):
        raise ConfigError(f"{folder}: not a result of seamfree (no {PROVENANCE} in it), or not whole yet")
    inside = sorted(found.parent for found in folder.glob(f"**/*.ome.zarr/{PROVENANCE}"))
    hint = f"; there are {len(inside)} in it, such as {inside[0]}" if inside else ""
    raise ConfigError(f"{folder}: not a result of seamfree (no {PROVENANCE} in it){hint}")


def open_result(path: str | AnyPath) -> Result:
    """Open a finished result.

    Parameters
    ----------
    path : str, Path or RemotePath
        Folder ``NAME.ome.zarr``, or its URL: ``s3://``, ``gs://`` or ``https://``.

    Returns
    -------
    Result
        Of a plate, a `PlateResult`.

    Raises
    ------
    StoreError
        If it is no result of seamfree.
    """
    folder = to_path(path)
    provenance = read_provenance(folder)
    if "fields" in provenance:
        return PlateResult.of(folder, provenance)
    return Result(
        folder,
        provenance,
        levels_of_image(folder) if provenance.get("in_place") else levels_below(folder),
        levels_below(folder / "labels" / "semantic"),
        levels_below(folder / "labels" / "instances"),
        levels_below(folder / "probabilities"),
    )
