"""The self-check of a run: what it holds against what, what it stops, and what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.executor import SerialExecutor
from pipeline.errors import AuditError
from pipeline.geometry import Footprint
from pipeline.models.architecture import UNetConfig
from pipeline.run import run_image
from pipeline.stages import run_stage, stage_names
from pipeline.stores.publish import read_provenance
from tests.random_models import save_random_model
from tests.test_audit import changed, noise, planned

CASES: dict[str, tuple[UNetConfig, tuple[int, ...], str, int]] = {
    "valid": (UNetConfig(depth=2, base_channels=2), (300, 340), "YX", 32),
    "same": (UNetConfig(depth=2, base_channels=2, padding="same", norm="batch"), (65, 1200), "YX", 32),
    "3-D": (UNetConfig(dims=3, depth=1, base_channels=2), (2, 24, 84, 47), "TZYX", 12),
}


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
    assert why in read_provenance(Path(plan.output))["self_check"]["not_made"]
