"""Plates as inputs: their fields are found and are images, whatever else is in the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError, ImageError
from pipeline.images.discover import discover
from pipeline.images.opening import open_image
from pipeline.images.plates import is_plate, read_plate
from pipeline.inspection import describe_plate, draw_plate
from tests.plates import write_plate

IMAGE = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)


@pytest.fixture(params=["0.4", "0.5"])
def plate(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    version: Literal["0.4", "0.5"] = request.param
    return write_plate(tmp_path / "in" / "P.zarr", [IMAGE], ("A/01", "B/03"), 2, version)


def rewrite(folder: Path, old: str, new: str) -> None:
    path = next(folder / name for name in (".zattrs", "zarr.json") if (folder / name).exists())
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_the_fields_of_a_plate_are_images(plate: Path) -> None:
    for given in (str(plate), str(plate.parent), f"{plate.parent}/*.zarr"):
        images = discover([given])
        assert [image.name for image in images] == ["P/A/01/0", "P/A/01/1", "P/B/03/0", "P/B/03/1"]
        assert [image.place for image in images][:2] == ["P.ome.zarr/A/01/0", "P.ome.zarr/A/01/1"]
        assert {image.plate for image in images} == {"P"}
        for image in images:
            source = open_image(image.path)
            assert source.info.shape == (1, 1, 1, 40, 50)
            assert source.info.pixel_size[3:] == (0.5, 0.5)


def test_a_plate_in_a_folder_keeps_its_relative_path(plate: Path) -> None:
    names = [image.place for image in discover([str(plate.parents[1])])]
    assert names[0] == "in/P.ome.zarr/A/01/0"


def test_a_field_can_be_given_by_itself(plate: Path) -> None:
    (image,) = discover([str(plate / "B" / "03" / "1")])
    assert (image.name, image.plate) == ("1", "")


def test_wells_and_acquisitions_are_read(plate: Path) -> None:
    layout = read_plate(plate)
    assert is_plate(plate)
    assert [(field.row, field.column, field.name, field.acquisition) for field in layout.fields][2] == (
        "B",
        "03",
        "0",
        0,
    )
    assert layout.described["name"] == "a plate"
    with pytest.raises(ImageError, match=r"this is a plate; give the image of a well, such as .*P\.zarr/A/01/0"):
        open_image(plate)


@pytest.mark.parametrize("damage", ["gone", "no json", "no images", "leads elsewhere"])
def test_a_well_that_cannot_be_read_fails_by_itself(plate: Path, damage: str) -> None:
    well = plate / "A" / "01"
    if damage == "gone":
        shutil.rmtree(well)
    elif damage == "no json":
        next(well / name for name in (".zattrs", "zarr.json") if (well / name).exists()).write_text("{")
    elif damage == "no images":
        rewrite(well, "images", "imagine")
    else:
        rewrite(well, '"path": "0"', '"path": "../../B/03/0"')
    images = discover([str(plate)])
    assert [image.name for image in images] == ["P/B/03/0", "P/B/03/1", "P/A/01"]
    with pytest.raises(ImageError, match=r"A/01"):
        open_image(images[-1].path)


@pytest.mark.parametrize("path", ["../../B/03", "/etc/x", "A", "A/01/0", "A/..", ""])
def test_a_plate_whose_wells_lie_elsewhere_is_refused_as_a_whole(plate: Path, path: str) -> None:
    rewrite(plate, '"path": "A/01"', f'"path": {json.dumps(path)}')
    (image,) = discover([str(plate)])
    assert image.path == str(plate)
    with pytest.raises(ImageError, match="invalid plate metadata: the well"):
        open_image(image.path)


def test_an_image_and_a_plate_cannot_share_a_result(plate: Path) -> None:
    (plate.parent / "P.tif").write_bytes(b"")
    with pytest.raises(ConfigError, match="would share the result"):
        discover([str(plate.parent)])


def test_inspect_draws_the_layout(plate: Path) -> None:
    shutil.rmtree(plate / "B" / "03")
    found = describe_plate(plate)
    assert found["wells"] == {"A/01": ["0", "1"]}
    assert found["unreadable"] == ["B/03"]
    assert found["image"]["shape"] == (1, 1, 1, 40, 50)
    assert draw_plate(found) == ["   01  03", "A   2   ·", "B   ·   ?"]
    shown = CliRunner().invoke(app, ["inspect", str(plate)])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines()[-3:] == draw_plate(found)
    assert json.loads(CliRunner().invoke(app, ["inspect", str(plate), "--json"]).stdout)["wells"] == found["wells"]
