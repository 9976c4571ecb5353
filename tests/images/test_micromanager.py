"""Stacks of Micro-Manager, which are OME-TIFF of several files with an index that tifffile goes by."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ImageError
from pipeline.images.discover import discover
from tests.images.micromanager import describe_stack, write_stack
from tests.images.reading import info_of, opened, pixels, read_whole

IMAGE = pixels((2, 3, 2, 20, 30))
"""TZCYX."""

PLACES = [(c, z, t) for t, z, c in product(range(2), range(3), range(2))]
SUMMARY = {"Frames": 2, "Slices": 3, "Channels": 2, "Positions": 1}
NAMES = ("a_MMStack_Pos0.ome.tif", "a_MMStack_Pos0_1.ome.tif")


def write(folder: Path, xml: str = "", count: int = 12, first: int = 7) -> None:
    """Write a stack whose last planes lie in a second file."""
    planes = [((c, z, t, 0), IMAGE[t, z, c]) for c, z, t in PLACES[:count]]
    write_stack(folder / NAMES[0], planes[:first], SUMMARY, xml)
    if planes[first:]:
        write_stack(folder / NAMES[1], planes[first:], SUMMARY)


@pytest.mark.parametrize("xml", ["", describe_stack([(NAMES[0], 7), (NAMES[1], 5)], IMAGE.shape)], ids=["", "OME-XML"])
def test_a_stack_of_several_files_is_read_from_all(tmp_path: Path, xml: str) -> None:
    write(tmp_path, xml)
    np.testing.assert_array_equal(read_whole(tmp_path / NAMES[0]), IMAGE.swapaxes(1, 2))
    with opened(tmp_path / NAMES[0]) as source:
        assert (source.notes, source.pieces()) == ((), (12, 12))
        assert sorted(file.name for file in source.files()) == sorted(NAMES)
    info = info_of(tmp_path / NAMES[0])
    assert info.size_bytes == sum((tmp_path / name).stat().st_size for name in NAMES)
    if xml:
        assert (info.channel_names, info.pixel_size) == (("DAPI", "GFP"), (1.0, 1.0, 2.0, 0.25, 0.5))


def test_a_folder_has_one_image_for_all_files_of_a_stack(tmp_path: Path) -> None:
    write(tmp_path)
    for given in (tmp_path, f"{tmp_path}/*.tif"):
        assert [image.name for image in discover([str(given)])] == ["a_MMStack_Pos0"]
    assert [image.name for image in discover([str(tmp_path / NAMES[1])])] == ["a_MMStack_Pos0_1"]
    (tmp_path / NAMES[0]).unlink()
    assert [image.name for image in discover([str(tmp_path)])] == ["a_MMStack_Pos0_1"]


@pytest.mark.parametrize("first", [6, 7], ids=["a whole frame", "a part of a frame"])
def test_a_file_that_is_missing_is_told(tmp_path: Path, first: int) -> None:
    write(tmp_path, describe_stack([(NAMES[0], first), (NAMES[1], 12 - first)], IMAGE.shape), first=first)
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(ImageError, match=f"{NAMES[1]} belongs to this image and is missing"):
        info_of(tmp_path / NAMES[0])


def test_what_was_never_taken_is_told(tmp_path: Path) -> None:
    write(tmp_path, count=6)
    with opened(tmp_path / NAMES[0]) as source:
        (note,) = source.notes
    assert "Micro-Manager was to take 12 planes, and 6 are there" in note
    np.testing.assert_array_equal(read_whole(tmp_path / NAMES[0]), IMAGE[:1].swapaxes(1, 2))


@pytest.mark.parametrize("together", [False, True], ids=["a file each", "one file"])
def test_positions_are_images_of_their_own(tmp_path: Path, together: bool) -> None:
    image = pixels((2, *IMAGE.shape))
    summary = SUMMARY | {"Positions": 2}
    planes = [[((c, z, t, p), image[p, t, z, c]) for c, z, t in PLACES] for p in range(2)]
    if together:
        write_stack(tmp_path / "a_MMStack.ome.tif", [*planes[0], *planes[1]], summary)
    else:
        for p in range(2):
            write_stack(tmp_path / f"a_MMStack_Pos{p}.ome.tif", planes[p], summary)
    for p in range(2):
        path = tmp_path / ("a_MMStack.ome.tif" if together else f"a_MMStack_Pos{p}.ome.tif")
        found = read_whole(path, p if together else None)
        np.testing.assert_array_equal(found, image[p].swapaxes(1, 2))
    with pytest.raises(ImageError, match="there is no series 2"):
        info_of(path, 2)
