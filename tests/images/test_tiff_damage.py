"""TIFF files that were cut off, altered or made to mislead: the right pixels, or the reason."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from tests.images.reading import assert_reads, opened, read_whole, refused_or_right
from tests.images.tiffs import COLOUR, FLAT, PALETTE, SMOOTH, STACK, Case, case, frame


def pages(path: Path, data: NDArray[Any], **options: Any) -> None:  # noqa: ANN401
    """Write pages one by one, as acquisition software does, with nothing that says how many there are."""
    with tifffile.TiffWriter(path) as writer:
        for page in data:
            writer.write(page, metadata=None, **options)


def libtiff_like(path: Path, data: NDArray[Any], description: bytes) -> None:
    """Write as libtiff does: pixels first, then the tags and what they point to."""
    at, body, links = 8, bytearray(), [4]
    for page in data:
        pixels_at = at + len(body)
        body += page.tobytes()
        text_at = at + len(body)
        body += description + b"\0" * (len(description) % 2)
        links.append(at + len(body))
        tags = [
            (256, 4, 1, page.shape[1]), (257, 4, 1, page.shape[0]), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
            (270, 2, len(description), text_at), (273, 4, 1, pixels_at), (277, 3, 1, 1), (278, 4, 1, page.shape[0]),
            (279, 4, 1, page.nbytes),
        ]  # fmt: skip
        body += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        links[-1:] = [links[-1], at + len(body)]
        body += b"\0\0\0\0"
    whole = bytearray(b"II*\0\0\0\0\0") + body
    # Each page's place goes where the one before, or the head, points to the next.
    for pointer, place in zip(links[0::2], links[1::2], strict=False):
        whole[pointer : pointer + 4] = struct.pack("<I", place)
    path.write_bytes(whole)


DAMAGED: dict[str, Case] = {
    "contiguous": case(STACK, frame(STACK, "ZYX")),
    "big-endian": case(STACK, frame(STACK, "ZYX"), byteorder=">"),
    "BigTIFF": case(STACK, frame(STACK, "ZYX"), bigtiff=True, compression="zlib", rowsperstrip=16),
    "strips": case(STACK, frame(STACK, "ZYX"), compression="lzw", rowsperstrip=16),
    "tiles": case(STACK, frame(STACK, "ZYX"), compression="zstd", tile=(16, 16)),
    "planar": case(
        COLOUR.transpose(2, 0, 1).copy(), frame(COLOUR, "YXS"), photometric="rgb", planarconfig="separate"
    ),
    "palette": case(
        SMOOTH, frame((PALETTE >> 8).astype("uint8")[:, SMOOTH], "CYX"), photometric="palette", colormap=PALETTE
    ),
    "OME": case(STACK, frame(STACK, "CYX"), ome=True, metadata={"axes": "CYX"}),
    "OME, compressed": case(STACK, frame(STACK, "CYX"), ome=True, metadata={"axes": "CYX"}, compression="zlib"),
    "ImageJ": case(STACK, frame(STACK, "ZYX"), imagej=True, metadata={"axes": "ZYX"}),
    "ImageJ, compressed": case(
        STACK, frame(STACK, "ZYX"), imagej=True, metadata={"axes": "ZYX"}, compression="zlib"
    ),
    "pages": (partial(pages, data=STACK), frame(STACK, "ZYX")),
    "pages, compressed": (partial(pages, data=STACK, compression="zlib"), frame(STACK, "ZYX")),
    "libtiff": (partial(libtiff_like, data=STACK, description=b"a stack of something\0"), frame(STACK, "ZYX")),
    "libtiff, ImageJ": (
        partial(libtiff_like, data=STACK, description=b"ImageJ=1.54f\nimages=5\nframes=5\nloop=false\n\0"),
        frame(STACK, "TYX"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_was_cut_off_is_refused_wherever_it_ends(tmp_path: Path, name: str) -> None:
    write, expected = DAMAGED[name]
    path = tmp_path / "a.tif"
    write(path)
    assert np.array_equal(read_whole(path), expected)
    whole = path.read_bytes()
    step = max(1, len(whole) // 150)
    # All the small offsets, where the structure lies, the last bytes, and every so many between.
    for length in {*range(0, 600, 5), *range(0, len(whole), step), *range(len(whole) - 20, len(whole))}:
        path.write_bytes(whole[:length])
        refused = refused_or_right(path, expected)
        assert refused or length > len(whole) - 600, f"cut at {length} of {len(whole)} bytes"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OME, compressed", "ImageJ", "libtiff, ImageJ"])
def test_a_file_that_was_cut_off_is_refused_at_every_second_byte(tmp_path: Path, name: str) -> None:
    write, expected = DAMAGED[name]
    path = tmp_path / "a.tif"
    write(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 2):
        path.write_bytes(whole[:length])
        refused_or_right(path, expected)


@pytest.mark.parametrize("name", DAMAGED)
def test_flipped_bytes_end_in_pixels_or_in_the_own_error(tmp_path: Path, name: str) -> None:
    write, _ = DAMAGED[name]
    path = tmp_path / "a.tif"
    write(path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        # Half of them in the head, where a flip changes the structure.
        limit = len(whole) if random.random() < 0.5 else min(400, len(whole))
        for at in random.integers(0, limit, 2):
            damaged[at] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        with suppress(ImageError), opened(path) as source:
            source.read(Box((0, 0, 0, 0, 0), (1, 1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"This is no image.\n", "not a TIFF file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a TIFF file"),
        (b"II*\0", "TIFF"),
        (b"II*\0\0\0\0\0", "no image"),
        (b"II*\0\xff\xff\xff\0", "no image"),
        (b"II+\0\x08\0\0\0" + bytes(8), "no image"),
    ],
)
def test_what_is_no_tiff_is_refused_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=why) as caught:
        open_image(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        open_image(tmp_path / "a.tif")


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FLAT.astype("complex64"))
    with pytest.raises(ImageError, match="complex64 cannot be segmented"):
        open_image(tmp_path / "a.tif")


STRIPS = [FLAT[at : at + 9].tobytes() for at in range(0, 45, 9)]


@pytest.mark.parametrize(
    ("name", "encode"),
    [("zlib", zlib.compress), ("lzw", imagecodecs.lzw_encode), ("zstd", imagecodecs.zstd_encode)],
)
@pytest.mark.parametrize("keep", [0, 100, 629])
def test_a_strip_with_too_few_pixels_is_refused(
    tmp_path: Path, name: str, encode: Callable[[bytes], bytes], keep: int
) -> None:
    path = tmp_path / "a.tif"
    strips = [encode(strip[: keep * 2] if at == 2 else strip) for at, strip in enumerate(STRIPS)]
    tifffile.imwrite(path, iter(strips), shape=FLAT.shape, dtype=FLAT.dtype, compression=name, rowsperstrip=9)
    with opened(path) as source:
        expected = frame(FLAT, "YX")
        with pytest.raises(ImageError, match=r"the pixels at y 10 to 30, x 0 to 5 cannot be decoded"):
            source.read(Box((0, 0, 0, 10, 0), (1, 1, 1, 30, 5)))
        # The damage reaches no further than its strip.
        assert_reads(source, expected, Box((0, 0, 0, 0, 0), (1, 1, 1, 18, 70)))
        assert_reads(source, expected, Box((0, 0, 0, 27, 0), (1, 1, 1, 45, 70)))


def test_a_page_with_too_few_strips_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FLAT, compression="zlib", rowsperstrip=9)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        for name in ("StripOffsets", "StripByteCounts"):
            # The count stands four bytes into the entry: four strips in the place of five.
            content[tags[name].offset + 4 : tags[name].offset + 8] = struct.pack("<I", 4)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="4 strips or tiles and needs 5"):
        open_image(path)


@pytest.mark.parametrize("count", [0, 3, 255, 256, 765])
def test_a_palette_with_too_few_colours_is_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, SMOOTH, photometric="palette", colormap=PALETTE)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages.first.tags["ColorMap"].offset
    content[at + 4 : at + 8] = struct.pack("<I", count)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"palette|damaged"):
        read_whole(path)


def test_pages_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pages(path, STACK)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages.next_page_offset
    assert last is not None
    content[last : last + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="damaged"):
        open_image(path)


def test_pages_in_a_circle_are_refused_in_a_file_of_more_than_4_gib(tmp_path: Path) -> None:
    """As ImageJ writes them, with 32-bit offsets."""
    path = tmp_path / "a.tif"
    pages(path, STACK)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages.next_page_offset
    assert last is not None
    os.truncate(path, 2**32 + 1000)
    open_image(path).close()
    with path.open("r+b") as opened:
        opened.seek(last)
        opened.write(struct.pack("<I", first))
    with pytest.raises(ImageError, match="comes a page that was there before"):
        open_image(path)


def ndpi(path: Path, image: NDArray[np.uint8], after: int = 0, software: int = 0) -> None:
    """Write an NDPI file of one page: offsets of 64 bits, whose upper halves lie behind the tags."""
    text = b"scanner 1.0\0"
    at = 12 + image.nbytes + len(text)
    tags = [(256, 3, 1, image.shape[1]), (257, 3, 1, image.shape[0]), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, 12), (277, 3, 1, 1), (278, 4, 1, image.shape[0]), (279, 4, 1, image.nbytes),
            (305, 2, len(text), 12 + image.nbytes + (software & 0xFFFFFFFF)), (65420, 4, 1, 1)]  # fmt: skip
    upper = [software >> 32 if code == 305 else 0 for code, *_ in tags]
    path.write_bytes(
        struct.pack("<2sHQ", b"II", 42, at) + image.tobytes() + text + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<Q", at if after else 0)
        + struct.pack(f"<{len(tags)}I", *upper)
    )  # fmt: skip


def test_ndpi_is_looked_through_as_other_files_are(tmp_path: Path) -> None:
    path, image = tmp_path / "a.ndpi", np.arange(600, dtype=np.uint8).reshape(20, 30)
    ndpi(path, image)
    np.testing.assert_array_equal(read_whole(path).squeeze(), image)
    ndpi(path, image, after=1)
    with pytest.raises(ImageError, match="comes a page that was there before"):
        open_image(path)
    ndpi(path, image, software=1 << 32)
    with pytest.raises(ImageError, match="tag 305 of page 0 lies outside the file"):
        open_image(path)


def test_a_file_that_is_cut_off_while_it_is_read_is_told(tmp_path: Path) -> None:
    """Were it mapped into memory, this process would be killed."""
    path, image = tmp_path / "a.tif", np.arange(4_000_000, dtype=np.uint16).reshape(2000, 2000)
    tifffile.imwrite(path, image)
    with opened(path) as source:
        os.truncate(path, 1_000_000)
        assert_reads(source, frame(image, "YX"), Box((0, 0, 0, 10, 0), (1, 1, 1, 90, 2000)))
        for columns in (2000, 100):
            with pytest.raises(ImageError, match=rf"at y 0 to 2000, x 0 to {columns} are not there any more: the file"):
                source.read(Box((0, 0, 0, 0, 0), (1, 1, 1, 2000, columns)))


def test_nothing_is_said_of_what_tifffile_divides_by(tmp_path: Path) -> None:
    """As by the distance of planes that MetaMorph writes, where it is 0 / 0."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FLAT, extratags=[(33628, 5, 2, (1, 0, 1, 0), True)], metadata=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_whole(path), frame(FLAT, "YX"))


def test_an_imagej_stack_with_fewer_images_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    # ImageJ keeps the images of a large stack behind one page; no chain of pages tells how many there should be.
    libtiff_like(path, STACK[:1], b"ImageJ=1.54f\nimages=400\nslices=400\nloop=false\n\0")
    with pytest.raises(ImageError, match="ImageJ says 400 images"):
        open_image(path)


def test_planes_that_an_ome_tiff_never_had_are_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    described = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="70" SizeY="45" SizeZ="3" SizeC="1" '
        'SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<TiffData IFD="0" PlaneCount="1" FirstZ="1"/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, FLAT, description=described, metadata=None)
    expected = np.stack([np.zeros_like(FLAT), FLAT, np.zeros_like(FLAT)])
    assert np.array_equal(read_whole(path), frame(expected, "ZYX"))
