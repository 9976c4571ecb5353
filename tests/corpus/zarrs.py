"""Zarr folders as users come with them."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tests.corpus.case import Case, done, failed
from tests.images.reading import pixels
from tests.images.zarrs import ome

__all__ = ["ZARRS"]

FLAT = pixels((40, 50))
Change = Callable[[dict[str, Any]], object]


def plain(change: Callable[[Path], object] = str, *, dtype: str = "uint16", zarr_format: Any = 3,  # noqa: ANN401
          **options: Any) -> Callable[[Path], Path]:  # noqa: ANN401  # fmt: skip
    """Write an array, then do something to its folder."""

    def make(folder: Path) -> Path:
        path = folder / "a.zarr"
        array = zarr.create_array(
            path, shape=FLAT.shape, dtype=dtype, chunks=(16, 16), zarr_format=zarr_format, **options
        )
        if np.dtype(dtype).kind in "buifc":
            array[...] = FLAT.astype(dtype)
        change(path)
        return path

    return make


def edited(change: Change, name: str = "zarr.json", **options: Any) -> Callable[[Path], Path]:  # noqa: ANN401
    """Write an array, then change its metadata."""

    def edit(path: Path) -> None:
        described = json.loads((path / name).read_text())
        change(described)
        (path / name).write_text(json.dumps(described))

    return plain(edit, **options)


def group(change: Change = dict, version: str = "0.5", do: Callable[[Path], object] = str) -> Callable[[Path], Path]:
    """Write an OME-Zarr, with its metadata changed, then do something to its folder."""

    def make(folder: Path) -> Path:
        path = ome(folder / "a.zarr", FLAT, "yx", version, change=change)
        do(path)
        return path

    return make


def in_place(**entries: Any) -> Callable[[Path], object]:  # noqa: ANN401
    """Change the metadata in a folder."""

    def change(path: Path) -> None:
        described = json.loads((path / "zarr.json").read_text()) | entries
        (path / "zarr.json").write_text(json.dumps(described))

    return change


def without_chunks(path: Path) -> None:
    shutil.rmtree(path / "c")


def at(place: str) -> Change:
    return lambda described: described["multiscales"][0]["datasets"][0].update(path=place)


def both(path: Path) -> None:
    """Put the metadata of the other format beside."""
    zarr.create_array(path, shape=(40, 50), dtype="uint8", chunks=(16, 16), zarr_format=2)


def older_array(path: Path) -> None:
    """Replace the array in a group of format 3 by one of format 2."""
    shutil.rmtree(path / "0")
    array = zarr.create_array(path / "0", shape=FLAT.shape, dtype="uint16", chunks=(16, 16), zarr_format=2)
    array[...] = FLAT


def older_words(path: Path) -> None:
    """Write what OME-Zarr 0.4 says into a group of Zarr 3, as some writers did."""
    described = json.loads((path / "zarr.json").read_text())
    words = described["attributes"].pop("ome")
    words["multiscales"][0]["version"] = "0.4"
    described["attributes"] = words
    (path / "zarr.json").write_text(json.dumps(described))


def many_levels(described: dict[str, Any]) -> None:
    """List the one resolution very often."""
    multiscale = described["multiscales"][0]
    multiscale["datasets"] = multiscale["datasets"] * 20_000


def pipe(name: str) -> Callable[[Path], object]:
    """Put a pipe in a file's place."""

    def put(path: Path) -> None:
        (path / name).unlink()
        os.mkfifo(path / name)

    return put


def file(name: str, content: bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)

    return write


def shape(*lengths: int, chunks: tuple[int, int] = (16, 16)) -> Change:
    def change(described: dict[str, Any]) -> None:
        described["shape"] = list(lengths)
        described["chunk_grid"]["configuration"]["chunk_shape"] = list(chunks)

    return change


def words(folder: Path) -> Path:
    path = folder / "a.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr warns that such arrays have no specification yet
        zarr.create_array(path, shape=(4, 5), dtype="U8", chunks=(4, 5))
    return path


def dates(folder: Path) -> Path:
    path = folder / "a.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(path, shape=(4, 5), dtype="datetime64[s]", chunks=(4, 5))
    return path


def folder_of(folder: Path) -> Path:
    (folder / "a.zarr").mkdir()
    return folder / "a.zarr"


def plate(folder: Path) -> Path:
    made = zarr.open_group(folder / "a.zarr", mode="w")
    made.attrs.update({"ome": {"version": "0.5", "plate": {"wells": [{"path": "../../B/1"}]}}})
    return folder / "a.zarr"


def two(folder: Path) -> Path:
    zarr.open_group(folder / "a.zarr", mode="w")
    for name in "bc":
        zarr.create_array(folder / "a.zarr" / name, shape=(4, 5), dtype="uint8", chunks=(4, 5))
    return folder / "a.zarr"


def series(folder: Path) -> Path:
    made = zarr.open_group(folder / "a.zarr", mode="w")
    made.attrs.update({"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    ome(folder / "secret.zarr", FLAT, "yx", "0.5")
    listed = zarr.open_group(folder / "a.zarr" / "OME", mode="w")
    listed.attrs.update({"ome": {"version": "0.5", "series": ["../secret.zarr"]}})
    return folder / "a.zarr"


OUTSIDE = r"a\.zarr: its metadata name .*, which is not inside this folder; correct them$"
DAMAGED = r"a\.zarr: .*damaged.*; copy it again, or write it anew$"

NO_MAPPING: list[Any] = [True, 7, 1.5, "text", [1]]

ZARRS: list[Case] = [
    *(
        failed(
            f"attributes that are {held!r}",
            plain(in_place(attributes=held)),
            r"^[^:]*a\.zarr: .*damaged.*; copy it again, or write it anew$",
        )
        for held in NO_MAPPING
    ),
    *(
        failed(
            f"attributes of a group that are {held!r}",
            group(do=in_place(attributes=held)),
            r"^[^:]*a\.zarr: .*damaged.*; copy it again, or write it anew$",
        )
        for held in NO_MAPPING
    ),
    failed(
        "attributes of format 2 that are no mapping",
        plain(file(".zattrs", b"true"), zarr_format=2),
        r"^[^:]*a\.zarr: .*damaged.*; copy it again, or write it anew$",
    ),
    done(
        "a chunk is missing",
        plain(lambda path: (path / "c" / "0" / "1").unlink()),
        says=r"a\.zarr: 1 of 12 chunks are not there; their pixels are 0$",
    ),
    done(
        "all chunks are missing",
        plain(without_chunks),
        says=r"a\.zarr: no chunk of the array is there, so all pixels are 0",
    ),
    failed("an empty folder", folder_of, r"a\.zarr: this folder is not a Zarr \(no zarr\.json"),
    failed("no metadata", plain(lambda path: (path / "zarr.json").unlink()), r"this folder is not a Zarr"),
    failed("metadata that are no JSON", plain(file("zarr.json", b"{")), DAMAGED),
    failed("metadata of zero bytes", plain(file("zarr.json", b"")), DAMAGED),
    failed("metadata in another encoding", plain(file("zarr.json", b"\xff\xfe{\0")), DAMAGED),
    failed("metadata nested deeply", plain(file("zarr.json", b"[" * 100_000)), DAMAGED),
    failed("a format of the future", edited(lambda described: described.update(zarr_format=9)), DAMAGED),
    failed("a codec that nobody has", edited(lambda described: described.update(codecs=[{"name": "x"}])), DAMAGED),
    failed("a type that nobody has", edited(lambda described: described.update(data_type="x")), DAMAGED),
    failed(
        "a type of five thousand letters", edited(lambda described: described.update(data_type="9" * 5000)), DAMAGED
    ),
    failed(
        "another type than was written",
        edited(lambda described: described.update(data_type="float64")),
        r"a\.zarr: the pixels at y 0 to 40, x 0 to 50 cannot be decoded .*; the file is damaged there: copy",
    ),
    failed("complex", plain(dtype="complex64"), r"pixels of type complex64 cannot be segmented; convert"),
    failed("texts", words, r"a\.zarr: pixels of type .* cannot be segmented; convert"),
    failed("dates", dates, r"a\.zarr: pixels of type .* cannot be segmented; convert"),
    done("bool", plain(dtype="bool")),
    done("format 2", plain(zarr_format=2)),
    done("an array of format 2 in a group of format 3", group(do=older_array)),
    done(
        "both formats in one folder",
        plain(both),
        says=r"a\.zarr: there are both zarr\.json and \.zarray; zarr\.json is read",
    ),
    done("words of 0.4 in a group of format 3", group(do=older_words)),
    failed("no length", edited(shape(0, 50)), r"a\.zarr: the image has no pixels"),
    failed("a length below zero", edited(shape(-5, 50)), DAMAGED),
    failed("a length that no image has", edited(shape(2**60, 2**60)), r"a\.zarr: damaged: no image has the shape"),
    failed("a length that no number has", edited(shape(2**70, 50)), r"a\.zarr: .*(damaged|no image has)"),
    failed(
        "a chunk of a hundred terabytes", edited(shape(2**23, 2**23, chunks=(2**23, 2**23))), r"a\.zarr: .*a worker has"
    ),
    failed(
        "a chunk of noise",
        plain(file("c/0/0", b"\x93" * 100)),
        r"a\.zarr: the pixels at y 0 to 40, x 0 to 50 cannot be decoded .*; the file is damaged there: copy",
    ),
    failed("an empty shard", plain(file("c/0/0", b""), shards=(32, 32)), r"this shard is empty: its pixels are lost"),
    failed(
        "an index of a shard that points nowhere",
        edited(lambda described: described["codecs"][0]["configuration"]["index_codecs"].pop(), shards=(32, 32)),
        r"a\.zarr/c/0/0: damaged: the index of this shard points beyond its \d+ bytes; copy it again",
    ),
    failed("chunks of no length", edited(shape(40, 50, chunks=(False, 16))), DAMAGED),
    failed("an array above", group(at("../../b.zarr")), OUTSIDE),
    failed("an array at the root", group(at("/etc")), OUTSIDE),
    failed("an array with a NUL", group(at("0\0")), OUTSIDE),
    failed(
        "an array that is not there",
        group(at("9")),
        r"a\.zarr: its metadata name the array '9', which is not there; copy",
    ),
    failed("a series above", series, OUTSIDE),
    failed("a plate", plate, r"a\.zarr: invalid plate metadata: the well '\.\./\.\./B/1' is not named ROW/COLUMN"),
    failed(
        "two arrays",
        two,
        r"a\.zarr: this Zarr group has no OME-Zarr metadata and holds 2 arrays; give one, such as .*a\.zarr/b$",
    ),
    failed(
        "more resolutions than any image has", group(many_levels), r"a\.zarr: invalid .*: 20000 resolutions \(datasets"
    ),
    failed("a pipe for a group's metadata", group(do=pipe("zarr.json")), r"zarr\.json: a pipe, socket or device"),
    failed(
        "a pipe for an array's metadata",
        group(do=pipe("0/zarr.json")),
        r"a\.zarr: its metadata name the array .0., which is",
    ),
    failed("a pipe for a chunk", plain(pipe("c/0/0")), r"c/0/0: a pipe, socket or device, where a file of the image"),
    failed(
        "axes that are none",
        group(
            lambda described: described["multiscales"][0].update(
                axes=[{"name": "a", "type": "space"}, {"name": "x", "type": "space"}]
            )
        ),
        r"axes AX do not form an image of T, C, Z, Y and X; name each",
    ),
    failed(
        "a scale that is none",
        group(
            lambda described: described["multiscales"][0]["datasets"][0].update(
                coordinateTransformations=[{"type": "scale", "scale": ["a", "b"]}]
            )
        ),
        r"invalid OME-Zarr metadata: multiscales\.0\.datasets\.0\.coordinateTransformations\.0\.scale\.0: .*; correct",
    ),
    done(
        "a scale of zero",
        group(
            lambda described: described["multiscales"][0]["datasets"][0].update(
                coordinateTransformations=[{"type": "scale", "scale": [0.0, 1.0]}]
            )
        ),
        says=r"a\.zarr: no pixel is 0\.0 long, as the metadata say of Y; .* unknown",
    ),
    done(
        "a scale without end",
        group(
            lambda described: described["multiscales"][0]["datasets"][0].update(
                coordinateTransformations=[{"type": "scale", "scale": [float("inf"), 1.0]}]
            )
        ),
        says=r"a\.zarr: no pixel is inf long",
    ),
]
