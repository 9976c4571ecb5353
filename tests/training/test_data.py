"""Reading of annotated fields, and what is held out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load_config
from pipeline.errors import ImageError
from pipeline.models.card import read_card
from pipeline.models.library import DEFAULT_MODEL, find_model
from pipeline.training.data import Field, load_fields, split
from tests.fields import DATA
from tests.training.fields import draw_field, write_data

CONFIG = Path(__file__).parents[2] / "configs" / "train-nuclei.yaml"


def field(name: str, group: str) -> Field:
    return Field(name, group, np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32), 20.0)


def test_a_field_is_read_with_its_group_scale_and_diameter(tmp_path: Path) -> None:
    fields = load_fields(write_data(tmp_path), 1, 99)
    assert [found.name for found in fields] == ["0", "1", "2", "3", "4"]
    assert [found.group for found in fields] == ["80x80-1"] * 3 + ["64x80-1"] * 2
    image, mask = draw_field((80, 80), 0)
    found = fields[0]
    np.testing.assert_array_equal(found.mask, mask)
    low, high = np.percentile(image, [1, 99])
    np.testing.assert_allclose(found.image, (image - low) / (high - low), rtol=0, atol=1e-6)
    assert (found.image.dtype.name, found.mask.dtype.name) == ("float32", "int32")
    areas = [np.sum(mask == number) for number in np.unique(mask) if number]
    assert found.diameter == pytest.approx(2 * np.sqrt(np.median(areas) / np.pi))


@pytest.mark.parametrize(("level", "group"), [(0, 0), (2, 0), (3, 1), (5, 1), (10, 2), (18, 3), (19, 4), (200, 4)])
def test_groups_are_parted_by_the_level_of_the_background_whatever_the_bit_depth(
    tmp_path: Path, level: int, group: int
) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for name, image in (("a", np.full((4, 6), level, np.uint8)), ("b", np.full((4, 6), level * 257, np.uint16))):
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / "masks" / f"{name}.tif", np.zeros((4, 6), np.uint16))
    found = load_fields(tmp_path, 1, 99)
    assert [one.group for one in found] == [f"4x6-{group}"] * 2
    assert all(np.isfinite(one.image).all() for one in found)


@given(st.lists(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdefg")))
def test_whole_groups_are_held_out_and_none_is_lost(groups: list[str], held_out: set[str]) -> None:
    fields = [field(str(number), group) for number, group in enumerate(groups)]
    learn, test = split(fields, sorted(held_out))
    assert not {one.group for one in learn} & {one.group for one in test}
    assert {one.group for one in test} == held_out & set(groups)
    assert sorted(one.name for one in learn + test) == sorted(one.name for one in fields)


def test_no_image_or_group_of_the_shipped_split_stands_on_both_sides() -> None:
    if not (DATA / "images").is_dir():
        pytest.skip("the data set of nuclei is not at hand")
    held_out = load_config(CONFIG)["held_out"]
    assert tuple(held_out) == read_card(find_model(DEFAULT_MODEL)).training.held_out
    fields = load_fields(DATA, 1, 99.8)
    learn, test = split(fields, held_out)
    assert {one.group for one in test} == set(held_out)
    assert not {one.group for one in learn} & {one.group for one in test}
    assert sum(one.mask.max() > 0 for one in test) > 40
    pixels = [{hashlib.sha256(one.image.tobytes()).hexdigest() for one in side} for side in (learn, test)]
    assert not pixels[0] & pixels[1]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no images/\*\.tif"):
        load_fields(tmp_path, 1, 99)


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("masks", None, "there is no mask of that name"),
        ("masks", np.zeros((80, 79), np.uint16), r"image \(80, 80\) and mask \(80, 79\)"),
        ("images", np.zeros((80, 80, 3), np.uint8), r"image \(80, 80, 3\)"),
        ("images", b"no TIFF", r"1\.tif: cannot be read as a TIFF"),
        ("masks", b"", r"1\.tif: cannot be read as a TIFF"),
    ],
    ids=["no mask", "a mask of another size", "a picture in colour", "no TIFF", "an empty mask file"],
)
def test_what_is_no_annotated_field_is_named(
    tmp_path: Path, part: str, content: np.ndarray[tuple[int, ...], np.dtype[np.integer]] | bytes | None, message: str
) -> None:
    path = write_data(tmp_path) / part / "1.tif"
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        tifffile.imwrite(path, content)
    with pytest.raises(ImageError, match=message):
        load_fields(tmp_path, 1, 99)
