"""Results as OME-TIFF: the same pixels at all levels, valid OME-XML, and never more than some tiles in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.errors import StoreError
from pipeline.images.opening import open_image
from pipeline.results import Result
from pipeline.stores.metadata import Space
from pipeline.stores.ome_tiff import TiffImage, write_ome_tiff
from tests.fields import load_fields
from tests.plates import write_plate


@pytest.fixture(scope="module")
def field() -> NDArray[np.uint8]:
    return load_fields()[0]


def run(bright: str, given: Path, into: Path, /, **settings: Any) -> Result:  # noqa: ANN401
    values = {"model": bright, "tile": 256, "execution": {"scheduler": "serial"}, "audit": {"windows": 0}}
    report = segment(given, into, make_config(values | settings))[0]
    assert report.result is not None, report.reason
    return open_result(report.result)


def xml_of(path: Path) -> str:
    text = tifffile.tiffcomment(path)
    assert isinstance(text, str)
    return text


def export(result: Result, path: Path) -> ome_types.OME:
    """Export by the command line, and give the OME-XML, which the schema accepts."""
    done = subprocess.run(
        [Path(sys.executable).parent / "seamfree", "export", str(result.path), "--ome-tiff", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = xml_of(path)
    ome_types.validate_xml(text)
    return ome_types.from_xml(text)


def check_levels(series: tifffile.TiffPageSeries, levels: list[Any], *, last: bool = False) -> None:
    assert len(series.levels) == len(levels)
    for found, level in zip(series.levels, levels, strict=True):
        expected = np.moveaxis(level[:], 0, -1) if last else level[:]
        np.testing.assert_array_equal(found.asarray(), expected)
        assert all(isinstance(page, tifffile.TiffPage | tifffile.TiffFrame) for page in found.pages)
        assert found.keyframe.is_tiled


@pytest.mark.slow
def test_a_movie_of_two_channels_is_written_with_labels_and_pyramids(
    tmp_path: Path, bright: str, field: NDArray[np.uint8]
) -> None:
    frames = np.stack([np.stack([field, field[::-1]]), np.stack([field[:, ::-1], field])]).astype(np.uint16) * 9
    tifffile.imwrite(
        tmp_path / "a.ome.tif", frames, ome=True, tile=(256, 256),
        metadata={"axes": "TCYX", "PhysicalSizeX": 0.65, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 325,
                  "PhysicalSizeYUnit": "nm", "TimeIncrement": 2.5, "TimeIncrementUnit": "min",
                  "Channel": {"Name": ["membrane", "DNA"]}},
    )  # fmt: skip
    result = run(bright, tmp_path / "a.ome.tif", tmp_path / "out", channels=["DNA"])
    image, semantic, instances = export(result, tmp_path / "b.ome.tif").images
    assert [each.name for each in (image, semantic, instances)] == ["a", "semantic", "instances"]
    assert [channel.name for channel in image.pixels.channels] == ["membrane", "DNA"]
    for each in (image, semantic, instances):
        assert (each.pixels.physical_size_x, each.pixels.physical_size_y) == (0.65, 325)
        assert (each.pixels.physical_size_y_unit.value, each.pixels.time_increment) == ("nm", 2.5)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        assert [series.axes for series in file.series] == ["TCYX", "TYX", "TYX"]
        assert not file.is_bigtiff
        for series, levels in zip(file.series, (result.image, result.semantic, result.instances), strict=True):
            check_levels(series, levels)
        # Fewer than 65536 objects: 16 bits, which more programs read.
        assert [series.dtype.name for series in file.series] == ["uint16", "uint8", "uint16"]
    # And seamfree reads it again, with what it knew.
    source = open_image(tmp_path / "b.ome.tif")
    again = source.info
    source.close()
    assert (again.shape, again.channel_names) == ((2, 2, 1, 520, 696), ("membrane", "DNA"))
    assert again.pixel_size[3:] == (325, 0.65)
    first = (tmp_path / "b.ome.tif").read_bytes()
    export(result, tmp_path / "b.ome.tif")
    assert (tmp_path / "b.ome.tif").read_bytes() == first


@pytest.mark.slow
def test_a_colour_picture_stays_one(tmp_path: Path, bright: str, field: NDArray[np.uint8]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([255 - field, field, field // 2], axis=-1), photometric="rgb")
    result = run(bright, tmp_path / "a.tif", tmp_path / "out", channels=["green"])
    export(result, tmp_path / "b.ome.tif")
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        assert file.series[0].axes == "YXS"
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
        check_levels(file.series[0], result.image, last=True)
        check_levels(file.series[2], result.instances)


@pytest.mark.slow
def test_the_image_of_an_ome_zarr_is_taken_from_there_while_it_is_what_it_was(
    tmp_path: Path, bright: str, field: NDArray[np.uint8]
) -> None:
    source = write_plate(tmp_path / "P.zarr", [field], ("A/1",), 1) / "A/1/0"
    result = run(bright, source, tmp_path / "out")
    export(result, tmp_path / "b.ome.tif")
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        check_levels(file.series[0], [field, field[::2, ::2]])
        check_levels(file.series[2], result.instances)
    zarr.open_array(source / "s0", mode="r+")[:5] = 7
    assert [image.name for image in export(result, tmp_path / "c.ome.tif").images] == ["semantic", "instances"]


def test_volumes_and_positions(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 99, (3, 4, 50, 60)).astype(np.float32)
    levels = [
        zarr.create_array(tmp_path / "0", data=stack),
        zarr.create_array(tmp_path / "1", data=stack[..., ::2, ::2]),
    ]
    units = (None, "micrometer", "micrometer", "furlong")
    space = Space("CZYX", (1, 2.5, 0.5, 0.5), (0, 7, 10.5, 3), units)
    write_ome_tiff(tmp_path / "a.ome.tif", [TiffImage("a", space, levels, ("x", "y", "z"))], "any")
    text = xml_of(tmp_path / "a.ome.tif")
    ome_types.validate_xml(text)
    (image,) = ome_types.from_xml(text).images
    assert (image.pixels.physical_size_z, image.pixels.physical_size_y, image.pixels.physical_size_x) == (
        2.5,
        0.5,
        None,
    )
    assert {plane.position_y for plane in image.pixels.planes} == {10.5}
    assert len(image.pixels.planes) == 12
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        check_levels(file.series[0], levels)


@pytest.mark.parametrize(("dtype", "stored"), [("float16", "float32"), ("int8", "int8"), ("float64", "float64")])
def test_types_that_nobody_reads_become_larger_ones(tmp_path: Path, dtype: str, stored: str) -> None:
    pixels = np.arange(600).reshape(20, 30).astype(dtype)
    space = Space("YX", (1, 1), (0, 0), (None, None))
    level = zarr.create_array(tmp_path / "0", data=pixels)
    write_ome_tiff(tmp_path / "a.ome.tif", [TiffImage("a", space, [level], ("x",))], "any")
    found = tifffile.imread(tmp_path / "a.ome.tif")
    assert found.dtype == stored
    np.testing.assert_array_equal(found, pixels)


def test_what_ome_tiff_does_not_know_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    level = zarr.create_array(tmp_path / "0", data=np.zeros((4, 5), dtype=np.uint64))
    space = Space("YX", (1, 1), (0, 0), (None, None))
    with pytest.raises(
        StoreError, match=r"a\.ome\.tif: 'a' has pixels of uint64, which OME-TIFF does not know; convert"
    ):
        write_ome_tiff(tmp_path / "a.ome.tif", [TiffImage("a", space, [level], ("x",))], "any")
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    (tmp_path / "1").mkdir()
    pixels = zarr.create_array(tmp_path / "1" / "0", data=np.zeros((4, 5), dtype=np.uint8))
    with pytest.raises(StoreError, match=r"/1: cannot be written \(Is a directory\); it is a folder; move it away"):
        write_ome_tiff(tmp_path / "1", [TiffImage("a", space, [pixels], ("x",))], "any")


_LARGE = """
import resource, sys
from pathlib import Path
import zarr
from pipeline.stores.metadata import Space
from pipeline.stores.ome_tiff import TiffImage, write_ome_tiff

def write(edge, name):
    shape = (edge, edge)
    path = Path(sys.argv[1]) / name
    level = zarr.create_array(path, shape=shape, chunks=(512, 512), shards=(4096, 4096), dtype="uint8")
    level[:600, :700] = 9
    image = TiffImage("a", Space("YX", (1, 1), (0, 0), (None, None)), [level], ("x",))
    big = write_ome_tiff(Path(sys.argv[1]) / f"{name}.ome.tif", [image], "any")
    print(big, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)

write(4096, "small")
write(66000, "large")
"""


@pytest.mark.slow
def test_what_may_not_fit_is_a_big_tiff_written_without_being_held(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _LARGE, tmp_path], capture_output=True, text=True, check=True)
    (small, before), (large, after) = (line.split() for line in done.stdout.splitlines())
    assert (small, large) == ("False", "True")
    # In MiB; the large image has 4154.
    assert int(after) - int(before) < 400
    with tifffile.TiffFile(tmp_path / "large.ome.tif") as file:
        assert file.is_bigtiff
        assert file.series[0].shape == (66000, 66000)
        corner = zarr.open_array(file.series[0].aszarr(), mode="r")
        assert (
            int(np.asarray(corner[599, 699])),
            int(np.asarray(corner[600, 0])),
            int(np.asarray(corner[65999, 65999])),
        ) == (9, 0, 0)
