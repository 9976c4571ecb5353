"""Results as others read them: real images through the bundled model, then other people's tools."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import dask.array as da
import ngio
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from skimage import measure

from pipeline import open_result
from pipeline.errors import StoreError
from pipeline.verify import verify
from tests.results import call, run, run_movie, two_fields, write_movie

PLACE = {"scale": [2.0, 0.5, 0.25], "translation": [7.0, -100.25, 3000.0]}
"""Of the image that lies somewhere: T, Y and X."""


@pytest.fixture(scope="module")
def fields() -> list[NDArray[np.uint8]]:
    return two_fields()


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_movie(tmp_path_factory.mktemp("movie"))


@pytest.fixture(scope="module")
def movie_result(movie: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_movie(movie, tmp_path_factory.mktemp("results"))


def write_ome_zarr(
    path: Path, image: NDArray[Any], place: dict[str, list[float]], whole: dict[str, list[float]] | None = None
) -> None:
    """Write an OME-Zarr 0.5 of axes TYX by hand, its transformations per level and, if given, of the whole."""

    def transforms(of: dict[str, list[float]]) -> list[dict[str, Any]]:
        return [{"type": kind, kind: values} for kind, values in of.items()]

    units = {"t": "second", "y": "micrometer", "x": "micrometer"}
    multiscale: dict[str, Any] = {
        "axes": [{"name": axis, "type": "time" if axis == "t" else "space", "unit": units[axis]} for axis in units],
        "datasets": [{"path": "full", "coordinateTransformations": transforms(place)}],
    }
    if whole is not None:
        multiscale["coordinateTransformations"] = transforms(whole)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("full", data=image, chunks=(1, 100, 100), dimension_names=["t", "y", "x"])
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory, fields: list[NDArray[np.uint8]]) -> Path:
    path = tmp_path_factory.mktemp("placed") / "placed.ome.zarr"
    write_ome_zarr(path, np.stack([field[200:330, 100:370] for field in fields]), PLACE)
    return path


@pytest.fixture(scope="module")
def placed_result(placed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(placed, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def bare_result(movie: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without the image."""
    return run_movie(movie, tmp_path_factory.mktemp("results"), "--no-image")


@pytest.fixture(scope="module")
def older_result(movie: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As OME-Zarr 0.4."""
    return run_movie(movie, tmp_path_factory.mktemp("results"), "--ome-zarr", "0.4")


@pytest.fixture(params=["movie_result", "placed_result", "bare_result", "older_result"])
def result(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def ome(group: Path) -> Any:  # noqa: ANN401 (JSON)
    if (group / ".zattrs").exists():
        return json.loads((group / ".zattrs").read_text())
    return json.loads((group / "zarr.json").read_text())["attributes"]["ome"]


def transforms_of(group: Path) -> list[dict[str, list[float]]]:
    """Give scale and translation of each level."""
    return [
        {entry["type"]: entry[entry["type"]] for entry in dataset["coordinateTransformations"]}
        for dataset in ome(group)["multiscales"][0]["datasets"]
    ]


@pytest.mark.parametrize("program", ["ome-zarr-models", "yaozarrs"])
def test_validators_accept_image_and_labels(result: Path, program: str) -> None:
    for group in ("", "labels/instances"):
        assert "Valid" in call(program, "validate", result / group)


def test_a_result_without_image_has_the_labels_of_one_with_it(bare_result: Path, movie_result: Path) -> None:
    assert sorted(path.name for path in bare_result.iterdir()) == ["labels", "seamfree.json", "tables", "zarr.json"]
    with_image, without = open_result(movie_result), open_result(bare_result)
    assert without.image == []
    assert without.objects == with_image.objects
    np.testing.assert_array_equal(without.instances[0][:], with_image.instances[0][:])


def test_both_versions_hold_the_same_and_only_files_of_their_own(movie_result: Path, older_result: Path) -> None:
    new, old = open_result(movie_result), open_result(older_result)
    for name in ("image", "semantic", "instances"):
        for level, (one, other) in enumerate(zip(getattr(new, name), getattr(old, name), strict=True)):
            np.testing.assert_array_equal(one[:], other[:])
            xarray.testing.assert_identical(new.xarray(name, level).load(), old.xarray(name, level).load())
    pd.testing.assert_frame_equal(new.table, old.table)
    assert not list(older_result.rglob("zarr.json"))
    assert not list(movie_result.rglob(".z*"))
    described = ome(older_result)
    assert (described["multiscales"][0]["version"], "version" in described) == ("0.4", False)
    assert ome(older_result / "labels/instances")["image-label"]["version"] == "0.4"
    assert json.loads((older_result / "labels/instances/0/.zarray").read_text())["dimension_separator"] == "/"
    table = ngio.open_ome_zarr_container(older_result).get_table("instances")
    assert len(table.dataframe) == old.objects


@pytest.mark.parametrize("which", ["movie_result", "older_result"])
def test_the_reference_reader_opens_image_and_labels(which: str, movie: Path, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(which)
    location = parse_url(path)
    assert location is not None
    nodes = {node.zarr.basename(): node for node in Reader(location)()}
    assert {"movie.ome.zarr", "semantic", "instances"} <= set(nodes)
    np.testing.assert_array_equal(nodes["movie.ome.zarr"].data[0].compute(), tifffile.imread(movie))
    opened = open_result(path)
    for name, levels in (("semantic", opened.semantic), ("instances", opened.instances)):
        assert len(nodes[name].data) == len(levels) == 2
        for found, level in zip(nodes[name].data, levels, strict=True):
            np.testing.assert_array_equal(found.compute(), level[:])


def test_the_reference_reader_finds_labels_without_an_image(bare_result: Path) -> None:
    location = parse_url(bare_result)
    assert location is not None
    nodes = {node.zarr.basename(): node for node in Reader(location)()}
    np.testing.assert_array_equal(nodes["instances"].data[0].compute(), open_result(bare_result).instances[0][:])


def test_zarr_and_dask_read_each_level_and_coarse_labels_are_those_of_the_finest(result: Path) -> None:
    for name in ("semantic", "instances"):
        group = result / "labels" / name
        finest = da.from_zarr(group / "0").compute()
        paths = [dataset["path"] for dataset in ome(group)["multiscales"][0]["datasets"]]
        assert paths == ["0", "1"]
        for level, path in enumerate(paths):
            array = zarr.open_array(group / path, mode="r")
            step = 2**level
            if array.metadata.zarr_format == 3:
                assert array.metadata.to_dict()["dimension_names"] == ("t", "y", "x")
            np.testing.assert_array_equal(da.from_zarr(group / path).compute(), array[:])
            np.testing.assert_array_equal(array[:], finest[:, ::step, ::step])
            assert set(np.unique(np.asarray(array[:]))) <= set(np.unique(finest))


def test_pixel_sizes_and_units_of_a_tiff_are_carried_over(movie_result: Path, bare_result: Path) -> None:
    for result, group in ((movie_result, "labels/instances"), (movie_result, "labels/semantic"), (bare_result, "")):
        assert transforms_of(result / group) == [
            {"scale": [2.5, 325, 0.65], "translation": [0, 0, 0]},
            {"scale": [2.5, 650, 1.3], "translation": [0, 0, 0]},
        ]
    # The mean of two pixels lies between them.
    assert transforms_of(movie_result) == [
        {"scale": [2.5, 1, 325, 0.65], "translation": [0, 0, 0, 0]},
        {"scale": [2.5, 1, 650, 1.3], "translation": [0, 0, 162.5, 0.325]},
    ]
    units = [(axis["name"], axis.get("unit")) for axis in ome(movie_result)["multiscales"][0]["axes"]]
    assert units == [("t", "minute"), ("c", None), ("y", "nanometer"), ("x", "micrometer")]
    assert [channel["label"] for channel in ome(movie_result)["omero"]["channels"]] == ["membrane", "DNA"]


def test_place_and_units_of_an_ome_zarr_are_carried_over(placed_result: Path) -> None:
    for group in ("", "labels/instances", "labels/semantic"):
        first, second = transforms_of(placed_result / group)
        assert first == PLACE
        assert second == {"scale": [2.0, 1.0, 0.5], "translation": PLACE["translation"]}
        units = [axis.get("unit") for axis in ome(placed_result / group)["multiscales"][0]["axes"]]
        assert units == ["second", "micrometer", "micrometer"]


def test_transformations_of_the_whole_pyramid_come_after_those_of_a_level(
    tmp_path: Path, fields: list[NDArray[np.uint8]]
) -> None:
    whole = {"scale": [10.0, 4.0, 2.0], "translation": [1.0, 2.0, 3.0]}
    write_ome_zarr(tmp_path / "a.ome.zarr", fields[0][None, :20, :30], PLACE, whole)
    found = transforms_of(run(tmp_path / "a.ome.zarr", tmp_path / "out") / "labels" / "instances")
    assert found == [{"scale": [20.0, 2.0, 0.5], "translation": [71.0, -399.0, 6003.0]}]


def test_labels_have_a_source_classes_and_colours(movie_result: Path, placed_result: Path, placed: Path) -> None:
    semantic = ome(movie_result / "labels/semantic")["image-label"]
    assert [entry["class"] for entry in semantic["properties"]] == ["background", "nucleus", "contact"]
    assert [entry["label-value"] for entry in semantic["colors"]] == [0, 1, 2]
    assert len({tuple(entry["rgba"]) for entry in semantic["colors"]}) == 3
    for name in ("semantic", "instances"):
        inside = ome(movie_result / "labels" / name)["image-label"]["source"]["image"]
        assert (movie_result / "labels" / name / inside).resolve() == movie_result.resolve()
        elsewhere = ome(placed_result / "labels" / name)["image-label"]["source"]["image"]
        assert (placed_result / "labels" / name / elsewhere).resolve() == placed.resolve()


def test_instances_are_the_components_of_the_nuclei(result: Path) -> None:
    opened = open_result(result)
    semantic, instances = np.asarray(opened.semantic[0]), np.asarray(opened.instances[0])
    count = 0
    for frame, found in zip(semantic == opened.classes.index("nucleus"), instances, strict=True):
        expected = measure.label(frame, connectivity=1)
        np.testing.assert_array_equal(found, np.where(expected > 0, expected + count, 0))
        count += expected.max()
    assert opened.objects == count > 3


def test_an_opened_result_gives_its_pyramids_and_how_it_came_about(movie_result: Path, movie: Path) -> None:
    opened = open_result(str(movie_result))
    assert opened.path == movie_result
    assert [level.shape for level in opened.image] == [(2, 2, 210, 290), (2, 2, 105, 145)]
    assert [level.shape for level in opened.semantic] == [(2, 210, 290), (2, 105, 145)]
    assert [level.dtype.name for level in opened.semantic] == ["uint8"] * 2
    assert [level.dtype.name for level in opened.instances] == ["uint32"] * 2
    assert opened.probabilities == []
    assert opened.classes == ("background", "nucleus", "contact")
    np.testing.assert_array_equal(opened.image[0][:], tifffile.imread(movie))
    assert opened.provenance["input"] == str(movie)
    assert [(entry["time"], entry["channel"]) for entry in opened.provenance["intensity"]] == [(0, 1), (1, 1)]
    for entry in opened.provenance["intensity"]:
        low, high = np.percentile(tifffile.imread(movie)[entry["time"], 1], [1, 99.8])
        assert entry["percentiles"] == pytest.approx({"1.0": low, "99.8": high})


def test_a_result_of_probabilities_and_no_objects_opens_too(bare_result: Path, movie: Path, tmp_path: Path) -> None:
    plain = run(
        movie, tmp_path, channels=["DNA"], instances={"method": "none"}, output={"probabilities": "float16"}, tile=300
    )
    opened = open_result(plain)
    assert (opened.instances, opened.objects) == ([], None)
    (scores,) = opened.probabilities
    assert scores.shape == (2, 3, 210, 290)
    np.testing.assert_array_equal(opened.semantic[0][:], open_result(bare_result).semantic[0][:])
    # Half precision may round two scores to one.
    best = np.asarray(scores[:]).argmax(axis=1)
    assert (best != np.asarray(opened.semantic[0][:])).mean() < 1e-3
    assert all(check.passed for check in verify(plain))


@pytest.mark.parametrize("part", ["labels", "labels/semantic/0", "seamfree.json"])
def test_what_is_no_result_is_refused(movie_result: Path, part: str) -> None:
    for function in (open_result, verify):
        with pytest.raises(StoreError, match=r"not a result of seamfree|cannot be read"):
            function(movie_result / part)


@pytest.mark.slow
def test_verify_accepts_a_whole_result(result: Path) -> None:
    printed = call("seamfree", "verify", result).splitlines()
    assert all(line.startswith("ok ") for line in printed)
    arrays = 6 if (result / "0").exists() else 4
    assert sum("checksum of" in line for line in printed) == arrays + 1
    assert sum("metadata of" in line for line in printed) == 5
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in printed[-4:]] == [
        "numbers of objects", "table of objects", "pyramids", "seams",
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (1, 37), (131, 127), (257, 263)])
def test_images_of_any_size_work(tmp_path: Path, fields: list[NDArray[np.uint8]], shape: tuple[int, int]) -> None:
    image = fields[0][100 : 100 + shape[0], 50 : 50 + shape[1]]
    tifffile.imwrite(tmp_path / "a.tif", image)
    result = run(tmp_path / "a.tif", tmp_path / "out")
    opened = open_result(result)
    assert all(check.passed for check in verify(result))
    np.testing.assert_array_equal(opened.image[0][:], image)
    semantic = np.asarray(opened.semantic[0])
    assert semantic.shape == shape
    np.testing.assert_array_equal(opened.instances[0][:], measure.label(semantic == 1, connectivity=1))
    assert len(opened.semantic) == len(opened.image) == (2 if max(shape) > 256 else 1)
    if min(shape) > 100:
        assert opened.objects is not None
        assert opened.objects > 0


def digests(result: Path) -> dict[str, str]:
    return {
        path.relative_to(result).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(result.rglob("*"))
        if path.is_file() and path.name != "seamfree.json"
    }


def test_a_finished_result_is_left_alone_and_made_again_when_asked(tmp_path: Path) -> None:
    image, output = tmp_path / "a.tif", tmp_path / "out"
    tifffile.imwrite(image, np.random.default_rng(0).integers(0, 255, (7, 5), dtype=np.uint8))
    command = ("run", image, "-o", output, "--direct", "--scheduler", "serial")
    result = run(image, output)
    before = digests(result)
    mark = result / "mark"
    mark.write_text("here before")
    call("seamfree", *command)
    summary = json.loads((output / "run-summary.json").read_text())
    assert summary["counts"] == {"skipped": 1}
    assert "use --fresh" in summary["images"][0]["reason"]
    assert mark.exists()
    call("seamfree", *command, "--fresh", "--instances", "components")
    assert json.loads((output / "run-summary.json").read_text())["counts"] == {"done": 1}
    assert not mark.exists()
    assert digests(result) == before
    assert sorted(path.name for path in output.iterdir()) == [
        "a.ome.zarr", "a.report.html", "run-summary.json",
    ]  # fmt: skip


def test_a_colour_image_is_segmented_by_the_channel_that_is_named(
    tmp_path: Path, fields: list[NDArray[np.uint8]]
) -> None:
    green = fields[0][:140, :150]
    colours = np.stack([255 - green, green, np.zeros_like(green)], axis=-1)
    tifffile.imwrite(tmp_path / "colours.tif", colours, photometric="rgb")
    tifffile.imwrite(tmp_path / "grey.tif", green)
    found = open_result(run(tmp_path / "colours.tif", tmp_path / "out", channels=["green"]))
    alone = open_result(run(tmp_path / "grey.tif", tmp_path / "out"))
    np.testing.assert_array_equal(found.instances[0][:], alone.instances[0][:])
    np.testing.assert_array_equal(found.image[0][:], np.moveaxis(colours, -1, 0))
    channels = ome(Path(str(found.path)))["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["red", "green", "blue"]
    assert all(check.passed for check in verify(found.path))


@pytest.mark.parametrize("unit", ["reference frame", "furlong"])
def test_units_that_nobody_knows_leave_a_valid_result(tmp_path: Path, unit: str) -> None:
    size = {"PhysicalSizeX": 2.0, "PhysicalSizeXUnit": unit, "PhysicalSizeY": 2.0, "PhysicalSizeYUnit": unit}
    image = np.random.default_rng(0).integers(0, 255, (7, 5), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", image, ome=True, metadata={"axes": "YX", **size})
    result = run(tmp_path / "a.ome.tif", tmp_path / "out")
    assert all(check.passed for check in verify(result))
    assert "Valid" in call("yaozarrs", "validate", result)
