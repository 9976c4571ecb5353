"""A plate of results: groups of rows and wells around the fields, and the metadata that make it one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ome_zarr_models.v04 import hcs as hcs04
from ome_zarr_models.v04 import well as well04
from ome_zarr_models.v05 import hcs as hcs05
from ome_zarr_models.v05 import well as well05
from pydantic import ValidationError

from pipeline.errors import StoreError
from pipeline.stores.metadata import group_file, group_of, write_group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from pipeline.stores.metadata import Version

__all__ = ["check_plate", "write_plate"]

_PLATE: dict[Version, type[BaseModel]] = {"0.4": hcs04.HCSAttrs, "0.5": hcs05.HCSAttrs}
_WELL: dict[Version, type[BaseModel]] = {"0.4": well04.WellAttrs, "0.5": well05.WellAttrs}

_HINT = "--in-place writes into the plate as it is"

_KEPT = ("name", "rows", "columns", "acquisitions")
"""What a plate of results says of itself as the plate does that it is made of."""


def check_plate(described: Mapping[str, Any], version: Version) -> None:
    """Make sure that a plate of results can be described like the plate that its images come from.

    Parameters
    ----------
    described : mapping
        The metadata of that plate.
    version : {"0.5", "0.4"}
        Of OME-Zarr, for the results.

    Raises
    ------
    StoreError
        If that version allows no such plate.
    """
    _attributes(described, [tuple(str(well["path"]).split("/")) for well in described["wells"]], 1, version)


def _attributes(
    described: Mapping[str, Any], wells: Sequence[tuple[str, ...]], most: int, version: Version
) -> dict[str, Any]:
    """Give what the metadata say of a plate with some of the wells, and `most` fields in one of them.

    Raises
    ------
    StoreError
        If OME-Zarr allows no such plate.
    """
    try:
        rows, columns = ([str(entry["name"]) for entry in described[kind]] for kind in ("rows", "columns"))
        listed = [
            {"path": f"{row}/{column}", "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
            for row, column in wells
        ]
        kept = {name: described[name] for name in _KEPT if described.get(name) is not None}
        plate = {"version": version} | kept | {"field_count": most, "wells": listed}
        _PLATE[version].model_validate({"plate": plate} | ({"version": version} if version == "0.5" else {}))
    except (KeyError, TypeError, ValueError) as error:
        why = _first(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        raise StoreError(f"a plate of results: OME-Zarr {version} allows none like this one: {why}; {_HINT}") from error
    return plate


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    return f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"


def write_plate(
    plate: Path,
    described: Mapping[str, Any],
    wells: Mapping[tuple[str, str], Sequence[tuple[str, int | None]]],
    version: Version,
) -> list[Path]:
    """Describe a plate whose fields are all there: rows, then wells, and last of all the plate itself.

    Parameters
    ----------
    plate : Path
        Folder of the plate.
    described : mapping
        The metadata of the plate that the images come from.
    wells : mapping of (str, str) to sequence of (str, int or None)
        By row and column: the fields' names, and the acquisitions that they belong to.
    version : {"0.5", "0.4"}
        Of OME-Zarr.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    StoreError
        If OME-Zarr allows no such plate, or the disk refuses.
    """
    most = max(map(len, wells.values()))
    plated = _attributes(described, list(wells), most, version)
    names = [group_file(version), *([".zattrs"] if version == "0.4" else [])]
    written: list[Path] = []
    try:
        for row in {row: None for row, _ in wells}:
            group_of(plate / row, version)
            written.append(plate / row / names[0])
        for (row, column), fields in wells.items():
            images = [
                {"path": name, **({} if acquisition is None else {"acquisition": acquisition})}
                for name, acquisition in fields
            ]
            write_group(plate / row / column, version, _WELL, {"well": {"version": version, "images": images}})
            written += [plate / row / column / name for name in names]
        write_group(plate, version, _PLATE, {"plate": plated})
    except ValidationError as error:
        raise StoreError(f"{plate}: OME-Zarr {version} allows no such plate: {_first(error)}; {_HINT}") from error
    except OSError as error:
        raise StoreError(f"{plate}: the metadata cannot be written ({error.strerror or error})") from error
    return [*written, *(plate / name for name in names)]
