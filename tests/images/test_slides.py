"""Whole slides: the finest level of the scan is read, with the pixel size and the channels that the scanner wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

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
