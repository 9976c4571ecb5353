"""Packages of bioimage.io through the pipeline, against what bioimageio.core itself predicts on the same image.

`python -m tests.test_packages` prints by how much scores differ, package by package.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from zipfile import ZipFile

import numpy as np
import pytest
import scipy.special
import tifffile
from bioimageio.spec import load_description
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline import open_result, segment
from pipeline.cli import app
from pipeline.config import make_config
from pipeline.models.facts import learn_facts
from tests.fields import load_fields
from tests.models.packaged import Wish, predict_by_default, predict_with_core, save_package
from tests.test_seams import real_looking, whole_pass

SIGMOID: Any = (("sigmoid", {}),)

STATE = "pytorch_state_dict"

VERSIONS: tuple[Literal["0.4", "0.5"], ...] = ("0.4", "0.5")


def per_sample(name: str, axes: str, **kwargs: Any) -> Any:  # noqa: ANN401 (what a package may hold)
    return ((name, {"axes": axes, "mode": "per_sample", **kwargs}),)


CASES: dict[str, Wish] = {
    "2-D, 0.5, same": Wish(
        preprocessing=(("zero_mean_unit_variance", {"axes": ["y", "x"]}),), postprocessing=SIGMOID
    ),
    "2-D, 0.4, same": Wish(
        format="0.4", outputs=2, preprocessing=per_sample("zero_mean_unit_variance", "yx"), postprocessing=SIGMOID
    ),
    "2-D, 0.5, valid": Wish(
        padding="valid", halo=None, outputs=3,
        preprocessing=(("scale_range", {"axes": ["y", "x"], "min_percentile": 1.0, "max_percentile": 99.8}),
                       ("clip", {"min": 0.0, "max": 1.0})),
        postprocessing=(("softmax", {}),),
    ),
    "2-D, 0.4, valid": Wish(
        format="0.4", padding="valid", halo=None, outputs=2, last="softmax",
        preprocessing=per_sample("scale_range", "yx", min_percentile=2, max_percentile=98),
    ),
    "3-D, 0.5, same": Wish(
        dims=3, outputs=2, preprocessing=(("zero_mean_unit_variance", {"axes": ["z", "y", "x"]}),),
    ),
    "3-D, 0.4, valid": Wish(
        format="0.4", dims=3, padding="valid", halo=None, preprocessing=per_sample("scale_range", "zyx"),
        postprocessing=SIGMOID,
    ),
    "3 channels, 0.5, statistics of all": Wish(
        channels=3, last="sigmoid", preprocessing=(("zero_mean_unit_variance", {"axes": ["channel", "y", "x"]}),)
    ),
    "3 channels, 0.5, percentiles of all": Wish(
        channels=3, last="sigmoid",
        preprocessing=(("scale_range", {"axes": ["channel", "y", "x"], "min_percentile": 3.0}),),
    ),
    "3 channels, 0.4, statistics of each": Wish(
        format="0.4", channels=3, outputs=2, last="softmax", preprocessing=per_sample("scale_range", "yx")
    ),
    "2 channels, 0.5, numbers for each": Wish(
        channels=2, outputs=2,
        preprocessing=(
            ("scale_linear", {"axis": "channel", "gain": [0.01, 0.02], "offset": [0.5, -1.0]}),
            ("fixed_zero_mean_unit_variance", {"axis": "channel", "mean": [4.0, 8.0], "std": [2.0, 3.0]}),
            ("clip", {"min": -1.5, "max": 2.0}),
        ),
    ),
    "2 channels, 0.4, numbers for each": Wish(
        format="0.4", channels=2,
        preprocessing=(("zero_mean_unit_variance",
                        {"mode": "fixed", "axes": "yx", "mean": [400.0, 380.0], "std": [250.0, 300.0]}),),
        postprocessing=SIGMOID,
    ),
    "2-D, 0.5, scaled before": Wish(
        preprocessing=(("scale_linear", {"gain": 0.5, "offset": 20.0}),
                       ("zero_mean_unit_variance", {"axes": ["y", "x"]}), ("sigmoid", {})),
        postprocessing=SIGMOID,
    ),
    "2-D, 0.5, clipped before": Wish(
        preprocessing=(("clip", {"min": 150.0, "max": 900.0}),
                       ("scale_range", {"axes": ["y", "x"], "min_percentile": 1.0, "max_percentile": 99.0})),
        postprocessing=SIGMOID,
    ),
    "2 channels, 0.5, numbers for each before statistics of all": Wish(
        channels=2, preprocessing=(("scale_linear", {"axis": "channel", "gain": [-0.5, 2.0], "offset": [9.0, -1.0]}),
                                   ("zero_mean_unit_variance", {"axes": ["channel", "y", "x"]})),
        postprocessing=SIGMOID,
    ),
    "2-D, 0.5, a threshold": Wish(
        preprocessing=(("zero_mean_unit_variance", {"axes": ["y", "x"]}),),
        postprocessing=(("sigmoid", {}), ("binarize", {"threshold": 0.4})),
    ),
    "2-D, 0.5, another order": Wish(
        order="yxc", preprocessing=(("zero_mean_unit_variance", {"axes": ["y", "x"]}),), postprocessing=SIGMOID
    ),
    "2-D, 0.4, neither batch nor channels": Wish(
        format="0.4", order="yx", preprocessing=per_sample("zero_mean_unit_variance", "yx"), postprocessing=SIGMOID
    ),
}  # fmt: skip

QUICK = ("2-D, 0.5, same", "2-D, 0.4, valid", "3-D, 0.4, valid")


def cases() -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]


def run(package: Path, image: Path, output: Path, tile: int = 32, **settings: Any) -> NDArray[np.float64]:  # noqa: ANN401
    """Give the scores, classes first."""
    config = {
        "model": str(package), "tile": tile, "execution": {"scheduler": "serial"},
        "output": {"probabilities": "float32", "chunk": 32}, **settings,
    }  # fmt: skip
    (report,) = segment(image, output, make_config(config))
    assert report.status == "done", report.reason
    return np.asarray(open_result(output / f"{image.name.split('.')[0]}.ome.zarr").probabilities[0]).astype(np.float64)


def save_image(path: Path, wish: Wish) -> NDArray[np.uint16]:
    """Write an image, and give it: channels first."""
    edges = (130, 118) if wish.dims == 2 else (22, 30, 26)
    image = real_looking((wish.channels, *edges))
    image[-1] //= 2  # statistics of all channels differ from those of each
    if wish.channels == 1:
        tifffile.imwrite(path, image[0], photometric="minisblack", metadata={"axes": wish.spatial.upper()}, ome=True)
    else:
        axes = f"C{wish.spatial.upper()}"
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": axes}, ome=True)
    return image


def core_scores(
    package: Path,
    wish: Wish,
    image: NDArray[np.uint16],
    predict: Callable[[Any, NDArray[Any]], NDArray[Any]] = predict_with_core,
) -> NDArray[np.float64]:
    """Give what bioimageio.core predicts of the whole image, as scores of all classes, classes first."""
    order = f"c{wish.spatial}"
    given = image.astype(np.float32)
    present = [axis for axis in wish.axes if axis != "b"]
    given = (
        given.transpose([order.index(axis) for axis in present if axis in order] or range(given.ndim))
        if "c" in present
        else given[0]
    )
    if "b" in wish.axes:
        given = np.expand_dims(given, wish.axes.index("b"))
    with ZipFile(package) as archive:
        found = predict(load_description(archive), given).astype(np.float64)
    found = found[0] if wish.axes.startswith("b") else found
    found = np.moveaxis(found, present.index("c"), 0) if "c" in present else found[None]
    if wish.last == "softmax" or ("softmax", {}) in wish.postprocessing:
        return found
    if wish.last == "none" and not wish.postprocessing:
        return np.asarray(scipy.special.softmax(found, axis=0))
    return np.concatenate([1 - found.max(axis=0, keepdims=True), found])


@pytest.mark.slow
@pytest.mark.parametrize("name", cases())
def test_a_package_gives_what_bioimageio_core_predicts(tmp_path: Path, name: str) -> None:
    compare_with_core(tmp_path, CASES[name])


OTHER_WEIGHTS: dict[str, Wish] = {
    f"2-D, {version}, {weights}": Wish(
        format=version, weights=(weights,), outputs=2, postprocessing=SIGMOID,
        preprocessing=per_sample("zero_mean_unit_variance", "yx")
        if version == "0.4"
        else CASES["2-D, 0.5, same"].preprocessing,
    )
    for version in VERSIONS
    for weights in ("onnx", STATE)
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "0.4" in name else ()) for name in OTHER_WEIGHTS]
)
def test_it_does_with_other_weights_than_torchscript(tmp_path: Path, name: str) -> None:
    """Where the two are not exact, it is for no other reason than with TorchScript.

    bioimageio.core runs an ONNX graph by onnxruntime, too, and a state dict in the same network of torch. It runs them
    once, on the whole image, and here they run tile by tile, so that rounding in float32 is all that differs away from
    the image's edge. There, as with TorchScript, a network that pads sees zeros in bioimageio.core, and the mirrored
    image here.
    """
    compare_with_core(tmp_path, OTHER_WEIGHTS[name], trust=STATE in name)


def compare_with_core(tmp_path: Path, wish: Wish, *, trust: bool = False) -> float:
    """Hold scores to bioimageio.core's, and give the largest difference; of a threshold, the share that differs."""
    package = save_package(tmp_path / "package.zip", wish)
    image = save_image(tmp_path / "a.ome.tif", wish)
    settings = {"trust_model_code": True} if trust else {}
    found = run(package, tmp_path / "a.ome.tif", tmp_path / "out", 32 if wish.dims == 2 else 8, **settings)
    expected = core_scores(package, wish, image)
    # A valid network's output lacks its margin. Near the image's edge a padded one sees zeros in bioimageio.core, and
    # the mirrored image here.
    facts = learn_facts(package, trust=trust)
    context = facts.context
    assert facts.card.network is not None
    assert facts.card.network.format == {STATE: "state-dict"}.get(wish.weights[0], wish.weights[0])
    edge = [max(margin, halo) for margin, halo in zip(context.margin, context.halo, strict=True)]
    inner = (slice(None), *(slice(each, -each) for each in edge))
    trimmed = (slice(None), *(slice(halo, -halo or None) for halo in context.halo))
    difference = np.abs(found[inner] - expected[trimmed])
    assert expected.std() > 1e-3  # scores that vary: the comparison says something
    if any(step == "binarize" for step, _ in wish.postprocessing):
        share = float((difference != 0).mean())
        assert share < 1e-3
        return share
    assert difference.max() <= 2e-6, difference.max()
    return float(difference.max())


STATISTICS: dict[str, Any] = {
    "0.4": per_sample("zero_mean_unit_variance", "yx"), "0.5": (("zero_mean_unit_variance", {"axes": ["y", "x"]}),),
}  # fmt: skip

DEFAULTS: dict[str, Wish] = {
    "0.4, same": Wish(format="0.4", outputs=2, preprocessing=STATISTICS["0.4"], postprocessing=SIGMOID),
    "0.4, valid": Wish(
        format="0.4", padding="valid", halo=None, outputs=2, preprocessing=STATISTICS["0.4"], postprocessing=SIGMOID
    ),
    # It is padded, so that statistics would be of something else; see the next test.
    "0.5, same": Wish(outputs=2, preprocessing=(("scale_linear", {"gain": 0.01}),), postprocessing=SIGMOID),
    "0.5, valid": Wish(
        padding="valid", halo=None, outputs=2, preprocessing=STATISTICS["0.5"], postprocessing=SIGMOID
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULTS)
def test_inside_of_an_image_it_gives_what_bioimageio_core_predicts_by_default(tmp_path: Path, name: str) -> None:
    wish = DEFAULTS[name]
    package = save_package(tmp_path / "package.zip", wish)
    image = save_image(tmp_path / "a.ome.tif", wish)
    found = run(package, tmp_path / "a.ome.tif", tmp_path / "out")
    expected = core_scores(package, wish, image, predict_by_default)
    context = learn_facts(package).context
    # A valid network's output lacks its margin.
    there = (slice(None), *(slice(margin, -margin or None) for margin in context.margin))
    difference = np.abs(found[there] - expected)
    assert expected.std() > 1e-3
    far = [max(reach) - margin for reach, margin in zip(context.reach, context.margin, strict=True)]
    inner = (slice(None), *(slice(each, -each or None) for each in far))
    assert difference[inner].size > 0.7 * found.size
    assert difference[inner].max() <= 2e-6
    # Nearer to the border, a network that pads sees what is beyond the image. Here that is the mirrored image without
    # the pixels of the border twice. In bioimageio.core it is zeros for format 0.4; for 0.5, by default, as many pixels
    # as the declared halo says, mirrored with the pixels of the border twice, and zeros behind them. Of a valid
    # network, bioimageio.core gives only what sees none of it.
    assert (difference.max() > 1e-3) == (wish.padding == "same")


@pytest.mark.slow
def test_by_default_bioimageio_core_takes_statistics_of_what_it_has_padded(tmp_path: Path) -> None:
    wish = Wish(outputs=2, preprocessing=STATISTICS["0.5"], postprocessing=SIGMOID)
    package = save_package(tmp_path / "package.zip", wish)
    image = save_image(tmp_path / "a.ome.tif", wish)
    expected = core_scores(package, wish, image, predict_by_default)
    assert wish.halo is not None
    padded = np.pad(image, ((0, 0), *[(wish.halo, wish.halo)] * 2), mode="symmetric")
    tifffile.imwrite(tmp_path / "b.tif", padded[0], photometric="minisblack")
    inner = np.s_[:, 8:-8, 8:-8]
    for name, halo, alike in (("a.ome.tif", 0, False), ("b.tif", wish.halo, True)):
        found = run(package, tmp_path / name, tmp_path / "out")[:, halo : -halo or None, halo : -halo or None]
        assert (np.abs(found - expected)[inner].max() <= 2e-6) == alike


@pytest.mark.slow
def test_a_valid_network_begins_its_poolings_where_the_mirrored_image_does(tmp_path: Path) -> None:
    # With a margin of 3 and poolings of 2, bioimageio.core's first pooling covers pixels 1 and 2 of the image, and that
    # of one pass over the mirrored image, 3 pixels larger, 0 and 1. Both are right; an image without its first row and
    # column shows that this is all the difference.
    wish = Wish(padding="odd", halo=None, preprocessing=(("scale_linear", {"gain": 0.01}),), postprocessing=SIGMOID)
    package = save_package(tmp_path / "package.zip", wish)
    image = save_image(tmp_path / "a.ome.tif", wish)
    found = run(package, tmp_path / "a.ome.tif", tmp_path / "out")
    shifted = core_scores(package, wish, image[:, 1:-1, 1:-1])
    assert np.abs(found[:, 4:-4, 4:-4] - shifted).max() <= 2e-6
    assert np.abs(found[:, 3:-3, 3:-3] - core_scores(package, wish, image)).max() > 1e-3


@pytest.mark.slow
def test_a_real_image_through_a_package_equals_the_untiled_pass(tmp_path: Path) -> None:
    wish = Wish(outputs=2, preprocessing=(("scale_range", {"axes": ["y", "x"], "min_percentile": 1.0,
                                                          "max_percentile": 99.0}),))  # fmt: skip
    package = save_package(tmp_path / "package.zip", wish)
    image = load_fields()[0][:210, :190]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    command = ["run", str(tmp_path / "a.tif"), "-o", str(tmp_path / "out"), "--model", str(package), "--direct",
               "--tile", "64", "--scheduler", "serial", "--precision", "float64"]  # fmt: skip
    (tmp_path / "config.yaml").write_text("output: {probabilities: float64}")
    told = CliRunner().invoke(app, [*command, "-c", str(tmp_path / "config.yaml")])
    assert told.exit_code == 0, told.output
    result = open_result(tmp_path / "out" / "a.ome.zarr")
    expected = whole_pass(image[None, None], str(package), "float64")[:, 0, 0]
    difference = np.abs(np.asarray(result.probabilities[0]) - expected)
    # The package adds 1e-6 to what it divides by.
    assert difference.max() <= 1e-6
    assert expected.std() > 1e-2
    provenance = json.loads((tmp_path / "out" / "a.ome.zarr" / "seamfree.json").read_text())
    assert provenance["plan"]["weights_sha256"] == learn_facts(package).card.weights.sha256


@pytest.mark.slow
def test_inspect_shows_what_was_declared_against_what_was_derived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = save_package(tmp_path / "package.zip", Wish(halo=2, step=4, postprocessing=SIGMOID))
    with caplog.at_level(logging.WARNING):
        told = CliRunner().invoke(app, ["inspect", str(package), "--json"])
    assert told.exit_code == 0, told.output
    assert "the declared halo [2, 2] is too small" in caplog.text
    facts = json.loads(told.stdout)
    assert facts["declared"] == {"stride": [4, 4], "margin": [0, 0], "halo": [2, 2], "scale": [1, 1]}
    assert (facts["halo"], facts["stride"], facts["local"]) == ([4, 4], [2, 2], True)
    halo, stride = facts["differences"]
    assert halo == "the declared halo [2, 2] is too small, its tiling would show; the derived one is used, [4, 4]"
    assert stride == "the declared stride [4, 4] is a multiple of what the network has; the derived one is used, [2, 2]"
    assert facts["package"]["format"] == "0.5.12"
    assert facts["package"]["classes"] == "a sigmoid comes last"
    assert facts["package"]["test"].startswith("met: 2,300 values")
    drawn = CliRunner().invoke(app, ["inspect", str(package)]).stdout
    assert "which starts on a multiple of 2" in drawn


@pytest.mark.slow
def test_pixels_that_do_not_fit_into_the_packages_type_are_refused(tmp_path: Path) -> None:
    wish = Wish(dtype="uint8", preprocessing=(("scale_linear", {"gain": 0.1}),
                               ("ensure_dtype", {"dtype": "float32"})), postprocessing=SIGMOID)  # fmt: skip
    package = save_package(tmp_path / "package.zip", wish)
    save_image(tmp_path / "a.ome.tif", wish)
    settings = make_config({"model": str(package), "execution": {"scheduler": "serial"}})
    (report,) = segment(tmp_path / "a.ome.tif", tmp_path / "out", settings)
    assert report.status == "failed"
    assert report.reason is not None
    assert "takes pixels of uint8, and these are uint16, which do not all fit" in report.reason


def main() -> None:
    """Print a table of differences."""
    packages = CASES | OTHER_WEIGHTS
    width = max(map(len, packages))
    print(f"{'package':{width}}  difference to bioimageio.core, away from the edge")
    for name, wish in packages.items():
        with TemporaryDirectory() as place:
            difference = compare_with_core(Path(place), wish, trust=STATE in name)
        counted = " of pixels" if any(step == "binarize" for step, _ in wish.postprocessing) else ""
        print(f"{name:{width}}  {difference:.1e}{counted}", flush=True)


if __name__ == "__main__":
    main()
