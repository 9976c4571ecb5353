"""Plates: OME-Zarr 0.4 and 0.5, by their metadata, and files by their names: which wells and fields there are."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.errors import ImageError
from pipeline.images.pipes import refuse_pipe
from pipeline.images.sequences import as_sequence, list_files

if TYPE_CHECKING:
    from pipeline.images.sequences import SequencePath
    from pipeline.remote.paths import AnyPath

__all__ = ["PlateField", "PlateLayout", "is_plate", "is_zarr", "read_plate"]

_METADATA = ("zarr.json", ".zgroup", ".zarray")
"""Files by which a folder is a Zarr."""


@dataclass(frozen=True, slots=True)
class PlateField:
    """One field of view of a plate, which is an image.

    Parameters
    ----------
    path : str
        Below the plate, such as ``"A/1/0"``.
    row, column : str
        Of its well, such as ``"A"`` and ``"1"``.
    name : str
        In its well, such as ``"0"``.
    acquisition : int, optional
        In which acquisition it was taken.
    """

    path: str
    row: str
    column: str
    name: str
    acquisition: int | None = None

    @property
    def well(self) -> str:
        """Path of the well below the plate."""
        return f"{self.row}/{self.column}"


@dataclass(frozen=True, slots=True)
class PlateLayout:
    """What a plate consists of.

    Parameters
    ----------
    path : str
        Where it lies.
    described : dict
        Its own metadata, as they stand in the file.
    fields : tuple of PlateField
        In the order of the wells in the metadata.
    unreadable : tuple of str
        Wells, such as ``"A/1"``, whose metadata are missing or damaged.
    """

    path: str
    described: dict[str, Any]
    fields: tuple[PlateField, ...]
    unreadable: tuple[str, ...]


def is_zarr(folder: AnyPath) -> bool:
    """Say whether a folder is a Zarr, whatever its name."""
    return any((folder / name).is_file() for name in _METADATA)


def is_plate(folder: AnyPath) -> bool:
    """Say whether a folder is a Zarr that says that it is a plate, or a pattern that finds wells in names."""
    if (sequence := as_sequence(folder)) is not None:
        return sequence.is_plate
    try:
        return "plate" in _described(folder)
    except (OSError, ValueError, ImageError):
        return False  # whoever opens it tells what is wrong


def read_plate(folder: AnyPath) -> PlateLayout:
    """Find the wells and fields of a plate.

    Parameters
    ----------
    folder : Path or RemotePath
        Of the plate.

    Raises
    ------
    ImageError
        If its metadata cannot be read, or name no wells inside the plate; if no file fits the pattern.
    """
    if (sequence := as_sequence(folder)) is not None:
        return _read_sequence(sequence)
    try:
        plate = _described(folder)["plate"]
        listed = [str(well["path"]) for well in plate["wells"]]
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{folder}: invalid plate metadata ({type(error).__name__}: {error})") from error
    fields: list[PlateField] = []
    unreadable = []
    # What is listed twice is there once.
    for path in dict.fromkeys(listed):
        row, _, column = path.partition("/")
        if not (_is_name(row) and _is_name(column)):
            raise ImageError(f"{folder}: invalid plate metadata: the well {path!r} is not named ROW/COLUMN")
        found = _fields_of(folder, row, column)
        fields += found
        if not found:
            unreadable.append(path)
    if not listed:
        raise ImageError(f"{folder}: invalid plate metadata: a plate without wells")
    return PlateLayout(str(folder), plate, tuple(fields), tuple(unreadable))


def _read_sequence(sequence: SequencePath) -> PlateLayout:
    """Find the wells and fields of a plate by the names of its files."""
    images = list(list_files(sequence.folder, sequence.pattern).images)
    rows, columns = ([*dict.fromkeys(image[at] for image in images)] for at in (0, 1))
    columns.sort(key=int)
    wells = [
        {"path": f"{row}/{column}", "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
        for row, column in dict.fromkeys(image[:2] for image in images)
    ]
    described = {
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": wells,
    }
    fields = tuple(PlateField(f"{row}/{column}/{name}", row, column, name) for row, column, name in images)
    return PlateLayout(str(sequence.whole), described, fields, ())


def _fields_of(folder: AnyPath, row: str, column: str) -> list[PlateField]:
    """Give the fields of a well; none where its metadata cannot be read."""
    found: list[PlateField] = []
    try:
        for image in _described(folder / row / column)["well"]["images"]:
            name, acquisition = str(image["path"]), image.get("acquisition")
            if not _is_name(name):
                return []
            if any(name == other.name for other in found):
                continue
            number = acquisition if isinstance(acquisition, int) else None
            found.append(PlateField(f"{row}/{column}/{name}", row, column, name, number))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return found


def _is_name(name: str) -> bool:
    """Say whether a text is the name of something in a folder, and of nothing elsewhere."""
    return name not in ("", ".", "..") and PurePosixPath(name).name == name and "\0" not in name and os.sep not in name


def _described(folder: AnyPath) -> dict[str, Any]:
    """Give what OME-Zarr says of a group.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is no mapping.
    ImageError
        If it is a pipe.
    """
    try:
        if isinstance(folder, Path):
            for name in ("zarr.json", ".zattrs"):
                refuse_pipe(folder / name)
        attributes = json.loads((folder / "zarr.json").read_bytes()).get("attributes", {})
        described = attributes.get("ome", attributes)
    except FileNotFoundError:
        described = json.loads((folder / ".zattrs").read_bytes())
    except AttributeError as error:
        raise ValueError("not a mapping") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(described, dict):
        raise ValueError("not a mapping")  # noqa: TRY004 (as for whatever else is wrong in the file)
    return described
