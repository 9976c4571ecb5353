"""Slides: most of the image has one value, which is computed once, and nothing of the result shows that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline.engine.executor import SerialExecutor
from pipeline.images.mirrored import read_window
from pipeline.models import constants, predictor
from pipeline.models.architecture import UNetConfig
from pipeline.planning import RunPlan
from pipeline.report.tiles import describe_network
from pipeline.report.writing import report_path
from pipeline.run import run_image
from pipeline.stores.publish import read_provenance
from tests.faults.run import contents
from tests.random_models import save_random_model
from tests.test_audit import planned

SLIDE = UNetConfig(depth=2, base_channels=2, in_channels=2, classes=3)
VOLUME = UNetConfig(dims=3, depth=1, base_channels=2, padding="same", classes=3)


def slide(path: Path, shape: tuple[int, ...], axes: str) -> Path:
    """Write an image of which 70 % is glass, and a corner was not scanned."""
    random = np.random.default_rng(5)
    image = np.full(shape, 240, dtype=np.uint8)
    rows, columns = (round(edge * 0.3**0.5) for edge in shape[-2:])
    tissue = (..., slice(30, 30 + rows), slice(30, 30 + columns))
    image[tissue] = random.integers(20, 220, image[tissue].shape)
    image[..., -(shape[-2] // 3) :, -(shape[-1] // 3) :] = 0
    tifffile.imwrite(path, image, metadata={"axes": axes}, ome=True, tile=(128, 128))
    return path


def constant_windows(plan: RunPlan) -> tuple[int, int]:
    """Count the windows of one value in each channel, and how many values there are, in the image as it is."""
    image = tifffile.imread(plan.source.path)
    image = image[None, None] if plan.spatial_ndim == 3 else image[None, :, None]
    found = []
    for tile in plan.tiles:
        window = read_window(lambda box: image[box.slices], plan.source.shape, tile.window, plan.channels, 1)
        values = [np.unique(channel) for channel in window]
        if all(value.size == 1 for value in values):
            found.append(tuple(int(value[0]) for value in values))
    return len(found), len(set(found))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("network", "shape", "axes", "tile"),
    [
        (SLIDE, (2, 600, 500), "CYX", 48),
        (SLIDE, (2, 1100, 1000), "CYX", 256),
        (VOLUME, (20, 210, 200), "ZYX", 48),
    ],
)
def test_windows_of_one_value_are_computed_once_and_the_bytes_are_the_same(
    network: UNetConfig, shape: tuple[int, ...], axes: str, tile: int, precision: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    image = slide(tmp_path / "slide.ome.tif", shape, axes)
    settings: dict[str, Any] = {
        "model": save_random_model(tmp_path / "model", network), "tile": tile, "audit": {"windows": 4},
        "precision": precision, "output": {"probabilities": "float32"}, "channels": [0, 1][: network.in_channels],
    }  # fmt: skip
    plans = {}
    for name in ("anew", "once"):
        with monkeypatch.context() as patch:
            if name == "anew":
                patch.setattr(predictor, "value_of", lambda _window: None)
                patch.setattr(constants, "ground_of", lambda _window: None)
            plans[name] = planned(image, tmp_path / name, **settings)
            assert run_image(plans[name], SerialExecutor()).status == "done"
    assert contents(tmp_path / "once") == contents(tmp_path / "anew")
    timings = {name: read_provenance(Path(plan.output))["timings"] for name, plan in plans.items()}
    windows, values = constant_windows(plans["once"])
    assert values > 1
    assert windows - values >= 1
    assert timings["anew"]["constant_windows"] == timings["anew"]["windows_in_part"] == 0
    # The ground beside what varies may have been computed before.
    reused, in_part = (timings["once"][name] for name in ("constant_windows", "windows_in_part"))
    assert windows - values <= reused <= windows
    assert (in_part > 0) == (tile > 48 or network is VOLUME)
    assert (timings["once"]["spared"] > 0.2) == (in_part > 0)
    more = describe_network(timings["once"])
    assert more[: -2 if in_part else -1] == describe_network(timings["anew"])
    text = report_path(Path(plans["once"].output)).read_text()
    assert f"{reused:,} window" in text
    assert ("had a single value along a side" in text) == (in_part > 0)
