"""Real fields of nuclei: of the data set where it is at hand, else of a package; and large images made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

__all__ = ["DATA", "FIELD", "compose", "load_fields", "write_tiled"]

DATA = Path(__file__).parents[2] / "shared" / "data" / "nuclei_fluorescence"

FIELD = (520, 696)
"""Shape of a field."""


def load_fields(data: Path = DATA) -> list[NDArray[np.uint8]]:
    """Read all fields of one size, each a different one; without the data set, parts of one real image."""
    images = sorted((data / "images").glob("*.tif"))
    if images:
        return [field for field in map(tifffile.imread, images) if field.shape == FIELD]
    import mahotas.demos

    whole = mahotas.demos.nuclear_image()[..., 0]
    # Its four corners, which hardly overlap.
    return [whole[rows, columns] for rows in (np.s_[: FIELD[0]], np.s_[-FIELD[0] :])
            for columns in (np.s_[: FIELD[1]], np.s_[-FIELD[1] :])]  # fmt: skip


def compose(fields: list[NDArray[np.uint8]], shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint16]:
    """Put fields side by side until the shape is filled, brought to one brightness, with the noise that they have.

    Where there are not enough fields, they come again turned by half a circle or mirrored, with fresh photon noise:
    no two places are copies of one another.
    """
    random = np.random.default_rng(seed)
    rows, columns = -(-shape[0] // FIELD[0]), -(-shape[1] // FIELD[1])
    canvas = np.zeros((rows * FIELD[0], columns * FIELD[1]), dtype=np.uint16)
    order = random.permutation(len(fields))
    for at in range(rows * columns):
        field = fields[order[at % len(fields)]].astype(np.float64)
        low, high = np.percentile(field, [1, 99.8])
        field = np.clip((field - low) / (high - low), 0, 1.5) * 3000 + 150
        turn = at // len(fields)
        if turn:
            field = [field, field[::-1], field[:, ::-1], field[::-1, ::-1]][turn % 4]
            field = random.poisson(field / 4) * 4.0
        row, column = divmod(at, columns)
        place = np.s_[row * FIELD[0] : (row + 1) * FIELD[0], column * FIELD[1] : (column + 1) * FIELD[1]]
        canvas[place] = field.astype(np.uint16)
    return canvas[: shape[0], : shape[1]]


def write_tiled(path: Path, image: NDArray[np.generic], pixel_size: float = 0.65) -> None:
    """Write a tiled, compressed OME-TIFF with a pixel size in micrometres."""
    tifffile.imwrite(
        path,
        image,
        tile=(512, 512),
        compression="zlib",
        ome=True,
        bigtiff=image.nbytes > 2**31,
        metadata={"axes": "YX", "PhysicalSizeX": pixel_size, "PhysicalSizeXUnit": "µm",
                  "PhysicalSizeY": pixel_size, "PhysicalSizeYUnit": "µm", "Channel": {"Name": ["DNA"]}},
    )  # fmt: skip
