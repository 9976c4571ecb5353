"""Background that is skipped: found by a definition that knows no tiles, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline.engine.executor import SerialExecutor
from pipeline.errors import ConfigError
from pipeline.geometry import Box, Margin
from pipeline.images.mirrored import read_window
from pipeline.models.architecture import UNetConfig
from pipeline.planning import RunPlan
from pipeline.report.writing import report_path
from pipeline.run import run_image
from pipeline.stores.publish import read_provenance
from tests.random_models import save_random_model
from tests.test_audit import noise, planned

BELOW = 100.0
PLANES = UNetConfig(depth=2, base_channels=2, in_channels=2, classes=3)
VOLUME = UNetConfig(dims=3, depth=1, base_channels=2, padding="same", classes=3)
CASES = {"2-D": (PLANES, (2, 250, 230), "CYX", (64, 96, 1000)), "3-D": (VOLUME, (9, 64, 60), "ZYX", (16, 1000))}
"""Network, image, its axes, and edges of tiles."""


def dim(path: Path, shape: tuple[int, ...], axes: str) -> Path:
    """Write an image with a bright part, a single bright pixel far from it, and dim noise everywhere else."""
    random = np.random.default_rng(3)
    image = random.integers(0, int(BELOW), shape).astype(np.uint16)
    rows, columns = shape[-2] // 3, shape[-1] // 3
    image[..., :rows, :columns] = random.integers(80, 3000, (*shape[:-2], rows, columns))
    image[..., -9, -9] = BELOW
    tifffile.imwrite(path, image, metadata={"axes": axes}, ome=True, tile=(128, 128))
    return path


def expected(plan: RunPlan) -> NDArray[np.bool_]:
    """Find background block by block, in the whole image, mirrored at its edges."""
    image = tifffile.imread(plan.source.path)
    image = image[None, None] if plan.spatial_ndim == 3 else image[None, :, None]
    whole, found = plan.footprint, np.zeros(plan.label_shape, dtype=bool)
    for at in np.ndindex(*(-(-length // step) for length, step in zip(plan.label_shape, whole.step, strict=True))):
        start = tuple(index * step for index, step in zip(at, whole.step, strict=True))
        block = Box(start, tuple(a + b for a, b in zip(start, whole.step, strict=True)))
        seen = block.times(whole.scale).grow(tuple(Margin(context, context) for context in whole.context))
        window = read_window(lambda box: image[box.slices], plan.source.shape, seen, plan.channels, 1)
        found[block.clip(plan.label_shape).slices] = all((channel < BELOW).all() for channel in window)
    return found


def ran(plan: RunPlan) -> tuple[dict[str, NDArray[Any]], Any, tuple[str, ...]]:
    report = run_image(plan, SerialExecutor())
    assert report.status == "done"
    group = zarr.open_group(plan.output, mode="r")
    paths = {"semantic": "labels/semantic/0", "instances": "labels/instances/0", "probabilities": "probabilities/0"}
    arrays = {name: np.asarray(group[path]) for name, path in paths.items()}
    return arrays, read_provenance(Path(plan.output)), report.notes


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_is_skipped_does_not_depend_on_tiles_and_nothing_else_changes(case: str, tmp_path: Path) -> None:
    network, shape, axes, tiles = CASES[case]
    image = dim(tmp_path / "a.ome.tif", shape, axes)
    settings: dict[str, Any] = {
        "model": save_random_model(tmp_path / "model", network), "channels": [0, 1][: network.in_channels],
        "output": {"probabilities": "float32"}, "audit": {"windows": 6}, "instances": {"method": "components"},
    }  # fmt: skip
    plain, told, _ = ran(planned(image, tmp_path / "plain", tile=tiles[0], **settings))
    assert told["skipped"] is None
    found = {}
    for tile in tiles:
        plan = planned(image, tmp_path / str(tile), tile=tile, skip_below=BELOW, **settings)
        found[tile] = ran(plan)
        assert plan.digest != planned(image, tmp_path / str(tile), tile=tile, **settings).digest
    background = expected(plan).reshape(found[tiles[0]][0]["semantic"].shape)
    assert 0.1 < background.mean() < 0.9
    for arrays, told, notes in found.values():
        assert (arrays["semantic"][background] == 0).all()
        np.testing.assert_array_equal(arrays["semantic"][~background], plain["semantic"][~background])
        scores = np.moveaxis(arrays["probabilities"].reshape(3, *background.shape), 0, -1)
        assert (scores[background] == [1, 0, 0]).all()
        for name in ("semantic", "instances"):
            np.testing.assert_array_equal(arrays[name], found[tiles[0]][0][name])
        skipped, sampled = told["skipped"], told["skipped"]["sampled"]
        assert (skipped["below"], skipped["pixels"]) == (BELOW, background.sum())
        assert told["audit"]["passed"]
        assert 0 < sampled["otherwise"] <= sampled["pixels"] <= skipped["pixels"]
        assert notes == (
            f"{background.sum():,} pixels ({background.mean():.1%}) were taken for background without the network, as "
            f"all that it could see there is below 100; looked at in {sampled['windows']} windows, it would have "
            f"labelled {sampled['otherwise']:,} of {sampled['pixels']:,} otherwise",
        )
    few = found[tiles[0]][1]["skipped"]
    assert few["windows"] == found[tiles[0]][1]["timings"]["skipped_windows"] > 0
    assert notes[0].split(";")[0] in report_path(Path(plan.output)).read_text()
    if len(plan.tiles) == 1:
        # The one window is the whole image, so that what was sampled is all there is.
        assert sampled["otherwise"] == (background & (plain["semantic"] != 0)).sum()


def test_a_model_without_background_skips_none(tmp_path: Path) -> None:
    image = noise(tmp_path / "a.ome.tif", (70, 60), "YX")
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=2, classes=3))
    with pytest.raises(ConfigError, match=r"the first class, and .* is no background"):
        planned(image, tmp_path / "out", model=model, skip_below=5, instances={"classes": ["class 0"]})
