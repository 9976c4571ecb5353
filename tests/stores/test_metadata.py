from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from pipeline.geometry import Box
from pipeline.stores.arrays import ResultArray
from pipeline.stores.metadata import (
    Space,
    relative_source,
    write_image_group,
    write_label_group,
    write_labels_as_image,
    write_labels_list,
)
from tests.stores.strategies import write_pyramid

FULL = Space(
    "TCZYX", (2.5, 1.0, 0.75, 0.25, 0.25), (0.0, 0.0, 1.5, 10.0, -3.0),
    ("second", None, "micrometer", "micrometer", "micrometer"),
)  # fmt: skip
CLASSES = ("background", "interior", "boundary")
SHAPES = {
    "YX": (1, 1, 1, 90, 70),
    "CYX": (1, 2, 1, 90, 70),
    "ZYX": (1, 1, 3, 90, 70),
    "TCZYX": (2, 2, 3, 90, 70),
}


def space_of(axes: str) -> Space:
    kept = [at for at, axis in enumerate(FULL.axes) if axis in axes]
    return Space(
        axes,
        tuple(FULL.scale[at] for at in kept),
        tuple(FULL.translation[at] for at in kept),
        tuple(FULL.units[at] for at in kept),
    )


def pixels(shape: tuple[int, ...], dtype: str, highest: int) -> NDArray[Any]:
    return np.random.default_rng(7).integers(0, highest, shape).astype(dtype)


def make_result(result: Path, axes: str = "CYX", image: bool = True, probabilities: bool = True) -> None:
    """Write everything that a result can hold."""
    time, channels, *spatial = SHAPES[axes]
    space = space_of(axes)
    flat = space.without_channels()
    levels = 0
    if image:
        specs = write_pyramid(result, "", axes, pixels(SHAPES[axes], "uint16", 4000), 16, 32, "mean", 24)
        levels = len(specs)
        names = ("DAPI", "actin")[:channels]
        write_image_group(result, space, "a", levels, names, ((0.0, 65535.0, 90.0, 3500.0),) * channels)
    for name, dtype, highest in (("semantic", "uint8", 3), ("instances", "uint32", 2**31)):
        labels = pixels((time, *spatial), dtype, highest)
        specs = write_pyramid(result, f"labels/{name}", flat.axes, labels, 16, 48, "nearest", 24)
        levels = len(specs)
        classes = CLASSES if name == "semantic" else ()
        write_label_group(result / "labels" / name, flat, name, levels, "../../" if image else None, classes)
    write_labels_list(result / "labels", ["semantic", "instances"])
    if not image:
        write_labels_as_image(result, flat, "a", levels)
    if probabilities:
        scored = space_of("".join(axis for axis in "TCZYX" if axis in axes or axis == "C"))
        scores = pixels((time, 3, *spatial), "float16", 2)
        specs = write_pyramid(result, "probabilities", scored.axes, scores, 16, 32, "mean", 2000)
        contrast = ((0.0, 1.0, 0.0, 1.0),) * 3
        write_image_group(result / "probabilities", scored, "probabilities", len(specs), CLASSES, contrast)


def run(*command: str) -> str:
    """Run a command of this environment; fails if it does."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([str(program), *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("image", [True, False], ids=["with image", "without image"])
@pytest.mark.parametrize("axes", ["CYX", "TCZYX"])
def test_both_validators_accept_every_group(tmp_path: Path, axes: str, image: bool) -> None:
    result = tmp_path / "a.ome.zarr"
    make_result(result, axes, image)
    for group in ("", "labels", "labels/semantic", "labels/instances", "probabilities"):
        assert "Valid" in run("ome-zarr-models", "validate", str(result / group))
        assert "Valid" in run("yaozarrs", "validate", str(result / group))


# yaozarrs does not look whether the levels of labels exist.
@pytest.mark.parametrize(
    ("command", "group"), [("ome-zarr-models", ""), ("ome-zarr-models", "labels/instances"), ("yaozarrs", "")]
)
def test_the_validators_notice_a_missing_level(tmp_path: Path, command: str, group: str) -> None:
    make_result(tmp_path)
    shutil.rmtree(tmp_path / group / "1")
    with pytest.raises(AssertionError, match=r"Invalid|failed"):
        run(command, "validate", str(tmp_path / group))


@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("image", [True, False], ids=["with image", "without image"])
def test_the_reference_reader_finds_image_and_labels(tmp_path: Path, axes: str, image: bool) -> None:
    result = tmp_path / "a.ome.zarr"
    make_result(result, axes, image, probabilities=False)
    location = parse_url(result)
    assert location is not None
    nodes = {node.zarr.basename(): node for node in Reader(location)()}
    root = nodes["a.ome.zarr"]
    flat = axes.replace("C", "")
    shown = axes if image else flat
    assert root.data[0].shape == tuple(
        length for axis, length in zip("TCZYX", SHAPES[axes], strict=True) if axis in shown
    )
    assert {"semantic", "instances"} <= set(nodes)
    assert [axis["name"] for axis in nodes["instances"].metadata["axes"]] == list(flat.lower())
    assert nodes["instances"].data[0].dtype == np.uint32


def test_dask_and_plain_zarr_read_what_was_written(tmp_path: Path) -> None:
    make_result(tmp_path)
    labels = pixels((1, 1, 90, 70), "uint32", 2**31)[0, 0]
    np.testing.assert_array_equal(da.from_zarr(tmp_path / "labels/instances/0").compute(), labels)
    opened = zarr.open_group(tmp_path, mode="r")["labels/instances/1"]
    assert isinstance(opened, zarr.Array)
    np.testing.assert_array_equal(opened[:], labels[::2, ::2])


def ome(group: Path) -> Any:  # noqa: ANN401 (JSON)
    return zarr.open_group(group, mode="r").attrs.asdict()["ome"]


def transforms_of(group: Path) -> list[tuple[list[float], list[float]]]:
    """Give scale and translation of each level."""
    pairs = [dataset["coordinateTransformations"] for dataset in ome(group)["multiscales"][0]["datasets"]]
    return [(scale["scale"], translation["translation"]) for scale, translation in pairs]


@pytest.mark.parametrize("group", ["", "labels/instances"])
def test_pixels_of_coarser_levels_lie_where_their_metadata_say(tmp_path: Path, group: str) -> None:
    """A ramp says by its values where each pixel's light came from, in pixels of the full resolution."""
    ramp = np.broadcast_to(np.arange(64.0) * 8, (1, 1, 1, 64, 64)).copy()
    if group:
        specs = write_pyramid(tmp_path, group, "YX", ramp[0].astype(np.uint32), 16, 32, "nearest", 8)
        write_label_group(tmp_path / group, space_of("YX"), "instances", len(specs), None)
    else:
        specs = write_pyramid(tmp_path, "", "YX", ramp, 16, 32, "mean", 8)
        write_image_group(tmp_path, space_of("YX"), "a", len(specs), ("DAPI",), ((0.0, 1.0, 0.0, 1.0),))
    transforms = transforms_of(tmp_path / group)
    assert len(specs) == len(transforms) == 4
    for spec, (scale, translation) in zip(specs, transforms, strict=True):
        values = ResultArray(tmp_path, spec).read(Box.whole(spec.shape)).reshape(spec.shape[-2:])[0]
        physical = translation[1] + scale[1] * np.arange(values.size)
        np.testing.assert_allclose(physical, FULL.translation[4] + FULL.scale[4] * values / 8, rtol=0, atol=1e-12)


def test_axes_carry_their_types_and_units(tmp_path: Path) -> None:
    make_result(tmp_path, "TCZYX", probabilities=False)
    assert ome(tmp_path)["multiscales"][0]["axes"] == [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "c", "type": "channel"},
        {"name": "z", "type": "space", "unit": "micrometer"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]


def test_channels_carry_names_and_contrast(tmp_path: Path) -> None:
    make_result(tmp_path, "CYX")
    channels = ome(tmp_path)["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["DAPI", "actin"]
    assert channels[0]["window"] == {"min": 0.0, "max": 65535.0, "start": 90.0, "end": 3500.0}
    assert len({channel["color"] for channel in channels}) == 2
    assert [channel["label"] for channel in ome(tmp_path / "probabilities")["omero"]["channels"]] == list(CLASSES)


def test_labels_carry_source_classes_and_colours(tmp_path: Path) -> None:
    make_result(tmp_path)
    semantic, instances = (ome(tmp_path / "labels" / name)["image-label"] for name in ("semantic", "instances"))
    assert semantic["source"] == instances["source"] == {"image": "../../"}
    assert semantic["version"] == "0.5"
    assert [entry["class"] for entry in semantic["properties"]] == list(CLASSES)
    colours = [tuple(entry["rgba"]) for entry in semantic["colors"]]
    assert [entry["label-value"] for entry in semantic["colors"]] == [0, 1, 2]
    assert colours[0][3] == 0
    assert len(set(colours)) == 3
    assert "colors" not in instances
    assert ome(tmp_path / "labels")["labels"] == ["semantic", "instances"]


def test_more_classes_than_colours_still_have_one_each(tmp_path: Path) -> None:
    write_pyramid(tmp_path, "labels/semantic", "YX", np.zeros((1, 1, 9, 9), dtype=np.uint8), 4, 4, "nearest", 9)
    classes = tuple(f"class {number}" for number in range(20))
    write_label_group(tmp_path / "labels/semantic", space_of("YX"), "semantic", 1, None, classes)
    assert len(ome(tmp_path / "labels/semantic")["image-label"]["colors"]) == 20
    run("yaozarrs", "validate", str(tmp_path / "labels/semantic"))


def test_labels_of_an_image_elsewhere_lead_to_it(tmp_path: Path) -> None:
    image, result = tmp_path / "in" / "image.zarr", tmp_path / "out" / "deep" / "a.ome.zarr"
    make_result(image)
    make_result(result, image=False)
    source = relative_source(result, image)
    write_label_group(result / "labels/instances", space_of("YX"), "instances", 3, source)
    assert source == "../../../../../in/image.zarr"
    assert (result / "labels" / "instances" / source).resolve() == image.resolve()
    run("yaozarrs", "validate", str(result / "labels/instances"))


def test_metadata_written_twice_are_the_same_bytes(tmp_path: Path) -> None:
    make_result(tmp_path / "one")
    make_result(tmp_path / "two")
    for path in (tmp_path / "one").rglob("zarr.json"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
