"""The self-check of a run: what it holds against what, what it stops, and what it leaves out."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.engine.executor import SerialExecutor
from pipeline.errors import AuditError
from pipeline.geometry import Footprint
from pipeline.models.architecture import UNetConfig
from pipeline.report.writing import report_path
from pipeline.run import run_image
from pipeline.self_check import why_unchecked
from pipeline.stages import run_stage, stage_names
from pipeline.stores.publish import read_provenance
from tests.random_models import save_random_model
from tests.test_audit import changed, noise, planned

CASES: dict[str, tuple[UNetConfig, tuple[int, ...], str, int]] = {
    "valid": (UNetConfig(depth=2, base_channels=2), (300, 340), "YX", 32),
    "same": (UNetConfig(depth=2, base_channels=2, padding="same", norm="batch"), (65, 1200), "YX", 32),
    "3-D": (UNetConfig(dims=3, depth=1, base_channels=2), (2, 24, 84, 47), "TZYX", 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_an_honest_run_passes_and_says_by_how_much(tmp_path: Path, case: str, precision: str) -> None:
    architecture, shape, axes, tile = CASES[case]
    model = save_random_model(tmp_path / "model", architecture)
    image = noise(tmp_path / "a.ome.tif", shape, axes)
    plan = planned(image, tmp_path / "out", model=model, tile=tile, precision=precision, instances={"method": "none"})
    run_image(plan, SerialExecutor())
    found = read_provenance(Path(plan.output))["self_check"]
    assert found["pixels"] > 100
    assert found["difference"] <= found["tolerance"] == (1e-6 if precision == "float32" else 2e-2)
    assert (found["beyond"], found["at"]) == (0, None)


def stopped(plan: Any, message: str) -> None:  # noqa: ANN401
    for stage in ("create", "read", "statistics"):
        run_stage(stage, plan, SerialExecutor())
    with pytest.raises(AuditError, match=message):
        run_stage("check", plan, SerialExecutor())


def test_a_halo_that_is_too_small_stops_the_run_before_any_tile(tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=2, base_channels=2, padding="same", norm="batch"))
    plan = planned(noise(tmp_path / "a.ome.tif", (400, 440), "YX"), tmp_path / "out", model=model, tile=96)
    whole = plan.footprint
    half = Footprint(whole.margin, tuple(edge // 2 for edge in whole.halo), whole.stride, whole.phase, whole.smallest)
    stopped(
        changed(plan, footprint=half), r"a\.ome\.tif: the self-check before the run has failed: .* at t 0, z 0, y \d+"
    )
    assert stage_names(plan).index("check") < stage_names(plan).index("segment")


def test_a_stride_that_is_too_small_stops_it(tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(base_channels=2))
    plan = planned(noise(tmp_path / "a.ome.tif", (600, 640), "YX"), tmp_path / "out", model=model, tile=96)
    stride_4 = Footprint((0, 0, 92, 92), (0, 0, 0, 0), (1, 1, 4, 4), (0, 0, 0, 0), (1, 1, 188, 188))
    stopped(
        changed(plan, core=(1, 1, 100, 100), label_chunk=(1, 1, 100, 100), footprint=stride_4),
        "the self-check before the run",
    )


@pytest.mark.parametrize(("tile", "why"), [(256, "single tile"), (128, "more than 5%")])
def test_what_costs_too_much_or_has_no_seam_is_left_out_and_says_so(tmp_path: Path, tile: int, why: str) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=1))
    plan = planned(noise(tmp_path / "a.ome.tif", (100, 200), "YX"), tmp_path / "out", model=model, tile=tile)
    run_image(plan, SerialExecutor())
    reason = read_provenance(Path(plan.output))["self_check"]["not_made"]
    assert why in reason
    told = unescape(report_path(Path(plan.output)).read_text(encoding="utf-8"))
    assert f"The self-check before the run was not made: {reason}." in told


@pytest.mark.parametrize("tile", [256, 128])
def test_it_is_made_there_where_that_is_wanted(tmp_path: Path, tile: int) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=1))
    image = noise(tmp_path / "a.ome.tif", (100, 200), "YX")
    plan = planned(image, tmp_path / "out", model=model, tile=tile, self_check="always")
    assert plan.digest == planned(image, tmp_path / "out", model=model, tile=tile).digest
    run_image(plan, SerialExecutor())
    found = read_provenance(Path(plan.output))["self_check"]
    assert found["pixels"] > 1000
    assert found["difference"] <= found["tolerance"]
    assert f"{found['pixels']:,} pixels" in report_path(Path(plan.output)).read_text()


def test_a_single_tile_whose_network_sees_farther_than_the_plan_says_is_stopped_where_it_is_wanted(
    tmp_path: Path,
) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=2, base_channels=2, padding="same", norm="batch"))
    image = noise(tmp_path / "a.ome.tif", (100, 90), "YX")
    plan = planned(image, tmp_path / "out", model=model, tile=128, self_check="always")
    assert len(plan.tiles) == 1
    whole = plan.footprint
    none = Footprint(whole.margin, (0, 0, 0, 0), whole.stride, whole.phase, whole.smallest)
    stopped(changed(plan, footprint=none), "the self-check before the run has failed")


def test_an_image_too_small_for_a_seam_says_so_where_it_is_wanted(tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=1))
    image = noise(tmp_path / "a.ome.tif", (20, 30), "YX")
    plan = planned(image, tmp_path / "out", model=model, self_check="always")
    assert why_unchecked(plan) == "the image is a single tile, and has no seam to put one into, for it is too small"


@pytest.mark.slow
def test_it_is_made_or_left_out_as_the_command_line_says(tmp_path: Path) -> None:
    image = noise(tmp_path / "a.ome.tif", (600, 640), "YX")
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=1))
    command = ["run", str(image), "-m", str(model), "--direct", "--scheduler", "serial", "--tile", "64", "-o"]
    found = {}
    for wish in ("auto", "always", "off"):
        told = CliRunner().invoke(app, [*command, str(tmp_path / wish), "--self-check", wish])
        assert told.exit_code == 0, told.output
        found[wish] = read_provenance(tmp_path / wish / "a.ome.zarr")["self_check"]
    assert found["auto"] == found["always"]
    assert found["auto"]["pixels"] > 0
    assert found["off"] == {"not_made": "it was left out, by the setting self_check"}
