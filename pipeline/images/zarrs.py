"""OME-Zarr 0.4 and 0.5, and plain Zarr arrays."""

from __future__ import annotations

import json
import os
import re
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
from pipeline.images.pipes import refuse_pipe
from pipeline.images.plates import is_zarr, read_plate
from pipeline.images.source import AXES, ImageInfo, check_type, is_size
from pipeline.images.told import AGAIN, not_opened, not_read, why
from pipeline.images.zarr_metadata import attributes_of, described_by, metadata_in, refuse_many_levels
from pipeline.images.zarr_shards import check_shard
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


_CHUNK = re.compile(r"(c\.)?\d+(\.\d+)*")
"""What the file of a chunk, or of a shard, is called, in the last of its folders."""


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
        self._chunks_found: int | None = None
        node = self._open_node(path)
        if isinstance(node, zarr.Group):
            ome = described_by(node)
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
            held = metadata_in(path)
            if len(held) > 1:
                self._notes.append(f"{path}: there are both {' and '.join(held)}; {held[0]} is read")
            with warnings.catch_warnings():
                # What zarr tells there is told above, or is none of the user's business.
                warnings.simplefilter("ignore")
                return zarr.open(readable(path), mode="r")
        except ImageError:
            raise
        except OSError as error:
            raise not_opened(path, error) from error
        except json.JSONDecodeError as error:
            named = "zarr.json" if "zarr.json" in held else "a file of its metadata"
            raise ImageError(f"{path}: damaged: {named} is no JSON ({error}); {AGAIN}") from error
        except Exception as error:  # JSON of any kind may stand where the metadata should be
            raise ImageError(f"{path}: the Zarr metadata are damaged ({why(error)}); {AGAIN}") from error

    def _open_series(self, number: int) -> zarr.Group | zarr.Array[Any]:
        """Open one of the images of a ``bioformats2raw.layout``: those that the group OME lists, else 0, 1, ..."""
        listed: Any = None
        if is_zarr(self._path / "OME") or (self._path / "OME").is_dir():
            members = self._open_node(self._path / "OME")
            self._groups.append(self._path / "OME")
            described = described_by(members) if isinstance(members, zarr.Group) else None
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
            raise ImageError(f"{self._path}: its metadata name {name!r}, which is not inside this folder; correct them")
        return place

    def _open_group(self, group: zarr.Group) -> None:
        attributes = attributes_of(group)
        described: Any = described_by(group)
        if not isinstance(described, dict):
            raise ImageError(f"{self._path}: the OME-Zarr metadata are not a mapping")
        if "plate" in described:
            first = read_plate(self._path).fields[:1]
            such = f", such as {self._path}/{first[0].path}" if first else ""
            raise ImageError(f"{self._path}: this is a plate; give the image of a well{such}")
        if "multiscales" not in described:
            # Not `group.members()`, which warns of every other file in the folder.
            entries: list[AnyPath] = sorted(self._path.iterdir())
            nodes = {
                entry: self._open_node(entry)
                for entry in entries
                if any((entry / name).is_file() for name in ("zarr.json", ".zarray"))
            }
            arrays = {entry: node for entry, node in nodes.items() if isinstance(node, zarr.Array)}
            if len(arrays) != 1:
                such = f"; give one, such as {next(iter(arrays))}" if arrays else f"; {AGAIN}"
                raise ImageError(
                    f"{self._path}: this Zarr group has no OME-Zarr metadata and holds {len(arrays)} arrays{such}"
                )
            self._open_plain(*arrays.values())
            return
        refuse_many_levels(self._path, described)
        try:
            model = ImageAttrs05 if "ome" in attributes else ImageAttrs04
            multiscale = model.model_validate(described).multiscales[0]
        except ValidationError as error:
            found = error.errors()[0]
            # Without what tells which of several forms was tried.
            place = ".".join(str(part) for part in found["loc"] if re.fullmatch(r"\d+|[a-z]\w*", str(part)))
            raise ImageError(
                f"{self._path}: invalid OME-Zarr metadata: {place}: {found['msg']}; correct it, or write it anew"
            ) from error
        names = [str(axis.name).upper() for axis in multiscale.axes]
        dataset, self.levels = multiscale.datasets[self._level], tuple(each.path for each in multiscale.datasets)
        folder = self._group = self._place_of(group)
        level = self._inside(folder, dataset.path)
        if not is_zarr(level):
            raise ImageError(f"{self._path}: its metadata name the array {dataset.path!r}, which is not there; {AGAIN}")
        array = self._open_node(level)
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
        named: Any = getattr(array.metadata, "dimension_names", None) or attributes_of(array).get("_ARRAY_DIMENSIONS")
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
            raise ImageError(
                f"{self._path}: axes {axes} do not form an image of T, C, Z, Y and X; name each of its axes once, "
                "Y and X among them"
            )
        self._array, self._order = array, axes
        for number, axis in enumerate(axes):
            if not is_size(scale[number]):
                self._notes.append(
                    f"{self._path}: no pixel is {scale[number]} long, as the metadata say of {axis}; taken as unknown"
                )
                scale[number], units[number] = 1.0, None
            if not isfinite(translation[number]):
                translation[number] = 0.0
        at = {axis: number for number, axis in enumerate(axes)}
        shape = tuple(array.shape[at[axis]] if axis in at else 1 for axis in AXES)
        stored = array.shards or array.chunks
        if min(*stored, *array.chunks) < 1:
            raise ImageError(f"{self._path}: damaged: its chunks are {array.chunks} and its shards {stored}; {AGAIN}")
        dtype = np.dtype(array.dtype)
        check_type(str(self._path), dtype)
        count = shape[1]
        size, modified = self._identity()
        self._note_missing()
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

    def _note_missing(self) -> None:
        """Note chunks, or shards, that are not there: the format allows it, and a copy that was cut off looks so."""
        there, total = self._chunks_found, prod(self._grid)
        if there == 0:
            self._notes.append(
                f"{self._path}: no chunk of the array is there, so all pixels are {self._array.fill_value}"
            )
        elif there is not None and there < total:
            self._notes.append(
                f"{self._path}: {total - there} of {total} chunks are not there; their pixels are "
                f"{self._array.fill_value}"
            )

    @property
    def _grid(self) -> list[int]:
        """How many chunks, or shards, there are along each axis of the array."""
        edges = self._array.shards or self._array.chunks
        return [-(-length // edge) for length, edge in zip(self._array.shape, edges, strict=True)]

    def _identity(self) -> tuple[int, int]:
        """Give what changes when a file of the array or of its groups' metadata is rewritten, comes or goes."""
        size = modified = chunks = 0
        try:
            for path, stat in self._found():
                size, modified = size + stat.st_size + 1, max(modified, stat.st_mtime_ns)
                chunks += _CHUNK.fullmatch(path.name) is not None
        except OSError as error:
            raise not_opened(self._path, error) from error
        folder = self._folder
        self._chunks_found = None if isinstance(folder, RemotePath) and not folder.is_listed else chunks
        return size, modified

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a region; see `ImageSource.read`."""
        extent = dict(zip(AXES, zip(box.start, box.stop, strict=True), strict=True))
        self._check_pieces(extent)
        try:
            block = np.asarray(self._array[tuple(slice(*extent[axis]) for axis in self._order)])
        except Exception as error:  # codecs raise what they like on damaged chunks
            raise not_read(self._info, box, error) from error
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

    def _check_pieces(self, extent: dict[str, tuple[int, int]]) -> None:
        """Refuse chunks or shards that are no files, and shards that are damaged in a way that zarr does not notice."""
        folder, shards = self._folder, self._array.shards
        if isinstance(folder, RemotePath):
            return
        grid = [
            range(extent[axis][0] // length, -(-extent[axis][1] // length))
            for axis, length in zip(self._order, shards or self._array.chunks, strict=True)
        ]
        for place in product(*grid):
            path = folder / self._array.metadata.encode_chunk_key(place)
            refuse_pipe(path)
            if shards is not None:
                check_shard(path, self._array)

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
        counts = self._grid
        keys = (self._array.metadata.encode_chunk_key(place) for place in product(*map(range, counts)))
        folder = self._folder
        if isinstance(folder, RemotePath) and folder.is_listed:
            held = {path for path, _ in folder.files_below()}
            return sum(folder / key in held for key in keys), prod(counts)
        return sum((folder / key).is_file() for key in keys), prod(counts)

    def close(self) -> None:
        """Nothing to let go of."""
