"""Whole slides: the finest level of the scan is read, with the pixel size and the channels that the scanner wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pipeline.images.discover import discover
from pipeline.images.opening import open_image
from tests.images.reading import pixels, read_whole

COLOUR = pixels((64, 96, 3), "uint8")
APERIO = "Aperio Image Library v12.0.15\n46000x32914 [0,100 96x64] (32x32) JPEG/RGB Q=30|AppMag = 20|MPP = {}|Left = 25"


@pytest.mark.parametrize(("said", "size"), [("0.499", 0.499), ("0", None), ("fine", None), ("1e999", None)])
def test_aperio(tmp_path: Path, said: str, size: float | None) -> None:
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        file.write(COLOUR, tile=(32, 32), description=APERIO.format(said), metadata=None, photometric="rgb")
        file.write(COLOUR[::4, ::4], description="Aperio thumbnail", metadata=None, photometric="rgb")
        file.write(COLOUR[::2, ::2], tile=(32, 32), description="Aperio level", metadata=None, photometric="rgb")
    ((found,),) = ([image.name for image in discover([str(tmp_path)])],)
    assert found == "a"
    source = open_image(tmp_path / "a.svs")
    assert source.info.pixel_size[3:] == ((size, size) if size else (1.0, 1.0))
    assert source.info.units[3:] == (("micrometer", "micrometer") if size else (None, None))
    assert source.info.channel_names == ("red", "green", "blue")
    source.close()
    np.testing.assert_array_equal(read_whole(tmp_path / "a.svs"), COLOUR.transpose(2, 0, 1)[None, :, None])


def test_a_multiplexed_slide_names_its_channels(tmp_path: Path) -> None:
    names, planes = ["DAPI", "CD8 & CD4", ""], pixels((3, 64, 96))
    with tifffile.TiffWriter(tmp_path / "a.qptiff") as file:
        for step in (1, 2):
            for name, plane in zip(names, planes, strict=True):
                escaped = name.replace("&", "&amp;")
                text = f"<PerkinElmer-QPI-ImageDescription><Name>{escaped}</Name></PerkinElmer-QPI-ImageDescription>"
                file.write(
                    plane[::step, ::step], tile=(32, 32), description=text, metadata=None,
                    software="PerkinElmer-QPI", resolution=(20000 / step, 40000 / step), resolutionunit="CENTIMETER",
                )  # fmt: skip
            if step == 1:
                file.write(COLOUR[::4, ::4], photometric="rgb", metadata=None, software="PerkinElmer-QPI")
    source = open_image(tmp_path / "a.qptiff")
    assert source.info.shape == (1, 3, 1, 64, 96)
    assert source.info.channel_names == ("DAPI", "CD8 & CD4", "channel 2")
    assert source.info.pixel_size[3:] == pytest.approx((0.25, 0.5))
    assert source.info.units[3:] == ("micrometer", "micrometer")
    source.close()
    np.testing.assert_array_equal(read_whole(tmp_path / "a.qptiff"), planes[None, :, None])


@pytest.mark.parametrize(
    ("per", "unit", "size"), [(40000, "CENTIMETER", 0.25), (72, "INCH", None), (28.35, "CENTIMETER", None)]
)
def test_the_size_of_a_plain_pyramid_is_taken_from_a_microscope_alone(
    tmp_path: Path, per: float, unit: str, size: float | None
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(COLOUR, tile=(32, 32), subifds=1, resolution=(per, per), resolutionunit=unit, photometric="rgb")
        file.write(COLOUR[::2, ::2], tile=(32, 32), subfiletype=1, photometric="rgb")
    source = open_image(tmp_path / "a.tif")
    assert source.info.shape == (1, 3, 1, 64, 96)
    assert source.info.pixel_size[3:] == pytest.approx((size, size) if size else (1.0, 1.0))
    assert (source.info.units[4] is None) == (size is None)
    source.close()


def write_ndpi(path: Path, levels: list[tuple[NDArray[np.uint8], float, float]]) -> None:
    """Write pages as Hamamatsu's scanners do: a TIFF with offsets of 64 bits, their upper halves behind each directory.

    Each page comes with its magnification, and pixels per centimetre along X; along Y there are half as many.
    """
    written = bytearray(struct.pack("<2sHQ", b"II", 42, 0))
    link = 4
    for image, magnification, per in levels:
        values: list[tuple[int, str, bytes]] = [
            (256, "I", struct.pack("<I", image.shape[1])),
            (257, "I", struct.pack("<I", image.shape[0])),
            (258, "H", struct.pack("<3H", 8, 8, 8)),
            (259, "H", struct.pack("<H", 1)),
            (262, "H", struct.pack("<H", 2)),
            (271, "s", b"Hamamatsu\0"),
            (273, "I", struct.pack("<I", len(written))),
            (277, "H", struct.pack("<H", 3)),
            (278, "I", struct.pack("<I", image.shape[0])),
            (279, "I", struct.pack("<I", image.nbytes)),
            (282, "r", struct.pack("<2I", int(per), 1)),
            (283, "r", struct.pack("<2I", int(per / 2), 1)),
            (296, "H", struct.pack("<H", 3)),
            (65420, "I", struct.pack("<I", 1)),
            (65421, "f", struct.pack("<f", magnification)),
        ]
        kinds = {"s": (2, 1), "H": (3, 2), "I": (4, 4), "r": (5, 8), "f": (11, 4)}
        written += image.tobytes()
        entries = []
        for tag, kind, value in values:
            number, size = kinds[kind]
            place = value.ljust(4, b"\0")
            if len(value) > 4:
                place = struct.pack("<I", len(written))
                written += value + b"\0" * (len(value) % 2)
            entries.append(struct.pack("<HHI", tag, number, len(value) // size) + place)
        struct.pack_into("<Q", written, link, len(written))
        link = len(written) + 2 + 12 * len(entries)
        written += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(8 + 4 * len(entries))
    path.write_bytes(written)


def test_hamamatsu(tmp_path: Path) -> None:
    """Its levels are pages one after the other; then comes a picture of the whole slide."""
    picture = np.ascontiguousarray(COLOUR[:24, :72])
    levels = [(np.ascontiguousarray(COLOUR[::step, ::step]), 20.0 / step, 40000.0 / step) for step in (1, 2, 4)]
    write_ndpi(tmp_path / "a.ndpi", [*levels, (picture, -1.0, 100.0)])
    assert [image.name for image in discover([str(tmp_path)])] == ["a"]
    source = open_image(tmp_path / "a.ndpi")
    assert source.info.shape == (1, 3, 1, 64, 96)
    assert source.info.pixel_size[3:] == pytest.approx((0.5, 0.25))
    assert source.info.units[3:] == ("micrometer", "micrometer")
    assert source.info.channel_names == ("red", "green", "blue")
    source.close()
    np.testing.assert_array_equal(read_whole(tmp_path / "a.ndpi"), COLOUR.transpose(2, 0, 1)[None, :, None])
