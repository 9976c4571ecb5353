"""What other people's readers of OME-Zarr make of results: pixels, axes, sizes and places, levels and labels.

Those that the lock has run always; napari-ome-zarr and spatialdata, which bring a desktop and much else, where they are
installed.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline import open_result, segment
from pipeline.config import make_config
from tests.fields import load_fields
from tests.random_models import save_threshold_model

UNITS = {"z": "micrometer", "y": "micrometer", "x": "micrometer"}
NAMES = ["DNA", "membrane"]
SCALE = [2.0, 0.5, 0.25]
PLACE = [7.0, -100.25, 3000.0]


@dataclass
class Level:
    """What a reader says of one level; None for what it does not tell."""

    axes: str
    scale: list[float] | None
    place: list[float] | None
    pixels: NDArray[Any]


@dataclass
class Seen:
    """What a reader says of a pyramid: its levels, units by axis, and names of channels."""

    levels: list[Level]
    units: dict[str, str] | None
    names: list[str] | None = None


Read = Callable[[Path], tuple[Seen, Seen]]


def ome_zarr(path: Path) -> tuple[Seen, Seen]:
    from ome_zarr.format import FormatV04, FormatV05
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    location = parse_url(path, fmt=FormatV04() if (path / ".zattrs").exists() else FormatV05())
    assert location is not None
    nodes = {node.zarr.basename(): node for node in Reader(location)()}
    found = []
    for name in (path.name, "instances"):
        metadata = nodes[name].metadata
        axes = "".join(axis["name"] for axis in metadata["axes"])
        units = {axis["name"]: axis["unit"] for axis in metadata["axes"] if "unit" in axis}
        levels = []
        for data, steps in zip(nodes[name].data, metadata["coordinateTransformations"], strict=True):
            told = {step["type"]: step[step["type"]] for step in steps}
            levels.append(Level(axes, told["scale"], told["translation"], data.compute()))
        found.append(Seen(levels, units, metadata.get("channel_names")))
    return found[0], found[1]


def ngff_zarr(path: Path) -> tuple[Seen, Seen]:
    from ngff_zarr import from_ngff_zarr

    found = []
    for group in (path, path / "labels" / "instances"):
        read = from_ngff_zarr(str(group))
        levels = [
            Level("".join(each.dims), [*each.scale.values()], [*each.translation.values()], each.data.compute())
            for each in read.images
        ]
        units = {axis: unit for axis, unit in (read.images[0].axes_units or {}).items() if unit}
        omero = read.metadata.omero
        found.append(Seen(levels, units, None if omero is None else [str(channel.label) for channel in omero.channels]))
    return found[0], found[1]


def bioio(path: Path) -> tuple[Seen, Seen]:
    from bioio_ome_zarr import Reader

    found = []
    for group in (path, path / "labels" / "instances"):
        reader = Reader(str(group))
        axes = reader.dims.order
        levels = []
        for level in reader.resolution_levels:
            reader.set_resolution_level(level)
            scale = [getattr(reader.scale, axis) for axis in axes]
            levels.append(Level(axes.lower(), scale, None, reader.data))
        told = {axis.lower(): getattr(reader.dimension_properties, axis).unit for axis in axes if axis in "ZYX"}
        found.append(Seen(levels, {axis: str(unit) for axis, unit in told.items()}, reader.channel_names))
    return found[0], found[1]


def ngio(path: Path) -> tuple[Seen, Seen]:
    from ngio import open_ome_zarr_container

    container = open_ome_zarr_container(path)

    def read(get: Callable[[str], Any]) -> Seen:
        levels = []
        for level in container.level_paths:
            image = get(level)
            told = image.dataset
            levels.append(Level("".join(image.axes), [*told.scale], [*told.translation], image.get_as_numpy()))
        return Seen(levels, None)

    image = read(lambda level: container.get_image(path=level))
    image.names = list(container.channel_labels)
    return image, read(lambda level: container.get_label("instances", path=level))


def napari(path: Path) -> tuple[Seen, Seen]:
    """Sizes of the finest level only, for napari finds those of the others; the plugin leaves places out."""
    from napari_ome_zarr import napari_get_reader

    found = {}
    for levels, told, kind in napari_get_reader(str(path))():
        axes = "".join(told["axis_labels"])
        scales = [[*told["scale"]], *[None] * (len(levels) - 1)]
        if "channel_axis" in told:
            axes, scales = f"c{axes}", [[1.0, *each] if each else None for each in scales]
        seen = [Level(axes, scale, None, np.asarray(level)) for level, scale in zip(levels, scales, strict=True)]
        names = [name.rpartition(": ")[2] for name in told["name"]] if kind == "image" else None
        found["image" if kind == "image" else told["name"].rpartition("/")[2]] = Seen(
            seen, dict(zip(told["axis_labels"], told["units"], strict=True)), names
        )
    return found["image"], found["instances"]


def spatialdata(path: Path) -> tuple[Seen, Seen]:
    """Elements of the arrays that `open_result` gives, for spatialdata reads no OME-Zarr but its own.

    Sizes and places are the transformations that whoever makes an element gives it.
    """
    from spatialdata.models import Image3DModel, Labels3DModel

    result = open_result(path)
    found = []
    for name, model in (("image", Image3DModel), ("instances", Labels3DModel)):
        levels = []
        for level in range(2):
            given = result.xarray(name, level)
            element = model.parse(given, c_coords=given.coords["c"].values.tolist() if name == "image" else None)
            levels.append(Level("".join(element.dims), None, None, element.values))
        names = [str(each) for each in element.coords["c"].values] if name == "image" else None
        found.append(Seen(levels, None, names))
    return found[0], found[1]


READERS: dict[str, tuple[Read, str]] = {
    "ome-zarr-py": (ome_zarr, "ome_zarr"),
    "ngff-zarr": (ngff_zarr, "ngff_zarr"),
    "bioio-ome-zarr": (bioio, "bioio_ome_zarr"),
    "ngio": (ngio, "ngio"),
    "napari-ome-zarr": (napari, "napari_ome_zarr"),
    "spatialdata": (spatialdata, "spatialdata"),
}


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint16]:
    """CZYX."""
    field = load_fields()[0][:210, :290]
    return np.stack([[field, field[::-1]], [field // 2, field // 3]]).astype(np.uint16) * 16


@pytest.fixture(scope="module", params=["0.5", "0.4"])
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, image: NDArray[np.uint16]) -> Path:
    """Of an OME-Zarr that lies somewhere, with a copy of the image, in either version."""
    folder = tmp_path_factory.mktemp("readers")
    axes: Any = [
        {"name": "c", "type": "channel"},
        *({"name": a, "type": "space", "unit": unit} for a, unit in UNITS.items()),
    ]
    steps: Any = [{"type": "scale", "scale": [1.0, *SCALE]}, {"type": "translation", "translation": [0.0, *PLACE]}]
    group = zarr.open_group(folder / "a.ome.zarr", mode="w", zarr_format=3)
    group.create_array("full", data=image, chunks=(1, 1, 100, 100), dimension_names=list("czyx"))
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "full", "coordinateTransformations": steps}]}],
        "omero": {"channels": [{"label": name} for name in NAMES]},
    }
    settings = {
        "model": save_threshold_model(folder / "bright", 2), "tile": 96, "channels": ["DNA"],
        "execution": {"scheduler": "serial"}, "output": {"image": "copy", "ome_zarr": request.param},
    }  # fmt: skip
    (report,) = segment(folder / "a.ome.zarr", folder / "out", make_config(settings))
    assert report.status == "done", report.reason
    return Path(str(report.result))


@pytest.mark.filterwarnings("ignore")  # those of the readers
@pytest.mark.parametrize("name", READERS)
def test_a_reader_sees_what_was_written(name: str, result: Path, image: NDArray[np.uint16]) -> None:
    read, module = READERS[name]
    if name in ("napari-ome-zarr", "spatialdata"):
        pytest.importorskip(module, reason=f"{name} is not part of the lock: pip install {name}")
    importlib.import_module(module)
    opened = open_result(result)
    assert opened.objects
    np.testing.assert_array_equal(opened.image[0][:], image)
    image_seen, labels_seen = read(result)
    # The mean of two pixels lies between them; every second label lies where it was.
    for seen, own, axes, ahead, shift in (
        (image_seen, opened.image, "czyx", 1, (0.0, 0.25, 0.125)),
        (labels_seen, opened.instances, "zyx", 0, (0.0, 0.0, 0.0)),
    ):
        assert len(seen.levels) == len(own) == 2
        for number, (level, array) in enumerate(zip(seen.levels, own, strict=True)):
            assert level.axes == axes
            assert level.pixels.dtype == array.dtype
            np.testing.assert_array_equal(level.pixels, array[:])
            steps = (1, 2**number, 2**number)
            scale = [*[1.0] * ahead, *(size * step for size, step in zip(SCALE, steps, strict=True))]
            place = [*[0.0] * ahead, *(start + number * by for start, by in zip(PLACE, shift, strict=True))]
            assert level.scale in (None, scale)
            assert level.place in (None, place)
        assert seen.units in (None, UNITS)
        assert seen.names in (None, NAMES if axes == "czyx" else None)


@pytest.mark.filterwarnings("ignore")  # those of the reader
def test_elements_and_exports_are_taken_by_spatialdata(
    tmp_path: Path, image: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the README, and what its readers make of files that are exported."""
    library = pytest.importorskip("spatialdata", reason="not part of the lock: pip install spatialdata spatialdata-io")
    readers = pytest.importorskip("spatialdata_io", reason="not part of the lock: pip install spatialdata-io")
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.ome.tif", image[:, 0], metadata={"axes": "CYX", "Channel": {"Name": NAMES}})
    settings = {"model": save_threshold_model(tmp_path / "bright", 2), "tile": 96, "channels": ["DNA"],
                "execution": {"scheduler": "serial"}}  # fmt: skip
    (report,) = segment("a.ome.tif", "results", make_config(settings))
    assert report.status == "done", report.reason
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import SpatialData" in each)
    names: dict[str, Any] = {}
    exec(code, names)
    result, sdata = names["result"], names["sdata"]
    np.testing.assert_array_equal(sdata["image"].values, image[:, 0])
    np.testing.assert_array_equal(sdata["objects"].values, result.instances[0][:])
    areas = library.get_values("area", sdata=sdata, element_name="objects", table_name="measurements")["area"]
    assert areas.to_dict() == result.table["area"].to_dict()
    result.write_geojson("a.geojson")
    result.write_ome_tiff("out.ome.tif")
    outlines = readers.geojson(tmp_path / "a.geojson", coordinate_system="global")
    assert outlines.area.tolist() == result.table["area"].tolist()
    read = readers.image(tmp_path / "out.ome.tif", data_axes=("c", "y", "x"), coordinate_system="global")
    np.testing.assert_array_equal(np.asarray(read.values), image[:, 0])
