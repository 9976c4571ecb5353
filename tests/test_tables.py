"""The table of objects of real results: as scikit-image measures, as ngio reads it, the same bytes for all tiles."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from ngio import open_ome_zarr_container
from numpy.typing import NDArray
from skimage import measure

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.engine.executor import Job, SerialExecutor
from pipeline.images.discover import InputImage
from pipeline.models.architecture import UNetConfig
from pipeline.run import prepare
from pipeline.site import choose_site
from pipeline.stages import run_stage, stage_names
from tests.fields import compose, load_fields
from tests.random_models import save_random_model

BIN = Path(sys.executable).parent

TABLE = Path("tables/instances/table.parquet")


def run(image: Path, into: Path, /, **values: Any) -> Path:  # noqa: ANN401 (as YAML gives them)
    config = make_config({"execution": {"scheduler": "serial"}, **values})
    (report,) = segment(image, into, config)
    assert report.status == "done", report.reason
    assert report.result is not None
    return Path(report.result)


@pytest.fixture(scope="module")
def mosaic() -> NDArray[np.uint16]:
    return compose(load_fields(), (611, 733))


@pytest.fixture(scope="module")
def mosaic_file(mosaic: NDArray[np.uint16], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeY": 325, "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 0.65,
                "PhysicalSizeXUnit": "µm"}  # fmt: skip
    tifffile.imwrite(path, mosaic, tile=(128, 128), compression="zlib", ome=True, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def mosaic_result(mosaic_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(mosaic_file, tmp_path_factory.mktemp("results"), tile=128, instances={"method": "components"})


def test_real_nuclei_measure_what_scikit_image_says(mosaic: NDArray[np.uint16], mosaic_result: Path) -> None:
    labels = np.asarray(open_result(mosaic_result).instances[0])
    table = pd.read_parquet(mosaic_result / TABLE)
    assert table["label"].tolist() == list(range(1, labels.max() + 1))
    assert len(table) > 20
    properties = [
        "label", "area", "centroid", "bbox", "solidity", "axis_major_length", "axis_minor_length", "eccentricity",
        "intensity_mean", "intensity_min", "intensity_max", "intensity_std",
    ]  # fmt: skip
    for suffix, spacing in (("", (1, 1)), ("_physical", (0.325, 0.65))):
        found = measure.regionprops_table(labels, mosaic[..., np.newaxis], spacing=spacing, properties=properties)
        for name, expected in found.items():
            property_name, *number = name.split("-")
            ours = "-".join([property_name + suffix, *number])
            if property_name == "bbox":
                # scikit-image gives it in pixels, whatever their size.
                edge = (0.325, 0.65)[int(number[0]) % 2] if suffix else 1
                expected = expected * edge - (edge / 2 if suffix else 0)
            if ours in table:
                np.testing.assert_allclose(table[ours], expected, rtol=1e-9, atol=1e-6, err_msg=ours)
    assert table["touches_border"].tolist() == [
        (np.array(region.bbox[:2]) == 0).any() or (np.array(region.bbox[2:]) == labels.shape).any()
        for region in measure.regionprops(labels)
    ]
    for axis, edge in enumerate((0.325, 0.65)):
        extent = table[f"bbox_physical-{axis + 2}"] - table[f"bbox_physical-{axis}"]
        np.testing.assert_allclose(extent, (table[f"bbox-{axis + 2}"] - table[f"bbox-{axis}"]) * edge)
    assert set(table["class"]) == {"nucleus"}


@pytest.mark.slow
def test_tiles_and_workers_do_not_show_in_the_table(mosaic_file: Path, mosaic_result: Path, tmp_path: Path) -> None:
    expected = (mosaic_result / TABLE).read_bytes()
    for tile in (256, 1000):
        again = run(mosaic_file, tmp_path / str(tile), tile=tile, instances={"method": "components"})
        assert (again / TABLE).read_bytes() == expected


def test_ngio_reads_a_feature_table(mosaic_result: Path) -> None:
    container = open_ome_zarr_container(mosaic_result, mode="r")
    assert container.list_tables(filter_types="feature_table") == ["instances"]
    table = container.get_feature_table("instances")
    assert table.reference_label == "instances"
    assert table.meta.index_key == "label"
    expected = pd.read_parquet(mosaic_result / TABLE).set_index("label")
    pd.testing.assert_frame_equal(table.dataframe, expected, check_column_type=False, check_dtype=False)
    assert table.lazy_frame.collect().shape == (len(expected), len(expected.columns) + 1)
    assert table.anndata.n_obs == len(expected)
    columns = {*table.meta.measurement_columns, *table.meta.metadata_columns, *table.meta.categorical_columns}
    assert columns == set(expected.columns)


@pytest.mark.parametrize("program", ["ome-zarr-models", "yaozarrs"])
def test_validators_accept_a_result_with_a_table(mosaic_result: Path, program: str) -> None:
    done = subprocess.run([BIN / program, "validate", mosaic_result], capture_output=True, text=True, check=True)
    assert "Valid" in done.stdout


def test_columns_say_their_units(mosaic_result: Path) -> None:
    schema = pq.read_schema(mosaic_result / TABLE)
    units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in schema}
    assert units["area"] == "pixel²"
    assert units["area_physical"] == "micrometer²"
    assert units["centroid_physical-0"] == units["bbox_physical-3"] == "micrometer"
    assert units["solidity"] == ""
    attributes = json.loads((mosaic_result / TABLE).with_name("zarr.json").read_text())["attributes"]
    assert attributes["units"] == {name: unit for name, unit in units.items() if unit}


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_planes_and_volumes_are_measured_each_by_itself(
    tmp_path: Path, dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several classes and channels, in ranges of few labels."""
    architecture = UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 2, "classes": 3})
    model = save_random_model(tmp_path / "model", architecture, seed=3)
    depth = 2 if dims == 2 else 9
    image = np.random.default_rng(1).gamma(2, 100, (2, depth, 2, 40, 37)).astype(np.float32)
    metadata = {"axes": "TZCYX", "PhysicalSizeZ": 2.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25}
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata=metadata, ome=True, photometric="minisblack")
    written = []
    for tile, rows in ((16, 3), (64, 3), (64, 2**15)):
        monkeypatch.setattr("pipeline.measure_jobs.RANGE", rows)
        result = run(
            tmp_path / "a.ome.tif", tmp_path / f"{tile}-{rows}", tile=tile, model=model, channels=[1],
            instances={"method": "components", "classes": ["class 1", "class 2"]},
        )  # fmt: skip
        written.append(result / TABLE)
    assert len({path.read_bytes() for path in written[:2]}) == 1
    table = pd.read_parquet(written[0])
    pd.testing.assert_frame_equal(table, pd.read_parquet(written[2]))
    opened = open_result(result)
    labels, semantic = np.asarray(opened.instances[0]), np.asarray(opened.semantic[0])
    assert len(table) > 4
    assert table["t"].nunique() == 2
    assert ("z" in table) == (dims == 2)
    spacing = (2.0, 0.5, 0.25)[-dims:]
    for frame in np.ndindex(*labels.shape[: 4 - dims]):
        rows_of_frame = table[(table["t"] == frame[0]) & (table["z"] == frame[1] if dims == 2 else True)]
        channels = np.moveaxis(image[frame], 1 if dims == 3 else 0, -1).astype(np.float64)
        expected = measure.regionprops_table(
            labels[frame], channels, spacing=spacing,
            properties=("label", "area", "bbox", "axis_major_length", "intensity_mean", "intensity_std",
                        "intensity_max"),
        )  # fmt: skip
        np.testing.assert_array_equal(rows_of_frame["label"], expected["label"])
        np.testing.assert_allclose(rows_of_frame["area_physical"], expected["area"])
        np.testing.assert_allclose(
            rows_of_frame["axis_major_length_physical"], expected["axis_major_length"], rtol=1e-9, atol=1e-6
        )
        for name in expected:
            if name.startswith(("bbox", "intensity")):
                np.testing.assert_allclose(rows_of_frame[name], expected[name], rtol=1e-9, atol=1e-9)
    for label, name in table[["label", "class"]].itertuples(index=False):
        counts = np.bincount(semantic[labels == label], minlength=3)
        assert name == f"class {1 + counts[1:].argmax()}"


def test_an_image_without_objects_has_an_empty_table(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "dark.tif", np.zeros((70, 80), dtype=np.uint8))
    result = run(tmp_path / "dark.tif", tmp_path / "out")
    table = open_ome_zarr_container(result, mode="r").get_feature_table("instances").dataframe
    assert len(table) == 0
    assert {"area", "centroid-0", "solidity", "intensity_mean-0"} <= set(table.columns)


@pytest.mark.parametrize("values", [{"instances": {"method": "none"}}, {"output": {"table": False}}])
def test_no_table_is_made_where_none_is_wanted(tmp_path: Path, values: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "dark.tif", np.zeros((70, 80), dtype=np.uint8))
    result = run(tmp_path / "dark.tif", tmp_path / "out", **values)
    assert not (result / "tables").exists()
    assert "tables/instances" not in open_result(result).provenance["checksums"]


class _Dies:
    """Does some jobs, then ends like a process that is killed."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs

    def map(
        self,
        stage: str,
        job: Job[Any, Any],
        plan: Any,  # noqa: ANN401
        indices: Iterable[int],
        lowered: Sequence[Any] = (),
    ) -> Iterator[tuple[int, Any]]:
        for index, record in SerialExecutor().map(stage, job, plan, indices, lowered):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield index, record


def test_measuring_goes_on_where_it_ended(mosaic_file: Path, mosaic_result: Path, tmp_path: Path) -> None:
    config = make_config({"tile": 256, "instances": {"method": "components"}, "execution": {"scheduler": "serial"}})
    image = InputImage(str(mosaic_file), "mosaic")
    plan = prepare(config, image, tmp_path, choose_site(config).intent)
    stages = stage_names(plan)
    for name in stages[: stages.index("measure")]:
        run_stage(name, plan, SerialExecutor())
    for jobs in (0, 3, len(plan.tiles) - 3, 0, 1, 0):
        with pytest.raises(KeyboardInterrupt):
            run_stage("measure", plan, _Dies(jobs))
    for name in stages[stages.index("measure") :]:
        run_stage(name, plan, SerialExecutor())
    assert (Path(plan.output) / TABLE).read_bytes() == (mosaic_result / TABLE).read_bytes()
