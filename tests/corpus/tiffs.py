"""TIFF files as users come with them: damaged, strange, or only unusual."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.corpus.case import Case, done, failed
from tests.images.reading import pixels

__all__ = ["TIFFS"]

FLAT = pixels((40, 50))
STACK = pixels((5, 40, 50))  # four planes would be taken for colours
RGB = pixels((40, 50, 3), "uint8")


def written(data: NDArray[Any], name: str = "a.tif", **options: Any) -> Callable[[Path], Path]:  # noqa: ANN401
    def make(folder: Path) -> Path:
        tifffile.imwrite(folder / name, data, **options)
        return folder / name

    return make


def content(data: bytes, name: str = "a.tif") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def cut(share: float, **options: Any) -> Callable[[Path], Path]:  # noqa: ANN401
    def make(folder: Path) -> Path:
        path = written(STACK, **options)(folder)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        return path

    return make


def changed(tags: dict[str, Any], data: NDArray[Any] = FLAT, **options: Any) -> Callable[[Path], Path]:  # noqa: ANN401
    """Write a file, then other values into its tags."""

    def make(folder: Path) -> Path:
        path = written(data, **options)(folder)
        with tifffile.TiffFile(path, mode="r+") as file:
            for name, value in tags.items():
                file.pages.first.tags[name].overwrite(value)
        return path

    return make


def garbage(compression: str, data: NDArray[Any] = FLAT, **options: Any) -> Callable[[Path], Path]:  # noqa: ANN401
    """Write noise over what a codec made."""

    def make(folder: Path) -> Path:
        path = written(data, compression=compression, **options)(folder)
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            offset, count = page.dataoffsets[0], page.databytecounts[0]
        whole = bytearray(path.read_bytes())
        whole[offset : offset + count] = np.random.default_rng(0).bytes(count)
        path.write_bytes(whole)
        return path

    return make


def changed_entry(code: int, kind: int, count: int) -> Callable[[Path], Path]:
    """Write a file, then another type and number of values into the entry of a tag."""

    def make(folder: Path) -> Path:
        path = written(FLAT)(folder)
        with tifffile.TiffFile(path) as file:
            at = file.pages.first.tags[code].offset
        whole = bytearray(path.read_bytes())
        whole[at + 2 : at + 8] = struct.pack("<HI", kind, count)
        path.write_bytes(whole)
        return path

    return make


def circle(folder: Path, tags: dict[str, Any] | None = None) -> Path:
    path = folder / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in STACK:
            writer.write(page, metadata=None)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages.next_page_offset
    assert last is not None
    whole = bytearray(path.read_bytes())
    whole[last : last + 4] = struct.pack("<I", first)
    path.write_bytes(whole)
    with tifffile.TiffFile(path, mode="r+") as file:
        for name, value in (tags or {}).items():
            file.pages.first.tags[name].overwrite(value)
    return path


def claims(width: int, height: int, rows: int, *, compression: int = 1, tile: int = 0) -> Callable[[Path], Path]:
    """Write a page of a hundred bytes that says it were another size."""

    def make(folder: Path) -> Path:
        tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
                (277, 3, 1, 1)]  # fmt: skip
        if tile:
            tags += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 8), (325, 4, 1, 100)]
        else:
            tags += [(273, 4, 1, 8), (278, 4, 1, rows), (279, 4, 1, 100)]
        entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
        body = struct.pack("<2sHI", b"II", 42, 108) + bytes(100) + struct.pack("<H", len(tags)) + entries + bytes(4)
        (folder / "a.tif").write_bytes(body)
        return folder / "a.tif"

    return make


def ome(*, sizes: str = "", data: NDArray[Any] = STACK, inside: str = "", head: str = "", end: str = "</OME>",
        kind: str = "uint16") -> Callable[[Path], Path]:  # fmt: skip
    sizes = sizes or f'SizeX="{data.shape[-1]}" SizeY="{data.shape[-2]}" SizeZ="{len(data)}" SizeC="1" SizeT="1"'
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{kind}" {sizes}>'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{inside or "<TiffData/>"}</Pixels></Image>{end}'
    )
    return written(data, "a.ome.tif", description=text, metadata=None)


LAUGHS = (
    "<!DOCTYPE OME [" + '<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + at)} "{f"&{chr(97 + at)};" * 10}">' for at in range(9)) + "]>"
)  # fmt: skip
FILE = '<!DOCTYPE OME [<!ENTITY f SYSTEM "file:///etc/passwd">]>'


def elsewhere(name: str) -> Callable[[Path], Path]:
    return ome(inside=f'<TiffData IFD="0" PlaneCount="5"><UUID FileName="{name}">urn:uuid:1</UUID></TiffData>')


def beside_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "b.ome.tif")
    return elsewhere("b.ome.tif")(folder)


def without_tiles(folder: Path) -> Path:
    path = written(pixels((64, 64)), tile=(16, 16), compression="zlib")(folder)
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages.first.tags[name]
            tag.overwrite((*tag.value[:12], 0, 0, 0, 0))
    return path


def odd(values: dict[tuple[int, int], float]) -> NDArray[np.float32]:
    data = pixels((40, 50), "float32")
    for at, value in values.items():
        data[at] = value
    return data


UNDECODED = (
    r"a\.tif: the pixels at .*y 0 to 40, x 0 to 50 cannot be decoded .*; the file is damaged there: copy it again"
)
TRUNCATED = r"a\.tif: .*(truncated|damaged|TIFF).*; (copy it|write it|convert)"

TIFFS: list[Case] = [
    failed("zero bytes", content(b""), r"a\.tif: the file is empty"),
    failed("text", content(b"these are no pixels\n"), r"a\.tif: not a TIFF file \(it begins with b'thes'\); convert"),
    failed("a PNG", content(b"\x89PNG\r\n\x1a\n" + bytes(64)), r"not a TIFF file but a PNG; convert"),
    failed("a JPEG", content(b"\xff\xd8\xff\xe0" + bytes(64)), r"not a TIFF file but a JPEG; convert"),
    failed("an HDF5", content(b"\x89HDF\r\n\x1a\n" + bytes(64)), r"not a TIFF file but an HDF5 file; convert"),
    failed("a ZIP", content(b"PK\x03\x04" + bytes(64)), r"not a TIFF file but a ZIP archive; convert"),
    failed(
        "a head without pages",
        content(b"II*\0\0\0\0\0"),
        r"a\.tif: the TIFF file holds no image, or ends before it; copy",
    ),
    failed(
        "a page beyond the end",
        content(b"II*\0\xff\xff\xff\0"),
        r"a\.tif: .*(no image|outside the file).*; copy it again",
    ),
    *(failed(f"cut at {share:.2%}", cut(share), TRUNCATED) for share in (0.0005, 0.002, 0.01, 0.3, 0.9, 0.999)),
    failed("cut within a BigTIFF", cut(0.5, bigtiff=True), TRUNCATED),
    failed("cut within strips", cut(0.5, compression="zlib", rowsperstrip=8), TRUNCATED),
    failed("cut within an OME-TIFF", cut(0.5, ome=True), TRUNCATED),
    failed("pages in a circle", circle, r"a\.tif: .*damaged.*; copy it again"),
    failed(
        "pages in a circle that differ",
        lambda folder: circle(folder, {"ImageLength": 39}),
        r"a\.tif: damaged: after page 4 comes a page that was there before",
    ),
    failed("a page of no width", changed({"ImageWidth": 0}), r"a\.tif: damaged: .* has no pixels; copy it again"),
    failed("a page of four thousand million rows", claims(2**32 - 1, 2**32 - 1, 2**32 - 1), r"a\.tif: .*truncated"),
    failed("a huge strip of zlib", claims(2**31, 2**31, 2**31, compression=8), r"a\.tif: .*(no image has|so large)"),
    failed("a strip of 100 GiB", claims(2**17, 2**20, 2**20, compression=8), r"a\.tif: .* a worker has .* in tiles"),
    failed("a tile of 100 GiB", claims(2**18, 2**19, 0, compression=8, tile=2**19), r"a\.tif: .*a worker has"),
    failed(
        "a tile much wider than the image",
        changed({"TileWidth": 2**31}, pixels((64, 64)), tile=(16, 16), compression="zlib"),
        r"a\.tif: .*a worker has",
    ),
    failed("huge tiles that are not there", claims(2**31, 2**31, 0, compression=8, tile=16), r"a\.tif: .*damaged"),
    failed(
        "a text for a number",
        changed_entry(256, kind=2, count=4),
        r"a\.tif: damaged: the width of page 0 \(tag 256\) is not one number; copy it again",
    ),
    failed("a codec that nobody has", changed({"Compression": 65535}), r"a\.tif: compressed .* 65535; write it anew"),
    failed("a codec of the nineties", changed({"Compression": 32809}), r"a\.tif: compressed .* 32809; write it anew"),
    done("tiles that are missing", without_tiles, says=r"a\.tif: 4 of 16 .* not in the file.* zeros"),
    failed(
        "noise for a JPEG",
        garbage("jpeg", RGB, photometric="rgb"),
        UNDECODED,
        options=("--channel", "green"),
    ),
    failed("noise for zlib", garbage("zlib"), UNDECODED),
    failed("noise for LZW", garbage("lzw"), UNDECODED),
    failed("noise for JPEG 2000", garbage("jpeg2000"), UNDECODED),
    done("NaN", written(odd({(3, 4): np.nan}))),
    done("infinities", written(odd({(3, 4): np.inf, (30, 5): -np.inf, (7, 7): np.nan}))),
    failed("nothing but NaN", written(np.full((40, 50), np.nan, "float32")), r"a\.tif: no pixel is a finite number"),
    done("constant", written(np.full((40, 50), 7, "uint8"))),
    done("constant and floating", written(np.full((40, 50), 0.25, "float32"))),
    done("bool", written(FLAT > 30000)),
    *(
        done(kind, written(pixels((40, 50), kind)))
        for kind in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "float16", "float32", "float64")
    ),
    done("the whole range of doubles", written(np.geomspace(1e-308, 1e308, 2000).reshape(40, 50))),
    failed("complex", written(FLAT.astype("complex64")), r"a\.tif: pixels of type complex64 .*; convert"),
    done("one pixel", written(pixels((1, 1)))),
    done("one row", written(pixels((1, 50)))),
    done("one column", written(pixels((50, 1)))),
    failed(
        "RGB for one channel",
        written(RGB, photometric="rgb"),
        r"takes 1 channel\(s\) and the image has 3: 0 \('red'\), .*; choose with --channel",
    ),
    done("green of RGB", written(RGB, photometric="rgb"), options=("--channel", "green")),
    failed(
        "a channel that is not there",
        written(FLAT),
        r"there is no channel 'DAPI'; the image has 0 \('channel 0'\)",
        options=("--channel", "DAPI"),
    ),
    done("channels without names", written(STACK, ome=True, metadata={"axes": "CYX"}), options=("--channel", "2")),
    failed(
        "channels of one name",
        written(STACK, ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["x"] * 5}}),
        r"the channels 0, 1, 2, 3, 4 are all named 'x'; choose by number",
        options=("--channel", "x"),
    ),
    failed(
        "a series that is not there",
        written(FLAT),
        r"there is no series 3; the file holds 1",
        options=("--series", "3"),
    ),
    failed("six axes", written(pixels((2, 2, 2, 2, 20, 30))), r"axes .* are more than T, C, Z, Y and X; write it anew"),
    failed("OME-XML that is cut off", ome(end=""), r"a\.ome\.tif: its OME-XML is not valid XML"),
    failed("OME-XML with a stray tag", ome(inside="<TiffData>"), r"a\.ome\.tif: its OME-XML is not valid XML"),
    failed(
        "OME-XML of another width",
        ome(sizes='SizeX="51" SizeY="40" SizeZ="5" SizeC="1" SizeT="1"'),
        r"its OME-XML disagrees with the pixels: it says X 51, Y 40, Z 5, C 1, T 1, and .* 50 x 40 pixels",
    ),
    failed(
        "OME-XML with more planes",
        ome(sizes='SizeX="50" SizeY="40" SizeZ="9" SizeC="1" SizeT="1"'),
        r"a\.ome\.tif: truncated or damaged: its OME-XML places 9 planes into it and it has 5",
    ),
    done(
        "OME-XML with fewer planes",
        ome(sizes='SizeX="50" SizeY="40" SizeZ="2" SizeC="1" SizeT="1"'),
        says=r"the file has 5 pages and its OME-XML describes 2; the others are left out",
    ),
    done("OME-XML of another type", ome(kind="int16"), says=r"its OME-XML says pixels of int16; .* read as uint16"),
    failed(
        "OME-XML without numbers",
        ome(sizes='SizeX="wide"'),
        r"a\.ome\.tif: its OME-XML says SizeX='wide', which is no number; write",
    ),
    failed(
        "OME-XML with laughing entities",
        ome(head=LAUGHS, inside="<TiffData/><Name>&j;</Name>"),
        r"a\.ome\.tif: its OME-XML defines a document type, which OME-XML never has; write the file anew",
    ),
    failed(
        "OME-XML that reads a file", ome(head=FILE, inside="<TiffData/><Name>&f;</Name>"), r"defines a document type"
    ),
    failed(
        "OME-XML that names a file above", elsewhere("../b.ome.tif"), r"names the file '\.\./b\.ome\.tif', which is not"
    ),
    failed("OME-XML that names a file at the root", elsewhere("/etc/b.ome.tif"), r"names the file '/etc/b\.ome\.tif'"),
    failed(
        "OME-XML of a file that is missing", elsewhere("b.ome.tif"), r"b\.ome\.tif belongs to this image and is missing"
    ),
    done(
        "OME-XML of pixels wider than the universe",
        ome(sizes='SizeX="50" SizeY="40" SizeZ="5" SizeC="1" SizeT="1" PhysicalSizeX="1e300" PhysicalSizeY="1e-300"'),
    ),
    failed(
        "OME-XML of a file that is a pipe", beside_a_pipe, r"b\.ome\.tif: a pipe, socket or device, where a file of"
    ),
    failed(
        "OME-XML of more planes than memory holds",
        ome(inside='<TiffData IFD="0" PlaneCount="2000000000"/>'),
        r"a\.ome\.tif: its OME-XML says PlaneCount='2000000000' of a TiffData, which is no number of planes; write",
    ),
    failed(
        "OME-XML of more planes than any image has",
        ome(inside='<TiffData IFD="0" PlaneCount="20000000"/>'),
        r"a\.ome\.tif: its OME-XML speaks of 2000000\d planes .*, and no image has more than 16777216; write",
    ),
    failed(
        "OME-XML of a time point without end",
        ome(
            sizes='SizeX="50" SizeY="40" SizeZ="1" SizeC="1" SizeT="2000000000"',
            inside='<TiffData FirstT="1999999999"/>',
        ),
        r"a\.ome\.tif: its OME-XML speaks of 2000000000 planes",
    ),
    failed(
        "a palette that is too short",
        changed({"ColorMap": (0,) * 48}, pixels((40, 50), "uint8"), photometric="palette", colormap=pixels((3, 256))),
        r"a\.tif: damaged: a palette of 16 colours for pixels of 8 bits; copy it again",
    ),
]
