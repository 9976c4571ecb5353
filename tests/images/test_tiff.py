from __future__ import annotations

import logging
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from tests.images.reading import assert_reads, boxes, info_of, opened, pixels, read_whole, refused_or_right

Write = Callable[[Path], object]
Case = tuple[Write, NDArray[Any]]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Tifffile logs what it finds in damaged files; only what seamfree says matters here."""
    logger = logging.getLogger("tifffile")
    before, logger.level = logger.level, logging.CRITICAL
    yield
    logger.level = before


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


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for layout, options in LAYOUTS.items():
        for dtype, order, big in product(["uint8", "uint16", "int16", "float16", "float32"], "<>", [False, True]):
            data = pixels((2, 45, 70), dtype)
            named = {"byteorder": order, "bigtiff": big, **options}
            found[f"{layout}, {dtype}, {order}, {'BigTIFF' if big else 'TIFF'}"] = case(
                data, frame(data, "ZYX"), **named
            )
        for codec in ("zlib", "lzw", "zstd", "lzma", "packbits"):
            found[f"{layout}, {codec}"] = case(STACK, frame(STACK, "ZYX"), compression=codec, **options)
        for codec, dtype in product(("zlib", "lzw", "zstd"), ("uint8", "uint16", "float32")):
            data = pixels((45, 70), dtype)
            predicted = {"compression": codec, "predictor": True, **options}
            found[f"{layout}, {codec}, predictor, {dtype}"] = case(data, frame(data, "YX"), **predicted)
            found[f"{layout}, {codec}, predictor, {dtype}, >"] = case(
                data, frame(data, "YX"), byteorder=">", **predicted
            )
        planar = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
        for packed in (None, "zlib"):
            rgb = {"photometric": "rgb", "compression": packed, **options}
            found[f"{layout}, RGB, {packed}"] = case(COLOUR, frame(COLOUR, "YXS"), planarconfig="contig", **rgb)
            found[f"{layout}, planar RGB, {packed}"] = case(
                planar, frame(planar, "SYX"), planarconfig="separate", **rgb
            )
        found[f"{layout}, palette"] = case(
            SMOOTH, frame((PALETTE >> 8).astype("uint8")[:, SMOOTH], "CYX"), photometric="palette", colormap=PALETTE,
            **options,
        )  # fmt: skip
        wide = pixels((45, 70, 3))
        found[f"{layout}, RGB of 16 bits, predictor"] = case(
            wide, frame(wide, "YXS"), photometric="rgb", compression="lzw", predictor=True, **options
        )
    found["JPEG 2000"] = case(FLAT, frame(FLAT, "YX"), tile=(16, 32), compression="jpeg2000",
                              compressionargs={"reversible": True})  # fmt: skip
    found["JPEG XL"] = case(COLOUR, frame(COLOUR, "YXS"), photometric="rgb", tile=(16, 32), compression="jpegxl",
                            compressionargs={"lossless": True})  # fmt: skip
    found["PNG"] = case(FLAT, frame(FLAT, "YX"), tile=(16, 32), compression="png")
    bits = pixels((45, 70), "bool")
    found["one bit"] = case(bits, frame(bits.astype("uint8"), "YX"))
    alpha = pixels((45, 70, 4), "uint8")
    found["RGBA"] = case(alpha, frame(alpha, "YXS"), photometric="rgb", extrasamples=["unassalpha"])
    five = pixels((2, 3, 4, 45, 33))
    hyper = {"imagej": True, "metadata": {"axes": "TZCYX"}}
    for named in ({}, {"compression": "zlib"}):
        found[f"ImageJ TZCYX {named}"] = case(five, frame(five, "TZCYX"), **hyper, **named)
        colours = pixels((2, 3, 4, 20, 33, 3), "uint8")
        found[f"OME TCZYX {named}"] = case(five, frame(five, "TCZYX"), ome=True, metadata={"axes": "TCZYX"}, **named)
        found[f"OME ZCTYX {named}"] = case(five, frame(five, "ZCTYX"), ome=True, metadata={"axes": "ZCTYX"}, **named)
        found[f"OME CYX {named}"] = case(
            five[0, 0], frame(five[0, 0], "CYX"), ome=True, metadata={"axes": "CYX"}, **named
        )
        # Three channels of three samples each: nine channels.
        found[f"OME TCZYXS {named}"] = case(
            colours, colours.transpose(0, 1, 5, 2, 3, 4).reshape(2, 9, 4, 20, 33), ome=True, photometric="rgb",
            metadata={"axes": "TCZYXS"}, **named,
        )  # fmt: skip
    rgb_stack = pixels((4, 20, 33, 3), "uint8")
    found["ImageJ ZYXS"] = case(rgb_stack, frame(rgb_stack, "ZYXS"), imagej=True, metadata={"axes": "ZYXS"})
    return found


CASES = cases()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, NDArray[Any]]]:
    """Files by the names of their cases, each written when it is first asked for."""
    folder = tmp_path_factory.mktemp("tiff")
    known: dict[str, Path] = {}

    def get(name: str) -> tuple[Path, NDArray[Any]]:
        write, expected = CASES[name]
        if name not in known:
            path = folder / f"{len(known)}.tif"
            write(path)
            known[name] = path
        return known[name], expected

    return get


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_region_is_the_same_slice_of_what_was_written(
    written: Callable[[str], tuple[Path, NDArray[Any]]], name: str, data: st.DataObject
) -> None:
    path, expected = written(name)
    with opened(path) as source:
        assert_reads(source, expected, Box.whole(expected.shape))
        assert_reads(source, expected, data.draw(boxes(expected.shape)))
        corner = tuple(data.draw(st.integers(0, length - 1)) for length in expected.shape)
        assert_reads(source, expected, Box(corner, tuple(at + 1 for at in corner)))


@pytest.mark.parametrize("name", ["one strip, uint8, <, TIFF", "tiled, zlib", "one strip, palette"])
def test_what_is_read_belongs_to_the_caller(written: Callable[[str], tuple[Path, NDArray[Any]]], name: str) -> None:
    path, expected = written(name)
    with opened(path) as source:
        box = Box.whole(expected.shape)
        first = source.read(box)
        first[...] = 0  # fails on a read-only map of the file
        assert_reads(source, expected, box)


@pytest.mark.parametrize("name", ["one strip, uint16, >, TIFF", "tiled, zlib", "striped, RGB, zlib"])
def test_threads_read_at_once(written: Callable[[str], tuple[Path, NDArray[Any]]], name: str) -> None:
    path, expected = written(name)
    with opened(path) as source:
        random = np.random.default_rng(0)
        regions = []
        for _ in range(200):
            ends = [sorted(random.choice(length + 1, 2, replace=False).tolist()) for length in expected.shape]
            regions.append(Box(tuple(low for low, _ in ends), tuple(high for _, high in ends)))
        with ThreadPoolExecutor(8) as pool:
            for region, found in zip(regions, pool.map(source.read, regions), strict=True):
                assert np.array_equal(found, expected[region.slices])


@pytest.mark.parametrize(("name", "options"), LAYOUTS.items())
def test_the_block_is_what_is_decoded_at_once(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FLAT, compression="zlib", **options)
    block = {"striped": (1, 1, 1, 7, 70), "one strip": (1, 1, 1, 45, 70), "tiled": (1, 1, 1, 16, 32)}[name]
    assert info_of(path).block == block


def test_uncompressed_files_are_read_row_by_row(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FLAT)
    assert info_of(tmp_path / "a.tif").block == (1, 1, 1, 1, 70)


BIG = (1, 6000, 6000)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib", "tile": (256, 256)}, {"compression": "zlib", "rowsperstrip": 64}],
    ids=["uncompressed", "tiled", "striped"],
)
def test_a_small_region_of_a_big_file_takes_little_memory(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "big.tif"
    column = np.arange(BIG[1], dtype=np.uint16)[:, None]
    data = np.broadcast_to(column, BIG[1:])  # 72 MB, and what each row holds is known without them
    tifffile.imwrite(path, data, **options)
    tracemalloc.start()
    try:
        with opened(path) as source:
            found = source.read(Box((0, 0, 0, 3000, 4000), (1, 1, 1, 3100, 4100)))
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(found[0, 0, 0], np.broadcast_to(column[3000:3100], (100, 100)))
    # Three strips of 64 rows, or two tiles, and what the opening takes; the whole has 72 MB.
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("options", "needed"),
    [({"tile": (64, 64)}, {1 * 8 + 3, 2 * 8 + 3}), ({"rowsperstrip": 32}, {3, 4})],
    ids=["tiled", "striped"],
)
def test_a_region_needs_only_the_tiles_or_strips_that_it_touches(
    tmp_path: Path, options: dict[str, Any], needed: set[int]
) -> None:
    path = tmp_path / "a.tif"
    data = pixels((512, 512))
    tifffile.imwrite(path, data, compression="zlib", **options)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    content = bytearray(path.read_bytes())
    for number, (offset, count) in enumerate(parts):
        if number not in needed:
            content[offset : offset + count] = bytes(count)  # whoever decodes it fails
    path.write_bytes(content)
    with opened(path) as source:
        found = source.read(Box((0, 0, 0, 100, 200), (1, 1, 1, 140, 250)))
        assert np.array_equal(found[0, 0, 0], data[100:140, 200:250])
        with pytest.raises(ImageError, match="cannot be decoded"):
            source.read(
                Box((0, 0, 0, 90, 190), (1, 1, 1, 91, 191)) if "tile" in options else Box.whole((1, 1, 1, 90, 1))
            )


# What a file says of itself


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


# Files that are damaged


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
        with pytest.raises(ImageError, match=r"the pixels at \(0, 0, 0, 10, 0\) .* cannot be decoded"):
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
