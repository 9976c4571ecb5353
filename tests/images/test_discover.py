from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
import zarr

from pipeline.errors import ConfigError
from pipeline.images.discover import InputImage, discover, result_name
from tests.images.reading import pixels


def tiff(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels((4, 5)))
    return path


def zarr_image(path: Path) -> Path:
    zarr.create_array(path, shape=(4, 5), dtype="uint8", chunks=(4, 5))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(inputs: list[str]) -> list[str]:
    return [image.name for image in discover(inputs)]


@pytest.mark.parametrize(
    ("name", "result"),
    [("a.tif", "a"), ("a.TIFF", "a"), ("a.ome.tif", "a"), ("a.ome.tiff", "a"), ("a.ome.btf", "a"), ("a.btf", "a"),
     ("a.tf8", "a"), ("a.zarr", "a"), ("a.ome.zarr", "a"), ("a.b.tif", "a.b"), ("a.b", "a"), ("a", "a"),
     (".tif", ".tif"), ("a.tif.tif", "a.tif"), ("image 1.OME.TIF", "image 1")],
)  # fmt: skip
def test_a_result_is_named_as_its_image_without_the_suffix(name: str, result: str) -> None:
    assert result_name(name) == result


def test_a_file_is_one_image_whatever_its_suffix(tmp_path: Path) -> None:
    for name in ("a.tif", "b.lsm", "c"):
        path = tiff(tmp_path / name)
        assert discover([str(path)]) == [InputImage(str(path), Path(name).stem)]


def test_a_zarr_folder_is_one_image(tmp_path: Path) -> None:
    path = zarr_image(tmp_path / "a.ome.zarr")
    tiff(path / "inside.tif")
    assert discover([str(path)]) == [InputImage(str(path), "a")]
    assert discover([f"{path}/"]) == [InputImage(str(path), "a")]
    assert discover([str(tmp_path)]) == [InputImage(str(path), "a")]


def test_a_folder_is_searched_in_depth_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.tif", "a/z.ome.tiff", "a/deep/er/x.TIF", "c.btf"):
        tiff(tmp_path / name)
    zarr_image(tmp_path / "a" / "m.zarr")
    for name in ("notes.txt", "a/picture.png", "tif", "a.tif.partial"):
        (tmp_path / name).write_text("no image")
    found = discover([str(tmp_path)])
    assert [image.name for image in found] == ["a/deep/er/x", "a/m", "a/z", "b", "c"]
    assert [Path(image.path).relative_to(tmp_path).as_posix() for image in found] == [
        "a/deep/er/x.TIF", "a/m.zarr", "a/z.ome.tiff", "b.tif", "c.btf",
    ]  # fmt: skip


def test_hidden_unfinished_and_former_results_are_left_out_of_folders(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif")
    for name in (".b.tif", "._a.tif", ".hidden/c.tif", "d.ome.zarr.partial/e.tif", "f.tif.partial"):
        tiff(tmp_path / name)
    former = zarr_image(tmp_path / "g.ome.zarr")
    (former / "seamfree.json").write_text("{}")
    (tmp_path / "h.zarr").write_text("a file, not a folder")
    assert names([str(tmp_path)]) == ["a"]


def test_a_former_result_that_is_named_is_an_image(tmp_path: Path) -> None:
    former = zarr_image(tmp_path / "g.ome.zarr")
    (former / "seamfree.json").write_text("{}")
    assert names([str(former)]) == ["g"]


def test_globs_find_files_and_zarr_folders_in_order(tmp_path: Path) -> None:
    for name in ("b.tif", "a.tif", ".hidden.tif", "deep/c.tif", "deep/er/d.tif"):
        tiff(tmp_path / name)
    zarr_image(tmp_path / "e.zarr")
    (tmp_path / "a.txt").write_text("no image")
    assert names([f"{tmp_path}/*"]) == ["a", "b", "e"]
    assert names([f"{tmp_path}/[ab].*"]) == ["a", "b"]
    assert names([f"{tmp_path}/**/*.tif"]) == ["a", "b", "c", "d"]
    assert names([f"{tmp_path}/*.zarr/"]) == ["e"]


def test_a_name_with_brackets_that_exists_is_no_glob(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a[1].tif")
    tiff(tmp_path / "a1.tif")
    assert discover([str(path)]) == [InputImage(str(path), "a[1]")]


def test_relative_names_are_found_from_where_we_are(here: Path) -> None:
    tiff(here / "a.tif")
    tiff(here / "deep" / "b.tif")
    zarr_image(here / "c.zarr")
    assert discover(["a.tif"]) == [InputImage("a.tif", "a")]
    assert discover(["deep/../a.tif"])[0].name == "a"
    assert names(["."]) == ["a", "c", "deep/b"]
    assert names(["deep"]) == ["b"]
    assert names(["*.tif", "c.zarr"]) == ["a", "c"]


def test_inputs_keep_their_order(tmp_path: Path) -> None:
    paths = [str(tiff(tmp_path / name)) for name in ("b.tif", "a.tif", "c.tif")]
    assert [image.path for image in discover(paths)] == paths


def test_an_image_that_is_named_again_is_taken_once(here: Path) -> None:
    tiff(here / "a.tif")
    for again in ("a.tif", "./a.tif", ".//a.tif", "*.tif", "./*.tif", "."):
        assert len(discover(["a.tif", again])) == 1, again


@pytest.mark.parametrize("pair", [("a.tif", "a.tiff"), ("a.tif", "a.ome.zarr"), ("x/a.tif", "y/a.tif")])
def test_two_images_with_one_result_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    paths = [zarr_image(tmp_path / name) if name.endswith("zarr") else tiff(tmp_path / name) for name in pair]
    with pytest.raises(ConfigError, match=r"would share the result a\.ome\.zarr") as caught:
        discover([str(path) for path in paths])
    for path in paths:
        assert str(path) in str(caught.value)


def test_in_a_folder_images_of_one_name_are_told_apart_by_their_place(tmp_path: Path) -> None:
    for name in ("x/a.tif", "y/a.tif", "a.tif"):
        tiff(tmp_path / name)
    assert names([str(tmp_path)]) == ["a", "x/a", "y/a"]
    with pytest.raises(ConfigError, match="would share"):
        discover([f"{tmp_path}/**/a.tif"])


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    tiff(tmp_path / "deep" / "a.tif")
    (tmp_path / "deep" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "deep" / "b.tif").symlink_to(tmp_path / "deep" / "a.tif")
    assert names([str(tmp_path)]) == ["deep/a", "deep/b"]


@pytest.mark.parametrize(
    ("given_input", "why"),
    [("none.tif", "no such file or folder"), ("*.tif", "no image matches"), ("*.txt", "no image matches"),
     ("empty", "no images in this folder")],
)  # fmt: skip
def test_inputs_without_an_image_are_refused(here: Path, given_input: str, why: str) -> None:
    (here / "empty").mkdir()
    (here / "empty" / "notes.txt").write_text("no image")
    (here / "notes.txt").write_text("no image")
    with pytest.raises(ConfigError, match=why) as caught:
        discover([given_input])
    assert given_input in str(caught.value)


def test_nothing_is_found_in_nothing() -> None:
    assert discover([]) == []
