"""`seamfree verify`: a finished result is audited again, wherever it lies; what cannot be checked is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from pipeline import segment
from pipeline.audit_plot import draw_audit
from pipeline.cli import app
from pipeline.config import make_config
from pipeline.errors import ConfigError, StoreError
from pipeline.models.architecture import UNetConfig
from pipeline.stores.publish import checksum, read_provenance
from pipeline.verify import Check, verify
from tests.random_models import save_random_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, a model, a result with a copy of the image in it, and one without."""
    folder = tmp_path_factory.mktemp("made")
    image = np.random.default_rng(0).gamma(2.0, 200.0, (200, 230)).astype(np.uint16)
    tifffile.imwrite(folder / "a.tif", image, tile=(64, 64))
    model = save_random_model(folder / "model", UNetConfig(depth=2, base_channels=2, classes=3), seed=7)
    for output in ("auto", "none"):
        settings = {
            "model": model, "tile": 64, "execution": {"scheduler": "serial"}, "output": {"image": output, "chunk": 64},
            "audit": {"windows": 0 if output == "none" else None},
        }  # fmt: skip
        (report,) = segment(folder / "a.tif", folder / output, make_config(settings))
        assert report.status == "done", report.reason
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of all that; the paths in the provenance lead to the original."""
    return Path(shutil.copytree(made, tmp_path / "made"))


def seams(result: Path, **given: Any) -> Check:  # noqa: ANN401 (as for `verify`)
    *others, last = verify(result, **given)
    assert all(check.passed for check in others)
    # Of a plan that is not understood nothing but metadata and checksums can be checked.
    assert [check.what for check in others if not check.made] in ([], ["numbers of objects, table and pyramids"])
    assert last.what == "seams"
    return last


@pytest.mark.slow
def test_a_result_is_audited_wherever_it_lies(folder: Path) -> None:
    moved = (folder / "auto" / "a.ome.zarr").rename(folder / "elsewhere.ome.zarr")
    found = seams(moved)
    assert (found.passed, found.made) == (True, True)
    assert found.detail.startswith("4 windows, ")
    assert ": 0 differ" in found.detail
    assert seams(moved, windows=9, seed=5).detail.startswith("9 windows, ")
    assert len(verify(moved, audit=False)) == len(verify(moved)) - 1


def test_the_run_and_the_command_find_the_same(made: Path) -> None:
    from pipeline.verify import audit_again

    result = made / "auto" / "a.ome.zarr"
    noted = read_provenance(result)["audit"]
    again = json.loads(json.dumps(audit_again(result)))
    # The scores that tiles keep for the run's own audit are gone.
    of_samples = ("scores", "largest_difference_of_scores")
    assert [noted["windows"].pop(name) for name in of_samples] == [
        pytest.approx(1000, abs=600),
        pytest.approx(0, abs=1e-6),
    ]
    assert [again["windows"].pop(name) for name in of_samples] == [0, None]
    assert {name: noted[name] for name in again} == again


@pytest.mark.slow
def test_workers_find_the_same(made: Path) -> None:
    result = made / "auto" / "a.ome.zarr"
    assert seams(result, workers=2) == seams(result)


def test_a_result_that_was_not_audited_can_be(made: Path) -> None:
    result = made / "none" / "a.ome.zarr"
    assert read_provenance(result)["audit"]["passed"] is None
    found = seams(result)
    assert (found.passed, found.made) == (True, True)
    assert found.detail.startswith("4 windows, ")


@pytest.mark.parametrize("what", ["image changed", "image gone", "model gone", "model changed", "another version"])
def test_what_cannot_be_audited_is_told_and_is_no_failure(
    made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    result = folder / "none" / "a.ome.zarr"
    noted = result / "seamfree.json"
    # Let the provenance lead to the copies, which can be damaged.
    text = noted.read_text().replace(str(made), str(folder))
    facts = json.loads(text)
    state = (folder / "a.tif").stat()
    facts["plan"]["source"]["modified_ns"] = state.st_mtime_ns
    if what == "another version":
        facts["plan"]["unheard_of"] = 1
    noted.write_text(json.dumps(facts))
    match what:
        case "image changed":
            tifffile.imwrite(folder / "a.tif", np.zeros((200, 230), dtype=np.uint8))
        case "image gone":
            (folder / "a.tif").unlink()
        case "model gone":
            shutil.rmtree(folder / "model")
        case "model changed":
            save_random_model(folder / "model", UNetConfig(depth=2, base_channels=2, classes=3), seed=1)
    found = seams(result)
    assert (found.passed, found.made) == (True, False)
    named = {"i": "a.tif", "m": "model", "a": "seamfree.json"}[what[0]]
    assert named in found.detail
    called = CliRunner().invoke(app, ["verify", str(result)])
    assert called.exit_code == 0
    assert called.stdout.splitlines()[-1] == f"not made seams: {found.detail}"


def test_a_result_with_wrong_labels_and_right_checksums_fails(folder: Path) -> None:
    result = folder / "auto" / "a.ome.zarr"
    array = zarr.open_array(result / "labels" / "instances" / "0", mode="r+")
    labels = np.asarray(array[...])
    # The object that crosses a seam with most pixels, cut in two there.
    crossing = np.where(labels[:, 127] == labels[:, 128], labels[:, 128], 0)
    broken = labels == np.bincount(crossing)[1:].argmax() + 1
    broken[:, :128] = False
    labels[broken] = labels.max() + 1
    array[...] = labels
    facts = read_provenance(result)
    facts["checksums"]["labels/instances/0"] = checksum(result / "labels/instances/0")
    (result / "seamfree.json").write_text(json.dumps(facts))
    *others, found = verify(result)
    # Its new number is the last, though it begins among the others.
    wrong = ["numbers of objects", "repair"]
    assert [check.what for check in others if not check.passed or check.what == "repair"] == wrong
    assert not found.passed
    assert "an object that differs at t 0, z 0, y " in found.detail
    assert "nearest to the seam at x 128" in found.detail
    called = CliRunner().invoke(app, ["verify", str(result)])
    assert called.exit_code == 1
    assert called.stdout.splitlines()[-1] == f"FAILED seams: {found.detail}"
    assert CliRunner().invoke(app, ["verify", str(result), "--no-audit"]).exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize("plan", [None, [1], "text"])
def test_a_provenance_without_a_plan_is_refused_by_all_commands(folder: Path, plan: object) -> None:
    result = folder / "auto" / "a.ome.zarr"
    facts = json.loads((result / "seamfree.json").read_text())
    (result / "seamfree.json").write_text(json.dumps(facts | {"plan": plan}))
    said = "seamfree.json: the provenance is damaged, its plan is no mapping; --fresh makes the result again"
    program = Path(sys.executable).parent / "seamfree"
    commands: list[list[str | Path]] = [["verify", result], ["export", result, "--geojson", folder / "a.geojson"]]
    for command in commands:
        ended = subprocess.run([program, *command], capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 1
        assert ended.stderr == f"seamfree: {result}/{said}\n"
    settings = {"model": str(folder / "model"), "tile": 64, "execution": {"scheduler": "serial"}}
    (report,) = segment(folder / "a.tif", folder / "auto", make_config(settings))
    assert report.status == "failed"
    assert report.reason is not None
    assert report.reason.endswith(said)
    (report,) = segment(folder / "a.tif", folder / "auto", make_config(settings), fresh=True)
    assert report.status == "done", report.reason


@pytest.mark.parametrize("place", ["../../../etc", "/etc", "labels/../../secret", "", ".", "0\0"])
def test_checksums_of_what_is_not_in_the_result_are_refused(folder: Path, place: str) -> None:
    result = folder / "auto" / "a.ome.zarr"
    facts = json.loads((result / "seamfree.json").read_text())
    facts["checksums"][place] = "0"
    (result / "seamfree.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match=r"damaged, it names .*, which is not inside the result"):
        verify(result)


def test_a_damaged_result_is_not_audited(folder: Path) -> None:
    result = folder / "auto" / "a.ome.zarr"
    chunk = next(path for path in (result / "labels" / "semantic" / "0" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(b"damaged")
    *_, last = verify(result)
    assert (last.what, last.passed, last.made) == ("seams", True, False)


def test_the_plot_shows_each_axis_with_seams(made: Path, tmp_path: Path) -> None:
    result, plot = made / "auto" / "a.ome.zarr", tmp_path / "audit.svg"
    called = CliRunner().invoke(app, ["verify", str(result), "--no-audit", "--plot", str(plot)])
    assert called.exit_code == 0
    root = ET.parse(plot).getroot()
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "a.ome.zarr"
    assert {"seams along y", "seams along x"} <= set(texts)
    bars = [bar for bar in root.iter("{http://www.w3.org/2000/svg}rect") if bar.get("fill") == "#c2410c"]
    assert len(bars) == 2
    with pytest.raises(StoreError, match="a: there is nothing to draw: the result has no objects"):
        draw_audit({"passed": None, "seams": None}, "a")
    called = CliRunner().invoke(app, ["verify", str(result), "--no-audit", "--plot", str(tmp_path / "a.png")])
    assert isinstance(called.exception, StoreError)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"instances": {"method": "none"}}, "the result has no objects"),
        ({"tile": 1000}, "the image is a single tile and has no seams"),
        ({"audit": {"windows": 0}}, "the run made no audit"),
    ],
)
def test_why_nothing_is_drawn_is_told_and_no_failure(
    made: Path, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    settings = {"model": str(made / "model"), "tile": 64, "execution": {"scheduler": "serial"}}
    (report,) = segment(made / "a.tif", tmp_path, make_config(settings | change))
    called = CliRunner().invoke(app, ["verify", str(report.result), "--no-audit", "--plot", str(tmp_path / "a.svg")])
    assert called.exit_code == 0
    assert called.stdout.splitlines()[-1] == f"not made plot: {why}"
    assert not (tmp_path / "a.svg").exists()


def test_what_is_no_result_is_refused_with_those_that_are(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr.partial").mkdir()
    for given, told in (
        (made / "auto", r"there are 1 in it, such as .*auto/a\.ome\.zarr"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "a.ome.zarr.partial", "unfinished"),
    ):
        for command in (["verify", str(given)], ["export", str(given), "--geojson", str(tmp_path / "a.geojson")]):
            called = CliRunner().invoke(app, command)
            assert isinstance(called.exception, ConfigError)
            assert re.search(told, str(called.exception))
