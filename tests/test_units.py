"""Axes of different units, and of none: objects depend on the size of a pixel, not on how it is written or stated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.errors import ConfigError
from pipeline.verify import verify
from tests.fields import compose, load_fields
from tests.plates import parts_of_fields, run, write_plate


def test_the_watershed_parts_the_same_objects_whatever_units_the_axes_have(tmp_path: Path) -> None:
    image = compose(load_fields(), (380, 420), seed=2)
    found = []
    for name, size, unit in (("one", 0.65, "µm"), ("mixed", 650.0, "nm")):
        metadata = {"axes": "YX", "PhysicalSizeY": size, "PhysicalSizeYUnit": unit, "PhysicalSizeX": 0.65,
                    "PhysicalSizeXUnit": "µm"}  # fmt: skip
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", image, ome=True, metadata=metadata)
        config = make_config({"instances": {"method": "watershed"}, "execution": {"scheduler": "serial"}})
        (report,) = segment(tmp_path / f"{name}.ome.tif", tmp_path / "out", config)
        assert report.result is not None, report.reason
        result = open_result(report.result)
        assert result.provenance["plan"]["spacing"] == [1, 1]
        found.append(result)
    assert (found[0].objects or 0) > 5
    np.testing.assert_array_equal(np.asarray(found[0].instances[0]), np.asarray(found[1].instances[0]))
    np.testing.assert_allclose(found[0].table["area_physical"], found[1].table["area_physical"])


@pytest.mark.slow
def test_a_pixel_size_is_stated_for_images_that_do_not_say_theirs(tmp_path: Path, bright: str) -> None:
    field = parts_of_fields(1)[0]
    said = {"axes": "YX", "PhysicalSizeY": 0.25, "PhysicalSizeX": 0.25}
    tifffile.imwrite(tmp_path / "bare.tif", field)
    tifffile.imwrite(tmp_path / "told.ome.tif", field, ome=True, metadata=said)
    tifffile.imwrite(tmp_path / "half.ome.tif", field, ome=True, metadata=said | {"PhysicalSizeX": 0.5})
    for image in ("none", "auto"):
        reports = run(bright, tmp_path, tmp_path / image, pixel_size=[0.5, 0.5], output={"image": image})
        assert {report.status for report in reports} == {"done"}, reports
        bare, told, half = (open_result(tmp_path / image / f"{name}.ome.zarr") for name in ("bare", "told", "half"))
        area = bare.table["area"]
        for result, size in ((bare, 0.25), (told, 0.0625), (half, 0.125)):
            np.testing.assert_allclose(result.table["area_physical"], area * size)
            assert result.units["area_physical"] == "micrometer²"
        for name in ("image", "instances"):
            axis = bare.xarray(name)["x"]
            assert axis.attrs["units"] == "micrometer"
            assert float(axis[1] - axis[0]) == 0.5
        assert all(check.passed for check in verify(bare.path))
    # What is stated otherwise afterwards is told, and changes nothing.
    (report,) = run(bright, tmp_path / "bare.tif", tmp_path / "auto", pixel_size=[0.6, 0.6])
    assert report.status == "skipped"
    assert "a finished result with other settings: input pixel size differs" in str(report.reason)
    (report,) = run(bright, tmp_path / "told.ome.tif", tmp_path / "auto", pixel_size=[0.6, 0.6])
    assert report.reason == "there is a finished result; use --fresh to make it again"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_stated_pixel_size_moves_no_labels_away_from_their_image(tmp_path: Path, bright: str, in_place: bool) -> None:
    """An OME-Zarr that labels become part of says itself where they lie."""
    plate = write_plate(tmp_path / "P.zarr", parts_of_fields(1), wells=("A/01",), per_well=1)
    place = plate / "A" / "01" / "0" / "zarr.json"
    described = json.loads(place.read_text())
    for axis in described["attributes"]["ome"]["multiscales"][0]["axes"]:
        del axis["unit"]
    place.write_text(json.dumps(described))
    reports = run(bright, plate, tmp_path / "out", pixel_size=[0.3, 0.3], output={"in_place": in_place})
    assert {report.status for report in reports} == ({"failed"} if in_place else {"done"})
    assert ("pixel_size is not for labels that become part of an image" in str(reports[0].reason)) == in_place


def test_a_size_without_a_unit_gives_way_to_the_stated_one_and_places_go_with_it(
    tmp_path: Path, bright: str, caplog: pytest.LogCaptureFixture
) -> None:
    field = parts_of_fields(1)[0]
    plate = write_plate(tmp_path / "P.zarr", [field], wells=("A/01",), per_well=1)
    image = tmp_path / "a.ome.zarr"
    (plate / "A" / "01" / "0").rename(image)
    described = json.loads((image / "zarr.json").read_text())
    multiscale = described["attributes"]["ome"]["multiscales"][0]
    names = [axis["name"] for axis in multiscale["axes"]]
    for axis in multiscale["axes"]:
        axis.pop("unit", None)
    for level in multiscale["datasets"]:
        level["coordinateTransformations"] = [
            {"type": "scale", "scale": [0.25 if name in "yx" else 1.0 for name in names]},
            {"type": "translation", "translation": [{"y": 100.0, "x": 50.0}.get(name, 0.0) for name in names]},
        ]
    multiscale["datasets"] = multiscale["datasets"][:1]
    (image / "zarr.json").write_text(json.dumps(described))
    (report,) = run(bright, image, tmp_path / "out", pixel_size=[0.5, 0.5])
    assert report.status == "done", report.reason
    assert "it says 0.25 without a unit along Y, which is taken for the 0.5 micrometers of pixel_size" in caplog.text
    result = open_result(tmp_path / "out" / "a.ome.zarr")
    for axis, place in (("y", 200.0), ("x", 100.0)):
        along = result.xarray("instances")[axis]
        assert (float(along[0]), float(along[1] - along[0])) == (place, 0.5)
    centroids = result.table[["centroid-0", "centroid-1"]].to_numpy()
    physical = result.table[["centroid_physical-0", "centroid_physical-1"]].to_numpy()
    np.testing.assert_allclose(physical, [200.0, 100.0] + 0.5 * centroids, rtol=1e-5)
    # The image of an export lies where its labels do, though it says nothing itself.
    result.write_ome_tiff(tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.ome_metadata is not None
        sizes = re.findall(r'PhysicalSizeX="([^"]*)"', file.ome_metadata)
    assert sizes == ["0.5"] * 3


def test_a_stated_size_that_is_not_used_is_told(tmp_path: Path, bright: str, caplog: pytest.LogCaptureFixture) -> None:
    metadata = {"axes": "YX", "PhysicalSizeY": 325.0, "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 0.65}
    tifffile.imwrite(tmp_path / "a.ome.tif", parts_of_fields(1)[0], ome=True, metadata=metadata)
    (report,) = run(bright, tmp_path / "a.ome.tif", tmp_path / "out", pixel_size=[0.65, 0.65])
    assert report.status == "done", report.reason
    assert "it says 325 nanometer along Y, and the 0.65 micrometers of pixel_size are not used" in caplog.text
    assert "along X" not in caplog.text
    caplog.clear()
    (report,) = run(bright, tmp_path / "a.ome.tif", tmp_path / "same", pixel_size=[0.325, 0.65])
    assert (report.status, caplog.text) == ("done", "")


@pytest.mark.parametrize(
    "size", [[0.0, 1.0], [1e-320, 1.0], [1.0, 1e160], [True, True], ["0.5", "0.5"], [1.0], [1.0] * 4]
)
def test_a_size_that_is_none_is_refused(size: list[object]) -> None:
    with pytest.raises(ConfigError, match="pixel_size"):
        make_config({"pixel_size": size})
