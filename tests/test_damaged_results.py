"""A finished result that was damaged: `seamfree verify` says what of it, and nothing ends in a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import open_result
from pipeline.errors import StoreError
from pipeline.verify import verify
from tests.results import call, run_movie, write_movie


@pytest.fixture(scope="module")
def movie_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movie")
    return run_movie(write_movie(folder), folder)


@pytest.fixture(scope="module")
def bare_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without the image."""
    folder = tmp_path_factory.mktemp("movie")
    return run_movie(write_movie(folder), folder, "--no-image")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("array", ["0", "1", "labels/semantic/0", "labels/instances/1", "tables/instances"])
def test_verify_refuses_a_result_of_which_one_byte_of_one_chunk_was_flipped(
    movie_result: Path, tmp_path: Path, array: str
) -> None:
    copy = Path(shutil.copytree(movie_result, tmp_path / "copy"))
    chunks = sorted(path for path in (copy / array).rglob("*") if path.is_file() and path.name != "zarr.json")
    flip(chunks[-1], 1234)
    failed = [check for check in verify(copy, audit=False) if not check.passed]
    assert [check.what for check in failed] == [f"checksum of {array}"]
    if array == "0":
        printed = call("seamfree", "verify", copy, code=1)
        assert "FAILED checksum of 0: changed since it was written" in printed.splitlines()


def test_any_flipped_byte_of_an_array_is_noticed(movie_result: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(movie_result, tmp_path / "copy"))
    random = np.random.default_rng(0)
    arrays = open_result(copy).provenance["checksums"]
    files = [path for array in arrays for path in sorted((copy / array).rglob("*")) if path.is_file()]
    for number in range(12):
        path, at = files[random.integers(len(files))], int(random.integers(10**9))
        flip(path, at)
        assert not all(check.passed for check in verify(copy, audit=False)), (number, path, at)
        flip(path, at)
    assert all(check.passed for check in verify(copy, audit=False))


@pytest.mark.parametrize(
    "part", ["zarr.json", "labels/zarr.json", "labels/instances/zarr.json", "labels/instances/0", "1", "labels"]
)
def test_verify_refuses_a_result_of_which_a_part_is_missing(movie_result: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(movie_result, tmp_path / "copy"))
    if (copy / part).is_dir():
        shutil.rmtree(copy / part)
    else:
        (copy / part).unlink()
    failed = [check for check in verify(copy, audit=False) if not check.passed]
    assert failed
    assert all("\n" not in check.detail for check in failed)


def test_verify_looks_at_the_metadata_of_a_result_without_image(bare_result: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bare_result, tmp_path / "copy"))
    (copy / "zarr.json").write_text((copy / "zarr.json").read_text().replace('"scale"', '"skale"'))
    assert [check.what for check in verify(copy, audit=False) if not check.passed] == ["metadata of the image"]


@pytest.mark.parametrize("file", ["seamfree.json", "zarr.json", "labels/zarr.json", "labels/semantic/zarr.json"])
def test_damaged_descriptions_never_end_in_a_traceback(movie_result: Path, tmp_path: Path, file: str) -> None:
    copy = Path(shutil.copytree(movie_result, tmp_path / "copy"))
    whole = (copy / file).read_bytes()
    random = np.random.default_rng(1)
    damaged = [whole[: len(whole) // 2], b"", b"{}", b"[]", b'{"plan": 3}', b"\xff\xfe"]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in random.integers(len(whole), size=15)]
    noticed = 0
    for content in damaged:
        (copy / file).write_bytes(content)
        try:
            noticed += not all(check.passed for check in verify(copy, audit=False))
        except StoreError:
            noticed += 1
    assert noticed >= 6
