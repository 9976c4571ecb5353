"""P2: the labels are the same array for every tile size, number of workers and way to run, and scikit-image's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure
from skimage.morphology import remove_small_objects
from skimage.segmentation import clear_border, relabel_sequential

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.geometry import Box
from pipeline.labels.parting import number_parts, part_core
from pipeline.labels.watershed import PartingRule
from pipeline.models.architecture import UNetConfig
from tests.fields import compose, load_fields
from tests.labels.test_holes import whole as whole_holes
from tests.random_models import save_random_model, save_threshold_model


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    tifffile.imwrite(path, compose(load_fields(), (611, 733)), tile=(128, 128), compression="zlib")
    return path


def labels(
    image: Path, output: Path, *, tile: int, scheduler: str | None = None, workers: int | None = None,
    method: str | None = "components", model: str = "nuclei-fluorescence", **instances: object,
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:  # fmt: skip
    config = make_config(
        {
            "model": model, "tile": tile, "instances": {"method": method, **instances},
            "execution": {"scheduler": scheduler, "workers": workers},
        }
    )  # fmt: skip
    (report,) = segment(image, output, config)
    assert report.status == "done", report.reason
    result = open_result(output / f"{report.name}.ome.zarr")
    assert result.objects == np.asarray(result.instances[0]).max()
    return np.asarray(result.semantic[0]), np.asarray(result.instances[0])


def test_tile_sizes_change_nothing(mosaic: Path, tmp_path: Path) -> None:
    semantic, instances = labels(mosaic, tmp_path / "128", tile=128, scheduler="serial")
    assert instances.max() > 20
    np.testing.assert_array_equal(instances, measure.label(semantic == 1, connectivity=1))
    for tile in (256, 1000):
        again = labels(mosaic, tmp_path / str(tile), tile=tile, scheduler="serial")
        np.testing.assert_array_equal(again[0], semantic)
        np.testing.assert_array_equal(again[1], instances)


@pytest.mark.slow
def test_workers_change_nothing(mosaic: Path, tmp_path: Path) -> None:
    alone = labels(mosaic, tmp_path / "serial", tile=256, scheduler="serial")
    for workers in (1, 2):
        several = labels(mosaic, tmp_path / str(workers), tile=128 * workers, workers=workers)
        np.testing.assert_array_equal(several[0], alone[0])
        np.testing.assert_array_equal(several[1], alone[1])


@pytest.mark.slow
def test_one_plan_gives_the_same_bytes(mosaic: Path, tmp_path: Path) -> None:
    stores = []
    for name in ("first", "second"):
        labels(mosaic, tmp_path / name, tile=256, scheduler="serial")
        folder = tmp_path / name / "mosaic.ome.zarr"
        stores.append(
            {
                path.relative_to(folder): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file() and path.name != "seamfree.json"
            }
        )
    assert stores[0] == stores[1]


@pytest.mark.slow
def test_parted_objects_do_not_depend_on_tiles(mosaic: Path, tmp_path: Path) -> None:
    """The card's own way: a watershed of each component, small objects left out, contact given to its neighbours."""
    semantic, instances = labels(mosaic, tmp_path / "128", tile=128, scheduler="serial", method=None)
    rule = PartingRule(4.0, 20, (1, 1))
    np.testing.assert_array_equal(instances, parted(semantic, semantic > 0, semantic == 1, 2, rule))
    assert instances.max() > measure.label(semantic == 1, connectivity=1).max() * 0.5
    assert np.bincount(instances.ravel())[1:].min() >= 20
    for tile in (256, 1000):
        again = labels(mosaic, tmp_path / str(tile), tile=tile, scheduler="serial", method=None)
        np.testing.assert_array_equal(again[0], semantic)
        np.testing.assert_array_equal(again[1], instances)


def parted(
    semantic: NDArray[np.integer], mask: NDArray[np.bool_], seeds: NDArray[np.bool_], ndim: Literal[2, 3],
    rule: PartingRule,
) -> NDArray[np.integer]:  # fmt: skip
    """Part the whole image at once."""
    shape = (1,) * (4 - semantic.ndim) + semantic.shape
    found = part_core(mask.reshape(shape), seeds.reshape(shape), Box.whole(shape), shape, ndim, rule)
    numbers = np.concatenate([np.zeros(1, np.uint32), number_parts(found.summary.first)])
    return np.asarray(numbers[found.objects]).reshape(semantic.shape)


def shapes(dims: int) -> NDArray[np.bool_]:
    """Rings, snakes, islands in rings, dense blobs, and what spans the image: across tiles of any size."""
    rows, columns = np.mgrid[:120, :112] - 56.0
    radius, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
    spiral = np.cos(radius / 2.5 - angle) > 0.3
    comb = (columns % 10 < 5) | ((rows > 50) & (columns < 40))
    rings = (np.hypot(rows % 24 - 12, columns % 28 - 14) // 3) % 2 == 1
    noise = ndimage.gaussian_filter(np.random.default_rng(3).random((6, 120, 112)), (0, 1.5, 1.5))
    dense = noise > np.median(noise)
    if dims == 2:
        return np.stack([spiral, comb, rings, dense[0]])
    # Shells, a spiral between empty planes, a comb that spans the image, and dense blobs.
    discs = rings | (np.hypot(rows % 24 - 12, columns % 28 - 14) < 6)
    nothing = np.zeros(rows.shape, dtype=bool)
    tall = np.stack([nothing, discs, rings, discs, nothing, spiral & (radius < 30), nothing, comb, nothing])
    blobs = ndimage.gaussian_filter(np.random.default_rng(4).random((8, 64, 68)), 1.5)
    return np.concatenate([tall[:, 20:84, 20:88], blobs > np.quantile(blobs, 0.8)])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["components", "watershed"])
@pytest.mark.parametrize("dims", [2, 3])
def test_objects_of_any_shape_do_not_depend_on_tiles(tmp_path: Path, dims: Literal[2, 3], method: str) -> None:
    """Holes filled, small ones and those at the border left out: as from the whole image."""
    mask = shapes(dims)
    model = save_threshold_model(tmp_path / "model", dims)
    tifffile.imwrite(tmp_path / "a.tif", np.where(mask, 900, 100).astype(np.uint16), metadata={"axes": "ZYX"},
                     imagej=True)  # fmt: skip
    options: dict[str, Any] = {"fill_holes": True, "border": "drop", "minimum_size": 4}
    if method == "watershed":
        options["depth"] = 0.5
    found = [
        labels(tmp_path / "a.tif", tmp_path / str(tile), tile=tile, scheduler="serial", model=model, method=method,
               **options)
        for tile in (24, 56, 200)
    ]  # fmt: skip
    semantic, _ = found[0]
    np.testing.assert_array_equal(semantic, mask)
    holes = whole_holes(mask[None], dims)[0]
    assert holes.any()
    filled = mask | holes
    if method == "components":
        planes = filled.reshape(-1, *filled.shape[-dims:])
        parts = [remove_small_objects(plane, max_size=3, connectivity=1) for plane in planes]
        whole = number([measure.label(part, connectivity=1) for part in parts]).reshape(filled.shape)
    else:
        whole = parted(semantic, filled, filled, dims, PartingRule(0.5, 4, (1,) * dims))
    cleared = [clear_border(part) for part in whole.reshape(-1, *whole.shape[-dims:])]
    expected = relabel_sequential(np.stack(cleared).reshape(whole.shape))[0]
    assert 5 < expected.max() < whole.max()
    for _, again in found:
        np.testing.assert_array_equal(again, expected)


@pytest.mark.slow
def test_components_enclose_holes_by_their_own_class_alone(tmp_path: Path) -> None:
    """Contact between objects is no part of components, so what objects and contact enclose together is no hole."""
    architecture = UNetConfig(depth=1, base_channels=2, classes=3)
    model = save_random_model(tmp_path / "model", architecture, seed=0, contact=("class 1",))
    noise = ndimage.gaussian_filter(np.random.default_rng(6).gamma(2, 100, (150, 140)), 2) * 100
    tifffile.imwrite(tmp_path / "a.tif", noise.astype(np.uint16))
    for tile in (24, 56, 200):
        semantic, instances = labels(
            tmp_path / "a.tif", tmp_path / str(tile), tile=tile, scheduler="serial", model=model, fill_holes=True
        )
        objects = semantic == 2
        holes = whole_holes(objects[None, None], 2)[0, 0]
        assert (whole_holes((semantic > 0)[None, None], 2)[0, 0] & (semantic == 0) & ~holes).any()
        np.testing.assert_array_equal(instances, measure.label(objects | holes, connectivity=1))


def number(parts: list[NDArray[np.integer]]) -> NDArray[np.integer]:
    """Count on from one plane, or volume, to the next."""
    counts = np.cumsum([0, *(part.max() for part in parts)])
    return np.stack([np.where(part > 0, part + before, 0) for part, before in zip(parts, counts, strict=False)])


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 300])
@pytest.mark.parametrize("dims", [2, 3])
def test_planes_and_volumes_are_parted_alike(tmp_path: Path, dims: Literal[2, 3], limit: int | None) -> None:
    architecture = UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 2})
    model = save_random_model(tmp_path / "model", architecture, seed={2: 3, 3: 1}[dims])
    image = ndimage.gaussian_filter(
        np.random.default_rng(1).gamma(2, 100, (2, 9 if dims == 3 else 2, 60, 57)), (0, 1, 2, 2)
    )
    metadata = {"axes": "TZYX", "PhysicalSizeZ": 0.5, "PhysicalSizeY": 0.2, "PhysicalSizeX": 0.2}
    tifffile.imwrite(tmp_path / "a.ome.tif", (image * 100).astype(np.uint16), metadata=metadata, ome=True,
                     photometric="minisblack")  # fmt: skip
    found = [
        labels(tmp_path / "a.ome.tif", tmp_path / str(tile), tile=tile, scheduler="serial", model=model,
               method="watershed", depth=0.5, **({} if limit is None else {"largest": limit}))
        for tile in (6, 16, 64)
    ]  # fmt: skip
    semantic, instances = found[0]
    assert instances.max() > 10
    if limit is None:
        rule = PartingRule(0.5, 0, (1, 1) if dims == 2 else (5, 2, 2))
        np.testing.assert_array_equal(instances, parted(semantic, semantic == 1, semantic == 1, dims, rule))
    for again in found[1:]:
        np.testing.assert_array_equal(again[0], semantic)
        np.testing.assert_array_equal(again[1], instances)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_planes_and_volumes_are_numbered_like_scikit_images(tmp_path: Path, dims: int) -> None:
    architecture = UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 2})
    model = save_random_model(tmp_path / "model", architecture, seed={2: 3, 3: 1}[dims])
    image = np.random.default_rng(1).gamma(2, 100, (2, 9 if dims == 3 else 3, 40, 37)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata={"axes": "TZYX"}, ome=True, photometric="minisblack")
    found = [
        labels(tmp_path / "a.ome.tif", tmp_path / str(tile), tile=tile, scheduler="serial", model=model)
        for tile in (6, 16, 64)
    ]
    semantic, instances = found[0]
    expected, count = np.zeros(semantic.shape, dtype=np.int64), 0
    for index in np.ndindex(*semantic.shape[: 4 - dims]):
        part = measure.label(semantic[index] == 1, connectivity=1)
        expected[index] = np.where(part > 0, part + count, 0)
        count += part.max()
    assert count > 10
    np.testing.assert_array_equal(instances, expected)
    for again in found[1:]:
        np.testing.assert_array_equal(again[0], semantic)
        np.testing.assert_array_equal(again[1], instances)
