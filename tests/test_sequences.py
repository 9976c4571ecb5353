"""Images and plates of many files through the pipeline: what comes out is what one file of the same pixels gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray

from pipeline import open_result
from pipeline.results import PlateResult
from pipeline.verify import verify
from tests.plates import BIN, check_valid, parts_of_fields, run, write_plate

WELLS = ("A/01", "C/12")
STATED = {"pixel_size": [0.5, 0.5], "channel_names": ["DAPI", "GFP"]}


@pytest.fixture(scope="module")
def fields() -> list[NDArray[np.uint8]]:
    return parts_of_fields(4)


def write_harmony(folder: Path, fields: list[NDArray[np.uint8]]) -> Path:
    """The same wells and fields as `write_plate` writes, a file for each channel; the second one is dark."""
    folder.mkdir(parents=True)
    for at, field in enumerate(fields):
        row, column = WELLS[at // 2].split("/")
        for channel, image in ((1, field), (2, field // 8)):
            name = f"r{'ABC'.index(row) + 1:02}c{column}f{at % 2 + 1}p01-ch{channel}sk1fk1fl1.tiff"
            tifffile.imwrite(folder / name, image, compression="zlib")
    return folder


def settings(**values: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"channels": ["DAPI"], "sequence": {"pattern": "phenix", **STATED}, **values}


@pytest.mark.slow
def test_a_plate_of_files_gives_what_an_ome_zarr_plate_of_the_same_pixels_gives(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    harmony = write_harmony(tmp_path / "P" / "Images", fields)
    reports = run(bright, tmp_path / "P", tmp_path / "out", **settings())
    assert [(report.name, report.status) for report in reports] == [
        *((f"P/{well}/{field}", "done") for well in WELLS for field in (1, 2)), ("P", "done"),
    ]  # fmt: skip
    plate = open_result(tmp_path / "out" / "P.ome.zarr")
    assert isinstance(plate, PlateResult)
    check_valid(tmp_path / "out" / "P.ome.zarr")
    assert all(check.passed for check in verify(plate.path))
    run(bright, write_plate(tmp_path / "Q.zarr", fields, WELLS), tmp_path / "out")
    other = open_result(tmp_path / "out" / "Q.ome.zarr")
    assert isinstance(other, PlateResult)
    for one, two, pixels in zip(plate.fields, other.fields, fields, strict=True):
        np.testing.assert_array_equal(one.result.instances[0][:], two.result.instances[0][:])
        np.testing.assert_array_equal(one.result.image[0][:], np.stack([pixels, pixels // 8]))
        assert one.result.xarray("image").coords["c"].values.tolist() == ["DAPI", "GFP"]
    columns = ["well", "fields", "objects", "area_median", "area_physical_median", "intensity_mean-0"]
    wells, others = (pd.read_csv(tmp_path / "out" / f"{name}.wells.csv")[columns] for name in "PQ")
    pd.testing.assert_frame_equal(wells, others)
    assert wells["objects"].min() > 0

    # A file of one field is changed: that field alone is of another image, and the others stay.
    name = "r01c01f2p01-ch2sk1fk1fl1.tiff"
    tifffile.imwrite(harmony / name, fields[1] // 4, compression="zlib")
    reports = run(bright, tmp_path / "P", tmp_path / "out", **settings())
    assert [report.status for report in reports] == ["skipped", "failed", "skipped", "skipped", "failed"]
    assert "there is a finished result of another image" in str(reports[1].reason)


@pytest.mark.slow
def test_a_plate_of_an_imagexpress_gives_what_its_pixels_give(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    """Two time points, each a folder, with the identifiers and the thumbnails that the instrument's program adds."""
    guid = "0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F"
    for time in range(2):
        folder = tmp_path / "X" / f"TimePoint_{time + 1}"
        folder.mkdir(parents=True)
        for at, field in enumerate(fields):
            for channel, image in ((1, np.roll(field, time * 9, 1)), (2, field // 8)):
                stem = f"assay_{WELLS[at // 2].replace('/', '')}_s{at % 2 + 1}_w{channel}"
                tifffile.imwrite(folder / f"{stem}{guid}{at}.tif", image)
                tifffile.imwrite(folder / f"{stem}_thumb{guid}{at}.tif", image[::4, ::4])
    own = settings(sequence={"pattern": "imagexpress", **STATED})
    reports = run(bright, tmp_path / "X", tmp_path / "out", **own)
    assert [(report.name, report.status) for report in reports] == [
        *((f"X/{well}/{field}", "done") for well in WELLS for field in (1, 2)), ("X", "done"),
    ]  # fmt: skip
    check_valid(tmp_path / "out" / "X.ome.zarr")
    plate = open_result(tmp_path / "out" / "X.ome.zarr")
    assert isinstance(plate, PlateResult)
    assert all(check.passed for check in verify(plate.path))
    for each, pixels in zip(plate.fields, fields, strict=True):
        movie = np.stack([pixels, np.roll(pixels, 9, 1)])
        tifffile.imwrite(tmp_path / "whole.tif", movie, metadata={"axes": "TYX"}, imagej=True)
        run(bright, tmp_path / "whole.tif", tmp_path / "one", fresh=True)
        whole = open_result(tmp_path / "one" / "whole.ome.zarr")
        np.testing.assert_array_equal(each.result.instances[0][:], whole.instances[0][:])
        assert each.result.image[0].shape == (2, 2, 150, 170)
    wells = pd.read_csv(tmp_path / "out" / "X.wells.csv")
    assert wells["well"].tolist() == ["A01", "C12"]
    assert wells["objects"].tolist() == [
        sum(each.result.objects or 0 for each in plate.wells[well]) for well in wells["well"]
    ]


def test_a_field_with_a_missing_file_keeps_the_plate_unfinished(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    folder, away = write_harmony(tmp_path / "P", fields), tmp_path / "away.tiff"
    name = "r03c12f2p01-ch2sk1fk1fl1.tiff"
    shutil.move(folder / name, away)
    plane = folder / "r03c12f2p01-ch1sk1fk1fl1.tiff"
    shutil.copy(plane, folder / plane.name.replace("p01", "p02"))
    shutil.copy(plane, folder / name.replace("p01", "p02"))
    reports = run(bright, folder, tmp_path / "out", **settings())
    assert [report.status for report in reports] == ["done", "done", "done", "failed", "failed"]
    assert "1 of the 4 files of its image are missing, first that of time 1, channel 2, z 01" in str(reports[3].reason)
    assert not (tmp_path / "out" / "P.ome.zarr").exists()
    shutil.move(away, folder / name)
    reports = run(bright, folder, tmp_path / "out", **settings())
    assert [report.status for report in reports] == ["skipped", "skipped", "skipped", "done", "done"]
    result = open_result(tmp_path / "out" / "P.ome.zarr" / "C/12/2")
    assert result.instances[0].shape == (2, 150, 170)


@pytest.mark.slow
def test_a_series_of_files_by_the_command_line_and_its_result_without_a_copy(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]
) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    movie = np.stack(fields[:3])
    for time, frame in enumerate(movie):
        tifffile.imwrite(folder / f"img_{time:03}.tif", frame)
    tifffile.imwrite(tmp_path / "whole.tif", movie, metadata={"axes": "TYX"}, imagej=True)
    options = ["-m", bright, "--direct", "--scheduler", "serial", "--tile", "96", "--no-image"]
    command: list[str | Path] = [BIN / "seamfree", "run", folder, "--sequence", "img_{time}.tif", *options]
    command += ["-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run(bright, tmp_path / "whole.tif", tmp_path / "out")
    result, whole = (open_result(tmp_path / "out" / f"{name}.ome.zarr") for name in ("scan", "whole"))
    np.testing.assert_array_equal(result.instances[0][:], whole.instances[0][:])
    assert result.provenance["input"] == str(folder / "img_{time}.tif")
    np.testing.assert_array_equal(result.dask("image").compute(), movie)
    assert all(check.passed and check.made for check in verify(result.path))
    (folder / "img_002.tif").unlink()
    seen = {check.what: check for check in verify(result.path)}
    assert (seen["seams"].made, seen["seams"].passed) == (False, True)


def test_a_plate_of_files_has_no_place_for_labels(tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]) -> None:
    folder = write_harmony(tmp_path / "P", fields[:2])
    reports = run(bright, folder, tmp_path / "out", **settings(output={"in_place": True}))
    assert {(report.status, str(report.reason).partition(": ")[2]) for report in reports} == {
        ("failed", "--in-place is for OME-Zarr, and this is a plate of files; leave it out")
    }


def test_what_is_stated_of_an_image_must_fit_it(tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]]) -> None:
    folder = write_harmony(tmp_path / "P", fields[:2])
    names = {"pattern": "phenix", "channel_names": ["DAPI"]}
    report = run(bright, folder, tmp_path / "out", sequence=names)[0]
    assert "sequence.channel_names has 1 names, and the image 2 channels: ch1, ch2" in str(report.reason)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "plan"])
def test_what_is_stated_for_images_of_many_files_is_refused_for_others_before_any_work(
    tmp_path: Path, bright: str, fields: list[NDArray[np.uint8]], command: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", fields[0])
    (tmp_path / "my.yaml").write_text("sequence: {pixel_size: [1, 1]}")
    given = [command, "a.tif", "-m", bright, "-c", "my.yaml", *(["-o", "out"] if command == "run" else [])]
    told = subprocess.run([BIN / "seamfree", *given], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr.splitlines() == [
        "seamfree: a.tif: sequence.pixel_size and sequence.channel_names are for images of many files; leave them out"
    ]
    assert not (tmp_path / "out").exists()
