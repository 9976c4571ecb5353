"""`seamfree run --export`: files beside results, whole, of these results, and in nobody's way."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline import open_result
from pipeline.config import make_config
from pipeline.errors import ConfigError
from pipeline.export_beside import check_formats, export_results
from pipeline.images.discover import EXPORTS, InputImage, discover
from pipeline.results import Result
from pipeline.run import ImageReport
from tests.fields import load_fields
from tests.plates import BIN, parts_of_fields, run, write_plate

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


@pytest.mark.parametrize("in_place", [False, True])
def test_fields_of_a_plate_have_theirs_in_one_folder(tmp_path: Path, bright: str, in_place: bool) -> None:
    source = write_plate(tmp_path / "P.zarr", parts_of_fields(2), wells=("A/01", "B/03"), per_well=1)
    reports = run(bright, source, tmp_path / "out", output={"in_place": in_place})
    told: list[str] = []
    images = discover([str(source)])
    assert export_results(images, reports, tmp_path / "out", ["geojson"], told.append) == reports
    assert told == [f"exported: {tmp_path}/out/P.exports/{well}/0/0.geojson" for well in ("A/01", "B/03")]
    assert sorted(path.name for path in source.iterdir() if "export" in path.name) == []


def test_what_could_not_be_written_is_told_before_work_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config({})
    for formats, output, settings, told in (
        (["png"], "out", config, "--export png: no such format; there are ome-tiff, geojson, anndata"),
        (["geojson"], "s3://lab/out", config, "--export writes to a disk"),
        (["ome-tiff", "anndata"], "out", make_config({"output": {"table": False}}), "needs the table of objects"),
    ):
        with pytest.raises(ConfigError, match=told):
            check_formats(formats, output, settings)
    monkeypatch.setattr("pipeline.export_beside.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'seamfree\[anndata\]'"):
        check_formats(["anndata"], "out", config)


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
