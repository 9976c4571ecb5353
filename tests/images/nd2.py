"""ND2 as Nikon's programs write it since version 3, as far as readers need it: chunks, and a map of them at the end."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["write_nd2"]

_ALIGNED = 4096
"""Chunks begin at multiples of this."""

_NAME = _ALIGNED - 16 - 8
"""Room for a chunk's name: so the pixels of a frame, behind its time, lie at a multiple, too."""


def _record(name: str, value: object) -> bytes:
    """Encode a named value, as chunks that end in ``LV`` have it."""
    title = f"{name}\0".encode("utf-16-le")

    def head(kind: int) -> bytes:
        return struct.pack("BB", kind, len(title) // 2) + title

    match value:
        case bool():
            return head(1) + struct.pack("?", value)
        case int():
            return head(3) + struct.pack("<I", value)
        case float():
            return head(6) + struct.pack("<d", value)
        case str():
            return head(8) + f"{value}\0".encode("utf-16-le")
        case Mapping():
            records = [_record(inner, each) for inner, each in value.items()]
            length = len(head(11)) + 12 + sum(map(len, records))
            places = np.cumsum([len(head(11)) + 12, *map(len, records)])[:-1].astype("<u8")
            return head(11) + struct.pack("<IQ", len(records), length) + b"".join(records) + places.tobytes()
    raise TypeError(type(value))


def _chunk(name: bytes, content: bytes) -> bytes:
    """Fill a chunk up, so that the next one begins where it should."""
    chunk = struct.pack("<IIQ", 0x0ABECEDA, _NAME, len(content)) + name.ljust(_NAME, b"\0") + content
    return chunk + bytes(-len(chunk) % _ALIGNED)


def write_nd2(
    path: Path, positions: Sequence[NDArray[np.uint16]], size: tuple[float, float], names: Sequence[str],
    frames: int | None = None,
) -> None:  # fmt: skip
    """Write stacks that were taken at several positions.

    Parameters
    ----------
    path : Path
        The file.
    positions : sequence of ndarray
        CZYX, all of one shape.
    size : tuple of float
        Of a pixel, along Z, and along Y and X, in micrometers.
    names : sequence of str
        Of the channels.
    frames : int, optional
        How many were taken before somebody ended it; all where absent.
    """
    channels, depth, height, width = positions[0].shape
    wide, count = width * channels * 2, len(positions) * depth if frames is None else frames
    attributes = {
        "uiWidth": width, "uiWidthBytes": wide, "uiHeight": height, "uiComp": channels, "uiBpcInMemory": 16,
        "uiBpcSignificant": 16, "uiSequenceCount": count, "uiTileWidth": width,
        "uiTileHeight": height, "eCompression": 2, "dCompressionParam": 0.0, "ePixelType": 1,
        "uiVirtualComponents": channels,
    }  # fmt: skip
    planes: dict[str, Any] = {
        f"a{at}": {
            "uiCompCount": 1, "uiSampleIndex": 0, "uiModalityMask": 1, "pFilterPath": {},
            "pFluorescentProbe": {"m_sName": ""}, "uiColor": 255 << 8 * at, "sDescription": name,
        }
        for at, name in enumerate(names)
    }  # fmt: skip
    picture = {
        "dTimeMSec": 0.0, "dTimeAbsolute": 2460000.5, "dXPos": 0.0, "dYPos": 0.0, "dZPos": 0.0, "dAngle": 0.0,
        "sPicturePlanes": {"uiCount": channels, "uiCompCount": channels, "sPlaneNew": planes, "uiSampleCount": 1,
                           "sSampleSetting": {}},
        "dCalibration": size[1], "dAspect": 1.0, "bCalibrated": True, "dObjectiveMag": 20.0, "dObjectiveNA": 0.75,
        "dRefractIndex1": 1.0, "dZoom": 1.0,
    }  # fmt: skip
    stack = {
        "eType": 4, "uiNextLevelCount": 0,
        "uLoopPars": {"uiCount": depth, "dZLow": 0.0, "dZHigh": size[0] * (depth - 1), "dZStep": size[0],
                      "dZHome": 0.0, "bZInverted": False, "iType": 0},
    }  # fmt: skip
    points = {
        f"i{at:010}": {"dPosX": 100.0 * at, "dPosY": 0.0, "dPosZ": 0.0, "dPFSOffset": 0.0, "dPosName": f"p{at}"}
        for at in range(len(positions))
    }
    experiment = {
        "eType": 2, "uiNextLevelCount": 1, "ppNextLevelEx": {"i0000000000": stack},
        "uLoopPars": {"uiCount": len(positions), "bUseZ": False, "bRelativeXY": False, "Points": points},
    }  # fmt: skip
    chunks: dict[bytes, bytes] = {
        b"ImageAttributesLV!": _record("SLxImageAttributes", attributes),
        b"ImageMetadataSeqLV|0!": _record("SLxPictureMetadata", picture),
        b"ImageMetadataLV!": _record("SLxExperiment", experiment),
    }
    # Of each plane the channels lie pixel by pixel, behind its time.
    taken = [image[:, z].transpose(1, 2, 0) for image in positions for z in range(depth)]
    for at, frame in enumerate(taken[:count]):
        chunks[b"ImageDataSeq|%d!" % at] = struct.pack("<d", 0.0) + frame.astype("<u2").tobytes()
    chunks[b"CustomData|AcqTimesCache!"] = np.zeros(count).tobytes()
    signature = struct.pack("<IIQ32s64s", 0x0ABECEDA, 32, 64, b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0")
    content = signature.ljust(_ALIGNED, b"\0")
    listed = b""
    for name, inside in chunks.items():
        listed += name + struct.pack("<QQ", len(content), len(inside))
        content += _chunk(name, inside)
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(content))
    path.write_bytes(content + _chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", listed + end) + end)
