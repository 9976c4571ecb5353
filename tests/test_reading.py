"""How the input is read and counted: by time point and channel, whatever the image's size."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline.config import make_config
from pipeline.engine.executor import SerialExecutor
from pipeline.errors import PlanError
from pipeline.images.discover import InputImage
from pipeline.models.architecture import UNetConfig
from pipeline.planning import Intent, RunPlan
from pipeline.run import prepare, run_image
from pipeline.stages import run_stage
from tests.random_models import save_random_model


def plan_of(image: Path, folder: Path, model: str = "nuclei-fluorescence", **settings: object) -> RunPlan:
    intent = Intent(device="cpu", worker_memory=2**32)
    config = make_config({"model": model, "tile": 32, "instances": {"method": "none"}, **settings})
    return prepare(config, InputImage(str(image), "a"), folder, intent)


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Give how many bytes were taken at most since the beginning."""
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()


def pixels(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)


@pytest.mark.slow
def test_the_memory_of_the_statistics_does_not_grow_with_time(tmp_path: Path) -> None:
    peaks = []
    for times in (2, 12):
        path = tmp_path / f"{times}.tif"
        tifffile.imwrite(path, pixels(times, 256, 256), imagej=True, metadata={"axes": "TYX"})
        plan = plan_of(path, tmp_path / str(times))
        for stage in ("create", "read"):
            run_stage(stage, plan, SerialExecutor())
        with traced() as peak:
            run_stage("statistics", plan, SerialExecutor())
            peaks.append(peak())
    assert peaks[1] < peaks[0] + 2**20


def as_tiff(path: Path, data: NDArray[Any]) -> Path:
    tifffile.imwrite(path.with_suffix(".tif"), data, imagej=True, metadata={"axes": "CYX"}, rowsperstrip=64)
    return path.with_suffix(".tif")


def as_zarr(path: Path, data: NDArray[Any]) -> Path:
    path = path.with_suffix(".zarr")
    zarr.create_array(path, shape=data.shape, dtype=data.dtype, chunks=(1, 64, 64), dimension_names=list("cyx"))
    zarr.open_array(path, mode="r+")[...] = data
    return path


@pytest.mark.slow
@pytest.mark.parametrize("write", [as_tiff, as_zarr])
@pytest.mark.parametrize("copied", [True, False])
def test_the_memory_of_a_worker_does_not_grow_with_the_channels(
    tmp_path: Path, write: Callable[[Path, NDArray[Any]], Path], copied: bool
) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=1, in_channels=2))
    peaks = []
    # The second time for what other threads of this process may take meanwhile.
    for turn, channels in enumerate((2, 24, 24)):
        image = write(tmp_path / f"{turn}", pixels(channels, 256, 512))
        plan = plan_of(
            image, tmp_path / f"out{turn}", model, channels=[0, channels - 1],
            output={"image": "copy" if copied else "none"},
        )  # fmt: skip
        most = 0
        for stage in ("create", "read", "statistics", "segment"):
            with traced() as peak:
                run_stage(stage, plan, SerialExecutor())
                most = max(most, peak())
        peaks.append(most)
    assert min(peaks[1:]) < peaks[0] + 2**20


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("layout", ["interleaved", "planar", "channels", "chunks of two"])
@pytest.mark.parametrize("copied", [True, False])
def test_statistics_and_copy_are_those_of_each_channel_however_channels_lie(
    tmp_path: Path, dtype: str, layout: str, copied: bool
) -> None:
    data = pixels(3, 70, 90).astype(dtype)
    path = tmp_path / "a.tif"
    if layout == "interleaved":
        tifffile.imwrite(path, data.transpose(1, 2, 0), photometric="rgb", compression="zlib", rowsperstrip=16)
    elif layout == "planar":
        tifffile.imwrite(path, data, photometric="rgb", planarconfig="separate")
    elif layout == "channels":
        tifffile.imwrite(path, data, ome=True, metadata={"axes": "CYX"}, photometric="minisblack", tile=(32, 32))
    else:
        path = tmp_path / "a.zarr"
        zarr.create_array(path, shape=data.shape, dtype=dtype, chunks=(2, 32, 32), dimension_names=list("cyx"))
        zarr.open_array(path, mode="r+")[...] = data
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=1, in_channels=2))
    plan = plan_of(path, tmp_path, model, channels=[2, 0], output={"image": "copy" if copied else "none"})
    assert plan.region[1] == {"interleaved": 3, "chunks of two": 2}.get(layout, 1)
    report = run_image(plan, SerialExecutor())
    facts = json.loads((Path(plan.output) / "seamfree.json").read_text())["intensity"]
    assert [entry["channel"] for entry in facts] == [2, 0]
    for entry in facts:
        values = data[entry["channel"]].astype(np.float64)
        for percentile, value in entry["percentiles"].items():
            assert value == np.percentile(values, float(percentile))
        assert entry["mean"] == pytest.approx(values.mean(), rel=1e-12)
    if copied:
        assert report.result is not None
        assert np.array_equal(np.asarray(zarr.open_array(Path(report.result) / "0", mode="r")), data)


def test_what_is_read_at_once_must_fit_into_the_machine_wherever_the_network_computes(tmp_path: Path) -> None:
    path = tmp_path / "strip.tif"
    tifffile.imwrite(path, np.zeros((4096, 4096), dtype=np.uint16), rowsperstrip=4096, compression="zlib")
    config = make_config({"model": "nuclei-fluorescence", "instances": {"method": "none"}, "planner": "off"})
    image = InputImage(str(path), "a")
    intent = Intent(device="cuda", worker_memory=2**34, host_memory=2**24)
    with pytest.raises(PlanError, match="the file is written in strips, tiles or chunks so large"):
        prepare(config, image, tmp_path / "a", intent)
    roomy = intent.model_copy(update={"host_memory": 2**30})
    assert prepare(config, image, tmp_path / "b", roomy).gpu_bytes == 2**34
