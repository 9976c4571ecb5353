"""A run destroys nothing that seamfree has not made, and notices when its input is another one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from pipeline import RunConfig, open_result, segment
from pipeline.config import make_config
from pipeline.engine.executor import SerialExecutor
from pipeline.errors import ImageError, StoreError
from pipeline.images.discover import InputImage
from pipeline.models.architecture import UNetConfig
from pipeline.planning import Intent
from pipeline.run import ImageReport, prepare
from pipeline.stages import run_stage, stage_names
from pipeline.stores.hold import hold
from tests.fields import load_fields
from tests.random_models import save_random_model


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("models") / "small"
    model = save_random_model(folder, UNetConfig(depth=1, base_channels=2), seed=3)
    return make_config({"model": model, "tile": 64, "execution": {"scheduler": "serial"}})


def run(image: Path, output: Path, config: RunConfig, *, fresh: bool = False) -> ImageReport:
    (report,) = segment(image, output, config, fresh=fresh)
    return report


def field() -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    return load_fields()[0][:160, :160].astype(np.uint16)


def test_fresh_never_replaces_what_seamfree_has_not_made(tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / "x.tif", field())
    (tmp_path / "x.ome.zarr").mkdir()
    (tmp_path / "x.ome.zarr" / "my-notes.txt").write_text("mine")
    report = run(tmp_path / "x.tif", tmp_path, config, fresh=True)
    assert report.status == "failed"
    assert report.reason is not None
    assert "something that seamfree has not made" in report.reason
    assert (tmp_path / "x.ome.zarr" / "my-notes.txt").read_text() == "mine"


def test_a_result_never_replaces_its_own_input(tmp_path: Path, config: RunConfig) -> None:
    source = tmp_path / "a.ome.zarr"
    group = zarr.create_group(source)
    group.create_array("0", data=field(), chunks=(64, 64))
    axes: Any = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    scale: Any = [{"type": "scale", "scale": [1.0, 1.0]}]
    levels: Any = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"name": "a", "axes": axes, "datasets": levels}]}
    for fresh in (False, True):
        assert run(source, tmp_path, config, fresh=fresh).status == "failed"
    np.testing.assert_array_equal(zarr.open_array(source / "0")[:], field())


def test_a_result_of_another_image_is_no_result_of_this_one(tmp_path: Path, config: RunConfig) -> None:
    for name, image in (("one", field()), ("other", field()[::-1])):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", image)
    assert run(tmp_path / "one" / "a.tif", tmp_path / "out", config).status == "done"
    report = run(tmp_path / "other" / "a.tif", tmp_path / "out", config)
    assert report.status == "failed"
    assert report.reason is not None
    assert "a finished result of another image" in report.reason
    assert run(tmp_path / "other" / "a.tif", tmp_path / "out", config, fresh=True).status == "done"
    np.testing.assert_array_equal(open_result(tmp_path / "out" / "a.ome.zarr").image[0][:], field()[::-1])


def test_other_settings_are_told_and_another_tile_is_not_another_setting(tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / "a.tif", field())
    assert run(tmp_path / "a.tif", tmp_path / "out", config).status == "done"
    same = run(tmp_path / "a.tif", tmp_path / "out", config.model_copy(update={"tile": 96}))
    assert (same.status, same.reason) == ("skipped", "there is a finished result; use --fresh to make it again")
    other = run(tmp_path / "a.tif", tmp_path / "out", config.model_copy(update={"precision": "float64"}))
    assert other.status == "skipped"
    assert other.reason is not None
    assert "with other settings: precision differs (float32 before, float64 now)" in other.reason


def test_a_result_that_another_run_is_making_is_left_to_it(tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / "a.tif", field())
    with hold(tmp_path / "out" / "a.ome.zarr"):
        report = run(tmp_path / "a.tif", tmp_path / "out", config)
    assert report.status == "failed"
    assert report.reason is not None
    assert f"process {os.getpid()}" in report.reason
    assert run(tmp_path / "a.tif", tmp_path / "out", config).status == "done"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.ome.zarr", "a.report.html", "run-summary.json",
    ]  # fmt: skip


def test_an_image_of_an_odd_size_has_no_tiny_chunks(tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((509, 1018), dtype=np.uint8))
    assert run(tmp_path / "a.tif", tmp_path / "out", config.model_copy(update={"tile": None})).status == "done"
    result = open_result(tmp_path / "out" / "a.ome.zarr")
    for array in (result.image[0], result.semantic[0], result.instances[0]):
        assert min(array.chunks) >= 64


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_an_input_that_is_not_the_same_at_the_end_gives_no_result(tmp_path: Path, config: RunConfig, what: str) -> None:
    source = zarr.create_array(tmp_path / "a.zarr", data=field(), chunks=(64, 64))
    unpublished = config.model_copy(update={"output": config.output.model_copy(update={"image": "none"})})
    image = InputImage(str(tmp_path / "a.zarr"), "a")
    plan = prepare(unpublished, image, tmp_path / "out", Intent(device="cpu", worker_memory=2**33))
    *stages, last = stage_names(plan)
    assert last == "publish"
    for stage in stages:
        run_stage(stage, plan, SerialExecutor())
    if what == "changed":
        source[:64, :64] = 0
    else:
        (tmp_path / "a.zarr").rename(tmp_path / "moved.zarr")
    with pytest.raises(ImageError, match=r"a\.zarr: " + ("the image has changed" if what == "changed" else "")):
        run_stage(last, plan, SerialExecutor())
    assert not Path(plan.output).exists()
    # What was made of two images is of no use; what was made of one is, when that comes back.
    assert plan.partial.exists() == (what == "gone")
    if what == "gone":
        (tmp_path / "moved.zarr").rename(tmp_path / "a.zarr")
        run_stage(last, plan, SerialExecutor())
        assert open_result(plan.output).objects is not None


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "mine.txt").write_text("mine")


def _file(path: Path) -> None:
    path.write_text("mine")


def _link(path: Path) -> None:
    target = path.parent.parent / "mine.txt"
    target.write_text("mine")
    path.symlink_to(target)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.ome.zarr.partial", _folder), ("x.ome.zarr.partial", _file), ("x.ome.zarr.partial", _link),
        (".x.ome.zarr.old", _folder), (".x.ome.zarr.old", _file), (".x.ome.zarr.old", _link),
        ("x.report.html", _folder), ("x.report.html", _file), ("x.report.html", _link),
        (".x.ome.zarr.lock", _folder), (".x.ome.zarr.lock", _link),
    ],
)  # fmt: skip
def test_whatever_has_the_name_of_something_of_a_run_stays(
    tmp_path: Path, config: RunConfig, name: str, make: Callable[[Path], None], fresh: bool
) -> None:
    tifffile.imwrite(tmp_path / "x.tif", field())
    output = tmp_path / "out"
    output.mkdir()
    make(output / name)
    report = run(tmp_path / "x.tif", output, config, fresh=fresh)
    assert report.status == "failed"
    assert report.reason is not None
    assert str(output / name) in report.reason
    mine = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".tif"]
    assert [path.read_text() for path in mine if path.name != "run-summary.json"] == ["mine"] * (1 + (make is _link))
    if make is _link:
        (output / name).unlink()
    else:
        (output / name).rename(tmp_path / "moved")
    assert run(tmp_path / "x.tif", output, config, fresh=fresh).status == "done"


def test_a_link_of_a_temporary_name_is_not_written_into(tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / "x.tif", field())
    (tmp_path / "out").mkdir()
    _link(tmp_path / "out" / ".x.report.html.tmp")
    assert run(tmp_path / "x.tif", tmp_path / "out", config).status == "done"
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_is_no_summary_of_runs_is_kept_beside(tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / "x.tif", field())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run-summary.json").write_text("mine")
    assert run(tmp_path / "x.tif", tmp_path / "out", config).status == "done"
    (kept,) = (tmp_path / "out").glob("run-summary.damaged-*.json")
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("name", [".x.ome.zarr.lock", "run-summary.json"])
def test_a_pipe_of_such_a_name_holds_nobody_up(tmp_path: Path, config: RunConfig, name: str) -> None:
    tifffile.imwrite(tmp_path / "x.tif", field())
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / name)
    if name == "run-summary.json":
        with pytest.raises(StoreError, match="no file, and not made by seamfree"):
            run(tmp_path / "x.tif", tmp_path / "out", config)
    else:
        report = run(tmp_path / "x.tif", tmp_path / "out", config)
        assert report.reason is not None
        assert "no file, and not made by seamfree" in report.reason
