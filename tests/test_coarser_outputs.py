"""P1 for classifiers of patches, slid over an image: a result is what the classifier says of each window by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from skimage.measure import label
from torch import nn
from typer.testing import CliRunner

from pipeline import open_result, segment
from pipeline.cli import app
from pipeline.config import make_config
from pipeline.geometry import mirror_indices
from pipeline.models.facts import learn_facts
from pipeline.models.network import NetworkUse
from tests.models.classifiers import Branching, Classifier, make, slide
from tests.models.foreign import exported, save_foreign
from tests.models.packaged import Wish, save_package
from tests.models.zoo import ZOO
from tests.test_seams import TOLERANCE, real_looking

FACTORY = "tests.models.classifiers:make"

EVEN: dict[str, Any] = {"stages": [[3, 1, 2], [3, 1, 2]], "extent": [5, 5]}
ODD: dict[str, Any] = {"stages": [[2, 1, 2]], "extent": [5, 5], "hidden": [4]}
FLAT: dict[str, Any] = {"dims": 3, "stages": [[2, 1, 2]], "extent": [1, 3, 3], "end": "view"}
GLOBAL: dict[str, Any] = {"stages": [[3, 2, 1]], "extent": [4, 4], "end": "global"}

CASES: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    # how it is made, its window, its stride, the image
    "window of 26, stride 4": (EVEN, (26, 26), (4, 4), (1, 1, 47, 61)),
    "window of 11, stride 2": (ODD, (11, 11), (2, 2), (1, 1, 41, 38)),
    "3-D": (FLAT, (3, 7, 7), (2, 2, 2), (1, 7, 18, 15)),
    "global mean": (GLOBAL, (9, 9), (2, 2), (1, 1, 31, 40)),
}

LONGER = ("3-D", "global mean")


def save(
    folder: Path,
    how: dict[str, Any],
    window: tuple[int, ...],
    said: dict[str, Any] | None = None,
) -> tuple[str, Classifier]:
    network = make(**how).eval()
    assert isinstance(network, Classifier)
    # So that scores differ from window to window, and each class wins somewhere.
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    assert last.bias is not None
    with torch.no_grad():
        patches = torch.from_numpy(real_looking((64, 1, *window)).astype(np.float32)) / 1500
        spread, mean = torch.std_mean(network(patches), dim=0)
        last.weight.div_(spread[:, None])
        last.bias.sub_(mean).div_(spread)
    model = save_foreign(
        folder, exported(network, "factory"), "factory", 3, network.dims, arguments=how, **(said or {})
    )
    return model, network


def every_window(
    network: Classifier, image: NDArray[Any], window: tuple[int, ...], stride: tuple[int, ...], low: tuple[int, ...]
) -> NDArray[Any]:
    """Give the probabilities at each pixel of the result; `low` is how far before it a window begins."""
    ndim = len(window)
    bottom, top = np.percentile(image, [1, 99])
    scaled = ((image - np.float64(bottom)) / np.float64(top - bottom)).reshape(image.shape[-ndim:])
    lengths: tuple[int, ...] = scaled.shape
    indices = [
        mirror_indices(-before, (-(-length // by) - 1) * by - before + edge, length)
        for before, length, by, edge in zip(low, lengths, stride, window, strict=True)
    ]
    with torch.no_grad():
        raw = slide(network.double(), torch.from_numpy(scaled[np.ix_(*indices)][None, None]), window, stride)
    return np.asarray(raw[0].softmax(dim=0))


@pytest.mark.slow
@pytest.mark.parametrize("resolution", ["network", "image"])
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case in LONGER else []) for case in CASES]
)
def test_tiled_scores_are_what_the_classifier_says_of_each_window(tmp_path: Path, case: str, resolution: str) -> None:
    how, window, stride, shape = CASES[case]
    said = {"window": list(window)} if case in ("global mean", "3-D") else {}
    model, network = save(tmp_path / "model", how, window, said)
    image = real_looking(shape)
    low = tuple(
        (edge - by + 1) // 2 if resolution == "network" else (edge - 1) // 2
        for edge, by in zip(window, stride, strict=True)
    )
    wanted = every_window(network, image, window, stride if resolution == "network" else (1,) * len(window), low)
    spacing = (2.0, 0.5, 0.25)[-len(window) :]
    tifffile.imwrite(
        tmp_path / "a.ome.tif", image[0] if len(window) == 3 else image[0, 0], ome=True, photometric="minisblack",
        metadata={"axes": "ZYX"[-len(window) :]} | {
            f"PhysicalSize{axis}": size for axis, size in zip("ZYX"[-len(window) :], spacing, strict=True)
        },
    )  # fmt: skip
    settings: dict[str, Any] = {
        "model": model, "factory": FACTORY, "precision": "float64", "execution": {"scheduler": "serial"},
        "fully_convolutional": True, "resolution": resolution, "output": {"probabilities": "float64", "chunk": 16},
    }  # fmt: skip
    for tile in (20, 64):
        (report,) = segment(tmp_path / "a.ome.tif", tmp_path / str(tile), make_config(settings | {"tile": tile}))
        assert report.status == "done", report.reason
        result = open_result(tmp_path / str(tile) / "a.ome.zarr")
        scores = np.asarray(result.probabilities[0])
        assert scores.shape == wanted.shape
        assert np.abs(scores - wanted).max() <= TOLERANCE["float64"]
        assert wanted.std() > 0.01
        semantic, instances = np.asarray(result.semantic[0]), np.asarray(result.instances[0])
        np.testing.assert_array_equal(semantic, wanted.argmax(axis=0))
        np.testing.assert_array_equal(instances, label(semantic == 2, connectivity=1))
        assert instances.max() > 2
        assert result.provenance["audit"]["passed"]
        assert len(result.provenance["plan"]["core"]) == 4
    # Where a pixel of the result lies: in the middle of its window.
    placed = result.xarray("semantic")
    for axis, size, before, edge, by in zip("zyx"[-len(window) :], spacing, low, window, stride, strict=True):
        step = by if resolution == "network" else 1
        at = [(number * step - before + (edge - 1) / 2) * size for number in (0, 1, 2)]
        if resolution == "image" and edge % 2 == 0:
            at = [number * size for number in (0, 1, 2)]
        np.testing.assert_allclose(placed[axis].to_numpy()[:3], at, atol=1e-12)
    table = result.table
    assert ("intensity_mean-0" in table) == (resolution == "image")
    if len(table):
        first = table.iloc[0]
        name = len(window) - 1
        origin = float(placed["x"][0])
        step = stride[-1] if resolution == "network" else 1
        assert first[f"centroid_physical-{name}"] == pytest.approx(first[f"centroid-{name}"] * step * 0.25 + origin)


def test_outlines_are_in_pixels_of_the_image(tmp_path: Path) -> None:
    model, _ = save(tmp_path / "model", EVEN, (26, 26))
    tifffile.imwrite(tmp_path / "a.tif", real_looking((80, 90)), photometric="minisblack")
    settings = {"model": model, "factory": FACTORY, "fully_convolutional": True, "execution": {"scheduler": "serial"}}
    (report,) = segment(tmp_path / "a.tif", tmp_path / "out", make_config(settings))
    assert report.status == "done", report.reason
    result = open_result(tmp_path / "out" / "a.ome.zarr")
    assert result.write_geojson(tmp_path / "a.geojson") == report.objects
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    area = {feature["properties"]["name"]: feature["properties"]["measurements"]["area"] for feature in features}
    corners = np.array([corner for feature in features if feature["geometry"]["type"] == "Polygon"
                        for ring in feature["geometry"]["coordinates"] for corner in ring])  # fmt: skip
    assert (corners % 4 == 0).all()
    assert corners.max() > 23  # more than there are pixels of labels
    assert sum(area.values()) == np.count_nonzero(np.asarray(result.instances[0]))


@pytest.mark.parametrize("resolution", ["network", pytest.param("image", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", ["strided convolutions", pytest.param("strided kernels of one pixel", marks=pytest.mark.slow)]
)
def test_any_network_of_coarser_output_is_tiled(tmp_path: Path, name: str, resolution: str) -> None:
    torch.manual_seed(3)
    content = exported(ZOO[name].make(), "factory")
    model = save_foreign(tmp_path / "model", content, "factory", 3, arguments={"name": name})
    use = NetworkUse.model_validate({"resolution": resolution})
    context = learn_facts(model, factory="tests.models.zoo:make", use=use).context
    assert context.scale == ((4, 4) if resolution == "network" else (1, 1))
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, real_looking((70, 61)), photometric="minisblack")
    found = []
    for tile in (16, 128):
        settings = {
            "model": model, "factory": "tests.models.zoo:make", "execution": {"scheduler": "serial"}, "tile": tile,
            "resolution": resolution, "precision": "float64", "output": {"probabilities": "float64"},
        }  # fmt: skip
        (report,) = segment(image, tmp_path / str(tile), make_config(settings))
        assert report.status == "done", report.reason
        found.append(np.asarray(open_result(tmp_path / str(tile) / "a.ome.zarr").probabilities[0]))
    assert found[0].shape == (3, *((18, 16) if resolution == "network" else (70, 61)))
    assert np.abs(found[0] - found[1]).max() <= TOLERANCE["float64"]
    assert found[0].std() > 1e-4


def test_inspect_says_what_can_be_converted_and_what_cannot(tmp_path: Path) -> None:
    model, _ = save(tmp_path / "model", EVEN, (26, 26))
    told = CliRunner().invoke(app, ["inspect", model, "--factory", FACTORY, "--json"])
    assert told.exit_code == 0, told.output
    facts = json.loads(told.stdout)
    assert (facts["local"], facts["convertible"]) == (False, True)
    assert "--fully-convolutional" in facts["reason"]
    told = CliRunner().invoke(app, ["inspect", model, "--factory", FACTORY, "--fully-convolutional", "--json"])
    facts = json.loads(told.stdout)
    assert (facts["local"], facts["scale"], facts["margin"], facts["stride"]) == (True, [4, 4], [11, 11], [4, 4])
    drawn = CliRunner().invoke(app, ["inspect", model, "--factory", FACTORY, "--fully-convolutional"]).stdout
    assert "a window of 46 pixels for a core of 24" in drawn
    name = "instance norm"
    other = save_foreign(tmp_path / "other", exported(ZOO[name].make(), "factory"), "factory", arguments={"name": name})
    facts = json.loads(
        CliRunner().invoke(app, ["inspect", other, "--factory", "tests.models.zoo:make", "--json"]).stdout
    )
    assert not facts["convertible"]
    assert any("cannot be made fully convolutional" in note for note in facts["notes"])


def test_each_head_of_a_classifier_is_inspected_as_it_is_and_as_it_slides(tmp_path: Path) -> None:
    content = exported(Branching(), "factory")
    model = save_foreign(tmp_path / "model", content, "factory", 3, output="cell", window=[12, 12])
    command = ["inspect", model, "--factory", "tests.models.classifiers:Branching", "--json"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.exception
    assert {name: head["local"] for name, head in json.loads(told.stdout)["heads"].items()} == {
        "cell": False, "kind": False,
    }  # fmt: skip
    told = CliRunner().invoke(app, [*command, "--fully-convolutional"])
    assert told.exit_code == 0, told.exception
    heads = json.loads(told.stdout)["heads"]
    # A window of 12 pixels around each block of 2.
    assert {(head["local"], *head["margin"], *head["stride"]) for head in heads.values()} == {(True, 5, 5, 2, 2)}


def test_what_cannot_be_used_so_is_an_error_that_says_why(tmp_path: Path) -> None:
    model, _ = save(tmp_path / "model", GLOBAL, (9, 9))
    told = CliRunner().invoke(app, ["inspect", model, "--factory", FACTORY, "--fully-convolutional"])
    assert "network.window" in str(told.exception)
    told = CliRunner().invoke(app, ["inspect", "nuclei-fluorescence", "--fully-convolutional"])
    assert "is fully convolutional; leave out" in str(told.exception)


@pytest.mark.slow
@pytest.mark.parametrize("resolution", ["network", "image"])
def test_a_packages_classifier_slides_from_the_command_line(tmp_path: Path, resolution: str) -> None:
    wish = Wish(
        kind="Patches", weights=("pytorch_state_dict", "torchscript"), outputs=3,
        preprocessing=(("zero_mean_unit_variance", {"axes": ["y", "x"]}),), postprocessing=(("softmax", {}),),
    )  # fmt: skip
    package = str(save_package(tmp_path / "package.zip", wish))
    image = real_looking((70, 61))
    tifffile.imwrite(
        tmp_path / "a.ome.tif", image, ome=True, photometric="minisblack",
        metadata={"axes": "YX", "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25},
    )  # fmt: skip
    # Of TorchScript it is known that it is no network that can be tiled, and told what to bring.
    told = CliRunner().invoke(app, ["inspect", package, "--json"])
    assert told.exit_code == 0, told.exception
    facts = json.loads(told.stdout)
    assert (facts["local"], facts["convertible"], facts["network"]["format"]) == (False, False, "torchscript")
    assert "the layers are not at hand" in facts["notes"][0]
    assert "pytorch_state_dict and --trust-model-code" in facts["notes"][0]
    facts = json.loads(CliRunner().invoke(app, ["inspect", package, "--trust-model-code", "--json"]).stdout)
    assert (facts["convertible"], facts["network"]["format"]) == (True, "state-dict")
    found = []
    (tmp_path / "config.yaml").write_text("output: {probabilities: float32, chunk: 16}")
    for tile in ("20", "64"):
        told = CliRunner().invoke(app, [
            "run", str(tmp_path / "a.ome.tif"), "-o", str(tmp_path / tile), "-m", package, "--trust-model-code",
            "--fully-convolutional", "--resolution", resolution, "--direct", "--scheduler", "serial", "--tile", tile,
            "-c", str(tmp_path / "config.yaml"),
        ])  # fmt: skip
        assert told.exit_code == 0, told.output
        result = open_result(tmp_path / tile / "a.ome.zarr")
        found.append(np.asarray(result.probabilities[0]))
        placed = result.xarray("semantic")
        # A window of 16 pixels every 2, whose middle is half a pixel off the middle of its block.
        step, first = (2, 0.5) if resolution == "network" else (1, 0.0)
        for axis, size in (("y", 0.5), ("x", 0.25)):
            np.testing.assert_allclose(placed[axis].to_numpy()[:3], [(first + step * at) * size for at in range(3)])
    by = 2 if resolution == "network" else 1
    assert found[0].shape == (3, -(-70 // by), -(-61 // by))
    assert np.abs(found[0] - found[1]).max() <= TOLERANCE["float32"]
    # What the classifier says of a window in the middle, by itself.
    scaled = (image - image.mean(dtype=np.float64)) / (image.std(dtype=np.float64) + 1e-6)
    network, start = wish.network().double(), (20 - 7, 30 - 7)
    window = torch.from_numpy(scaled[start[0] : start[0] + 16, start[1] : start[1] + 16])[None, None]
    with torch.no_grad():
        wanted = network(window).softmax(dim=1)[0].numpy()
    assert np.abs(found[0][:, 20 // by, 30 // by] - wanted).max() <= 1e-5
    assert np.ptp(found[0], axis=(1, 2)).max() > 0.01
