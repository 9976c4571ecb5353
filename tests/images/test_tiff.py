"""TIFF files of many kinds: their pixels, region by region."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.geometry import Box
from tests.images.reading import assert_reads, boxes, info_of, opened, pixels
from tests.images.tiffs import COLOUR, FLAT, LAYOUTS, PALETTE, SMOOTH, STACK, Case, case, frame


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
    # How it is shown, and not what it is.
    for axes, shown in (("CYX", STACK[:3].astype("uint8")), ("YX", SMOOTH)):
        found[f"ImageJ {axes}, palette"] = case(
            shown, frame(shown, axes), imagej=True, colormap=PALETTE, metadata={"axes": axes, "mode": "composite"}
        )
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
    # X before Y, and neither colours nor the whole of a row at once.
    found["XYC"] = case(wide, frame(wide, "XYC"), photometric="minisblack", metadata={"axes": "XYC"})
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
