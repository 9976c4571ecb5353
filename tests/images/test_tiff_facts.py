"""What TIFF files say of their pixels: axes, sizes, units, names, series, files of a set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from tests.images.reading import assert_reads, info_of, opened, pixels, read_whole, refused_or_right
from tests.images.tiffs import COLOUR, FLAT, PALETTE, SMOOTH, frame


def test_ome_tiff_tells_axes_sizes_units_and_names(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    described = {
        "axes": "TCZYX", "PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 325,
        "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 0.002, "PhysicalSizeZUnit": "mm", "TimeIncrement": 1.5,
        "TimeIncrementUnit": "min", "Channel": {"Name": ["DNA", "0488"]},
    }  # fmt: skip
    tifffile.imwrite(path, pixels((4, 2, 3, 20, 30)), ome=True, metadata=described)
    info = info_of(path)
    assert (info.kind, info.axes, info.dtype, info.shape) == ("tiff", "TCZYX", "uint16", (4, 2, 3, 20, 30))
    assert info.pixel_size == (1.5, 1.0, 0.002, 325.0, 0.325)
    assert info.units == ("minute", None, "millimeter", "nanometer", "micrometer")
    assert info.translation == (0.0,) * 5
    # A name that looks like a number stays as it is written.
    assert info.channel_names == ("DNA", "0488")
    assert info.size_bytes == path.stat().st_size


def test_units_that_ome_leaves_out_are_its_own_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, pixels((3, 20, 30)), ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 2})
    info = info_of(path)
    assert info.pixel_size == (1.0, 1.0, 1.0, 1.0, 2.0)
    assert info.units == (None, None, None, None, "micrometer")
    assert info.channel_names == ("channel 0",)


@pytest.mark.parametrize("value", [0, -1, "NaN", "INF", "wide"])
def test_sizes_that_no_pixel_can_have_are_left_out(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, FLAT, ome=True, metadata={"axes": "YX", "PhysicalSizeX": value})
    info = info_of(path)
    assert info.pixel_size == (1.0,) * 5
    assert info.units == (None,) * 5


def test_each_series_of_an_ome_tiff_has_its_own_pixels_and_facts(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    first, second = pixels((2, 20, 30)), pixels((3, 4, 16, 17), "uint8", seed=1)
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(first, metadata={"axes": "CYX", "PhysicalSizeX": 2, "Channel": {"Name": ["a", "b"]}})
        writer.write(second, metadata={"axes": "TZYX", "PhysicalSizeX": 5}, compression="zlib")
    for series in (None, 0):
        assert np.array_equal(read_whole(path, series), frame(first, "CYX"))
    assert np.array_equal(read_whole(path, 1), frame(second, "TZYX"))
    infos = [info_of(path, series) for series in (0, 1)]
    assert [info.pixel_size[4] for info in infos] == [2.0, 5.0]
    assert [info.axes for info in infos] == ["CYX", "TZYX"]
    assert infos[0].channel_names == ("a", "b")
    for absent in (2, -1):
        with pytest.raises(ImageError, match=f"no series {absent}; the file holds 2"):
            open_image(path, absent)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_of_a_pyramid_the_full_resolution_is_read(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.ome.tif"
    data = pixels((2, 128, 160))
    with tifffile.TiffWriter(path, ome=True) as writer:
        options: dict[str, Any] = {"tile": (32, 32), "compression": compression}
        writer.write(data, subifds=2, metadata={"axes": "CYX"}, **options)
        for step in (2, 4):
            writer.write(data[:, ::step, ::step], subfiletype=1, **options)
    with tifffile.TiffFile(path) as file:
        assert len(file.series[0].levels) == 3
    assert np.array_equal(read_whole(path), frame(data, "CYX"))


def two_files(folder: Path, data: NDArray[Any]) -> list[Path]:
    """Write an OME-TIFF of two planes, each in a file of its own."""
    pair = [folder / "first.ome.tif", folder / "second.ome.tif"]
    planes = "".join(
        f'<TiffData IFD="0" PlaneCount="1" FirstZ="{at}"><UUID FileName="{path.name}">urn:uuid:{at}</UUID></TiffData>'
        for at, path in enumerate(pair)
    )
    for at, path in enumerate(pair):
        described = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{at}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="30" SizeY="20" SizeZ="2" SizeC="1" '
            f'SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(path, data[at], description=described, metadata=None, compression="zlib")
    return pair


def test_ome_tiff_of_several_files_is_one_image_and_a_missing_file_is_refused(tmp_path: Path) -> None:
    data = pixels((2, 20, 30))
    pair = two_files(tmp_path, data)
    assert np.array_equal(read_whole(pair[0]), frame(data, "ZYX"))
    whole = pair[1].read_bytes()
    for length in (*range(0, len(whole), 37), len(whole) - 1):
        pair[1].write_bytes(whole[:length])
        assert refused_or_right(pair[0], frame(data, "ZYX"))
    pair[1].unlink()
    with pytest.raises(ImageError, match=r"second\.ome\.tif belongs to this image and is missing"):
        open_image(pair[0])


def test_an_ome_tiff_is_another_image_when_any_of_its_files_is_rewritten(tmp_path: Path) -> None:
    data = pixels((2, 20, 30))
    pair = two_files(tmp_path, data)
    (tmp_path / "other.tif").write_bytes(b"not of this image")
    before = info_of(pair[0])
    assert before.size_bytes == sum(path.stat().st_size for path in pair)
    later = before.modified_ns + 10**9
    os.utime(pair[1], ns=(later, later))
    assert info_of(pair[0]).modified_ns == later


@pytest.mark.parametrize("written", ["um", "micron", "\\u00B5m", "\\u03bcm"])
def test_imagej_tells_sizes_units_and_times(tmp_path: Path, written: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, pixels((2, 3, 4, 20, 30)), imagej=True, resolution=(2, 4),
        metadata={"axes": "TZCYX", "unit": written, "spacing": -3.0, "finterval": 2.5},
    )  # fmt: skip
    info = info_of(path)
    assert info.axes == "TCZYX"
    assert info.shape == (2, 4, 3, 20, 30)
    assert info.pixel_size == (2.5, 1.0, 3.0, 0.25, 0.5)
    assert info.units == ("second", None, "micrometer", "micrometer", "micrometer")


def test_imagej_units_of_single_axes_count(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, pixels((2, 3, 20, 30)), imagej=True, resolution=(2, 4),
        metadata={"axes": "TZYX", "unit": "um", "yunit": "nm", "zunit": "mm", "spacing": 3, "finterval": 2,
                  "tunit": "min"},
    )  # fmt: skip
    info = info_of(path)
    assert info.pixel_size == (2.0, 1.0, 3.0, 0.25, 0.5)
    assert info.units == ("minute", None, "millimeter", "nanometer", "micrometer")


def test_a_printers_resolution_is_no_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FLAT, resolution=(72, 72), resolutionunit="inch")
    tifffile.imwrite(tmp_path / "b.tif", FLAT, imagej=True, resolution=(2, 2), metadata={"unit": "pixel"})
    for name in ("a.tif", "b.tif"):
        info = info_of(tmp_path / name)
        assert (info.pixel_size, info.units) == ((1.0,) * 5, (None,) * 5)


def test_axes_without_a_name_are_z_and_before_it_t(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    data = pixels((4, 5, 20, 30))
    tifffile.imwrite(path, data)
    assert np.array_equal(read_whole(path), frame(data, "TZYX"))
    assert info_of(path).axes == "TZYX"
    tifffile.imwrite(path, data[0])
    assert info_of(path).axes == "ZYX"
    tifffile.imwrite(path, pixels((2, 2, 2, 20, 30)))
    with pytest.raises(ImageError, match="are more than T, C, Z, Y and X"):
        open_image(path)


def test_colours_have_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for compression in (None, "jpeg", "zlib"):
        tifffile.imwrite(path, COLOUR, photometric="rgb", compression=compression)
        assert info_of(path).channel_names == ("red", "green", "blue")
    tifffile.imwrite(path, SMOOTH, photometric="palette", colormap=PALETTE)
    assert info_of(path).channel_names == ("red", "green", "blue")


def test_jpeg_gives_what_its_own_decoder_gives(tmp_path: Path) -> None:
    """The codec loses something, but no region may lose anything else."""
    path = tmp_path / "a.tif"
    smooth = np.stack([SMOOTH, SMOOTH // 2, 255 - SMOOTH], -1)
    tifffile.imwrite(path, smooth, photometric="rgb", compression="jpeg", tile=(16, 32))
    expected = frame(tifffile.imread(path), "YXS")
    with opened(path) as source:
        assert_reads(source, expected, Box.whole(expected.shape))
        assert_reads(source, expected, Box((0, 1, 0, 15, 30), (1, 3, 1, 18, 70)))
        assert np.abs(expected.astype(int) - frame(smooth, "YXS")).mean() < 10
