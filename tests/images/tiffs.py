"""Arrays, and how they are written as TIFF files of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.images.reading import pixels

Write = Callable[[Path], object]
Case = tuple[Write, NDArray[Any]]


def case(data: NDArray[Any], expected: NDArray[Any], **options: Any) -> Case:  # noqa: ANN401
    return partial(tifffile.imwrite, data=data, **options), expected


def frame(data: NDArray[Any], axes: str) -> NDArray[Any]:
    """Bring an array of the named axes to TCZYX; samples are channels."""
    order = [axes.replace("S", "C").index(axis) for axis in "TCZYX" if axis in axes.replace("S", "C")]
    missing = tuple(at for at, axis in enumerate("TCZYX") if axis not in axes.replace("S", "C"))
    return np.expand_dims(data.transpose(order), missing)


FLAT = pixels((45, 70))
STACK = pixels((5, 45, 70))  # three planes would be taken for colours
COLOUR = pixels((45, 70, 3), "uint8")
SMOOTH = np.add.outer(np.arange(45), np.arange(70)).astype("uint8")
PALETTE = pixels((3, 256), "uint16")
LAYOUTS: dict[str, dict[str, Any]] = {"striped": {"rowsperstrip": 7}, "one strip": {}, "tiled": {"tile": (16, 32)}}
