"""Opened results as notebooks and other programs see them: dask, xarray, tables, AnnData, QuPath, the README."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.errors import ConfigError, StoreError
from pipeline.models.architecture import UNetConfig
from pipeline.results import Result
from tests.random_models import save_random_model

README = Path(__file__).parents[1] / "README.md"


def made(folder: Path, dims: int) -> Result:
    """Noise in two channels: time points of planes, or a volume."""
    model = save_random_model(
        folder / "model",
        UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 2}),
        seed=3 if dims == 2 else 1,
    )
    noise = np.random.default_rng(1).gamma(2, 100, (2, 2, 2, 60, 57) if dims == 2 else (1, 8, 2, 30, 37))
    image = (ndimage.gaussian_filter(noise, (0, 0, 0, 2, 2)) * 100).astype(np.uint16)
    metadata = {"axes": "TZCYX", "PhysicalSizeZ": 2.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25,
                "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm",
                "Channel": {"Name": ["DNA", "actin"]}}  # fmt: skip
    tifffile.imwrite(folder / "a.ome.tif", image, metadata=metadata, ome=True, photometric="minisblack")
    config = make_config({"model": model, "tile": 32, "channels": ["DNA"], "execution": {"scheduler": "serial"}})
    (report,) = segment(folder / "a.ome.tif", folder / "results", config)
    assert report.result is not None, report.reason
    return open_result(report.result)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return made(tmp_path_factory.mktemp("planes"), 2)


def test_arrays_come_lazily_with_axes_places_and_names(result: Result) -> None:
    labels = result.dask("instances")
    np.testing.assert_array_equal(labels.compute(), result.instances[0][:])
    view = result.xarray("image")
    assert view.dims == ("t", "c", "z", "y", "x")
    assert view.coords["c"].to_numpy().tolist() == ["DNA", "actin"]
    np.testing.assert_allclose(view.coords["y"], np.arange(60) * 0.5)
    assert view.coords["x"].attrs["units"] == "micrometer"
    np.testing.assert_array_equal(view.sel(c="actin", t=0, z=0).to_numpy(), np.asarray(result.image[0])[0, 1, 0])
    assert result.xarray("semantic").dims == ("t", "z", "y", "x")


@pytest.mark.parametrize("kind", ["tiff", "ome.zarr"])
def test_a_result_without_a_copy_gives_the_input_itself_while_it_is_the_same(
    result: Result, tmp_path: Path, kind: str
) -> None:
    image = np.asarray(result.image[0])
    path = tmp_path / f"a.{kind}"
    if kind == "tiff":
        shutil.copy(result.provenance["plan"]["source"]["path"], path)
    else:
        shutil.copytree(str(result.path), path, ignore=shutil.ignore_patterns("labels", "tables", "seamfree.json"))
    settings = {
        "model": result.provenance["plan"]["model"],
        "tile": 32,
        "instances": {"method": "components"},
        "channels": [0],
        "output": {"image": "none"},
    }
    (report,) = segment(path, tmp_path / "out", make_config(settings | {"execution": {"scheduler": "serial"}}))
    assert report.result is not None, report.reason
    bare = open_result(report.result)
    assert bare.image == []
    lazy, view = bare.dask(), bare.xarray()
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), image)
    np.testing.assert_array_equal(lazy[0, 1, -1, 50:3:-7, 2:40:3].compute(), image[0, 1, -1, 50:3:-7, 2:40:3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)).compute(), image)
    assert view.name == "image"
    assert view.dtype == image.dtype
    copied = result.xarray("image")
    assert view.dims == copied.dims
    for axis in view.dims:
        np.testing.assert_array_equal(view.coords[axis], copied.coords[axis])
        assert view.coords[axis].attrs == copied.coords[axis].attrs
    with pytest.raises(StoreError, match="the image has levels 0 to 0, not 7"):
        bare.dask("image", 7)
    if kind == "tiff":
        tifffile.imwrite(path, image[..., ::-1, :], metadata={"axes": "TCZYX"}, ome=True)
    else:
        next(file for file in sorted((path / "0" / "c").rglob("*")) if file.is_file()).touch()
    with pytest.raises(StoreError, match=rf"no copy of the image, and the input: .*{kind}: the image has changed"):
        bare.dask()
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=rf"no copy of the image, and the input: .*a\.{kind}"):
        bare.xarray()
    assert bare.xarray("instances").shape == bare.instances[0].shape


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda result: result.dask("objects"), "no 'objects', but image, semantic"),
        (lambda result: result.xarray("probabilities"), "this result has no 'probabilities'"),
        (lambda result: result.dask("image", 7), "levels 0 to 0, not 7"),
        (lambda result: result.read_table(["colour"]), "no column 'colour'; it has label, class"),
        (lambda result: result.write_geojson("/nowhere/at/all.geojson"), "/nowhere/at/all.geojson: cannot be written"),
        (lambda result: result.write_anndata("/nowhere/at/all.h5ad"), "/nowhere/at/all.h5ad: cannot be written"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(result: Result, ask: Callable[[Result], Any], told: str) -> None:
    with pytest.raises(StoreError, match=told) as caught:
        ask(result)
    assert "\n" not in str(caught.value)


_SMALL_DISK = """
import resource, sys
from pipeline import open_result
from pipeline.errors import StoreError
result = open_result(sys.argv[1])
result.write_anndata(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write, name in ((result.write_anndata, "b.h5ad"), (result.write_geojson, "b.geojson"),
                    (result.write_ome_tiff, "b.ome.tif")):
    try:
        write(f"{sys.argv[3]}/{name}")
    except StoreError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_disk_that_refuses_is_told_in_a_line_and_nothing_is_left(result: Result, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    (tmp_path / "small").mkdir()
    command: list[str | Path] = [
        sys.executable,
        "-c",
        _SMALL_DISK,
        str(result.path),
        tmp_path / "a.h5ad",
        tmp_path / "small",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert [line.partition(" (")[0] for line in told] == [
        f"{tmp_path}/small/b.{name}: cannot be written" for name in ("h5ad", "geojson", "ome.tif")
    ]
    assert all("(File too large); files as large as this" in line for line in told)
    assert not list((tmp_path / "small").iterdir())
    # Made in memory, it is what anndata itself would have written.
    whole = anndata.read_h5ad(tmp_path / "a.h5ad")
    result.to_anndata().write_h5ad(tmp_path / "c.h5ad")
    other = anndata.read_h5ad(tmp_path / "c.h5ad")
    np.testing.assert_array_equal(whole.X, other.X)
    assert whole.obs.equals(other.obs)
    assert whole.uns == other.uns


def test_the_table_is_read_by_label_in_pandas_and_polars(result: Result) -> None:
    assert result.table.index.name == "label"
    assert len(result.table) == result.objects
    assert result.table is result.table
    assert result.read_table(["solidity"]).columns.tolist() == ["solidity"]
    frame = result.table_polars(["label", "area"])
    assert frame["area"].to_list() == result.table["area"].tolist()


def test_anndata_has_an_observation_for_each_object(result: Result) -> None:
    found = result.to_anndata()
    assert found.obs_names.tolist() == [str(label) for label in result.table.index]
    assert found.obs["class"].tolist() == result.table["class"].tolist()
    np.testing.assert_array_equal(found[:, "area"].X[:, 0], result.table["area"])
    np.testing.assert_array_equal(found.obsm["spatial"][:, 0], result.table["centroid_physical-1"])


def test_a_missing_package_is_told_with_what_to_do(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, ask in (("anndata", result.to_anndata), ("polars", result.table_polars)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match=f"{name} is not installed; install it with: pip install"):
            ask()


def test_outlines_for_qupath_fill_the_labels(result: Result, tmp_path: Path) -> None:
    assert result.write_geojson(tmp_path / "a.geojson") == result.objects
    collection = json.loads((tmp_path / "a.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    labels = np.asarray(result.instances[0])
    painted = np.zeros_like(labels)
    for number, feature in enumerate(collection["features"], start=1):
        properties, plane = feature["properties"], feature["geometry"]["plane"]
        assert (feature["type"], properties["objectType"], properties["name"]) == ("Feature", "detection", str(number))
        assert properties["measurements"]["area"] == result.table["area"][number]
        assert properties["classification"]["name"] == result.table["class"][number]
        canvas = painted[plane["t"], plane["z"]]
        assert feature["geometry"]["type"] == "Polygon"
        flips = np.zeros((canvas.shape[0], canvas.shape[1] + 1), dtype=np.int64)
        for ring in feature["geometry"]["coordinates"]:
            for (x0, y0), (x1, y1) in pairwise(ring):
                flips[min(y0, y1) : max(y0, y1), x0] += x0 == x1
        canvas += np.where(np.cumsum(flips, axis=1)[:, :-1] % 2, number, 0).astype(labels.dtype)
    np.testing.assert_array_equal(painted, labels)


def test_anndata_is_read_as_it_was_given(result: Result, tmp_path: Path) -> None:
    import anndata

    assert result.write_anndata(tmp_path / "a.h5ad") == result.objects
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5ad"]
    read, given = anndata.read_h5ad(tmp_path / "a.h5ad"), result.to_anndata()
    np.testing.assert_array_equal(read.X, given.X)
    assert read.obs["class"].tolist() == given.obs["class"].tolist()


def test_without_a_table_nothing_is_exported_or_left_behind(result: Result, tmp_path: Path) -> None:
    bare = tmp_path / "bare.ome.zarr"
    shutil.copytree(str(result.path), bare, ignore=shutil.ignore_patterns("tables"))
    wanted = tmp_path / "out"
    wanted.mkdir()
    for write in (open_result(bare).write_geojson, open_result(bare).write_anndata):
        with pytest.raises(StoreError, match=r"bare.ome.zarr: this result has no table of objects"):
            write(wanted / "a")
    assert not list(wanted.iterdir())


def test_volumes_have_no_outlines(tmp_path: Path) -> None:
    volumes = made(tmp_path, 3)
    assert volumes.to_anndata().obsm["spatial"].shape == (volumes.objects, 3)
    with pytest.raises(StoreError, match="three-dimensional"):
        volumes.write_geojson(tmp_path / "a.geojson")
    assert not (tmp_path / "a.geojson").exists()


@pytest.mark.slow
def test_the_command_exports(result: Result, tmp_path: Path) -> None:
    command: list[str | Path] = [Path(sys.executable).parent / "seamfree", "export", str(result.path)]
    done = subprocess.run(
        [*command, "--geojson", tmp_path / "a.geojson", "--anndata", tmp_path / "a.h5ad"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"a.geojson: {result.objects:,} objects" in done.stdout
    assert (tmp_path / "a.h5ad").stat().st_size > 0
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def test_the_examples_of_the_readme_run(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = README.read_text(encoding="utf-8")
    examples = [
        code
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "open_result" in code and not any(other in code for other in ("plate", "napari", "spatialdata"))
    ]
    assert examples
    shutil.copytree(str(result.path), tmp_path / "results" / "a.ome.zarr")
    monkeypatch.chdir(tmp_path)
    for code in examples:
        exec(code.replace("level=1", "level=0"), {})
    assert (tmp_path / "a.geojson").exists()
