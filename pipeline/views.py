"""Arrays of a result as dask and xarray see them: lazily, with the names of axes and where the pixels lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from pipeline.errors import StoreError
from pipeline.remote.zarr_stores import readable
from pipeline.stores.metadata import ome_of

if TYPE_CHECKING:
    import dask.array
    import xarray

    from pipeline.inputs import InputArray
    from pipeline.remote.paths import AnyPath

__all__ = ["as_dask", "as_xarray", "input_as_dask", "input_as_xarray", "levels_below", "levels_of_image"]


def as_dask(array: zarr.Array[Any]) -> dask.array.Array:
    """Give an array lazily, in pieces of whole chunks."""
    import dask.array

    lazy: dask.array.Array = dask.array.from_zarr(array)
    return lazy


def as_xarray(group: AnyPath, level: int, array: zarr.Array[Any], names: tuple[str, ...]) -> xarray.DataArray:
    """Give an array with the names of its axes, and coordinates from its OME-Zarr metadata.

    Parameters
    ----------
    group : Path or RemotePath
        Folder of the pyramid's group.
    level : int
        0 for full resolution.
    array : zarr.Array
        The array of this level.
    names : tuple of str
        Of the channels, where there are channels.

    Returns
    -------
    xarray.DataArray
        Backed by dask. Coordinates of T, Z, Y and X are the centres of pixels, in the units that they carry; those of C
        are names.

    Raises
    ------
    StoreError
        If the metadata do not describe the array.
    """
    import xarray

    try:
        ome = ome_of(zarr.open_group(readable(group), mode="r"))
        multiscale = ome["multiscales"][0]
        axes = multiscale["axes"]
        found = {
            entry["type"]: entry[entry["type"]] for entry in multiscale["datasets"][level]["coordinateTransformations"]
        }
        scale, translation = found["scale"], found.get("translation", [0.0] * len(axes))
        coords = {}
        for at, axis in enumerate(axes):
            attributes = {"units": axis["unit"]} if axis.get("unit") else {}
            values: Any = np.arange(array.shape[at]) * scale[at] + translation[at]
            if axis["name"] == "c":
                values = list(names) if len(names) == array.shape[at] else np.arange(array.shape[at])
            coords[axis["name"]] = (axis["name"], values, attributes)
    except (KeyError, IndexError, TypeError) as error:
        raise StoreError(
            f"{group}: the OME-Zarr metadata do not describe level {level} ({type(error).__name__}: {error})"
        ) from error
    return xarray.DataArray(as_dask(array), coords, [axis["name"] for axis in axes], name=group.name)


def input_as_dask(array: InputArray) -> dask.array.Array:
    """Give an input lazily, in pieces of whole blocks of its file."""
    import dask.array

    lazy: dask.array.Array = dask.array.from_array(array, chunks=array.chunks, fancy=False, name=False)
    return lazy


def input_as_xarray(array: InputArray) -> xarray.DataArray:
    """Give an input with the names of its axes, and coordinates from its own metadata, as `as_xarray` does."""
    import xarray

    info = array.info
    coords = {}
    for at, axis in enumerate("TCZYX"):
        if axis not in info.axes:
            continue
        values: Any = np.arange(info.shape[at]) * info.pixel_size[at] + info.translation[at]
        if axis == "C":
            values = list(info.channel_names)
        attributes = {"units": info.units[at]} if info.units[at] else {}
        coords[axis.lower()] = (axis.lower(), values, attributes)
    return xarray.DataArray(input_as_dask(array), coords, [axis.lower() for axis in info.axes])


def levels_below(folder: AnyPath) -> list[zarr.Array[Any]]:
    """Open the levels of a pyramid that seamfree has written: 0, 1, ... as far as there are any."""
    found: list[zarr.Array[Any]] = []
    while any((folder / str(len(found)) / name).is_file() for name in ("zarr.json", ".zarray")):
        found.append(zarr.open_array(readable(folder / str(len(found))), mode="r"))
    return found


def levels_of_image(folder: AnyPath) -> list[zarr.Array[Any]]:
    """Open the levels of an image that labels were added to, whatever they are called."""
    try:
        paths = [
            str(level["path"])
            for level in ome_of(zarr.open_group(readable(folder), mode="r"))["multiscales"][0]["datasets"]
        ]
        return [zarr.open_array(readable(folder / path), mode="r") for path in paths]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise StoreError(f"{folder}: its image cannot be read ({type(error).__name__}: {error})") from error
