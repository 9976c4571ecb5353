"""Which arithmetic `--precision auto` takes: what is measured, what decides, and who keeps to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tifffile

from pipeline import precision, segment
from pipeline.config import make_config
from pipeline.engine.executor import SerialExecutor
from pipeline.models.architecture import UNetConfig
from pipeline.models.card import IntensityRule
from pipeline.models.pixels import PixelRule
from pipeline.planning import RunPlan
from pipeline.precision import measure_precisions, settle_precision
from pipeline.run import run_image
from pipeline.stages import run_stage
from pipeline.stores.publish import read_provenance
from tests.random_models import save_random_model
from tests.test_audit import changed, noise, planned
from tests.test_seams import real_looking


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return noise(tmp_path / "a.ome.tif", (200, 210), "YX")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=2, classes=3))


def open_plan(image: Path, into: Path, model: str, **settings: Any) -> RunPlan:  # noqa: ANN401
    return planned(image, into, model=model, tile=48, precision="auto", **settings)


def prefer(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """Let another machine be the one that is fast in another arithmetic."""
    monkeypatch.setattr(precision, "_is_taken", lambda name, *_: name == wanted)


def test_all_are_measured_on_tiles_of_the_image_and_recorded(image: Path, tmp_path: Path, model: str) -> None:
    plan = open_plan(image, tmp_path / "out", model)
    assert plan.precision_open
    measured = measure_precisions(plan)
    assert [entry["precision"] for entry in measured["candidates"]] == ["float32", "bfloat16", "float16"]
    first = measured["candidates"][0]
    assert (first["speed"], first["differing"], first["taken"]) == (1.0, 0, True)
    assert measured["pixels"] == sum(plan.tiles[index].owned.size for index in measured["tiles"]) > 0
    for entry in measured["candidates"][1:]:
        assert ("reason" in entry) != ("differing" in entry)
        assert not entry["taken"] or (entry["speed"] >= 1.2 and entry["differing"] <= 1e-4 * measured["pixels"])
    settled = settle_precision(plan, SerialExecutor())
    assert not settled.precision_open
    assert settled.precision_measured is not None
    assert settled.precision_measured["tolerance"] == 1e-4
    assert settle_precision(settled, SerialExecutor()) == settled


def test_intensities_of_the_sample_are_scaled_as_the_card_says(image: Path, tmp_path: Path, model: str) -> None:
    plan = open_plan(image, tmp_path / "out", model)
    rule = IntensityRule(method="mean_std", eps=1.0, after=(PixelRule(kind="clip", first=(-0.5,), second=(0.25,)),))
    (_, window), *_ = precision._samples(changed(plan, intensity=rule))
    assert (window.min(), window.max()) == (-0.5, 0.25)


def test_what_is_no_faster_or_labels_otherwise_is_not_taken() -> None:
    taken = precision._is_taken
    assert taken("float32", 1.0, 0, 100_000, 0.0)
    assert taken("bfloat16", 1.3, 10, 100_000, 1e-4)
    assert not taken("bfloat16", 1.3, 11, 100_000, 1e-4)
    assert not taken("bfloat16", 1.1, 0, 100_000, 1e-4)


def test_half_precision_labels_some_pixels_otherwise_and_it_is_counted(
    image: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}

    def note(name: str, _speed: float, differing: int, *_: float) -> bool:
        seen[name] = differing
        return name == "float32"

    # A small window says nothing of the speed of a large one, where both are small.
    monkeypatch.setattr(precision, "_is_taken", note)
    monkeypatch.setattr(precision, "perf_counter", lambda: 0.0)
    measured = measure_precisions(open_plan(image, tmp_path / "out", model))
    assert seen["float32"] == 0
    assert 0 < seen["bfloat16"] < measured["pixels"] / 20
    assert seen["float16"] < seen["bfloat16"]


@pytest.mark.parametrize("speeds", [(1.0, 1.4, 1.9), (1.0, 1.9, 1.4), (1.0, 0.4, 0.5)])
def test_of_several_that_label_alike_the_fastest_is_taken(
    image: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, speeds: tuple[float, ...]
) -> None:
    names = ("float32", "bfloat16", "float16")

    def measured(_plan: RunPlan, _index: int = 0) -> dict[str, Any]:
        entries = [
            {
                "precision": name,
                "speed": speed,
                "differing": 0,
                "taken": precision._is_taken(name, speed, 0, 1000, 1e-4),
            }
            for name, speed in zip(names, speeds, strict=True)
        ]
        return {"candidates": entries, "pixels": 1000, "tiles": [0]}

    monkeypatch.setattr(precision, "measure_precisions", measured)
    settled = settle_precision(open_plan(image, tmp_path / "out", model), SerialExecutor())
    assert settled.precision == names[speeds.index(max(speeds))]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_decision_of_the_first(
    image: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = open_plan(image, tmp_path / "out", model)
    with monkeypatch.context() as patched:
        patched.setattr(precision, "perf_counter", lambda: 0.0)
        prefer(patched, "bfloat16")
        first = settle_precision(plan, SerialExecutor())
    assert first.precision == "bfloat16"
    for stage in ("create", "read", "statistics"):
        run_stage(stage, first, SerialExecutor())
    prefer(monkeypatch, "float32")
    again = settle_precision(open_plan(image, tmp_path / "out", model), SerialExecutor())
    assert (again.precision, again.digest, again.precision_measured) == (
        "bfloat16", first.digest, first.precision_measured,
    )  # fmt: skip
    assert run_stage("create", again, SerialExecutor()) == {"resumed": True}
    # Of another plan, another decision.
    other = settle_precision(
        open_plan(image, tmp_path / "out", model, audit={"windows": 0}, series=0), SerialExecutor()
    )
    assert other.precision == "float32"
    # And what was decided is what is computed.
    run_image(again, SerialExecutor())
    told = read_provenance(Path(again.output))
    assert told["plan"]["precision"] == "bfloat16"
    asked = planned(image, tmp_path / "asked", model=model, tile=48, precision="bfloat16")
    run_image(asked, SerialExecutor())
    assert told["checksums"] == read_provenance(Path(asked.output))["checksums"]


def test_a_run_decides_and_a_finished_result_is_left_alone(tmp_path: Path, model: str) -> None:
    tifffile.imwrite(tmp_path / "b.tif", real_looking((120, 130)), photometric="minisblack")
    settings = {"model": model, "precision": "auto", "execution": {"scheduler": "serial"}}
    for tile, measured in ((32, True), (128, False)):
        out = tmp_path / str(tile)
        (report,) = segment(tmp_path / "b.tif", out, make_config(settings | {"tile": tile}))
        assert report.status == "done", report.reason
        plan = read_provenance(out / "b.ome.zarr")["plan"]
        assert ("candidates" in plan["precision_measured"]) == measured
        assert ("not worth measuring" in plan["precision_measured"].get("reason", "")) != measured
        (report,) = segment(tmp_path / "b.tif", out, make_config(settings | {"tile": tile}))
        assert (report.status, report.reason) == (
            "skipped", "there is a finished result; use --fresh to make it again",
        )  # fmt: skip
