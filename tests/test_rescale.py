"""Networks that run at the pixel size of their training: no tile shows, and labels lie where the image does."""

from __future__ import annotations

import logging
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.errors import PlanError
from pipeline.geometry import mirror_indices, round_up
from pipeline.models.architecture import UNetConfig
from pipeline.models.facts import learn_facts, unet_context
from pipeline.models.library import load_model
from pipeline.models.network import NetworkUse
from pipeline.models.passes import rescale
from pipeline.models.predictor import Predictor
from pipeline.models.rescaling import ALIKE, TOLERANCE, Ratio, choose_ratio, rescaled_context, taps
from pipeline.verify import verify
from tests.random_models import save_random_model, save_threshold_model

CASES: dict[str, tuple[UNetConfig, float, tuple[int, int, int]]] = {
    # the network, the image's pixel size where the network's is 0.5, the image TYX or ZYX
    "finer image": (UNetConfig(depth=2, base_channels=2, norm="batch"), 0.2, (1, 101, 89)),
    "coarser image": (UNetConfig(depth=2, base_channels=2, padding="same"), 0.65, (1, 90, 111)),
    "twice as coarse": (UNetConfig(depth=3, base_channels=2, classes=3), 1.0, (1, 41, 53)),
    "3-D": (UNetConfig(dims=3, depth=1, base_channels=2), 0.8, (11, 19, 23)),
}


def trained_at(folder: str, size: float) -> str:
    """Have a model's card say at which pixel size it was trained."""
    path = Path(folder) / "card.yaml"
    card = yaml.safe_load(path.read_text())
    card |= {"pixel_size": [size] * len(card["axes"]), "pixel_size_unit": "micrometer"}
    path.write_text(yaml.safe_dump(card))
    return folder


def write_image(path: Path, image: NDArray[Any], size: float) -> Path:
    metadata: dict[str, Any] = {"axes": "ZYX"[-image.ndim :]}
    for axis in metadata["axes"]:
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, image, ome=True, metadata=metadata, rowsperstrip=16)
    return path


def settings(model: str, **more: Any) -> Any:  # noqa: ANN401 (as YAML has it)
    values: dict[str, Any] = {"model": model, "rescale": "auto", "execution": {"scheduler": "serial"},
                              "output": {"probabilities": "float32", "chunk": 32, "report": False}}  # fmt: skip
    return make_config(values | more)


def one_pass(image: NDArray[Any], model: str, ratios: tuple[Ratio, ...]) -> NDArray[np.floating]:
    """Give the scores of the whole image, mirrored around, in one pass."""
    facts = learn_facts(model, use=NetworkUse(rescale=ratios))
    footprint = facts.context.footprint
    assert footprint is not None
    predictor = Predictor(load_model(model), "cpu", "float32", rescaling=facts.context.rescaling)
    low, high = np.percentile(image, [1, 99])
    scaled = (image.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    window = footprint.window_shape(tuple(map(round_up, image.shape, footprint.stride)))
    indices = [
        mirror_indices(-context, edge - context, length)
        for context, edge, length in zip(footprint.context, window, image.shape, strict=True)
    ]
    scores = predictor.predict(scaled[np.ix_(*indices)][None], scores=True).scores
    assert scores is not None
    inner = tuple(slice(at, at + length) for at, length in zip(footprint.inset, image.shape, strict=True))
    return np.asarray(scores[(slice(None), *inner)])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_tile_shows(tmp_path: Path, case: str) -> None:
    architecture, size, shape = CASES[case]
    model = trained_at(save_random_model(tmp_path / "model", architecture), 0.5)
    image = np.random.default_rng(0).gamma(2.0, 200.0, shape).astype(np.uint16)
    image = image if architecture.dims == 3 else image[0]
    path = write_image(tmp_path / "a.ome.tif", image, size)
    ratios = (choose_ratio(size / 0.5, unet_context(architecture).stride[0]),) * architecture.dims
    expected = one_pass(image, model, ratios)
    tilings = set()
    for tile in (1, 40):
        (report,) = segment(path, tmp_path / str(tile), settings(model, tile=tile))
        assert report.status == "done", report.reason
        result = open_result(tmp_path / str(tile) / "a.ome.zarr")
        tilings.add(tuple(result.provenance["plan"]["core"]))
        scores = np.asarray(result.probabilities[0]).reshape(expected.shape)
        assert result.semantic[0].shape == image.shape
        assert np.abs(scores - expected).max() <= 1e-6
        best = np.sort(expected, axis=0)
        ties = best[-1] - best[-2] <= 2e-6
        assert ((np.asarray(result.semantic[0]) == expected.argmax(axis=0)) | ties).all()
        assert expected.std() > 0.001
    assert len(tilings) == 2
    # What verifies a result runs the network in the same way.
    assert [check for check in verify(report.result or "") if not (check.passed and check.made)] == []


@pytest.mark.slow
def test_labels_lie_where_the_image_does(tmp_path: Path) -> None:
    """The scores of a network that looks at single pixels are, resampled there and back, hardly others."""
    smooth = gaussian_filter(np.random.default_rng(1).normal(size=(240, 260)), 9)
    image = ((smooth - smooth.min()) * 1e5).astype(np.uint16)
    model = trained_at(save_threshold_model(tmp_path / "model", 2), 0.5)
    found = {}
    for name, size in (("same", 0.52), ("coarser", 0.65), ("finer", 0.2)):
        path = write_image(tmp_path / f"{name}.ome.tif", image, size)
        (report,) = segment(path, tmp_path / "out", settings(model))
        assert report.status == "done", report.reason
        result = open_result(tmp_path / "out" / f"{name}.ome.zarr")
        assert result.xarray("instances").shape == image.shape
        assert result.xarray("instances").coords["x"].values[1] == pytest.approx(size)
        found[name] = np.asarray(result.semantic[0]), result.objects, result.provenance["plan"]["rescaling"]
    plain, objects, rescaling = found["same"]
    assert rescaling is None
    for name in ("coarser", "finer"):
        labels, number, rescaling = found[name]
        assert rescaling is not None
        assert number == objects
        assert (labels == plain).mean() > 0.995
        for axis in (0, 1):
            # As unlike what is moved to one side by a pixel as what is moved to the other.
            before, after = ((labels != np.roll(plain, by, axis))[2:-2, 2:-2].mean() for by in (-1, 1))
            assert abs(before - after) < 0.1 * (before + after)
            assert (labels != plain).mean() < 0.25 * min(before, after)


@pytest.mark.parametrize("ratio", [(2, 1), (1, 2), (13, 10), (37, 48), (48, 37)])
def test_a_ramp_stays_where_it_is(ratio: Ratio) -> None:
    context = rescaled_context(unet_context(UNetConfig(depth=2, padding="same")), (ratio, ratio))
    footprint, rescaling = context.footprint, context.rescaling
    assert footprint is not None
    assert rescaling is not None
    edge = footprint.window_shape((2 * footprint.stride[0],) * 2)[0]
    ramp = torch.arange(edge, dtype=torch.float64).expand(1, 1, edge, edge)
    scores = rescale(lambda image: image, ramp.contiguous(), rescaling)
    assert scores.shape[2:] == footprint.output_shape((edge, edge))
    around = footprint.context[0] - footprint.margin[0]
    inner = scores[0, 0, around:-around, around:-around].numpy()
    wanted = ramp[0, 0, 0, footprint.context[0] : edge - footprint.context[0]].numpy()
    # A mean under a triangle of no whole number of pixels lies beside its middle, to and fro.
    assert np.abs(inner - wanted).max() < (1e-9 if 1 in ratio else 0.15)
    assert abs((inner - wanted).mean()) < 0.01
    flat = rescale(lambda image: image, torch.ones(1, 1, edge, edge), rescaling)
    assert torch.allclose(flat, torch.ones_like(flat), atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100), st.integers(1, 30), st.integers(0, 5))
def test_pixels_of_the_other_grid_are_the_same_from_wherever_one_counts(
    given_pixels: int, wanted: int, start: int, count: int, periods: int
) -> None:
    pixels, weights = taps(start, count, given_pixels, wanted)
    again, same = taps(start + periods * wanted, count, given_pixels, wanted)
    np.testing.assert_array_equal(again, pixels + periods * given_pixels)
    np.testing.assert_array_equal(same, weights)
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-12
    middle = (np.arange(start, start + count) + 0.5) * given_pixels / wanted - 0.5
    farthest = np.where(weights > 0, np.abs(pixels - middle[:, None]), 0).max()
    assert farthest <= max(1.0, given_pixels / wanted) + 1e-9


@given(st.floats(1 / 8, 8), st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_a_ratio_of_small_numbers_is_near(factor: float, stride: int) -> None:
    network, image = choose_ratio(factor, stride)
    if 1 / ALIKE <= factor <= ALIKE:
        assert (network, image) == (1, 1)
    else:
        assert abs(network / image / factor - 1) <= TOLERANCE
        assert gcd(network, image) == 1
        assert image * stride // gcd(network, stride) <= 64 * stride


def test_what_cannot_be_rescaled_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = np.random.default_rng(0).gamma(2.0, 200.0, (40, 50)).astype(np.uint16)
    model = save_threshold_model(tmp_path / "model", 2)
    path = write_image(tmp_path / "a.ome.tif", image, 0.65)
    (report,) = segment(path, tmp_path / "out", settings(model))
    assert "does not say at which pixel size it was trained" in str(report.reason)
    trained_at(model, 0.5)
    with caplog.at_level(logging.WARNING):
        (report,) = segment(path, tmp_path / "off", settings(model, rescale="off"))
    assert report.status == "done"
    assert "1.3 x 1.3 times as large" in caplog.text
    tifffile.imwrite(tmp_path / "b.tif", image)
    (report,) = segment(tmp_path / "b.tif", tmp_path / "out", settings(model))
    assert "its pixel size along Y is not known" in str(report.reason)
    with pytest.raises(PlanError, match="at most 8 is resampled"):
        choose_ratio(9, 16)
    with pytest.raises(PlanError, match="as fine as what they see"):
        learn_facts(_coarse(tmp_path), factory="tests.models.classifiers:make", use=_sliding())


def _sliding() -> NetworkUse:
    return NetworkUse(fully_convolutional=True, rescale=((2, 1), (2, 1)))


def _coarse(folder: Path) -> str:
    from tests.models.classifiers import make
    from tests.models.foreign import exported, save_foreign

    arguments: dict[str, Any] = {"stages": [[2, 1, 2]], "extent": [5, 5], "hidden": [4]}
    return save_foreign(folder / "coarse", exported(make(**arguments), "factory"), "factory", 3, arguments=arguments)
