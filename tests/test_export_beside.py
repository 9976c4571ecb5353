"""`seamfree run --export`: files beside results, whole, of these results, and in nobody's way."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline import open_result
from pipeline.config import make_config
from pipeline.errors import ConfigError, StoreError
from pipeline.export_beside import check_formats, export_results
from pipeline.images.discover import EXPORTS, InputImage, discover
from pipeline.models.architecture import UNetConfig
from pipeline.results import Result
from pipeline.run import ImageReport
from pipeline.stores.hold import hold
from tests.fields import load_fields
from tests.plates import BIN, parts_of_fields, run, write_plate
from tests.random_models import save_random_model

FORMATS = ["ome-tiff", "geojson", "anndata"]


@pytest.fixture
def given(tmp_path: Path, bright: str) -> tuple[Path, list[InputImage], list[ImageReport]]:
    """Two images that were segmented into the folder that they lie in."""
    for name, part in (("a", load_fields()[0][:150, :170]), ("b", load_fields()[0][40:190, :170])):
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", np.ascontiguousarray(part), metadata={"axes": "YX"})
    reports = run(bright, tmp_path, tmp_path)
    assert [report.status for report in reports] == ["done", "done"]
    return tmp_path, discover([str(tmp_path)]), reports


def test_exports_are_those_of_the_results_and_are_made_once(
    given: tuple[Path, list[InputImage], list[ImageReport]], tmp_path: Path
) -> None:
    folder, images, reports = given
    told: list[str] = []
    assert export_results(images, reports, folder, FORMATS, told.append) == reports
    made = [folder / f"{name}.exports" / f"{name}{end}" for name in "ab" for end in (".ome.tif", ".geojson", ".h5ad")]
    assert told == [f"exported: {path}" for path in made]
    assert sorted(path.name for path in made[0].parent.iterdir()) == ["a.geojson", "a.h5ad", "a.ome.tif", EXPORTS]
    result = open_result(folder / "a.ome.zarr")
    result.write_geojson(tmp_path / "alone.geojson")
    assert made[1].read_bytes() == (tmp_path / "alone.geojson").read_bytes()
    with tifffile.TiffFile(made[0]) as file:
        np.testing.assert_array_equal(file.series[2].asarray(), result.instances[0][:])
    # Inputs lie where they lay, and what was exported is none.
    assert [image.name for image in discover([str(folder)])] == ["a", "b"]

    told.clear()
    made[4].unlink()
    notes = json.loads((made[0].parent / EXPORTS).read_text())
    (made[0].parent / EXPORTS).write_text(json.dumps(notes | {"a.ome.tif": "of another result"}))
    export_results(images, reports, folder, FORMATS, told.append)
    assert told == [f"exported: {made[0]}", f"exported: {made[4]}"]


def test_an_interrupted_export_is_gone_on_with(
    given: tuple[Path, list[InputImage], list[ImageReport]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, images, reports = given
    told: list[str] = []

    def interrupted(_: Result, path: Path) -> int:
        path.with_name(f"{path.name}.partial").write_text("half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Result, "write_geojson", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_results(images, reports, folder, FORMATS, told.append)
    assert told == [f"exported: {folder}/a.exports/a.ome.tif"]
    assert export_results(images, reports, folder, FORMATS, told.append) == reports
    assert len(told) == len(set(told)) == 6
    assert not list(folder.rglob("*.exports/*.partial"))


def test_nothing_of_others_is_replaced_and_one_failure_stops_no_other(
    given: tuple[Path, list[InputImage], list[ImageReport]],
) -> None:
    folder, images, reports = given
    (folder / "a.exports").mkdir()
    (folder / "a.exports" / "a.ome.tif").write_text("mine")
    failed, done = export_results(images, reports, folder, ["ome-tiff"], lambda _: None)
    assert (failed.status, failed.result) == ("failed", reports[0].result)
    assert "a.exports: there is something that seamfree has not made" in str(failed.reason)
    assert (folder / "a.exports" / "a.ome.tif").read_text() == "mine"
    assert done == reports[1]
    assert (folder / "b.exports" / "b.ome.tif").is_file()
    # What has failed has nothing to be exported.
    again = [replace(reports[0], status="failed", result=None, reason="no")]
    assert export_results(images, again, folder, FORMATS, lambda _: None) == again


def test_a_file_of_somebody_else_in_a_folder_of_exports_is_not_replaced(
    given: tuple[Path, list[InputImage], list[ImageReport]], tmp_path: Path
) -> None:
    folder, (image, _), (report, _) = given
    inside = folder / "a.exports"
    assert export_results([image], [report], folder, ["ome-tiff"], lambda _: None) == [report]
    (inside / "a.geojson").write_text("mine")
    (tmp_path / "mine").write_text("mine")
    (inside / "a.h5ad").symlink_to(tmp_path / "nowhere")
    (inside / "a.geojson.partial").symlink_to(tmp_path / "mine")
    told: list[str] = []
    (failed,) = export_results([image], [report], folder, FORMATS, told.append)
    for name in ("a.geojson", "a.h5ad"):
        assert f"{inside}/{name}: there is something that seamfree has not made; choose another -o" in str(
            failed.reason
        )
    assert told == []
    assert (inside / "a.geojson").read_text() == (tmp_path / "mine").read_text() == "mine"
    assert (inside / "a.h5ad").is_symlink()
    assert list(json.loads((inside / EXPORTS).read_text())) == ["a.ome.tif"]
    # Nor does it go as what is of an earlier result.
    (inside / "a.geojson").rename(inside / "b.geojson")
    (inside / "a.h5ad").unlink()
    assert export_results([image], [report], folder, ["geojson"], told.append) == [report]
    assert told == [f"exported: {inside}/a.geojson"]
    assert (inside / "b.geojson").read_text() == (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("notes", ["", '{"a.ome.tif": ', "[" * 100_000, "[]", '{"a.ome.tif": 1}'])
def test_nothing_is_replaced_where_the_notes_are_damaged(
    given: tuple[Path, list[InputImage], list[ImageReport]], notes: str
) -> None:
    folder, (image, _), (report, _) = given
    inside = folder / "a.exports"
    inside.mkdir()
    (inside / EXPORTS).write_text(notes)
    (inside / "a.ome.tif").write_text("mine")
    (failed,) = export_results([image], [report], folder, ["ome-tiff"], lambda _: None)
    assert f"{inside}/{EXPORTS}: damaged, so that nobody can say which files" in str(failed.reason)
    assert "move away what you need of this folder, and remove it" in str(failed.reason)
    assert (inside / "a.ome.tif").read_text() == "mine"
    (inside / "a.ome.tif").unlink()
    assert export_results([image], [report], folder, ["ome-tiff"], lambda _: None) == [report]


def test_a_file_that_a_killed_run_has_just_made_is_ours(
    given: tuple[Path, list[InputImage], list[ImageReport]],
) -> None:
    folder, (image, _), (report, _) = given
    inside = folder / "a.exports"
    inside.mkdir()
    (inside / f"{EXPORTS}.01ab.partial").write_text("{")
    written = Result.write_geojson

    def killed(result: Result, path: Path) -> int:
        written(result, path)
        path.with_name(f"{path.name}.01ab.partial").write_text("half of it")
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Result, "write_geojson", killed)
        with pytest.raises(KeyboardInterrupt):
            export_results([image], [report], folder, ["geojson"], lambda _: None)
    told: list[str] = []
    assert export_results([image], [report], folder, ["anndata"], told.append) == [report]
    assert told == [f"removed: {inside}/a.geojson, of an earlier result", f"exported: {inside}/a.h5ad"]
    assert sorted(path.name for path in inside.iterdir()) == ["a.h5ad", EXPORTS]


def test_what_is_of_an_earlier_result_goes(
    given: tuple[Path, list[InputImage], list[ImageReport]], bright: str
) -> None:
    folder, images, reports = given
    export_results(images, reports, folder, FORMATS, lambda _: None)
    anew = run(bright, folder / "a.ome.tif", folder, fresh=True, instances={"minimum_size": 60})
    told: list[str] = []
    assert export_results(images, [anew[0], reports[1]], folder, ["geojson"], told.append) == [anew[0], reports[1]]
    inside = folder / "a.exports"
    gone = [f"removed: {inside}/{name}, of an earlier result" for name in ("a.ome.tif", "a.h5ad")]
    assert told == [*gone, f"exported: {inside}/a.geojson"]
    assert sorted(path.name for path in inside.iterdir()) == ["a.geojson", EXPORTS]
    assert len(list((folder / "b.exports").iterdir())) == 4


def test_one_format_that_fails_keeps_no_other_from_being_written(
    given: tuple[Path, list[InputImage], list[ImageReport]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (image, _), (report, _) = given

    def refuse(_: Result, path: Path) -> int:
        raise StoreError(f"{path}: no")

    monkeypatch.setattr(Result, "write_ome_tiff", refuse)
    monkeypatch.setattr(Result, "write_anndata", lambda *_: 1 // 0)
    told: list[str] = []
    (failed,) = export_results([image], [report], folder, ["ome-tiff", "anndata", "geojson"], told.append)
    assert told == [f"exported: {folder}/a.exports/a.geojson"]
    assert f"not exported: {folder}/a.exports/a.ome.tif: no; unexpected ZeroDivisionError: " in str(failed.reason)
    # What was not written is nobody's, and is not taken for ours later.
    assert list(json.loads((folder / "a.exports" / EXPORTS).read_text())) == ["a.geojson"]


def test_a_result_is_held_while_it_is_exported(given: tuple[Path, list[InputImage], list[ImageReport]]) -> None:
    folder, (image, _), (report, _) = given
    with hold(folder / "a.ome.zarr"):
        (failed,) = export_results([image], [report], folder, ["geojson"], lambda _: None)
    assert "a.ome.zarr: another run is at work on it (process " in str(failed.reason)
    assert not (folder / "a.exports").exists()


def test_what_stands_where_the_folder_should_be_is_told(
    given: tuple[Path, list[InputImage], list[ImageReport]], tmp_path: Path
) -> None:
    folder, images, reports = given
    (folder / "a.exports").write_text("mine")
    (folder / "b.exports").symlink_to(tmp_path / "nowhere")
    for name, done in zip("ab", export_results(images, reports, folder, FORMATS, lambda _: None), strict=True):
        assert f"{folder}/{name}.exports: there is something that seamfree has not made; choose another -o" in str(
            done.reason
        )
    (folder / "a.exports").unlink()
    (folder / "a.exports" / "a.geojson").mkdir(parents=True)
    (folder / "a.exports" / EXPORTS).write_text('{"a.geojson": ""}')
    failed = export_results(images, reports, folder, ["geojson"], lambda _: None)[0]
    assert "a.geojson: cannot be written (Is a directory); it is a folder; move it away" in str(failed.reason)


def test_exports_are_no_inputs_of_a_glob(tmp_path: Path) -> None:
    for name in ("in/a.tif", "a.exports/a.ome.tif", "P.exports/A/01/0/0.ome.tif"):
        (tmp_path / name).parent.mkdir(parents=True)
        tifffile.imwrite(tmp_path / name, np.zeros((4, 5), np.uint8))
        if "exports" in name:
            (tmp_path / name).with_name(EXPORTS).write_text("{}")
    assert [image.name for image in discover([f"{tmp_path}/*/*.tif"])] == ["a"]
    assert [image.name for image in discover([f"{tmp_path}/**/*.tif"])] == ["a"]
    with pytest.raises(ConfigError, match="no image matches"):
        discover([f"{tmp_path}/*.exports/*.tif"])
    # As where such a folder is named itself.
    assert [image.name for image in discover([f"{tmp_path}/a.exports/*.tif"])] == ["a"]
    assert [image.name for image in discover([f"{tmp_path}/a.exports"])] == ["a"]


def test_an_image_whose_name_is_no_text_is_exported(tmp_path: Path, bright: str) -> None:
    given = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(load_fields()[0][:150, :170]))
    (tmp_path / "a.tif").rename(given)
    reports = run(bright, Path(given), tmp_path / "out")
    told: list[str] = []
    assert export_results(discover([given]), reports, tmp_path / "out", FORMATS, told.append) == reports
    assert len(told) == 3
    written = tifffile.tiffcomment(told[0].removeprefix("exported: "))
    assert r'Name="caf\udce9"' in str(written)


@pytest.mark.parametrize("in_place", [False, True])
def test_fields_of_a_plate_have_theirs_in_one_folder(tmp_path: Path, bright: str, in_place: bool) -> None:
    source = write_plate(tmp_path / "P.zarr", parts_of_fields(2), wells=("A/01", "B/03"), per_well=1)
    reports = run(bright, source, tmp_path / "out", output={"in_place": in_place})
    told: list[str] = []
    images = discover([str(source)])
    assert export_results(images, reports, tmp_path / "out", ["geojson"], told.append) == reports
    assert told == [f"exported: {tmp_path}/out/P.exports/{well}/0/0.geojson" for well in ("A/01", "B/03")]
    assert sorted(path.name for path in source.iterdir() if "export" in path.name) == []


def test_what_could_not_be_written_is_told_before_work_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = make_config({})
    for formats, output, settings, told in (
        (["png"], "out", config, "--export png: no such format; there are ome-tiff, geojson, anndata"),
        (["geojson"], "s3://lab/out", config, "--export writes to a disk"),
        (["ome-tiff", "anndata"], "out", make_config({"output": {"table": False}}), "needs the table of objects"),
    ):
        with pytest.raises(ConfigError, match=told):
            check_formats(formats, output, settings)
    volumes = save_random_model(tmp_path / "model", UNetConfig(dims=3, depth=1, base_channels=2))
    with pytest.raises(ConfigError, match=r"--export geojson: objects of .* are three-dimensional.*leave it out"):
        check_formats(["geojson"], "out", make_config({"model": volumes}))
    check_formats(["ome-tiff"], "out", make_config({"model": volumes}))
    monkeypatch.setattr("pipeline.export_beside.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'seamfree\[anndata\]'"):
        check_formats(["anndata"], "out", config)


@pytest.mark.slow
def test_the_command_exports_what_it_has_made(tmp_path: Path, bright: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(load_fields()[0][:150, :170]))
    command: list[str | Path] = [BIN / "seamfree", "run", tmp_path / "a.tif", "-o", tmp_path / "out", "-m", bright]
    command += ["--direct", "--scheduler", "serial", "--tile", "96", "--export"]
    done = subprocess.run([*command, "ome-tiff", "--export", "geojson"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"exported: {tmp_path}/out/a.exports/a.ome.tif" in done.stdout
    (tmp_path / "out" / "a.exports" / EXPORTS).unlink()
    failed = subprocess.run([*command, "ome-tiff"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    summary = json.loads((tmp_path / "out" / "run-summary.json").read_text())
    assert "not exported" in json.dumps(summary)
    assert subprocess.run([*command, "png"], capture_output=True, check=False).returncode == 2
