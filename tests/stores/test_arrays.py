from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.geometry import Box
from pipeline.stores.arrays import ArraySpec, ResultArray, create_array
from pipeline.stores.written import witnessing
from tests.stores.strategies import shards

LABELS = ArraySpec("labels/instances/0", "TZYX", "YX", (1, 1, 100, 70), (1, 1, 16, 16), (1, 1, 32, 32), "uint32")


def fill(result: Path, spec: ArraySpec, pixels: NDArray[Any], seed: int = 0, twice: int = 0) -> None:
    """Write all shards in a random order, some of them twice."""
    create_array(result, spec)
    array, grid = ResultArray(result, spec), shards(spec)
    order = np.random.default_rng(seed).permutation(len(grid)).tolist()
    for index in [*order, *order[:twice]]:
        owned = grid[index].owned
        array.write(owned, pixels[owned.slices])


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@st.composite
def specs(draw: st.DrawFn) -> ArraySpec:
    frame = draw(st.sampled_from(["TCZYX", "TZYX"]))
    optional = draw(st.sets(st.sampled_from(frame[:-2])))
    axes = "".join(axis for axis in frame if axis in optional or axis in "YX")
    shape, chunk, shard = [], [], []
    for axis in frame:
        shape.append(draw(st.integers(1, 40 if axis in "YX" else 4)) if axis in axes else 1)
        chunk.append(draw(st.integers(1, 12)) if axis in axes else 1)
        shard.append(chunk[-1] * draw(st.integers(1, 3)) if axis in axes else 1)
    dtype = draw(st.sampled_from(["uint8", "uint16", "uint32", "float16", "float32", "float64"]))
    zarr_format: Literal[2, 3] = draw(st.sampled_from((2, 3)))
    return ArraySpec("some/0", frame, axes, tuple(shape), tuple(chunk), tuple(shard), dtype, zarr_format)


@settings(max_examples=40, deadline=None)
@given(specs(), st.integers(0, 5))
def test_what_is_written_is_read_whatever_axes_the_file_has(
    tmp_path_factory: pytest.TempPathFactory, spec: ArraySpec, seed: int
) -> None:
    result = tmp_path_factory.mktemp("result")
    pixels = np.random.default_rng(seed).integers(0, 200, spec.shape).astype(spec.dtype)
    fill(result, spec, pixels, seed)
    array = ResultArray(result, spec)
    np.testing.assert_array_equal(array.read(Box.whole(spec.shape)), pixels)
    middle = Box(tuple(length // 3 for length in spec.shape), spec.shape)
    np.testing.assert_array_equal(array.read(middle), pixels[middle.slices])
    plain = zarr.open_array(result / spec.path, mode="r")
    assert plain.metadata.zarr_format == spec.zarr_format
    if spec.zarr_format == 3:
        assert plain.metadata.to_dict()["dimension_names"] == tuple(axis.lower() for axis in spec.axes)
    assert plain.shape == spec.present(spec.shape)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_same_pixels_give_the_same_bytes_whatever_the_order(tmp_path: Path, zarr_format: Literal[2, 3]) -> None:
    # Chunks above 256 KiB are several blocks to Blosc, which may compress them at once.
    spec = replace(LABELS, shape=(1, 1, 1500, 700), chunk=(1, 1, 512, 512), shard=(1, 1, 1024, 512))
    spec = replace(spec, zarr_format=zarr_format)
    pixels = np.random.default_rng(0).integers(0, 5, spec.shape).astype(np.uint32)
    pixels[..., :1024, :512] = 0
    fill(tmp_path / "a", spec, pixels, seed=1)
    fill(tmp_path / "b", spec, pixels, seed=2, twice=3)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_in_zarr_2_each_chunk_is_one_file_in_a_folder_per_axis_and_is_noted(tmp_path: Path) -> None:
    spec = replace(LABELS, zarr_format=2)
    with witnessing() as noted:
        fill(tmp_path, spec, np.ones(spec.shape, dtype=np.uint32))
    files = set(digests(tmp_path / spec.path))
    assert files == {".zarray", ".zattrs"} | {f"{row}/{column}" for row in range(7) for column in range(5)}
    assert {path.relative_to(tmp_path / spec.path).as_posix() for path in noted} == files


def test_shards_of_zeros_are_no_files_even_where_there_was_something(tmp_path: Path) -> None:
    create_array(tmp_path, LABELS)
    array, box = ResultArray(tmp_path, LABELS), Box((0, 0, 32, 32), (1, 1, 64, 64))
    array.write(box, np.ones(box.shape, dtype=np.uint32))
    assert (tmp_path / LABELS.path / "c/1/1").is_file()
    array.write(box, np.zeros(box.shape, dtype=np.uint32))
    assert not (tmp_path / LABELS.path / "c/1/1").exists()
    assert not array.read(box).any()


def test_each_shard_is_one_file_and_nothing_else_is_left(tmp_path: Path) -> None:
    fill(tmp_path, LABELS, np.ones(LABELS.shape, dtype=np.uint32), twice=12)
    files = {name for name in digests(tmp_path / LABELS.path) if name != "zarr.json"}
    assert files == {f"c/{row}/{column}" for row in range(4) for column in range(3)}


def test_an_array_is_sharded_and_compressed_as_readers_expect(tmp_path: Path) -> None:
    create_array(tmp_path, LABELS)
    array = zarr.open_array(tmp_path / LABELS.path, mode="r")
    assert (array.shards, array.chunks) == ((32, 32), (16, 16))
    assert [type(codec).__name__ for codec in array.compressors] == ["ZstdCodec"]


def test_an_array_whose_shards_are_its_chunks_is_not_sharded(tmp_path: Path) -> None:
    create_array(tmp_path, replace(LABELS, shard=LABELS.chunk))
    assert zarr.open_array(tmp_path / LABELS.path, mode="r").shards is None


@pytest.mark.parametrize(
    ("start", "stop", "axis"),
    [((0, 0, 16, 0), (1, 1, 32, 32), "Y"), ((0, 0, 0, 0), (1, 1, 32, 40), "X"), ((0, 0, 96, 64), (1, 1, 101, 70), "Y")],
    ids=["starts inside a shard", "ends inside a shard", "ends beyond the array"],
)
def test_regions_that_cut_shards_are_refused_naming_both(
    tmp_path: Path, start: tuple[int, ...], stop: tuple[int, ...], axis: str
) -> None:
    create_array(tmp_path, LABELS)
    box = Box(start, stop)
    with pytest.raises(StoreError, match=rf"writing \d+ to \d+ along {axis} would cut a shard of 32"):
        ResultArray(tmp_path, LABELS).write(box, np.ones(box.shape, dtype=np.uint32))


@pytest.mark.parametrize("block", [np.ones((1, 1, 32, 31), np.uint32), np.ones((1, 1, 32, 32), np.int64)])
def test_blocks_that_do_not_fit_are_refused(tmp_path: Path, block: NDArray[Any]) -> None:
    create_array(tmp_path, LABELS)
    with pytest.raises(StoreError, match="cannot be written to a region of"):
        ResultArray(tmp_path, LABELS).write(Box((0, 0, 0, 0), (1, 1, 32, 32)), block)


def test_the_order_of_bytes_in_memory_does_not_matter(tmp_path: Path) -> None:
    create_array(tmp_path, LABELS)
    array, box = ResultArray(tmp_path, LABELS), Box((0, 0, 0, 0), (1, 1, 32, 32))
    array.write(box, np.full(box.shape, 258, dtype=">u4"))
    assert (array.read(box) == 258).all()


def test_reading_beyond_the_array_is_refused(tmp_path: Path) -> None:
    create_array(tmp_path, LABELS)
    with pytest.raises(StoreError, match="reaches beyond"):
        ResultArray(tmp_path, LABELS).read(Box((0, 0, 0, 0), (1, 1, 32, 71)))


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="labels/instances/0: the array cannot be opened"):
        ResultArray(tmp_path, LABELS)


def test_another_array_in_its_place_is_refused(tmp_path: Path) -> None:
    create_array(tmp_path, replace(LABELS, dtype="uint8"))
    with pytest.raises(StoreError, match=r"uint8 lies where one of \(100, 70\) uint32 belongs"):
        ResultArray(tmp_path, LABELS)


def test_an_array_is_never_made_over_another(tmp_path: Path) -> None:
    create_array(tmp_path, LABELS)
    with pytest.raises(StoreError, match="cannot be made"):
        create_array(tmp_path, LABELS)


def test_pixels_along_an_axis_that_the_file_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="5 pixels along Z"):
        create_array(tmp_path, replace(LABELS, shape=(1, 5, 100, 70)))


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be made"):
        create_array(tmp_path / "file", LABELS)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_shards_are_refused_naming_the_array(tmp_path: Path, damage: str) -> None:
    fill(tmp_path, LABELS, np.random.default_rng(0).integers(0, 9, LABELS.shape).astype(np.uint32))
    shard = tmp_path / LABELS.path / "c/1/1"
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[-10] ^= 0xFF
    shard.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"labels/instances/0: .* cannot be read"):
        ResultArray(tmp_path, LABELS).read(Box.whole(LABELS.shape))
