"""What makes an earlier run's work another one's, and what is said of it."""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from pipeline.config import make_config
from pipeline.engine.executor import SerialExecutor
from pipeline.errors import PlanError
from pipeline.images.content import content_sha256
from pipeline.images.discover import InputImage
from pipeline.images.opening import open_image
from pipeline.models.architecture import UNetConfig
from pipeline.planning import Intent, RunPlan
from pipeline.run import claim, prepare, run_image
from pipeline.stages import run_stage
from tests.random_models import save_random_model, save_threshold_model


class Place:
    """An image, a model, and a place for the result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder / "a.tif"
        self.settings: dict[str, Any] = {
            "model": save_threshold_model(folder / "model", 2), "tile": 32, "instances": {"method": "components"},
        }  # fmt: skip
        self.write(7)

    def write(self, value: int) -> None:
        """Write the image, of the same size and with the same time, whatever its content."""
        pixels = np.full((40, 50), value, np.uint8)
        pixels[10:20, 10:20] = 200
        tifffile.imwrite(self.image, pixels)
        os.utime(self.image, ns=(10**18, 10**18))

    def plan(self, **changed: Any) -> RunPlan:  # noqa: ANN401 (settings)
        config = make_config({**self.settings, **changed})
        intent = Intent(device="cpu", worker_memory=2**32)
        return prepare(config, InputImage(str(self.image), "a"), self.folder / "out", intent)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def begin_again(place: Place, caplog: pytest.LogCaptureFixture, **changed: Any) -> list[str]:  # noqa: ANN401
    """Go on with an unfinished run, and give what is said of it."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        facts = run_stage("create", place.plan(**changed), SerialExecutor())
    told = [record.getMessage() for record in caplog.records]
    assert facts == {"resumed": not told}
    start = "a: an unfinished result is not gone on with, all is done anew: "
    assert all(line.startswith(start) for line in told)
    return [line.removeprefix(start) for line in told]


def test_what_differs_is_named_and_nothing_else(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("create", place.plan(), SerialExecutor())
    assert begin_again(place, caplog) == []
    (told,) = begin_again(place, caplog, instances={"method": "components", "minimum_size": 9})
    assert told == "minimum size differs (0 before, 9 now)"
    (told,) = begin_again(place, caplog, precision="float64", instances={"method": "components", "minimum_size": 9})
    assert told == "precision differs (float32 before, float64 now)"
    assert begin_again(place, caplog) != []
    save_threshold_model(place.folder / "model", 2)
    assert begin_again(place, caplog) == []
    save_random_model(place.folder / "model", UNetConfig.model_validate({"dims": 2, "depth": 1, "base_channels": 1}))
    (told,) = begin_again(place, caplog)
    assert told.startswith("model sha256 differs (")
    assert ", now" not in told
    monkeypatch.setattr("pipeline.identity.version", lambda name: "9.9" if name == "torch" else version(name))
    (told,) = begin_again(place, caplog)
    assert told == f"version of torch differs ({version('torch')} before, 9.9 now)"


@pytest.mark.parametrize(
    "library",
    ["connected-components-3d", "edt", "imagecodecs", "numcodecs", "numpy", "pyarrow", "scikit-image", "scipy",
     "seamfree", "tifffile", "zarr"],
)  # fmt: skip
def test_another_version_of_what_numbers_depend_on_is_told_in_one_line(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    run_stage("create", place.plan(), SerialExecutor())
    monkeypatch.setattr("pipeline.identity.version", lambda name: "9.9" if name == library else version(name))
    assert begin_again(place, caplog) == [f"version of {library} differs ({version(library)} before, 9.9 now)"]
    assert begin_again(place, caplog) == []


def test_libraries_that_a_run_does_not_use_do_not_count(place: Place) -> None:
    zarr.create_array(place.folder / "b.zarr", shape=(40, 50), chunks=(16, 16), dtype="uint8")
    config = make_config({**place.settings, "instances": {"method": "none"}})
    intent = Intent(device="cpu", worker_memory=2**32)
    plan = prepare(config, InputImage(str(place.folder / "b.zarr"), "b"), place.folder / "out", intent)
    assert not plan.versions.keys() & {"tifffile", "imagecodecs", "scipy", "scikit-image", "edt"}
    assert plan.versions.keys() >= {"seamfree", "numpy", "torch", "zarr", "numcodecs"}


def test_an_image_is_known_by_size_and_time_or_by_its_content(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    run_stage("create", place.plan(), SerialExecutor())
    os.utime(place.image, ns=(2 * 10**18, 2 * 10**18))
    assert begin_again(place, caplog) == [
        "input time of modification differs (1000000000000000000 before, 2000000000000000000 now)"
    ]
    assert begin_again(place, caplog, identify="content")[0].startswith("input sha256 differs (none before, ")
    os.utime(place.image, ns=(10**18, 10**18))
    assert begin_again(place, caplog, identify="content") == []
    place.write(8)
    (told,) = begin_again(place, caplog, identify="content")
    assert told.startswith("input sha256 differs (")


def test_a_finished_result_tells_what_would_be_otherwise(place: Place) -> None:
    run_image(place.plan(identify="content"), SerialExecutor())
    with claim(place.plan(identify="content"), fresh=False) as reason:
        assert reason == "there is a finished result; use --fresh to make it again"
    with claim(place.plan(identify="content", precision="float64"), fresh=False) as reason:
        assert str(reason).startswith("there is a finished result with other settings: precision differs (float32 ")
    place.write(8)
    with (
        pytest.raises(PlanError, match=r"another image.*: input sha256 differs"),
        claim(place.plan(identify="content"), fresh=False),
    ):
        pass


def test_all_files_of_an_image_count(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(32, 32), chunks=(16, 16), dtype="uint8")
    array[...] = 1
    before = content_sha256(open_image(tmp_path / "a.zarr"))
    assert content_sha256(open_image(tmp_path / "a.zarr")) == before
    (tmp_path / "a.zarr" / "c" / "1" / "1").rename(tmp_path / "a.zarr" / "c" / "1" / "5")
    moved = content_sha256(open_image(tmp_path / "a.zarr"))
    assert moved != before
    array[0, 0] = 2
    assert content_sha256(open_image(tmp_path / "a.zarr")) not in (before, moved)
