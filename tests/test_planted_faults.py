"""`seamfree verify` tells results with seams from honest ones: each published fault of the field, planted in a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.engine.executor import SerialExecutor
from pipeline.geometry import Footprint
from pipeline.labels import union
from pipeline.models.architecture import UNetConfig
from pipeline.planning import RunPlan
from pipeline.stages import run_stage, stage_names
from tests.fields import compose, load_fields
from tests.random_models import save_random_model
from tests.test_audit import changed, noise, planned


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    tifffile.imwrite(path, compose(load_fields(), (611, 733)), tile=(128, 128), compression="zlib")
    return path


def publish(plan: RunPlan) -> Path:
    """Run all stages of a plan but those that look for faults, and give the published result."""
    unaudited = changed(plan, audit_windows=0)
    for stage in stage_names(unaudited):
        if stage != "check":
            run_stage(stage, unaudited, SerialExecutor())
    return Path(plan.output)


def verified(result: Path, *arguments: str) -> tuple[int, str]:
    """Call ``seamfree verify``; give its exit code, and what it says of the seams; all else must be as it should."""
    answer = CliRunner().invoke(app, ["verify", str(result), *arguments])
    *others, seams = answer.stdout.splitlines()
    assert all(line.startswith("ok ") for line in others)
    return answer.exit_code, seams


def passes(result: Path, *arguments: str) -> None:
    code, said = verified(result, *arguments)
    assert code == 0
    assert re.match(r"ok     seams: \d+ windows, [\d,]+ pixels: 0 differ", said)


def fails(result: Path, what: str, *arguments: str) -> None:
    code, said = verified(result, *arguments)
    assert code == 1
    assert re.match(
        rf"FAILED seams: \d+ faults, such as {what} that differs at .* y \d+, x \d+, nearest to the seam at [yx] \d",
        said,
    )


@pytest.mark.slow
def test_a_halo_cut_by_half(tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=2, base_channels=2, padding="same", norm="batch"))
    image = noise(tmp_path / "a.ome.tif", (300, 340), "YX")
    plan = planned(image, tmp_path / "honest", model=model, tile=96)
    passes(publish(plan))
    whole = plan.footprint
    half = Footprint(whole.margin, tuple(edge // 2 for edge in whole.halo), whole.stride, whole.phase, whole.smallest)
    fails(publish(changed(planned(image, tmp_path / "half", model=model, tile=96), footprint=half)), "a class")


@pytest.mark.slow
@pytest.mark.parametrize("probabilities", ["none", "float32"])
def test_a_stride_of_388(mosaic: Path, tmp_path: Path, probabilities: str) -> None:
    wishes: dict[str, Any] = {"tile": 384, "output": {"probabilities": probabilities}}
    passes(publish(planned(mosaic, tmp_path / "honest", **wishes)))
    # A network of two poolings has the same windows and margins, and takes any multiple of 4.
    stride_4 = Footprint((0, 0, 92, 92), (0, 0, 0, 0), (1, 1, 4, 4), (0, 0, 0, 0), (1, 1, 188, 188))
    plan = planned(mosaic, tmp_path / "388", **wishes)
    result = publish(changed(plan, core=(1, 1, 388, 388), label_chunk=(1, 1, 194, 194), footprint=stride_4))
    # Off by four pixels, most classes are right: without scores it takes more windows to be certain of a wrong one.
    fails(result, "a score" if probabilities != "none" else "a class", "--windows", "16")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["components", "watershed"])
def test_a_merge_switched_off(mosaic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    wishes: dict[str, Any] = {"tile": 128, "instances": {"method": method}}
    passes(publish(planned(mosaic, tmp_path / "honest", **wishes)))
    with monkeypatch.context() as patched:
        patched.setattr(union, "_touching", lambda *_: np.zeros((0, 2), dtype=np.int64))
        result = publish(planned(mosaic, tmp_path / "off", **wishes))
    fails(result, "an object")
