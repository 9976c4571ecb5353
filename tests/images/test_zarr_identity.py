"""What a Zarr is known by again: whatever changes its pixels makes it another image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import zarr

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from tests.images.reading import info_of
from tests.images.zarrs import STACK, VERSIONS, array, layout, ome


def rewrite(path: Path, content: bytes | None = None) -> None:
    """Write a file anew, with a later time even where the clock is coarse."""
    stat = path.stat()
    path.write_bytes(path.read_bytes() if content is None else content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def identity(path: Path, series: int | None = None) -> tuple[int, int]:
    info = info_of(path, series)
    return info.size_bytes, info.modified_ns


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_chunk_that_is_rewritten_added_or_removed_makes_it_another_image(
    tmp_path: Path, version: str, inside: bool
) -> None:
    path = ome(tmp_path / "a.zarr", STACK, "zyx", version)
    seen = [identity(path / "0" if inside else path)]
    chunk = path / "0" / ("0/1/1" if version == "0.4" else "c/0/1/1")
    if version == "0.4" and not chunk.exists():
        chunk = path / "0" / "0.1.1"
    latest = max(entry.stat().st_mtime_ns for entry in (path / "0").rglob("*") if entry.is_file())
    os.utime(chunk, ns=(latest, latest))
    rewrite(chunk)
    seen.append(identity(path / "0" if inside else path))
    extra = chunk.with_name("9" if version == "0.5" else "9.9.9")
    extra.write_bytes(b"")
    os.utime(extra, ns=(0, 0))
    seen.append(identity(path / "0" if inside else path))
    extra.unlink()
    chunk.unlink()
    seen.append(identity(path / "0" if inside else path))
    assert len(set(seen)) == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_that_are_rewritten_make_it_another_image(tmp_path: Path, version: str) -> None:
    layout(tmp_path / "a.zarr", version, ["0", "1"])
    name = ".zattrs" if version == "0.4" else "zarr.json"
    for changed in (tmp_path / "a.zarr" / name, tmp_path / "a.zarr" / "1" / name):
        before = identity(tmp_path / "a.zarr", 1)
        rewrite(changed, changed.read_bytes() + b"\n")
        assert identity(tmp_path / "a.zarr", 1) != before


def test_labels_and_coarser_levels_beside_the_array_do_not_make_it_another_image(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.zarr", STACK, "zyx", "0.5")
    before = identity(path)
    array(path / "1", STACK[:, ::2, ::2], 3)
    array(path / "labels" / "cells" / "0", STACK, 3)
    assert identity(path) == before


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_that_goes_while_it_is_read_is_no_image_of_zeros(tmp_path: Path, version: Literal[2, 3]) -> None:
    data = np.full((32, 32), 7, dtype=np.uint16)
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(16, 16), zarr_format=version)
    source = open_image(tmp_path / "a.zarr")
    box = Box.whole(source.info.shape)
    np.testing.assert_array_equal(source.read(box).squeeze(), data)
    (tmp_path / "a.zarr").rename(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match=r"a\.zarr: has gone while it was read"):
        source.read(box)
