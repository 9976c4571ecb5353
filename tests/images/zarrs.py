"""Arrays, and how they are written as OME-Zarr and plain Zarr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from tests.images.reading import pixels

VERSIONS = ["0.4", "0.5"]
KINDS = {"t": "time", "c": "channel"}


def frame(data: NDArray[Any], axes: str) -> NDArray[Any]:
    """Bring an array of the named axes to TCZYX."""
    order = [axes.upper().index(axis) for axis in "TCZYX" if axis in axes.upper()]
    missing = tuple(at for at, axis in enumerate("TCZYX") if axis not in axes.upper())
    return np.expand_dims(data.transpose(order), missing)


def array(path: Path, data: NDArray[Any], zarr_format: Literal[2, 3], **options: Any) -> None:  # noqa: ANN401
    created = zarr.create_array(
        path, shape=data.shape, dtype=data.dtype, zarr_format=zarr_format,
        **{"chunks": (1,) * (data.ndim - 2) + (16, 16), **options},
    )  # fmt: skip
    created[...] = data


def scale(*values: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(values)}


def translation(*values: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(values)}


def ome(
    path: Path,
    data: NDArray[Any],
    axes: str,
    version: str,
    transforms: list[dict[str, Any]] | None = None,
    units: dict[str, str] | None = None,
    change: Callable[[dict[str, Any]], object] = dict,
    **more: Any,  # noqa: ANN401
) -> Path:
    """Write an OME-Zarr by hand, metadata and all; `change` may then break them."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    array(path / "0", data, 2 if version == "0.4" else 3)
    named = [
        {"name": axis, "type": KINDS.get(axis, "space")} | ({"unit": units[axis]} if units and axis in units else {})
        for axis in axes
    ]
    dataset = {"path": "0", "coordinateTransformations": transforms or [scale(*[1.0] * data.ndim)]}
    described: dict[str, Any] = {"multiscales": [{"axes": named, "datasets": [dataset]}], **more}
    if version == "0.4":
        described["multiscales"][0]["version"] = version
    else:
        described["version"] = version
    change(described)
    group.attrs.update(described if version == "0.4" else {"ome": described})
    return path


STACK = pixels((3, 40, 50))


def layout(path: Path, version: str, names: list[str]) -> list[NDArray[Any]]:
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    said = {"bioformats2raw.layout": 3}
    group.attrs.update(said if version == "0.4" else {"ome": {"version": version, **said}})
    found = [pixels((20, 30), seed=seed) for seed in range(len(names))]
    for name, data in zip(names, found, strict=True):
        ome(path / name, data, "yx", version)
    return found
