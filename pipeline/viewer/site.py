"""What the viewer's server gives out of a result: facts, rows of the table, its own files, pieces of the input."""

from __future__ import annotations

import json
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import StoreError
from pipeline.geometry import Box
from pipeline.images.source import AXES
from pipeline.report.pixels import open_pixels
from pipeline.report.writing import plan_of
from pipeline.results import PlateResult, open_result
from pipeline.stores.tables import find_row, first_rows
from pipeline.viewer.facts import describe, describe_plate, place_in

if TYPE_CHECKING:
    from pipeline.results import Result

__all__ = ["Site"]

SHORTEST_PIECE, LONGEST_PIECE = 512, 2048
"""Edges of what is read at once of an image that seamfree has not written."""

LONGEST_LABEL = 19
"""Digits; what is longer is no 64-bit integer."""

MOST_LISTED = 100
"""Objects of a list."""


class Site:
    """A finished result as its viewer sees it; safe to be asked by several threads.

    Parameters
    ----------
    path : Path
        Folder ``NAME.ome.zarr``, of an image or a plate.

    Raises
    ------
    StoreError
        If it is no result of seamfree.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._result = open_result(self.path)
        self._root = self.path.resolve()
        self._opened: dict[str, _Shown] = {}
        self._lock = Lock()

    def _shown(self, field: str) -> _Shown:
        with self._lock:
            if field not in self._opened:
                self._opened[field] = _Shown(self._choose(field), f"{field}/" if field else "")
            return self._opened[field]

    def _choose(self, field: str) -> Result:
        if not isinstance(self._result, PlateResult):
            if field:
                raise StoreError(f"{self.path}: no plate, and so without a field {field!r}")
            return self._result
        for each in self._result.fields:
            if place_in(self._result, each) == field:
                return each.result
        raise StoreError(f"{self.path}: this plate has no field {field!r}")

    def facts(self, field: str = "") -> dict[str, Any]:
        """Give all that the page is to know before it reads pixels.

        Parameters
        ----------
        field : str
            Of a plate: path of a field in it, such as ``A/1/0``; without one, what fields there are.
        """
        if isinstance(self._result, PlateResult) and not field:
            return describe_plate(self._result)
        return self._shown(field).facts

    def object(self, label: str, field: str = "") -> dict[str, Any]:
        """Give an object's row of the table, by the columns' names.

        Raises
        ------
        StoreError
            If there is no such object, or no table.
        """
        result = self._shown(field).result
        row = find_row(result.path, int(label)) if label.isdecimal() and len(label) < LONGEST_LABEL else None
        if row is None:
            raise StoreError(f"there is no object {label}")
        return {"row": _finite(row), "units": result.units}

    def objects(self, column: str, order: str = "largest", field: str = "") -> dict[str, Any]:
        """Give the objects with the largest, or smallest, values of a column.

        Raises
        ------
        StoreError
            If there is no such column, or no table.
        """
        rows = first_rows(self._shown(field).result.path, column, MOST_LISTED, largest=order != "smallest")
        return {"rows": [_finite(row) for row in rows]}

    def file(self, name: str) -> Path | None:
        """Give a file of the result; None where it has none of this name, or it leads out of the result's folder."""
        parts = name.split("/")
        if "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in parts):
            return None
        try:
            found = self._root.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return found if found.is_file() and found.is_relative_to(self._root) else None

    def piece(self, name: str) -> bytes | None:
        """Give a file of the image that was read as an uncompressed Zarr, which it is made to look like; or None.

        Parameters
        ----------
        name : str
            ``FIELD/LEVEL/zarr.json`` or ``FIELD/LEVEL/c/...``; of an image, without a field.
        """
        parts = name.split("/")
        split = parts.index("c") if "c" in parts else len(parts) - 1
        if split < 1 or not parts[split - 1].isdecimal():
            return None
        with self._lock:
            shown = self._opened.get("/".join(parts[: split - 1]))
        return None if shown is None else shown.piece(int(parts[split - 1]), parts[split:])


class _Shown:
    """One image of the result, or field of it, opened."""

    def __init__(self, result: Result, place: str) -> None:
        self.result = result
        plan = plan_of(result.path, result.provenance)
        self._dtype = np.dtype(plan.source.dtype)
        self._lock = Lock()
        self._open = ExitStack()
        # The page knows what seamfree writes; the image of somebody else may be of any codec, and so is read here.
        own = bool(result.image) and not plan.in_place
        pixels, why = (None, None) if own else self._open.enter_context(open_pixels(result, plan))
        self._levels = [] if pixels is None else pixels.levels
        self.facts = describe(result, plan, place, [level.shape for level in self._levels], why)

    def piece(self, level: int, parts: list[str]) -> bytes | None:
        if level >= len(self._levels):
            return None
        shape, read = self._levels[level].shape, self._levels[level].read
        chunk = _chunk(shape, self._levels[level].block)
        if parts == ["zarr.json"]:
            return json.dumps(_metadata(shape, chunk, self._dtype)).encode()
        if len(parts) != len(AXES) + 1 or not all(part.isdecimal() for part in parts[1:]):
            return None
        start = tuple(int(part) * edge for part, edge in zip(parts[1:], chunk, strict=True))
        if any(at >= length for at, length in zip(start, shape, strict=True)):
            return None
        stop = tuple(min(at + edge, length) for at, edge, length in zip(start, chunk, shape, strict=True))
        # A file is read by one at a time.
        with self._lock:
            block = read(Box(start, stop))
        whole = np.zeros(chunk, dtype=self._dtype.newbyteorder("<"))
        whole[tuple(slice(length) for length in block.shape)] = block
        return whole.tobytes()


def _chunk(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """Give what is read at once: blocks of the file, of one plane, neither very small nor very large."""
    edges = (min(max(edge, SHORTEST_PIECE), LONGEST_PIECE) for edge in block[3:])
    return (1, 1, 1, *(min(edge, length) for edge, length in zip(edges, shape[3:], strict=True)))


def _metadata(shape: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    return {
        "zarr_format": 3, "node_type": "array", "shape": list(shape), "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if dtype.kind == "b" else 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], "attributes": {},
    }  # fmt: skip


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out what JSON has no number for."""
    return {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in row.items()}
