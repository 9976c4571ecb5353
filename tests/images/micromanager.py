"""Stacks as Micro-Manager 2 writes them: an index in front, pages with their pixels right behind, several files."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["describe_stack", "write_stack"]

_BEHIND = 162
"""Bytes of a page before its pixels: those of thirteen tags."""


def describe_stack(files: Sequence[tuple[str, int]], shape: Sequence[int], *, name: str = "Pos0") -> str:
    """Write the OME-XML of one position, of planes in the order TZC in one file after the other.

    Parameters
    ----------
    files : sequence of (str, int)
        Names, and numbers of planes.
    shape : sequence of int
        TZCYX.
    """
    times, depth, channels, height, width = shape
    data, at = "", 0
    for file, count in files:
        for plane in range(count):
            t, rest = divmod(at, depth * channels)
            z, c = divmod(rest, channels)
            data += f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="{t}" IFD="{plane}" PlaneCount="1">'
            data += f'<UUID FileName="{file}">urn:uuid:00000000-0000-0000-0000-000000000000</UUID></TiffData>'
            at += 1
    described = "".join(f'<Channel ID="Channel:0:{c}" Name="{("DAPI", "GFP")[c]}"/>' for c in range(channels))
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0" Name="{name}"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{width}" '
        f'SizeY="{height}" SizeZ="{depth}" SizeC="{channels}" SizeT="{times}" PhysicalSizeX="0.5" PhysicalSizeY="0.25" '
        f'PhysicalSizeZ="2.0">{described}{data}</Pixels></Image></OME>'
    )


def write_stack(
    path: Path, planes: Sequence[tuple[tuple[int, int, int, int], NDArray[Any]]], summary: dict[str, Any], xml: str = ""
) -> None:
    """Write one file of a stack.

    Parameters
    ----------
    path : Path
        Named PREFIX_MMStack_POSITION.ome.tif.
    planes : sequence
        Channel, slice, frame and position of each plane, and its pixels: YX, uint16.
    summary : dict
        What Micro-Manager says of the acquisition: Frames, Slices, Channels and Positions.
    xml : str
        Description of the first page.
    """
    text = json.dumps({"MicroManagerVersion": "2.0.1", "Prefix": path.name.split("_MMStack")[0], **summary}).encode()
    start = 8 + 32 + len(text) + len(text) % 2
    body, index, extra, tail = bytearray(), [], bytearray(), []
    described = xml.encode() + b"\0"
    size = planes[0][1].nbytes
    first = 14 * 12 + 6  # of the first page alone, for it has a description, too
    length = [first + size, *[_BEHIND + size] * (len(planes) - 1)]
    behind = start + sum(length)
    at = start
    for number, (place, pixels) in enumerate(planes):
        height, width = pixels.shape
        own = json.dumps({"ChannelIndex": place[0]}).encode() + b"\0"
        following = at + length[number] if number + 1 < len(planes) else 0
        notes = behind + len(extra)
        extra += own
        tags: list[tuple[int, int, int, int]] = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, at + length[number] - size), (277, 3, 1, 1), (278, 3, 1, height), (279, 4, 1, size),
            (282, 5, 1, 0), (283, 5, 1, 0), (296, 3, 1, 1), (51123, 2, len(own), notes),
        ]  # fmt: skip
        if number == 0:
            tags.insert(5, (270, 2, len(described), behind + len(extra)))
            extra += described
        where = behind + len(extra)
        extra += struct.pack("<II", 1, 1)
        tags = [(code, kind, count, where if code in (282, 283) else value) for code, kind, count, value in tags]
        page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        page += struct.pack("<I", following)
        body += page.ljust(length[number] - size, b"\0") + np.ascontiguousarray(pixels, "<u2").tobytes()
        index.append((*place, at))
        at += length[number]
    mapped = struct.pack("<II", 3453623, len(index)) + b"".join(struct.pack("<5I", *entry) for entry in index)
    shown = struct.pack("<II", 347834724, 2) + b"[]"
    said = struct.pack("<II", 84720485, 2) + b"{}"
    places = [behind + len(extra)]
    for block in (mapped, shown):
        places.append(places[-1] + len(block))
    tail = [mapped, shown, said]
    header = b"II*\0" + struct.pack("<I", start)
    header += struct.pack("<IIIIII", 54773648, places[0], 483765892, places[1], 99384722, places[2])
    header += struct.pack("<II", 2355492, len(text)) + text
    path.write_bytes(header.ljust(start, b"\0") + body + extra + b"".join(tail))
