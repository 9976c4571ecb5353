"""Files of microscopes' makers: what is missing is named, and what is installed reads as the image that was written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from tests.images.lif import NAMES, write_lif
from tests.images.nd2 import write_nd2
from tests.images.reading import pixels, read_whole


@pytest.mark.parametrize("suffix", ["czi", "nd2", "lif"])
def test_what_is_not_installed_is_named(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(b"something")
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ImageError, match=rf"pip install 'seamfree\[{suffix}\]'"):
        open_image(tmp_path / f"a.{suffix}")


def test_czi(tmp_path: Path) -> None:
    """Written by the maker's own library."""
    from pylibCZIrw import czi

    image = pixels((2, 3, 60, 90))
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for channel, planes in enumerate(image):
            for depth, plane in enumerate(planes):
                file.write(data=plane[..., None], plane={"C": channel, "Z": depth, "T": 0})
        file.write_metadata("a", channel_names={0: "DAPI", 1: "GFP"}, scale_x=2e-7, scale_y=3e-7, scale_z=1e-6)
    source = open_image(tmp_path / "a.czi")
    assert source.info.shape == (1, 2, 3, 60, 90)
    assert source.info.axes == "CZYX"
    assert source.info.block == (1, 1, 1, 60, 90)
    assert source.info.pixel_size == pytest.approx((1.0, 1.0, 1.0, 0.3, 0.2))
    assert source.info.units == (None, None, "micrometer", "micrometer", "micrometer")
    assert source.info.channel_names == ("DAPI", "GFP")
    box = Box((0, 1, 1, 7, 11), (1, 2, 3, 50, 80))
    np.testing.assert_array_equal(source.read(box)[0, 0], image[1, 1:3, 7:50, 11:80])
    source.close()
    np.testing.assert_array_equal(read_whole(tmp_path / "a.czi"), image[None])
    with pytest.raises(ImageError, match="there is no series 1"):
        open_image(tmp_path / "a.czi", 1)
    content = (tmp_path / "a.czi").read_bytes()
    (tmp_path / "b.czi").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"b\.czi: cannot be read"):
        open_image(tmp_path / "b.czi")


def test_a_czi_that_does_not_say_how_large_its_pixels_are_is_read(tmp_path: Path) -> None:
    """Its sizes are not known, as those of a bare TIFF."""
    from pylibCZIrw import czi

    image = pixels((1, 1, 60, 90))
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        file.write(data=image[0, 0][..., None], plane={"C": 0, "Z": 0, "T": 0})
        file.write_metadata("a", channel_names={0: "DAPI"}, scale_x=2e-7, scale_y=3e-7)
    content = (tmp_path / "a.czi").read_bytes()
    for name, change in (("b", b"Distance"), ("c", b"Scaling")):
        # Another name of the same length: it has no such element, then.
        other = content.replace(change, change[:-1] + b"x")
        assert other != content
        (tmp_path / f"{name}.czi").write_bytes(other)
        source = open_image(tmp_path / f"{name}.czi")
        assert (source.info.pixel_size, source.info.units) == ((1.0,) * 5, (None,) * 5)
        assert source.info.channel_names == ("DAPI",)
        source.close()
        np.testing.assert_array_equal(read_whole(tmp_path / f"{name}.czi"), image[None])


def test_a_lif_is_read_plane_by_plane_with_what_leica_says_of_it(tmp_path: Path) -> None:
    image = pixels((2, 3, 60, 90))
    write_lif(tmp_path / "a.lif", {"one": image, "two": image[:1, :1, :50]}, (1.0, 0.3, 0.2))
    np.testing.assert_array_equal(read_whole(tmp_path / "a.lif"), image[None])
    np.testing.assert_array_equal(read_whole(tmp_path / "a.lif", 1), image[None, :1, :1, :50])
    source = open_image(tmp_path / "a.lif")
    assert (source.info.axes, source.info.block) == ("CZYX", (1, 1, 1, 60, 90))
    assert source.info.pixel_size == pytest.approx((1.0, 1.0, 1.0, 0.3, 0.2))
    assert source.info.channel_names == NAMES
    assert source.notes == (f"{tmp_path / 'a.lif'}: one of 2 scenes is read; --series chooses another",)
    box = Box((0, 1, 1, 7, 11), (1, 2, 3, 50, 80))
    np.testing.assert_array_equal(source.read(box)[0, 0], image[1, 1:3, 7:50, 11:80])
    source.close()
    (tmp_path / "b.lif").write_bytes((tmp_path / "a.lif").read_bytes()[:700])
    with pytest.raises(ImageError, match=r"b\.lif: cannot be read"):
        open_image(tmp_path / "b.lif")


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ("XYλ", "series 0 has an axis that is not understood (λ of length 3); export the part that is wanted"),
        ("XZY", "series 0 is a scan of ZX planes, which is not understood; export it as OME-TIFF"),
    ],
)
def test_a_lif_of_wavelengths_or_of_upright_planes_is_refused_when_it_is_opened(
    tmp_path: Path, axes: str, told: str
) -> None:
    """Not when its pixels are read, and not with a part of them."""
    write_lif(tmp_path / "a.lif", {"one": pixels((2, 3, 60, 90))}, (1.0, 0.3, 0.2), axes)
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path / "a.lif")
    assert told in str(caught.value)


def test_an_nd2_is_read_plane_by_plane_with_what_nikon_says_of_it(tmp_path: Path) -> None:
    image = pixels((2, 3, 60, 90))
    write_nd2(tmp_path / "a.nd2", [image, image[::-1]], (1.0, 0.25), ["DAPI", "GFP"])
    np.testing.assert_array_equal(read_whole(tmp_path / "a.nd2"), image[None])
    np.testing.assert_array_equal(read_whole(tmp_path / "a.nd2", 1), image[None, ::-1])
    source = open_image(tmp_path / "a.nd2")
    assert (source.info.axes, source.info.block) == ("CZYX", (1, 2, 1, 60, 90))
    assert source.info.pixel_size == (1.0, 1.0, 1.0, 0.25, 0.25)
    assert source.info.units == (None, None, "micrometer", "micrometer", "micrometer")
    assert source.info.channel_names == ("DAPI", "GFP")
    assert source.notes == (f"{tmp_path / 'a.nd2'}: one of 2 scenes is read; --series chooses another",)
    box = Box((0, 1, 1, 7, 11), (1, 2, 3, 50, 80))
    np.testing.assert_array_equal(source.read(box)[0, 0], image[1, 1:3, 7:50, 11:80])
    source.close()
    (tmp_path / "b.nd2").write_bytes((tmp_path / "a.nd2").read_bytes()[:50_000])
    with pytest.raises(ImageError, match=r"b\.nd2: cannot be read"):
        open_image(tmp_path / "b.nd2")


def test_an_nd2_that_was_ended_early_is_refused(tmp_path: Path) -> None:
    """The plugin gives black planes for the frames that are missing."""
    image = pixels((1, 3, 60, 90))
    write_nd2(tmp_path / "a.nd2", [image, image], (1.0, 0.25), ["DAPI"], frames=4)
    with pytest.raises(ImageError, match=r"a\.nd2: 2 of its 6 frames are missing"):
        open_image(tmp_path / "a.nd2")
