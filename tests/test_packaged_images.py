"""Real images that packages bring along, through the pipeline: those of the lock always, others where installed.

Without being imported: their files are all that is wanted. PNG is no format of seamfree's, and becomes TIFF first.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from skimage.io import imread

from pipeline import open_result
from pipeline.verify import verify
from tests.images.reading import read_whole
from tests.results import run


def packaged(package: str, name: str) -> Path:
    """Give a file of a package, or skip the test."""
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package}")
    return Path(found.origin).parent / name


def as_read(pixels: NDArray[Any], axes: str) -> NDArray[Any]:
    """Bring pixels to TCZYX; samples of colours are channels."""
    axes = axes.replace("S", "C")
    ordered = np.transpose(pixels, [axes.index(axis) for axis in "TCZYX" if axis in axes])
    return ordered.reshape([pixels.shape[axes.index(axis)] if axis in axes else 1 for axis in "TCZYX"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "name", "axes", "channel", "objects"),
    [
        ("skimage", "data/cell.png", "YX", None, False),
        ("skimage", "data/ihc.png", "YXS", "blue", False),
        ("mahotas", "demos/data/nuclear.png", "YXS", "red", True),
        ("stardist", "data/images/img2d.tif", "YX", None, True),
        ("stardist", "data/images/img3d.tif", "ZYX", None, True),
        ("PartSegData", "static_files/initial_images/stack.tif", None, "0", True),
    ],
)  # fmt: skip
def test_an_image_is_read_as_it_is_and_its_tiling_does_not_show(
    package: str, name: str, axes: str | None, channel: str | None, objects: bool, tmp_path: Path
) -> None:
    path = packaged(package, name)
    if path.suffix == ".png":
        pixels = imread(path)
        path = tmp_path / f"{path.stem}.tif"
        tifffile.imwrite(path, pixels, photometric="rgb" if axes == "YXS" else "minisblack")
    else:
        with tifffile.TiffFile(path) as file:
            pixels, axes = file.series[0].asarray(), axes or file.series[0].axes
    np.testing.assert_array_equal(read_whole(path), as_read(pixels, str(axes)))
    changes: dict[str, Any] = {"instances": {"method": "watershed"}}
    if channel is not None:
        changes["channels"] = [channel]
    results = [run(path, tmp_path / str(tile), tile=tile, **changes) for tile in (128, 512)]
    first, second = (open_result(result) for result in results)
    np.testing.assert_array_equal(first.instances[0][:], second.instances[0][:])
    assert first.table.equals(second.table)
    assert bool(first.objects) or not objects
    assert all(check.passed for check in verify(results[0]))
