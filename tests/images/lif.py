"""LIF as Leica's programs write it, as far as readers need it: a description in XML, then the pixels of each image."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAMES", "write_lif"]

NAMES = ("Green", "Red")
"""Colours of the channels, which their names are taken from."""


def _block(content: bytes) -> bytes:
    return struct.pack("<II", 0x70, len(content)) + content


def write_lif(path: Path, images: Mapping[str, NDArray[Any]], size: Sequence[float], axes: str = "XYZ") -> None:
    """Write images of one file.

    Parameters
    ----------
    path : Path
        The file.
    images : mapping of str to ndarray
        By name, CZYX, uint16, of up to two channels.
    size : sequence of float
        Of a pixel along Z, Y and X, in micrometers.
    axes : str
        What the file says that its axes are, from the fastest: of X, Y, Z, T and λ, a wavelength.
    """
    elements, pixels = "", b""
    for number, (name, image) in enumerate(images.items(), 1):
        channels, depth, height, width = image.shape
        steps = [2, 2 * width, 2 * width * height]
        described = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" '
            f'Max="65535" Unit="" LUTName="{NAMES[channel]}" IsLUTInverted="0" '
            f'BytesInc="{channel * steps[2] * depth}" BitInc="0"/>'
            for channel in range(channels)
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{"XYZTλ".index(axes[at - 1]) + 1}" NumberOfElements="{count}" Origin="0" '
            f'Length="{(count - 1) * edge * 1e-6}" Unit="m" BitInc="0" BytesInc="{step}"/>'
            for at, (count, edge, step) in enumerate(zip((width, height, depth), reversed(size), steps, strict=True), 1)
            if at < 3 or count > 1
        )
        elements += (
            f'<Element Name="{name}" Visibility="1" CopyOption="1" UniqueID="{number}"><Data><Image TextDescription="">'
            f"<ImageDescription><Channels>{described}</Channels><Dimensions>{dimensions}</Dimensions>"
            f'</ImageDescription></Image></Data><Memory Size="{image.nbytes}" MemoryBlockID="MemBlock_{number}"/>'
            "<Children></Children></Element>"
        )
        called = f"MemBlock_{number}".encode("utf-16-le")
        pixels += _block(struct.pack("<cQcI", b"*", image.nbytes, b"*", len(called) // 2) + called)
        pixels += np.ascontiguousarray(image, "<u2").tobytes()
    text = (
        f'<LMSDataContainerHeader Version="2"><Element Name="{path.name}" Visibility="1" CopyOption="1" UniqueID="0">'
        '<Data><Experiment Path=""/></Data><Memory Size="0" MemoryBlockID="MemBlock_0"/>'
        f"<Children>{elements}</Children></Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    path.write_bytes(_block(struct.pack("<cI", b"*", len(text) // 2) + text) + pixels)
