"""`seamfree verify` and what a result says of itself: metadata that were edited are told, whoever wrote them last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from pipeline import open_result, segment
from pipeline.cli import app
from pipeline.config import make_config
from pipeline.models.architecture import UNetConfig
from pipeline.verify import Check, verify
from tests.faults.run import contents
from tests.plates import parts_of_fields, write_plate
from tests.plates import run as run_plate
from tests.random_models import save_random_model


def segment_small(folder: Path, version: str) -> Path:
    image = np.random.default_rng(0).gamma(2.0, 200.0, (300, 330)).astype(np.uint16)
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(folder / "a.ome.tif", image, ome=True, metadata={"axes": "YX", **size})
    model = save_random_model(folder / "model", UNetConfig(depth=2, base_channels=2, classes=3), seed=7)
    settings = {"model": model, "tile": 128, "execution": {"scheduler": "serial"}, "output": {"ome_zarr": version}}
    (report,) = segment(folder / "a.ome.tif", folder, make_config(settings))
    assert report.status == "done", report.reason
    return Path(str(report.result))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A result in each version of OME-Zarr."""
    return {version: segment_small(tmp_path_factory.mktemp("made"), version) for version in ("0.5", "0.4")}


def edit(result: Path, group: str, change: Callable[[Any], None]) -> None:
    """Change what a group says, as a text editor would; `change` takes what OME-Zarr or else the group says."""
    path = result / group / ("zarr.json" if (result / group / "zarr.json").exists() else ".zattrs")
    facts = json.loads(path.read_text())
    attributes = facts["attributes"] if path.name == "zarr.json" else facts
    change(attributes.get("ome", attributes))
    path.write_text(json.dumps(facts, indent=2))


def scale(said: Any) -> None:  # noqa: ANN401 (as JSON has it)
    for dataset in said["multiscales"][0]["datasets"]:
        for move in dataset["coordinateTransformations"]:
            name = move["type"]
            move[name] = [3 * value for value in move[name]]


def unit(said: Any) -> None:  # noqa: ANN401
    said["multiscales"][0]["axes"][-1]["unit"] = "meter"


def path_of_level(said: Any) -> None:  # noqa: ANN401
    said["multiscales"][0]["datasets"][0]["path"] = "1"


def contrast(said: Any) -> None:  # noqa: ANN401
    said["omero"]["channels"][0]["window"]["end"] = 7


def list_semantic_alone(said: Any) -> None:  # noqa: ANN401
    said["labels"] = ["semantic"]


def list_no_tables(said: Any) -> None:  # noqa: ANN401
    said["tables"] = []


def failed(result: Path) -> list[Check]:
    return [check for check in verify(result, audit=False) if not check.passed]


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize(
    ("group", "change"),
    [
        ("", scale), ("", unit), ("", path_of_level), ("", contrast),
        ("labels/instances", scale), ("labels/instances", unit), ("labels/semantic", path_of_level),
        ("labels", list_semantic_alone), ("tables", list_no_tables),
    ],
)  # fmt: skip
def test_edited_metadata_are_told(
    made: dict[str, Path], tmp_path: Path, version: str, group: str, change: Callable[[Any], None]
) -> None:
    copy = Path(shutil.copytree(made[version], tmp_path / "copy"))
    assert failed(copy) == []
    edit(copy, group, change)
    (check,) = [check for check in failed(copy) if group or "image" in check.what]
    assert check.what == f"metadata of {group or 'the image'}"
    file = "zarr.json" if version == "0.5" else ".zattrs"
    wanted = "instances not listed" if "list" in change.__name__ else f"{file} changed since it was written"
    assert check.detail.endswith(wanted)
    called = CliRunner().invoke(app, ["verify", str(copy), "--no-audit"])
    assert called.exit_code == 1
    assert f"FAILED {check.what}: {check.detail}" in called.stdout.splitlines()


def test_a_group_that_is_no_group_any_more_is_told(made: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made["0.4"], tmp_path / "copy"))
    (copy / "labels" / "semantic" / ".zgroup").write_text('{"zarr_format": 2, "x": 1}')
    assert [check.what for check in failed(copy)] == ["metadata of labels/semantic"]


def test_checksums_of_metadata_are_there_for_all_groups_or_for_none(made: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made["0.5"], tmp_path / "copy"))
    path = copy / "seamfree.json"
    facts = json.loads(path.read_text())
    assert sorted(facts["metadata_checksums"]) == [
        "labels/instances/zarr.json", "labels/semantic/zarr.json", "zarr.json",
    ]  # fmt: skip
    del facts["metadata_checksums"]["labels/instances/zarr.json"]
    path.write_text(json.dumps(facts))
    (check,) = failed(copy)
    assert check.detail == "seamfree.json has no checksum for labels/instances/zarr.json"
    # As earlier versions have written results.
    del facts["metadata_checksums"]
    path.write_text(json.dumps(facts))
    called = CliRunner().invoke(app, ["verify", str(copy), "--no-audit"])
    assert called.exit_code == 0
    (line,) = [line for line in called.stdout.splitlines() if not line.startswith("ok ")]
    assert line.startswith("not made checksums of metadata: seamfree.json has none")


def test_what_other_programs_add_is_no_damage(made: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made["0.5"], tmp_path / "copy"))
    shutil.copytree(copy / "labels" / "semantic", copy / "labels" / "mine")
    edit(copy, "labels", lambda said: said["labels"].append("mine"))
    edit(copy, "tables", lambda said: said["tables"].append("mine"))
    assert failed(copy) == []


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_metadata_of_a_plate_are_checked_and_written_again_by_the_next_run(
    tmp_path: Path, bright: str, version: Literal["0.4", "0.5"]
) -> None:
    source, out = write_plate(tmp_path / "P.zarr", parts_of_fields(4), ("A/01", "B/03"), 1), tmp_path / "out"
    run_plate(bright, source, out, output={"ome_zarr": version})
    plate = out / "P.ome.zarr"
    assert failed(plate) == []
    wanted = contents(plate)

    def rename(said: Any) -> None:  # noqa: ANN401 (as JSON has it)
        said["plate"]["name"] = "another"

    def move(said: Any) -> None:  # noqa: ANN401
        del said["well"]["images"][0]["acquisition"]

    for group, change, told in (("", rename, "metadata of the plate"), ("B/03", move, "metadata of rows and wells")):
        edit(plate, group, change)
        (check,) = failed(plate)
        file = "zarr.json" if version == "0.5" else ".zattrs"
        assert (check.what, check.detail) == (told, f"{Path(group, file)} changed since it was written")
        run_plate(bright, source, out, output={"ome_zarr": version})
        assert contents(plate) == wanted
    path = plate / "seamfree.json"
    facts = json.loads(path.read_text())
    facts["fields"][1]["objects"] += 1
    path.write_text(json.dumps(facts))
    (check,) = failed(plate)
    assert check.what == "B/03/0: objects"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_in_place_what_is_the_images_own_may_change_and_what_was_added_may_not(
    tmp_path: Path, bright: str, version: Literal["0.4", "0.5"]
) -> None:
    source = write_plate(tmp_path / "P.zarr", parts_of_fields(4), ("A/01",), 1, version, labels=["hand"])
    image = source / "A/01/0"
    (report,) = run_plate(bright, image, tmp_path / "out", output={"in_place": True})
    assert report.status == "done", report.reason

    def rename(said: Any) -> None:  # noqa: ANN401 (as JSON has it)
        said["multiscales"][0]["name"] = "another"

    edit(image, "", rename)
    edit(image, "labels/hand", rename)
    edit(image, "labels", lambda said: said["labels"].remove("hand"))
    assert failed(image) == []
    edit(image, "labels/semantic", rename)
    edit(image, "labels", list_semantic_alone)
    assert {check.what for check in failed(image)} == {"metadata of labels", "metadata of labels/semantic"}
    # With its metadata, the image has become another one.
    (report,) = run_plate(bright, image, tmp_path / "out", fresh=True, output={"in_place": True})
    assert report.status == "done", report.reason
    assert failed(image) == []
    assert len(open_result(image).instances) == 2
