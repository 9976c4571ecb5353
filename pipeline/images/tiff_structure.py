"""How the pages of a TIFF hang together, looked at before tifffile follows them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pipeline.errors import ImageError
from pipeline.images.told import AGAIN

if TYPE_CHECKING:
    import tifffile

    from pipeline.remote.paths import AnyPath

__all__ = ["check_first_page", "check_pages"]

_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value of each TIFF data type."""

_PRIVATE = 1 << 15
"""The first tag that a vendor may fill as he likes."""

_SINGLE = {256: "width", 257: "length", 277: "samples", 278: "rows of a strip", 322: "width of a tile",
           323: "length of a tile", 32997: "depth", 32998: "depth of a tile"}  # fmt: skip
"""Tags of one number, with which tifffile reckons how much there is."""

_MOST_TAGS = 4096


def check_first_page(path: AnyPath, file: BinaryIO, size: int) -> None:
    """Refuse a first page on which a text, or several numbers, stand for one: a text times a length fills any memory.

    Parameters
    ----------
    path : Path or RemotePath
        Of the file, for the message.
    file : file object
        Open for reading, at its beginning.
    size : int
        Of the file, in bytes.

    Raises
    ------
    ImageError
        If it is so. What else may be wrong, others find.
    """
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 16:
        return
    magic = struct.unpack(f"{order}H", start[2:4])[0]
    if magic == 43:
        at, count, entry = struct.unpack(f"{order}Q", start[8:])[0], "Q", "HHQQ"
    elif magic == 42 and size < 1 << 32:  # beyond, there are files with offsets of other lengths
        at, count, entry = struct.unpack(f"{order}I", start[4:8])[0], "H", "HHII"
    else:
        return
    if at >= size:
        return
    file.seek(at)
    number = file.read(struct.calcsize(f"{order}{count}"))
    total = struct.unpack(f"{order}{count}", number)[0] if len(number) == struct.calcsize(f"{order}{count}") else 0
    tags = file.read(min(total, _MOST_TAGS) * struct.calcsize(f"{order}{entry}"))
    whole = len(tags) // struct.calcsize(f"{order}{entry}") * struct.calcsize(f"{order}{entry}")
    for code, kind, values, _ in struct.iter_unpack(f"{order}{entry}", tags[:whole]):
        if code in _SINGLE and (values != 1 or kind in (2, 7)):
            raise ImageError(f"{path}: damaged: the {_SINGLE[code]} of page 0 (tag {code}) is not one number; {AGAIN}")


def check_pages(file: tifffile.TiffFile) -> None:
    """Refuse a file that ends before its pages and their descriptions do: tifffile would read what there is.

    Pages of a classic TIFF lie below 4 GiB, also where a program lets the pixels of a file reach beyond. NDPI has
    the upper halves of offsets behind the tags.

    Raises
    ------
    ImageError
        If it does, or if pages follow one another in a circle.
    """
    handle, tiff = file.filehandle, file.tiff
    path, size = handle.path, handle.size
    wide, order = tiff.is_bigtiff, file.byteorder
    inline = 8 if wide else 4
    entries = np.dtype(
        [("code", f"{order}u2"), ("type", f"{order}u2"), ("count", f"{order}u{8 if wide else 4}"),
         ("offset", f"{order}u{8 if wide else 4}")]
    )  # fmt: skip

    def take(length: int, page: int) -> bytes:
        found: bytes = handle.read(length) if length <= size else b""
        if len(found) < length:
            raise ImageError(
                f"{path}: truncated or damaged: page {page} lies outside the file of {size} bytes; copy it again"
            )
        return found

    def number(length: int, page: int) -> int:
        return int.from_bytes(take(length, page), "little" if order == "<" else "big")

    handle.seek(8 if wide else 4)
    at, seen = number(tiff.offsetsize, 0), set[int]()
    while at:
        page = len(seen)
        if at in seen:
            raise ImageError(f"{path}: damaged: after page {page - 1} comes a page that was there before; {AGAIN}")
        seen.add(at)
        handle.seek(at)
        total = number(tiff.tagnosize, page)
        tags = np.frombuffer(take(total * tiff.tagsize, page), dtype=entries)
        at = number(tiff.offsetsize, page)
        upper = np.frombuffer(take(4 * total, page), "<u4").tolist() if tiff.is_ndpi else [0] * total
        for (code, kind, count, lower), above in zip(tags.tolist(), upper, strict=True):
            offset = lower + (above << 32)
            length = _TYPES.get(kind, 1) * count
            if code < _PRIVATE and length > inline and offset + length > size:
                raise ImageError(
                    f"{path}: truncated or damaged: tag {code} of page {page} lies outside the file of {size} "
                    "bytes; copy it again"
                )
