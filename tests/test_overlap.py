"""Objects found by a function in overlapping windows are those that it finds in the whole image at once."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import yaml
from numpy.typing import NDArray
from skimage import measure

from pipeline import open_result, segment
from pipeline.config import RunConfig, make_config
from pipeline.detect_objects import find_objects
from pipeline.engine.executor import SerialExecutor
from pipeline.images.discover import discover
from pipeline.labels.parting import number_parts
from pipeline.planning import Intent
from pipeline.results import Result
from pipeline.run import prepare
from pipeline.stages import run_stage, stage_names
from tests import detectors
from tests.fields import compose, load_fields

Labels = NDArray[np.integer[Any]]


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    tifffile.imwrite(path, compose(load_fields(), (611, 733), seed=3), tile=(128, 128), compression="zlib")
    return path


def settings(
    function: str, tile: int, diameter: int | tuple[int, ...] = 100, workers: int | None = None, **instances: object
) -> RunConfig:
    return make_config(
        {
            "tile": tile,
            "instances": {"method": "overlap", "function": function, "diameter": diameter, **instances},
            "execution": {"workers": workers, "scheduler": None if workers else "serial"},
        }
    )


def run(image: Path, output: Path, config: RunConfig) -> tuple[Labels, Result]:
    (report,) = segment(image, output, config)
    assert report.status == "done", report.reason
    result = open_result(output / f"{report.name}.ome.zarr")
    labels = np.asarray(result.instances[0])
    assert result.objects == labels.max()
    if not config.instances.minimum_size:
        np.testing.assert_array_equal(np.asarray(result.semantic[0]), labels > 0)
    return labels, result


def at_once(image: Path, result: Result, function: Callable[..., Any]) -> Labels:
    """Call the function on the whole image, scaled as the run did, and number what it finds as a run numbers."""
    (scaling,) = result.provenance["intensity"]
    pixels = tifffile.imread(image).astype(np.float32)
    found, _ = find_objects(function, ((pixels - np.float32(scaling["offset"])) / np.float32(scaling["scale"]))[None])
    _, first = np.unique(found, return_index=True)
    numbers = np.concatenate([np.zeros(1, np.uint32), number_parts(first[1:])])
    return np.asarray(numbers[found])


def identical(wanted: Labels, found: Labels) -> float:
    """Give the fraction of objects that are the same to the pixel."""
    pairs, common = np.unique(np.stack([wanted.ravel(), found.ravel()]), axis=1, return_counts=True)
    whole, other = np.bincount(wanted.ravel()), np.bincount(found.ravel())
    same = (common == whole[pairs[0]]) & (common == other[pairs[1]]) & (pairs[0] > 0) & (pairs[1] > 0)
    return float(np.count_nonzero(same) / np.count_nonzero(whole[1:]))


@pytest.mark.slow
def test_tile_sizes_change_nothing_where_a_function_looks_no_farther_than_the_halo(
    mosaic: Path, tmp_path: Path
) -> None:
    for tile in (128, 256, 1000):
        found, result = run(mosaic, tmp_path / str(tile), settings("tests.detectors:patches", tile, 60))
        np.testing.assert_array_equal(found, at_once(mosaic, result, detectors.patches))
        told = result.provenance["overlap"]
        if tile < 1000:
            assert told["merged"] > 5
        assert told["ambiguous"] >= len(told["list"])
    assert found.max() > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nuclei", "nuclei_with_scores"])
def test_real_nuclei_are_those_of_the_whole_image(mosaic: Path, tmp_path: Path, name: str) -> None:
    found, result = run(mosaic, tmp_path / "256", settings(f"tests.detectors:{name}", 256))
    wanted = at_once(mosaic, result, getattr(detectors, name))
    assert wanted.max() > 20
    assert identical(wanted, found) >= 0.995
    assert result.provenance["overlap"]["merged"] > 5


@pytest.mark.slow
def test_workers_change_nothing(mosaic: Path, tmp_path: Path) -> None:
    found = [
        run(mosaic, tmp_path / str(workers), settings("tests.detectors:nuclei_with_scores", 200, workers=workers))[0]
        for workers in (None, 1, 2)
    ]
    for again in found[1:]:
        np.testing.assert_array_equal(again, found[0])


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_planes_and_volumes_of_time_series(tmp_path: Path, ndim: Literal[2, 3]) -> None:
    random = np.random.default_rng(4)
    image = (random.random((2, 2 if ndim == 2 else 7, 2, 40, 45)) > 0.7).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata={"axes": "TZCYX"}, ome=True, photometric="minisblack")
    wanted, count = np.zeros(image[:, :, 1].shape, dtype=np.int64), 0
    for at in np.ndindex(*wanted.shape[: 4 - ndim]):
        part = measure.label(image[:, :, 1][at], connectivity=1)
        wanted[at] = np.where(part > 0, part + count, 0)
        count += part.max()
    for tile in (12, 64):
        config = settings(
            "tests.detectors:blobs", tile, (2, 5, 5)[-ndim:], dimensions=ndim, intensity="none", options={"above": 0.4}
        ).model_copy(update={"channels": (1,)})
        found, _ = run(tmp_path / "a.ome.tif", tmp_path / str(tile), config)
        np.testing.assert_array_equal(found, wanted)
    small = run(tmp_path / "a.ome.tif", tmp_path / "large", config.model_copy(
        update={"instances": config.instances.model_copy(update={"minimum_size": 5})}))  # fmt: skip
    assert small[1].objects == np.count_nonzero(np.bincount(wanted.ravel())[1:] >= 5)


def test_objects_larger_than_the_diameter_are_told_with_their_places(tmp_path: Path) -> None:
    image = np.zeros((100, 120), dtype=np.uint8)
    image[40:44] = image[10:14, 58:63] = 200
    tifffile.imwrite(tmp_path / "a.tif", image)
    found, result = run(
        tmp_path / "a.tif", tmp_path / "out", settings("tests.detectors:blobs", 32, 6, intensity="none")
    )
    np.testing.assert_array_equal(found, measure.label(image, connectivity=1))
    told = result.provenance["overlap"]
    assert told["larger_than_diameter"] == 1
    # Of four tiles in a row, three pairs of neighbours see the bar.
    assert told["ambiguous"] == 3
    assert [doubt["at"] for doubt in told["list"]] == [{"Y": 40, "X": 20}, {"Y": 40, "X": 52}, {"Y": 40, "X": 84}]
    assert {doubt["decision"] for doubt in told["list"]} == {"merged"}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_leaves_the_same_bytes(mosaic: Path, tmp_path: Path) -> None:
    config = settings("tests.detectors:patches", 256, 60)
    run(mosaic, tmp_path / "once", config)
    (image,) = discover([str(mosaic)])
    plan = prepare(config, image, tmp_path / "twice", Intent(device="cpu", worker_memory=2**32))
    names = stage_names(plan)
    assert names[4:10] == ("segment", "compare", "choose", "paint", "number", "relabel")
    for name in names[: names.index("number")]:
        run_stage(name, plan, SerialExecutor())
    run(mosaic, tmp_path / "twice", config)
    stores = []
    for name in ("once", "twice"):
        folder = tmp_path / name / "mosaic.ome.zarr"
        stores.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
                       if path.is_file() and path.name != "seamfree.json"})  # fmt: skip
        provenance = json.loads((folder / "seamfree.json").read_text())
        assert provenance["plan"]["network"]["function"] == "tests.detectors:patches"
    assert stores[0] == stores[1]


@pytest.mark.slow
def test_the_readmes_detector_works_as_written(mosaic: Path, tmp_path: Path) -> None:
    section = (
        (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").split("## Bring your own detector")[1]
    )
    code, command, settings_text = (part.split("```")[0] for part in re.split("```(?:python|sh|yaml)\n", section)[1:4])
    (tmp_path / "detector.py").write_text(code)
    (tmp_path / "images").mkdir()
    shutil.copy(mosaic, tmp_path / "images")
    program, *arguments = shlex.split(command)
    assert program == "seamfree"
    made = subprocess.run(
        [Path(sys.executable).parent / program, *arguments, "--direct", "--scheduler", "serial"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert (open_result(tmp_path / "results" / "mosaic.ome.zarr").objects or 0) > 10
    assert make_config(yaml.safe_load(settings_text)).instances.options == {"weights": "my.safetensors", "score": 0.6}
