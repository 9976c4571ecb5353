"""OME-Zarr 0.4 and 0.5, and plain Zarr arrays."""

from __future__ import annotations

import os
import warnings
from itertools import product
from math import isfinite, prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from ome_zarr_models.common.coordinate_transformations import VectorScale, VectorTranslation
from ome_zarr_models.v04.image import ImageAttrs as ImageAttrs04
from ome_zarr_models.v05.image import ImageAttrs as ImageAttrs05
from pydantic import ValidationError

from pipeline.errors import ImageError
from pipeline.images.plates import is_zarr, read_plate
from pipeline.images.source import AXES, ImageInfo, check_type
from pipeline.remote.paths import RemotePath
from pipeline.remote.zarr_stores import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.geometry import Box
    from pipeline.remote.paths import AnyPath

__all__ = ["ZarrSource"]

_PLAIN_AXES = {2: "YX", 3: "ZYX", 4: "CZYX", 5: "TCZYX"}
"""What the axes of an array without names are, by their number: the last of TCZYX."""

_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
"""Files that say what a group is."""


class ZarrSource:
    """An image in a Zarr: one level of an OME-Zarr image, or a plain array.

    Parameters
    ----------
    path : Path or RemotePath
        The folder, or what is one in an object store or on a web server.
    series : int, optional
        Which of several images (``bioformats2raw.layout``); the first where absent.
    level : int, optional
        Of the image's pyramid; 0 for full resolution.

    Raises
    ------
    ImageError
        If it is no Zarr, its metadata are invalid, or it is a plate.
    """

    def __init__(self, path: AnyPath, series: int | None, level: int = 0) -> None:
        self._path = path
        self._level = level
        self.levels: tuple[str, ...] = ()
        """Paths of the levels of an OME-Zarr image's pyramid below its group."""
        self._groups = [path]
        self._group: AnyPath | None = None
        self._notes: list[str] = []
        node = self._open_node(path)
        if isinstance(node, zarr.Group):
            ome = _described(node)
            if isinstance(ome, dict) and "bioformats2raw.layout" in ome and not {"multiscales", "plate"} & set(ome):
                node = self._open_series(series or 0)
            elif series:
                raise ImageError(f"{path}: there is no series {series}; this Zarr holds one image")
        if isinstance(node, zarr.Group):
            self._open_group(node)
        else:
            self._open_plain(node)

    @property
    def info(self) -> ImageInfo:
        """The facts."""
        return self._info

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know; see `ImageSource.notes`."""
        return tuple(self._notes)

    @property
    def group(self) -> AnyPath | None:
        """Folder of the OME-Zarr image's group; None for a plain array."""
        return self._group

    def _open_node(self, path: AnyPath) -> zarr.Group | zarr.Array[Any]:
        try:
            held = _metadata_in(path)
            if len(held) > 1:
                self._notes.append(f"{path}: there are both {' and '.join(held)}; {held[0]} is read")
            with warnings.catch_warnings():
                # What zarr tells there is told above, or is none of the user's business.
                warnings.simplefilter("ignore")
                return zarr.open(readable(path), mode="r")
        except ImageError:
            raise
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from error
        except Exception as error:  # JSON of any kind may stand where the metadata should be
            raise ImageError(f"{path}: the Zarr metadata are damaged ({type(error).__name__}: {error})") from error

    def _open_series(self, number: int) -> zarr.Group | zarr.Array[Any]:
        """Open one of the images of a ``bioformats2raw.layout``: those that the group OME lists, else 0, 1, ..."""
        listed: Any = None
        if is_zarr(self._path / "OME") or (self._path / "OME").is_dir():
            members = self._open_node(self._path / "OME")
            self._groups.append(self._path / "OME")
            described = _described(members) if isinstance(members, zarr.Group) else None
            listed = described.get("series") if isinstance(described, dict) else None
        if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
            name = listed[number] if number < len(listed) else None
        else:
            name = str(number) if is_zarr(self._path / str(number)) or (self._path / str(number)).is_dir() else None
        if name is None:
            raise ImageError(f"{self._path}: there is no series {number} (counted from 0) in this Zarr")
        place = self._inside(self._path, name)
        self._groups.append(place)
        return self._open_node(place)

    def _inside(self, group: AnyPath, name: str) -> AnyPath:
        """Give the place that metadata name, if it lies inside the image's folder."""
        place = group / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            raise ImageError(f"{self._path}: its metadata name {name!r}, which is not inside this folder")
        return place

    def _open_group(self, group: zarr.Group) -> None:
        attributes = _attributes(group)
        described: Any = _described(group)
        if not isinstance(described, dict):
            raise ImageError(f"{self._path}: the OME-Zarr metadata are not a mapping")
        if "plate" in described:
            first = read_plate(self._path).fields[:1]
            such = f", such as {self._path}/{first[0].path}" if first else ""
            raise ImageError(f"{self._path}: this is a plate; give the image of a well{such}")
        if "multiscales" not in described:
            # Not `group.members()`, which warns of every other file in the folder.
            entries: list[AnyPath] = sorted(self._path.iterdir())
            nodes = [
                self._open_node(entry)
                for entry in entries
                if any((entry / name).is_file() for name in ("zarr.json", ".zarray"))
            ]
            arrays = [node for node in nodes if isinstance(node, zarr.Array)]
            if len(arrays) != 1:
                raise ImageError(
                    f"{self._path}: this Zarr group has no OME-Zarr metadata and holds {len(arrays)} arrays; give one"
                )
            self._open_plain(arrays[0])
            return
        try:
            model = ImageAttrs05 if "ome" in attributes else ImageAttrs04
            multiscale = model.model_validate(described).multiscales[0]
        except ValidationError as error:
            found = error.errors()[0]
            place = ".".join(str(part) for part in found["loc"])
            raise ImageError(f"{self._path}: invalid OME-Zarr metadata: {place}: {found['msg']}") from error
        names = [str(axis.name).upper() for axis in multiscale.axes]
        dataset, self.levels = multiscale.datasets[self._level], tuple(each.path for each in multiscale.datasets)
        folder = self._group = self._place_of(group)
        array = self._open_node(self._inside(folder, dataset.path))
        if not isinstance(array, zarr.Array) or array.ndim != len(names):
            raise ImageError(f"{self._path}: {dataset.path!r} is not an array of the axes {names}")
        scale, translation = [1.0] * array.ndim, [0.0] * array.ndim
        # First those of this resolution, then those that all resolutions share.
        for transform in (*dataset.coordinateTransformations, *(multiscale.coordinateTransformations or ())):
            if isinstance(transform, VectorScale):
                scale = [old * float(new) for old, new in zip(scale, transform.scale, strict=True)]
                translation = [old * float(new) for old, new in zip(translation, transform.scale, strict=True)]
            elif isinstance(transform, VectorTranslation):
                translation = [old + float(new) for old, new in zip(translation, transform.translation, strict=True)]
        units = [str(axis.unit) if axis.unit else None for axis in multiscale.axes]
        channels: tuple[str, ...] = ()
        omero = described.get("omero")
        if isinstance(omero, dict) and isinstance(omero.get("channels"), list):
            channels = tuple(
                str(channel["label"]) if isinstance(channel, dict) and channel.get("label") else f"channel {at}"
                for at, channel in enumerate(omero["channels"])
            )
        self._describe(array, "".join(names), scale, units, translation, channels, ome=True)

    def _open_plain(self, array: zarr.Group | zarr.Array[Any]) -> None:
        if not isinstance(array, zarr.Array):
            raise ImageError(f"{self._path}: no array found")
        named: Any = getattr(array.metadata, "dimension_names", None) or _attributes(array).get("_ARRAY_DIMENSIONS")
        if isinstance(named, list | tuple) and all(isinstance(name, str) and name.upper() in AXES for name in named):
            axes = "".join(str(name).upper() for name in named)
            if len(axes) != array.ndim:
                raise ImageError(f"{self._path}: an array of {array.ndim} axes has the names {list(named)}")
        elif array.ndim in _PLAIN_AXES:
            axes = _PLAIN_AXES[array.ndim]
        else:
            raise ImageError(f"{self._path}: an array of {array.ndim} axes is not an image of T, C, Z, Y and X")
        self._describe(array, axes, [1.0] * array.ndim, [None] * array.ndim, [0.0] * array.ndim, (), ome=False)

    def _describe(
        self,
        array: zarr.Array[Any],
        axes: str,
        scale: list[float],
        units: list[str | None],
        translation: list[float],
        channels: tuple[str, ...],
        *,
        ome: bool,
    ) -> None:
        if set(axes) - set(AXES) or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes):
            raise ImageError(f"{self._path}: axes {axes} do not form an image of T, C, Z, Y and X")
        self._array, self._order = array, axes
        for number, axis in enumerate(axes):
            if not (isfinite(scale[number]) and scale[number] > 0):
                self._notes.append(
                    f"{self._path}: no pixel is {scale[number]} long, as the metadata say of {axis}; taken as unknown"
                )
                scale[number], units[number] = 1.0, None
            if not isfinite(translation[number]):
                translation[number] = 0.0
        at = {axis: number for number, axis in enumerate(axes)}
        shape = tuple(array.shape[at[axis]] if axis in at else 1 for axis in AXES)
        stored = array.shards or array.chunks
        dtype = np.dtype(array.dtype)
        check_type(str(self._path), dtype)
        count = shape[1]
        size, modified = self._identity()
        if self._is_empty():
            self._notes.append(f"{self._path}: no chunk of the array is there, so all pixels are {array.fill_value}")
        self._info = ImageInfo(
            path=str(self._path),
            kind="ome-zarr" if ome else "zarr",
            shape=shape,  # type: ignore[arg-type]
            dtype=np.dtype(np.uint8).name if dtype.kind == "b" else dtype.newbyteorder("=").name,
            axes="".join(axis for axis in AXES if axis in at),
            pixel_size=tuple(scale[at[axis]] if axis in at else 1.0 for axis in AXES),  # type: ignore[arg-type]
            units=tuple(units[at[axis]] if axis in at else None for axis in AXES),  # type: ignore[arg-type]
            translation=tuple(translation[at[axis]] if axis in at else 0.0 for axis in AXES),  # type: ignore[arg-type]
            channel_names=channels if len(channels) == count else tuple(f"channel {n}" for n in range(count)),
            block=tuple(stored[at[axis]] if axis in at else 1 for axis in AXES),  # type: ignore[arg-type]
            size_bytes=size,
            modified_ns=modified,
        )

    def _place_of(self, node: zarr.Group | zarr.Array[Any]) -> AnyPath:
        if isinstance(self._path, RemotePath):
            return self._path.root / node.path
        return Path(node.store_path.store.root) / node.path  # type: ignore[attr-defined]

    @property
    def _folder(self) -> AnyPath:
        """The array's folder."""
        return self._place_of(self._array)

    def _is_empty(self) -> bool:
        """Say whether no chunk is there; a web server does not tell."""
        folder = self._folder
        if isinstance(folder, RemotePath):
            return folder.is_listed and all(path.name in (*_METADATA, ".zarray") for path, _ in folder.files_below())
        return not any(entry.is_dir() or entry.name.replace(".", "").isdecimal() for entry in folder.iterdir())

    def _identity(self) -> tuple[int, int]:
        """Give what changes when a file of the array or of its groups' metadata is rewritten, comes or goes."""
        size = modified = 0
        try:
            for _, stat in self._found():
                size, modified = size + stat.st_size + 1, max(modified, stat.st_mtime_ns)
        except OSError as error:
            raise ImageError(f"{error.filename or self._path}: cannot be read ({error.strerror or error})") from error
        return size, modified

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a region; see `ImageSource.read`."""
        extent = dict(zip(AXES, zip(box.start, box.stop, strict=True), strict=True))
        self._check_shards(extent)
        try:
            block = np.asarray(self._array[tuple(slice(*extent[axis]) for axis in self._order)])
        except Exception as error:  # codecs raise what they like on damaged chunks
            raise ImageError(
                f"{self._path}: the pixels at {box.start} to {box.stop} (TCZYX) cannot be decoded "
                f"({type(error).__name__}: {error})"
            ) from error
        if not self._is_there():
            # A chunk that is not there reads as zeros, and so does every chunk of a disk that has gone.
            raise ImageError(f"{self._path}: has gone while it was read; run again when it is back")
        present = [AXES.index(axis) for axis in self._order]
        block = block.transpose(np.argsort(present))
        block = np.expand_dims(block, tuple(at for at in range(5) if at not in present))
        return np.ascontiguousarray(block, dtype=self._info.dtype)

    def _is_there(self) -> bool:
        try:
            return is_zarr(self._folder)
        except OSError:
            return False

    def _check_shards(self, extent: dict[str, tuple[int, int]]) -> None:
        """Refuse shards without a byte, as a full disk leaves them: zarr would read them as missing, which is zeros."""
        if self._array.shards is None or isinstance(self._path, RemotePath):
            return
        grid = [
            range(extent[axis][0] // length, -(-extent[axis][1] // length))
            for axis, length in zip(self._order, self._array.shards, strict=True)
        ]
        for place in product(*grid):
            shard = self._folder / self._array.metadata.encode_chunk_key(place)
            if shard.exists() and shard.stat().st_size == 0:
                raise ImageError(f"{shard}: this shard is empty: its pixels are lost; copy the image again")

    def files(self) -> Iterator[AnyPath]:
        """Give all files that it is read from: those below the array's folder, and the metadata of groups elsewhere."""
        return (path for path, _ in self._found())

    def _found(self) -> Iterator[tuple[AnyPath, Any]]:
        """Give all files, and what `os.stat` tells of each. What a web server holds is known by its metadata alone."""
        folder = self._folder
        unlisted = isinstance(folder, RemotePath) and not folder.is_listed
        for group in (*self._groups, *([folder] if unlisted else ())):
            if group != folder or unlisted:
                for path in (group / name for name in (*_METADATA, ".zarray")):
                    if path.is_file():
                        yield path, path.stat()
        if isinstance(folder, RemotePath):
            if not unlisted:
                yield from folder.files_below()
            return
        waiting = [folder]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        waiting.append(Path(entry.path))
                    else:
                        yield Path(entry.path), entry.stat()

    def pieces(self) -> tuple[int, int]:
        """Count the chunks, or shards, that are there; see `ImageSource.pieces`."""
        edges = self._array.shards or self._array.chunks
        counts = [-(-length // edge) for length, edge in zip(self._array.shape, edges, strict=True)]
        keys = (self._array.metadata.encode_chunk_key(place) for place in product(*map(range, counts)))
        folder = self._folder
        if isinstance(folder, RemotePath) and folder.is_listed:
            held = {path for path, _ in folder.files_below()}
            return sum(folder / key in held for key in keys), prod(counts)
        return sum((folder / key).is_file() for key in keys), prod(counts)

    def close(self) -> None:
        """Nothing to let go of."""


def _metadata_in(path: AnyPath) -> list[str]:
    """Give the names of the files by which a folder is a Zarr; refuse one that has none."""
    if isinstance(path, RemotePath):
        held = [name for name in ("zarr.json", ".zgroup", ".zarray") if (path / name).is_file()]
        if not held:
            raise ImageError(f"{path}: there is no Zarr (no zarr.json, .zgroup or .zarray in it)")
        return held
    held = [name for name in ("zarr.json", ".zgroup", ".zarray") if os.path.lexists(path / name)]
    if not held and (os.access(path, os.X_OK) or not os.path.lexists(path)):
        raise ImageError(f"{path}: this folder is not a Zarr (no zarr.json, .zgroup or .zarray in it)")
    return held


def _attributes(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any]:
    """Give the attributes of a group or array; zarr takes whatever JSON stands there.

    Raises
    ------
    ImageError
        If they are no mapping.
    """
    held: object = node.metadata.attributes
    if not isinstance(held, dict):
        raise ImageError(
            f"{node.store_path}: the Zarr metadata are damaged: its attributes are not a mapping but {held!r:.50}"
        )
    return held


def _described(group: zarr.Group) -> object:
    """Give what OME-Zarr says of a group: since 0.5 in a mapping of its own."""
    attributes = _attributes(group)
    return attributes.get("ome", attributes)
