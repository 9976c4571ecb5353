"""Arrays of a result: made once, then written by whole shards, each by one tile.

Writing needs no lock: a shard is one file, and zarr writes a file beside it and renames. Zarr v2 has no shards; there,
what one tile writes are the files of some whole chunks. The same pixels give the same bytes; shards, or chunks, of
nothing but zeros are no files at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numcodecs
import numcodecs.blosc
import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from pipeline.errors import StoreError
from pipeline.remote.paths import AnyPath, RemotePath
from pipeline.remote.zarr_stores import readable
from pipeline.stores.written import note_written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.geometry import Box

__all__ = ["ArraySpec", "ResultArray", "create_array"]

COMPRESSION_LEVEL = 1
"""Of zstd. Higher levels made label images a little smaller and took several times as long."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a result.

    Parameters
    ----------
    path : str
        Below the result's folder, such as ``"labels/semantic/0"``.
    frame : str
        The axes by which the pipeline addresses it: ``"TCZYX"`` for images, ``"TZYX"`` for labels.
    axes : str
        The axes that it has in the file, a part of the frame.
    shape, chunk, shard : tuple of int
        In the frame; 1 along axes that the file lacks.
    dtype : str
        NumPy's name.
    zarr_format : {2, 3}
        3 for OME-Zarr 0.5, 2 for 0.4.
    """

    path: str
    frame: str
    axes: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    dtype: str
    zarr_format: Literal[2, 3] = 3

    def present(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """Leave the entries of the axes that the file has."""
        return tuple(value for axis, value in zip(self.frame, values, strict=True) if axis in self.axes)


def create_array(result: Path, spec: ArraySpec) -> None:
    """Make an array in a result: Zarr v3, sharded, zstd; or Zarr v2, Blosc with zstd, which more readers know there.

    Parameters
    ----------
    result : Path
        The result's folder; made if it is not there.
    spec : ArraySpec
        The array.

    Raises
    ------
    StoreError
        If there is such an array already, the folder cannot be written to, or the spec contradicts itself.
    """
    for axis, length in zip(spec.frame, spec.shape, strict=True):
        if axis not in spec.axes and length != 1:
            raise StoreError(
                f"{result / spec.path}: {length} pixels along {axis}, an axis that the file shall not have"
            )
    shard, chunk = spec.present(spec.shard), spec.present(spec.chunk)
    kind: dict[str, Any] = {
        "shards": shard if shard != chunk else None,
        "compressors": ZstdCodec(level=COMPRESSION_LEVEL),
        "dimension_names": [axis.lower() for axis in spec.axes],
    }
    if spec.zarr_format == 2:
        # OME-Zarr 0.4 wants a folder for each axis, not dots.
        kind = {
            "zarr_format": 2,
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
            "compressors": numcodecs.Blosc(cname="zstd", clevel=COMPRESSION_LEVEL, shuffle=numcodecs.Blosc.SHUFFLE),
        }
    try:
        zarr.create_array(
            store=result / spec.path,
            shape=spec.present(spec.shape),
            dtype=spec.dtype,
            chunks=chunk,
            fill_value=0,
            config={"write_empty_chunks": False},
            **kind,
        )
    except OSError as error:
        raise StoreError(f"{result / spec.path}: the array cannot be made ({error.strerror or error})") from error
    except ValueError as error:
        raise StoreError(f"{result / spec.path}: the array cannot be made ({error})") from error
    names = (".zarray", ".zattrs") if spec.zarr_format == 2 else ("zarr.json",)
    note_written(*(result / spec.path / name for name in names))


class ResultArray:
    """An array of a result, addressed in its frame whatever axes the file has.

    Parameters
    ----------
    result : Path or RemotePath
        The result's folder; elsewhere than on a disk it is read alone.
    spec : ArraySpec
        The array.

    Raises
    ------
    StoreError
        If it is not there, or is another array than the spec says.
    """

    def __init__(self, result: AnyPath, spec: ArraySpec) -> None:
        self.spec = spec
        self._where = result / spec.path
        mode: Literal["r", "r+"] = "r" if isinstance(result, RemotePath) else "r+"
        if spec.zarr_format == 2:
            # Blosc's own threads put their blocks into a chunk in the order in which they finish.
            numcodecs.blosc.use_threads = False
        try:
            self._array: zarr.Array[Any] = zarr.open_array(readable(self._where), mode=mode)
        except (OSError, ValueError, zarr.errors.BaseZarrError) as error:
            raise StoreError(f"{self._where}: the array cannot be opened ({error})") from error
        held, wanted = (self._array.shape, self._array.dtype), (spec.present(spec.shape), np.dtype(spec.dtype))
        if held != wanted:
            raise StoreError(
                f"{self._where}: an array of {held[0]} {held[1]} lies where one of {wanted[0]} {wanted[1]} belongs; "
                "start over with --fresh"
            )

    def _index(self, box: Box) -> tuple[slice, ...]:
        return tuple(part for axis, part in zip(self.spec.frame, box.slices, strict=True) if axis in self.spec.axes)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a region inside the array.

        Parameters
        ----------
        box : Box
            In the frame.

        Returns
        -------
        ndarray
            Of the box's shape; zeros where nothing has been written.

        Raises
        ------
        StoreError
            If the region reaches beyond the array, or a chunk is damaged or cannot be read.
        """
        if any(stop > length for stop, length in zip(box.stop, self.spec.shape, strict=True)):
            raise StoreError(f"{self._where}: {box.start} to {box.stop} reaches beyond an array of {self.spec.shape}")
        try:
            block = np.asarray(self._array[self._index(box)])
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(f"{self._where}: {box.start} to {box.stop} cannot be read ({error})") from error
        return block.reshape(box.shape)

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Write a region that consists of whole shards, at the far end of the array of what is left of them.

        Parameters
        ----------
        box : Box
            In the frame.
        block : ndarray
            Of the box's shape and the array's type.

        Raises
        ------
        StoreError
            If the region cuts a shard, which another tile might be writing, the block does not fit it, or the disk
            refuses.
        """
        if block.shape != box.shape or not np.can_cast(block.dtype, self._array.dtype, "equiv"):
            raise StoreError(
                f"{self._where}: a block of {block.shape} {block.dtype} cannot be written to a region of {box.shape} "
                f"{self._array.dtype}"
            )
        for axis, edge in enumerate(self.spec.shard):
            start, stop, length = box.start[axis], box.stop[axis], self.spec.shape[axis]
            if start % edge or (stop % edge and stop != length) or stop > length:
                raise StoreError(
                    f"{self._where}: writing {start} to {stop} along {self.spec.frame[axis]} would cut a shard of "
                    f"{edge}"
                )
        try:
            self._array[self._index(box)] = block.reshape(self.spec.present(box.shape))
        except OSError as error:
            raise StoreError(
                f"{self._where}: cannot be written ({error.strerror or error}); make sure that there is room and that "
                "it may be written to, and run again: what is done is kept"
            ) from error
        note_written(*self._files(box))

    def _files(self, box: Box) -> Iterator[Path]:
        """Give the files of the shards, or of the chunks where there are no shards, that a region consists of."""
        plain = self.spec.zarr_format == 2
        shard = self.spec.present(self.spec.chunk if plain else self.spec.shard)
        where = self._where
        assert isinstance(where, Path)
        folder = where if plain else where / "c"
        ranges = [
            range(part.start // edge, -(-part.stop // edge)) for part, edge in zip(self._index(box), shard, strict=True)
        ]
        return (folder.joinpath(*map(str, place)) for place in product(*ranges))
