"""Shards of a Zarr, looked at before zarr follows what stands in them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.codecs import BytesCodec, ShardingCodec

from pipeline.errors import ImageError
from pipeline.images.told import AGAIN

if TYPE_CHECKING:
    from pathlib import Path

    import zarr

__all__ = ["check_shard"]

_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])

_NOTHING = 2**64 - 1
"""Offset and length of a chunk that is not there."""


def check_shard(path: Path, array: zarr.Array[Any]) -> None:
    """Refuse a shard that was lost or damaged in a way that zarr does not notice.

    Parameters
    ----------
    path : Path
        Of its file. One that is not there is none, and its pixels are the fill value.
    array : zarr.Array
        Sharded.

    Raises
    ------
    ImageError
        If the file has no byte, as a full disk leaves it: zarr would read it as missing, which is zeros. Or if its
        index has no checksum and points beyond the file: zarr would take as much memory as stands there.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size == 0:
        raise ImageError(f"{path}: this shard is empty: its pixels are lost; copy the image again")
    codec = next((each for each in getattr(array.metadata, "codecs", ()) if isinstance(each, ShardingCodec)), None)
    if codec is None or [type(each) for each in codec.index_codecs] != [BytesCodec]:
        return  # with a checksum, which zarr compares
    count = prod(whole // part for whole, part in zip(array.shards or (), codec.chunk_shape, strict=True))
    with path.open("rb") as file:
        file.seek(max(0, size - count * _ENTRY.itemsize) if codec.index_location.value == "end" else 0)
        content = file.read(count * _ENTRY.itemsize)
    index = np.frombuffer(content[: len(content) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY)
    there = index[(index["offset"] != _NOTHING) | (index["length"] != _NOTHING)]
    if (
        len(index) < count
        or (there["offset"] > size).any()
        or (there["length"] > size - np.minimum(there["offset"], size)).any()
    ):
        raise ImageError(f"{path}: damaged: the index of this shard points beyond its {size} bytes; {AGAIN}")
