"""Small fields of discs with their masks, for trainings of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray

__all__ = ["HELD_OUT", "draw_field", "write_config", "write_data"]

HELD_OUT = "64x80-1"


def draw_field(shape: tuple[int, int], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw about a dozen discs on a grid of jittered places; some of them touch."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    mask = np.zeros(shape, dtype=np.uint16)
    number = 0
    for row in range(9, shape[0], 16):
        for column in range(9, shape[1], 16):
            number += 1
            y, x = row + random.uniform(-2, 2), column + random.uniform(-2, 2)
            mask[((rows - y) ** 2 + (columns - x) ** 2 <= random.uniform(4.5, 7) ** 2) & (mask == 0)] = number
    bright = random.uniform(90, 180, number + 1)
    bright[0] = 3
    return (bright[mask] + random.normal(0, 1, shape)).clip(0, 255).astype(np.uint8), mask


def write_data(folder: Path) -> Path:
    """Write two groups of fields as a data set; the smaller one is to be held out."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number, shape in enumerate([(80, 80)] * 3 + [(64, 80)] * 2):
        image, mask = draw_field(shape, number)
        tifffile.imwrite(folder / "images" / f"{number}.tif", image)
        tifffile.imwrite(folder / "masks" / f"{number}.tif", mask)
    return folder


def write_config(path: Path, **changes: Any) -> Path:  # noqa: ANN401 (as YAML takes them)
    """Write a configuration of a training of seconds."""
    values = {
        "name": "discs",
        "licence": "MIT",
        "data": "drawn discs",
        "data_licence": "none",
        "architecture": {"depth": 2, "base_channels": 4, "classes": 3, "norm": "batch"},
        "held_out": [HELD_OUT],
        "steps": 4,
        "patch": 92,
        "warm_up": 2,
        **changes,
    }
    path.write_text(yaml.safe_dump(values))
    return path
