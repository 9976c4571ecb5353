"""Zarr that is damaged, cut off or no image: the right pixels, or the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from tests.images.reading import assert_reads, opened, pixels, read_whole, refused_or_right
from tests.images.zarrs import STACK, VERSIONS, array, frame, ome, scale


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda described: described["multiscales"][0].pop(name)


def put(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda described: described["multiscales"][0].update({name: value})


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no axes": (drop("axes"), r"axes: Field required"),
    "no datasets": (drop("datasets"), r"datasets: Field required"),
    "empty datasets": (put("datasets", []), r"invalid OME-Zarr metadata"),
    "no image": (lambda described: described.update(multiscales=[]), r"invalid OME-Zarr metadata: multiscales"),
    "text": (lambda described: described.update(multiscales="image"), r"invalid OME-Zarr metadata: multiscales"),
    "a missing array": (
        lambda described: described["multiscales"][0]["datasets"][0].update(path="nowhere"),
        r"name the array 'nowhere', which is not there",
    ),
    "too few scales": (
        lambda described: described["multiscales"][0]["datasets"][0].update(coordinateTransformations=[scale(1, 1)]),
        r"invalid OME-Zarr metadata",
    ),
    "a strange axis": (
        put("axes", [{"name": name, "type": "space"} for name in "ayx"]), r"axes AYX do not form an image"
    ),
    "too few axes": (put("axes", [{"name": name, "type": "space"} for name in "yx"]), r"metadata|not an array"),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_are_refused_with_the_place(tmp_path: Path, name: str, version: str) -> None:
    change, why = BROKEN[name]
    path = ome(tmp_path / "a.zarr", STACK, "zyx", version, change=change)
    with pytest.raises(ImageError, match=why) as caught:
        open_image(path)
    assert str(path) in str(caught.value)


def test_metadata_that_are_no_mapping_are_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs.update({"ome": ["0.5"]})
    with pytest.raises(ImageError, match="not a mapping"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "content",
    ["", "[1, 2]", "7", '"text"', "{", "{}", '{"zarr_format": 9, "node_type": "array"}',
     '{"zarr_format": 3, "node_type": "array"}', '{"zarr_format": 3, "node_type": "tree"}', "\x00\x01"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zgroup"])
def test_damaged_zarr_metadata_are_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / name).write_text(content)
    with pytest.raises(ImageError, match=str(path)):
        open_image(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_that_were_cut_off_are_refused_wherever_they_end(tmp_path: Path, version: str) -> None:
    path = ome(tmp_path / "a.zarr", STACK, "zyx", version)
    names = ["zarr.json", "0/zarr.json"] if version == "0.5" else [".zgroup", ".zattrs", "0/.zarray"]
    for name in names:
        whole = (path / name).read_bytes()
        for length in range(0, len(whole.rstrip()) - 1, 7):
            (path / name).write_bytes(whole[:length])
            assert refused_or_right(path, frame(STACK, "zyx")), f"{name} cut at {length}"
        (path / name).write_bytes(whole)
    assert np.array_equal(read_whole(path), frame(STACK, "zyx"))


@pytest.mark.parametrize(
    ("zarr_format", "options"),
    [(2, {}), (2, {"compressors": None}), (3, {}), (3, {"compressors": None}), (3, {"shards": (32, 32)}),
     (3, {"shards": (32, 32), "compressors": None})],
)  # fmt: skip
def test_a_chunk_that_was_cut_off_is_refused_wherever_it_ends(
    tmp_path: Path, zarr_format: Literal[2, 3], options: dict[str, Any]
) -> None:
    data = pixels((64, 64))
    path = tmp_path / "a.zarr"
    array(path, data, zarr_format, **options)
    chunks = sorted(
        entry for entry in path.rglob("*") if entry.is_file() and entry.name not in ("zarr.json", ".zarray", ".zattrs")
    )
    for chunk in (chunks[0], chunks[-1]):
        whole = chunk.read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 40)):
            chunk.write_bytes(whole[:length])
            assert refused_or_right(path, frame(data, "yx")), f"cut at {length}"
        chunk.write_bytes(whole)


def test_regions_beside_an_empty_shard_are_read(tmp_path: Path) -> None:
    data = pixels((64, 96))
    path = tmp_path / "a.zarr"
    array(path, data, 3, shards=(32, 32))
    (path / "c" / "1" / "2").write_bytes(b"")
    with opened(path) as source:
        expected = frame(data, "yx")
        assert_reads(source, expected, Box((0, 0, 0, 0, 0), (1, 1, 1, 32, 96)))
        assert_reads(source, expected, Box((0, 0, 0, 0, 0), (1, 1, 1, 64, 64)))
        with pytest.raises(ImageError, match="this shard is empty"):
            source.read(Box((0, 0, 0, 32, 64), (1, 1, 1, 33, 65)))


def test_of_a_big_array_only_the_chunks_are_read_that_a_region_touches(tmp_path: Path) -> None:
    data = pixels((64, 64))
    path = tmp_path / "a.zarr"
    array(path, data, 3)
    needed = {path / "c" / "1" / "2", path / "c" / "2" / "2"}
    for chunk in path.glob("c/*/*"):
        if chunk not in needed:
            chunk.write_bytes(b"whoever decodes this fails")
    with opened(path) as source:
        found = source.read(Box((0, 0, 0, 20, 33), (1, 1, 1, 40, 47)))
        assert np.array_equal(found[0, 0, 0], data[20:40, 33:47])
        with pytest.raises(ImageError, match="cannot be decoded"):
            source.read(Box((0, 0, 0, 15, 33), (1, 1, 1, 40, 47)))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "dtype", "why"),
    [
        ((9,), "uint8", "an array of 1 axes is not an image"),
        ((2, 2, 2, 2, 9, 9), "uint8", "an array of 6 axes is not an image"),
        ((0, 9), "uint8", "has no pixels"),
        ((9, 9), "complex64", "complex64 cannot be segmented"),
    ],
)
def test_arrays_that_are_no_images_are_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, why: str, zarr_format: Literal[2, 3]
) -> None:
    zarr.create_array(tmp_path / "a", shape=shape, dtype=dtype, chunks=(2,) * len(shape), zarr_format=zarr_format)
    with pytest.raises(ImageError, match=why):
        open_image(tmp_path / "a")


@pytest.mark.parametrize("names", [["y", "x"], ["z", "c", "t", "y", "x"], ["y", "y", "x"], ["t", "c", "z"]])
def test_names_that_do_not_fit_the_array_are_refused(tmp_path: Path, names: list[str]) -> None:
    array(tmp_path / "a", STACK, 2, attributes={"_ARRAY_DIMENSIONS": names})
    with pytest.raises(ImageError, match=r"has the names|do not form an image"):
        open_image(tmp_path / "a")


def test_a_folder_that_is_no_zarr_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "notes.json").write_text(json.dumps({}))
    with pytest.raises(ImageError, match="this folder is not a Zarr"):
        open_image(tmp_path / "a.zarr")
