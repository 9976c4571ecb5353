"""Plates of real fields, as microscopes leave them, and what is done with them: OME-Zarr 0.4 or 0.5, several wells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline import segment
from pipeline.config import make_config
from pipeline.run import ImageReport
from tests.fields import load_fields

__all__ = ["BIN", "check_valid", "parts_of_fields", "run", "write_plate"]

BIN = Path(sys.executable).parent


def parts_of_fields(count: int) -> list[NDArray[np.uint8]]:
    """Give parts of real fields, each another one."""
    whole = load_fields()[0]
    return [np.ascontiguousarray(whole[at : at + 150, at : at + 170]) for at in range(0, 40 * count, 40)]


def run(model: str, given: Path, into: Path, /, *, fresh: bool = False, **settings: Any) -> list[ImageReport]:  # noqa: ANN401
    values = {"model": model, "tile": 96, "execution": {"scheduler": "serial"}}
    return segment(given, into, make_config(values | settings), fresh=fresh)


def check_valid(path: Path) -> None:
    for program in ("ome-zarr-models", "yaozarrs"):
        done = subprocess.run([BIN / program, "validate", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def write_plate(
    path: Path,
    fields: Sequence[NDArray[np.generic]],
    wells: Sequence[str] = ("A/01", "B/03"),
    per_well: int = 2,
    version: Literal["0.4", "0.5"] = "0.5",
    labels: Sequence[str] = (),
) -> Path:
    """Write a plate by hand, in plain zarr.

    Parameters
    ----------
    path : Path
        The folder.
    fields : sequence of ndarray
        Images YX, one for each field, in order; they come again where there are too few.
    wells : sequence of str
        Such as ``"A/01"``.
    per_well : int
        Fields of a well.
    version : {"0.5", "0.4"}
        Of OME-Zarr.
    labels : sequence of str
        Names of label images that each field has already.
    """
    zarr_format: Literal[2, 3] = 2 if version == "0.4" else 3

    def describe(folder: Path, **values: Any) -> None:  # noqa: ANN401 (as JSON has it)
        group = zarr.open_group(folder, mode="a", zarr_format=zarr_format)
        group.attrs.put(values if version == "0.4" else {"ome": {"version": version, **values}})

    rows = list(dict.fromkeys(well.split("/")[0] for well in wells))
    columns = list(dict.fromkeys(well.split("/")[1] for well in wells))
    listed = [
        {"path": well, "rowIndex": rows.index(well.split("/")[0]), "columnIndex": columns.index(well.split("/")[1])}
        for well in wells
    ]
    describe(
        path,
        plate={
            "name": "a plate", "version": version, "field_count": per_well, "wells": listed,
            "rows": [{"name": name} for name in rows], "columns": [{"name": name} for name in columns],
            "acquisitions": [{"id": 0, "name": "day 1"}],
        },
    )  # fmt: skip
    for row in rows:
        describe(path / row)
    for at, well in enumerate(wells):
        images = [{"path": str(number), "acquisition": 0} for number in range(per_well)]
        describe(path / well, well={"images": images, "version": version})
        for number in range(per_well):
            pixels = np.asarray(fields[(at * per_well + number) % len(fields)])
            _write_image(path / well / str(number), pixels, describe, zarr_format, version)
            for name in labels:
                _write_image(path / well / str(number) / "labels" / name, pixels // 9, describe, zarr_format, version)
            if labels:
                describe(path / well / str(number) / "labels", labels=list(labels))
    return path


def _write_image(folder: Path, pixels: NDArray[np.generic], describe: Any, zarr_format: Any, version: str) -> None:  # noqa: ANN401
    label = folder.parent.name == "labels"
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [
        {"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": [0.5 * 2**level] * 2}]}
        for level in range(2)
    ]
    stated = {"version": version} if version == "0.4" else {}
    describe(
        folder,
        multiscales=[{"axes": axes, "datasets": datasets, "name": folder.name, **stated}],
        **({"image-label": {"version": version, "source": {"image": "../../"}}} if label else {}),
    )
    key: dict[str, Any] = {"name": "v2", "separator": "/"} if zarr_format == 2 else {"name": "default"}
    for level in range(2):
        data = np.ascontiguousarray(pixels[:: 2**level, :: 2**level])
        names = ["y", "x"] if zarr_format == 3 else None
        zarr.create_array(
            folder / f"s{level}", data=data, chunks=(128, 128), zarr_format=zarr_format, chunk_key_encoding=key,
            dimension_names=names,
        )  # fmt: skip
