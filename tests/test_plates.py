"""Plates through the pipeline: a plate comes out, whole or not at all, whoever is killed on the way."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pipeline import open_result
from pipeline.errors import StoreError
from pipeline.images.discover import discover
from pipeline.results import PlateResult
from pipeline.verify import verify
from tests.faults.run import Run, contents
from tests.plates import BIN, check_valid, parts_of_fields, run, write_plate

README = Path(__file__).parents[1] / "README.md"
Version = Literal["0.4", "0.5"]


@pytest.fixture(scope="module")
def fields() -> list[NDArray[np.uint8]]:
    return parts_of_fields(8)


def opened(path: Path) -> PlateResult:
    plate = open_result(path)
    assert isinstance(plate, PlateResult)
    return plate


@pytest.mark.slow
@pytest.mark.parametrize(("version", "wanted"), [("0.4", "0.5"), ("0.5", "0.4"), ("0.5", "0.5")])
def test_a_plate_of_the_same_layout_comes_out(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]], version: Version, wanted: Version
) -> None:
    source = write_plate(tmp_path / "P.zarr", fields, ("A/01", "B/03"), 2, version)
    reports = run(bright, source, tmp_path / "out", output={"ome_zarr": wanted})
    assert [(report.name, report.status) for report in reports] == [
        *((f"P/{field}", "done") for field in ("A/01/0", "A/01/1", "B/03/0", "B/03/1")), ("P", "done"),
    ]  # fmt: skip
    plate = opened(tmp_path / "out" / "P.ome.zarr")
    assert [report.result for report in reports] == [*(str(field.path) for field in plate.fields), str(plate.path)]
    check_valid(Path(str(plate.path)))
    assert bool(list(Path(str(plate.path)).rglob(".zattrs"))) == (wanted == "0.4")
    assert list(plate.wells) == ["A01", "B03"]
    assert plate.objects == reports[-1].objects == sum(report.objects or 0 for report in reports[:-1])
    for number, field in enumerate(plate.fields):
        (alone,) = run(bright, source / field.row / field.column / field.name, tmp_path / f"alone-{number}")
        np.testing.assert_array_equal(field.result.instances[0][:], open_result(str(alone.result)).instances[0][:])
    assert all(check.passed for check in verify(plate.path))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "P.ome.zarr", "P.reports", "P.wells.csv", "run-summary.json",
    ]  # fmt: skip
    pages = sorted(path.relative_to(tmp_path / "out" / "P.reports").as_posix()
                   for path in (tmp_path / "out" / "P.reports").rglob("*.html"))  # fmt: skip
    assert pages == [f"{field}.report.html" for field in ("A/01/0", "A/01/1", "B/03/0", "B/03/1")]
    # What came out is a result, and none of the images that a folder holds.
    assert [image.plate for image in discover([str(tmp_path)])] == ["P"] * 4


@pytest.mark.slow
def test_the_table_of_a_plate_and_the_summary_of_its_wells(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    run(bright, write_plate(tmp_path / "P.zarr", fields), tmp_path / "out")
    plate = opened(tmp_path / "out" / "P.ome.zarr")
    table = plate.table
    assert list(table.columns[:6]) == ["well", "row", "column", "field", "label", "class"]
    assert len(table) == plate.objects
    for field in plate.fields:
        own = table[(table["well"] == field.well) & (table["field"] == field.name)].set_index("label")
        pd.testing.assert_series_equal(own["area"], field.result.table["area"])
    assert list(plate.read_table(["area"]).columns) == ["well", "row", "column", "field", "label", "area"]
    wells = pd.read_csv(tmp_path / "out" / "P.wells.csv", dtype={"column": str}).set_index("well")
    groups = table.groupby("well")
    assert wells["fields"].to_dict() == {"A01": 2, "B03": 2}
    assert wells["column"].to_dict() == {"A01": "01", "B03": "03"}
    pd.testing.assert_series_equal(wells["objects"], groups.size(), check_names=False)
    for name, expected in (
        ("area_median", groups["area"].median()),
        ("area_physical_median", groups["area_physical"].median()),
        ("intensity_mean-0", groups["intensity_mean-0"].mean()),
    ):
        pd.testing.assert_series_equal(wells[name], expected, check_names=False)
    assert set(wells["area_unit"]) == {"micrometer²"}
    with pytest.raises(StoreError, match="this is a plate; take the result of a field"):
        plate.dask("instances")
    with pytest.raises(StoreError, match="this is a plate"):
        plate.write_geojson(tmp_path / "a.geojson")


@pytest.mark.slow
def test_the_command_shows_the_wells(tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]) -> None:
    write_plate(tmp_path / "P.zarr", fields, ("A/01",))
    command: list[str | Path] = ["run", tmp_path / "P.zarr", "-o", tmp_path / "out", "-m", bright, "--direct"]
    command = [BIN / "seamfree", *command, "--scheduler", "serial"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^well +fields +objects +area_median", done.stdout, re.MULTILINE)
    assert re.search(r"^A01 +2 +\d+", done.stdout, re.MULTILINE)
    refused = subprocess.run(
        [BIN / "seamfree", "export", tmp_path / "out" / "P.ome.zarr", "--geojson", tmp_path / "a.geojson"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "this is a plate; take the result of a field" in refused.stderr


def damage(field: Path) -> None:
    chunk = next(path for path in sorted((field / "s0").rglob("*")) if path.is_file() and path.name.isdecimal())
    chunk.write_bytes(chunk.read_bytes()[:-7])


@pytest.mark.slow
def test_a_field_that_fails_keeps_the_plate_unfinished_or_is_left_out(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    source = write_plate(tmp_path / "P.zarr", fields)
    sound = tmp_path / "sound"
    shutil.copytree(source / "B/03/0", sound)
    damage(source / "B/03/0")
    out = tmp_path / "out"
    reports = run(bright, source, out)
    assert [report.status for report in reports] == ["done", "done", "failed", "done", "failed"]
    assert "1 of 4 fields or wells failed, first P/B/03/0" in str(reports[-1].reason)
    partial = out / "P.ome.zarr.partial"
    assert not (out / "P.ome.zarr").exists()
    assert not (partial / "zarr.json").exists()
    assert json.loads((out / "run-summary.json").read_text())["counts"] == {"done": 3, "failed": 2}
    assert len(pd.read_csv(out / "P.wells.csv")) == 2

    shutil.copytree(out, tmp_path / "without")
    reports = run(bright, source, tmp_path / "without", output={"missing_fields": "leave_out"})
    assert [report.status for report in reports] == ["skipped", "skipped", "failed", "skipped", "done"]
    plate = opened(tmp_path / "without" / "P.ome.zarr")
    assert [field.path.name for field in plate.wells["B03"]] == ["1"]
    assert plate.provenance["missing"][0]["name"] == "P/B/03/0"
    check_valid(Path(str(plate.path)))

    shutil.rmtree(source / "B/03/0")
    shutil.copytree(sound, source / "B/03/0")
    reports = run(bright, source, out)
    assert [report.status for report in reports] == ["skipped", "skipped", "done", "skipped", "done"]
    assert len(opened(out / "P.ome.zarr").fields) == 4
    assert [report.status for report in run(bright, source, out)] == ["skipped"] * 5


def test_fields_of_different_settings_are_no_plate(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    source = write_plate(tmp_path / "P.zarr", fields, ("A/01",))
    damage(source / "A/01/1")
    run(bright, source, tmp_path / "out", identify="content")
    write_plate(tmp_path / "Q.zarr", fields, ("A/01",))
    shutil.rmtree(source)
    (tmp_path / "Q.zarr").rename(source)
    # Copied, the first field is the image that it was; only what was asked for differs.
    reports = run(bright, source, tmp_path / "out", instances={"minimum_size": 9}, identify="content")
    assert [report.status for report in reports] == ["skipped", "done", "failed"]
    assert "A/01/0 and A/01/1 were made with different settings: minimum size differs" in str(reports[-1].reason)
    assert not (tmp_path / "out" / "P.ome.zarr").exists()
    reports = run(bright, source, tmp_path / "out", instances={"minimum_size": 9}, fresh=True)
    assert [report.status for report in reports] == ["done"] * 3


def test_a_finished_plate_stays_until_a_new_one_takes_its_place(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    source, out = write_plate(tmp_path / "P.zarr", fields, ("A/01",)), tmp_path / "out"
    run(bright, source, out)
    before = contents(out)
    damage(source / "A/01/1")
    reports = run(bright, source, out, fresh=True)
    assert [report.status for report in reports] == ["done", "failed", "failed"]
    after = contents(out)
    assert {name: after[name] for name in before if name.startswith("P.ome.zarr/")} == {
        name: content for name, content in before.items() if name.startswith("P.ome.zarr/")
    }


def test_what_is_not_ours_is_never_written_into(tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]) -> None:
    source = write_plate(tmp_path / "P.zarr", fields, ("A/01",))
    foreign = write_plate(tmp_path / "out" / "P.ome.zarr", fields, ("A/01",))
    before = contents(foreign)
    reports = run(bright, source, tmp_path / "out")
    assert {report.status for report in reports} == {"failed"}
    assert "there is something that seamfree has not made" in str(reports[0].reason)
    assert contents(foreign) == before


POINTS = ["marked:3", "marked:31", *(f"publishing:{number}" for number in (1, 4, 6, 8, 11, 15))]


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True], ids=["plate", "in place"])
def test_killed_at_any_point_a_plate_is_finished_by_the_next_run_and_never_half_visible(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]], in_place: bool
) -> None:
    write_plate(tmp_path / "in" / "P.zarr", fields, ("A/01", "C/02"), 1, labels=["hand"])
    settings = tmp_path / "settings.yaml"
    settings.write_text("tile: 96\nexecution: {scheduler: serial}\naudit: {windows: 0}\nidentify: content\n")

    place = tmp_path / "place"
    visible = place / "in" / "P.zarr" if in_place else place / "out" / "P.ome.zarr"
    command: list[str | Path] = [place / "in" / "P.zarr", "-o", place / "out", "-m", bright, "-c", settings, "--direct"]
    command += ["--in-place"] if in_place else []
    expected: dict[str, bytes] = {}
    died = 0
    # Each way has its half of the points: a run for each takes some seconds.
    for point in ("", *POINTS[in_place::2]):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tmp_path / "in", place / "in")
        died += Run(command, tmp_path / "notes" / point, point).wait() != 0
        if visible.exists():
            check_valid(visible)
            listed = json.loads((place / "in/P.zarr/A/01/0/labels/zarr.json").read_text())["attributes"]["ome"][
                "labels"
            ]
            assert listed[0] == "hand"
        assert Run(command, tmp_path / "notes" / f"{point} again").wait() == 0, point
        check_valid(visible)
        found = contents(place)
        expected = expected or found
        assert found == expected, point
    assert died >= 3


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_in_place_the_labels_become_part_of_the_plate(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]], version: Version
) -> None:
    source = write_plate(tmp_path / "P.zarr", fields, ("A/01",), 2, version, labels=["hand", "eye"])
    before = contents(source)
    reports = run(bright, source, tmp_path / "out", output={"in_place": True})
    assert [report.status for report in reports] == ["done"] * 3
    check_valid(source)
    after = contents(source)
    listed = {name for name in before if name.endswith(("labels/zarr.json", "labels/.zattrs"))}
    assert {name: after[name] for name in before.keys() - listed} == {
        name: before[name] for name in before.keys() - listed
    }
    for field in ("0", "1"):
        labels = source / "A/01" / field / "labels"
        text = next(labels / name for name in (".zattrs", "zarr.json") if (labels / name).exists()).read_text()
        assert re.search(r'"hand",\s+"eye",\s+"semantic",\s+"instances"', text)
    plate = opened(source)
    (alone,) = run(bright, source / "A/01/1", tmp_path / "alone")
    result = plate.fields[1].result
    np.testing.assert_array_equal(result.instances[0][:], open_result(str(alone.result)).instances[0][:])
    np.testing.assert_array_equal(result.image[0][:], fields[1])
    assert len(result.instances) == len(result.image) == 2
    assert all(check.passed for check in verify(source))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "P.in-place.reports",
        "P.wells.csv",
        "run-summary.json",
    ]

    assert [report.status for report in run(bright, source, tmp_path / "out", output={"in_place": True})] == [
        "skipped"
    ] * 3
    fresh = run(bright, source, tmp_path / "out", fresh=True, output={"in_place": True}, instances={"method": "none"})
    assert [report.status for report in fresh] == ["done"] * 3
    check_valid(source)
    assert sorted(path.name for path in (source / "A/01/0/labels").iterdir() if path.is_dir()) == [
        "eye",
        "hand",
        "semantic",
    ]


@pytest.mark.parametrize("taken", ["labels/instances", "labels/semantic", "tables/instances"])
def test_in_place_no_name_is_ever_clobbered(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]], taken: str
) -> None:
    source = write_plate(tmp_path / "P.zarr", fields, ("A/01",), 1)
    theirs = source / "A/01/0" / taken
    theirs.mkdir(parents=True)
    (theirs / "mine").write_text("by hand")
    before = contents(source)
    reports = run(bright, source, tmp_path / "out", output={"in_place": True})
    assert [report.status for report in reports] == ["failed", "failed"]
    assert f"{taken}: this is there already" in str(reports[0].reason)
    assert contents(source) == before


def test_in_place_is_for_images_of_ome_zarr(tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", fields[0])
    (report,) = run(bright, tmp_path / "a.tif", tmp_path / "out", output={"in_place": True})
    assert "--in-place is for OME-Zarr, this is tiff" in str(report.reason)
    (report,) = run(bright, tmp_path / "a.tif", tmp_path / "out")
    (report,) = run(bright, Path(str(report.result)), tmp_path / "more", output={"in_place": True})
    assert "a result of seamfree itself" in str(report.reason)


def test_the_example_of_the_readme_measures_by_condition(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(bright, write_plate(tmp_path / "plate.zarr", fields, ("A/01", "B/03"), 1), tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    (code,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        if 'open_result("results/plate.ome.zarr")' in code
    )
    (tmp_path / "layout.csv").write_text("well,condition\nA01,control\nB03,drug\n")
    names: dict[str, Any] = {}
    exec(code, names)
    by_condition = names["by_condition"]
    plate = opened(tmp_path / "results" / "plate.ome.zarr")
    for condition, well in (("control", "A01"), ("drug", "B03")):
        expected = plate.wells[well][0].result.table["area_physical"].median()
        assert by_condition.loc[condition, "area"] == expected
        assert by_condition.loc[condition, "nuclei"] == plate.wells[well][0].result.objects


def test_a_plate_is_one_runs_at_a_time_and_other_images_are_not_concerned(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    write_plate(tmp_path / "in" / "P.zarr", fields, ("A/01",))
    shutil.copytree(tmp_path / "in/P.zarr/A/01/0", tmp_path / "in/a.zarr")
    program = "import sys\nfrom pathlib import Path\nfrom pipeline.stores.hold import hold\n"
    program += "with hold(Path(sys.argv[1])):\n    print(flush=True)\n    input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "out" / "P.ome.zarr"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=README.parent,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        other.stdout.readline()
        reports = run(bright, tmp_path / "in", tmp_path / "out")
        other.communicate("\n")
    assert [(report.name, report.status) for report in reports] == [
        ("P/A/01/0", "failed"), ("P/A/01/1", "failed"), ("P", "failed"), ("a", "done"),
    ]  # fmt: skip
    assert all("another run is at work on it" in str(report.reason) for report in reports[:3])
    again = run(bright, tmp_path / "in", tmp_path / "out")
    assert [report.status for report in again] == ["done", "done", "done", "skipped"]


@pytest.mark.slow
def test_a_finished_plate_lists_the_fields_that_it_gains(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    write_plate(tmp_path / "both" / "P.zarr", fields, ("A/01", "C/02"), 1)
    write_plate(tmp_path / "one" / "P.zarr", fields, ("A/01",), 1)
    source, out = tmp_path / "P.zarr", tmp_path / "out"
    (tmp_path / "one" / "P.zarr").rename(source)
    run(bright, source, out, identify="content")
    assert list(opened(out / "P.ome.zarr").wells) == ["A01"]
    shutil.rmtree(source)
    (tmp_path / "both" / "P.zarr").rename(source)
    reports = run(bright, source, out, identify="content")
    assert [report.status for report in reports] == ["skipped", "done", "done"]
    plate = opened(out / "P.ome.zarr")
    check_valid(Path(str(plate.path)))
    assert list(plate.wells) == ["A01", "C02"]
    described = json.loads((plate.path / "zarr.json").read_text())["attributes"]["ome"]["plate"]
    assert [well["path"] for well in described["wells"]] == ["A/01", "C/02"]


def test_a_plate_that_could_not_be_described_is_refused_before_work_starts(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    source = write_plate(tmp_path / "P.zarr", fields, ("A/01",))
    path = source / "zarr.json"
    path.write_text(path.read_text().replace('"name": "A"', '"name": "B"'))
    reports = run(bright, source, tmp_path / "out")
    assert {report.status for report in reports} == {"failed"}
    assert "OME-Zarr 0.5 allows none like this one" in str(reports[0].reason)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run-summary.json"]


def test_a_damaged_provenance_leads_nowhere_else(tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]) -> None:
    run(bright, write_plate(tmp_path / "P.zarr", fields, ("A/01",), 1), tmp_path / "out")
    noted = tmp_path / "out" / "P.ome.zarr" / "seamfree.json"
    noted.write_text(noted.read_text().replace('"A/01/0"', '"../../elsewhere"'))
    with pytest.raises(StoreError, match="which is no field of the plate"):
        open_result(noted.parent)
