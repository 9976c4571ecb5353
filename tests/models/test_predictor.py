"""The network at work: folded, in every precision, shared by threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.architecture import Precision, UNetConfig
from pipeline.models.library import LoadedModel, load_model
from pipeline.models.predictor import Predictor, limit_threads
from pipeline.models.unet import PairwisePool, UNet
from tests.random_models import random_network, save_random_model

FLAT = UNetConfig(depth=2, base_channels=4, in_channels=2, classes=3, norm="batch")
DEEP = UNetConfig(dims=3, depth=1, base_channels=4, classes=3, padding="same", norm="batch")
PRECISIONS: tuple[Precision, ...] = ("float32", "float64", "bfloat16", "float16")


def window_of(config: UNetConfig, seed: int = 0, dtype: type[np.floating] = np.float64) -> NDArray[np.floating]:
    shape = config.footprint.window_shape((24,) * config.dims)
    random = np.random.default_rng(seed)
    return random.normal(size=(config.in_channels, *shape)).astype(dtype)


def predictor_of(config: UNetConfig, folder: Path, precision: Precision = "float32") -> Predictor:
    return Predictor(load_model(save_random_model(folder / "model", config)), "cpu", precision)


def plain_scores(config: UNetConfig, window: NDArray[np.floating]) -> NDArray[np.float64]:
    """The network as it stands, with its normalisations, in float64."""
    with torch.inference_mode():
        scores = random_network(config).double()(torch.from_numpy(window.astype(np.float64))[None])[0]
        return np.asarray(scores.softmax(dim=0).numpy())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("config", [FLAT, DEEP], ids=["2-D", "3-D"])
def test_scores_are_the_plain_networks_probabilities(config: UNetConfig, precision: Precision, tmp_path: Path) -> None:
    window = window_of(config)
    expected = plain_scores(config, window)
    classes, scores, *_ = predictor_of(config, tmp_path, precision).predict(window, scores=True)
    assert scores is not None
    assert scores.dtype == (np.float64 if precision == "float64" else np.float32)
    assert scores.shape == (config.classes, *config.footprint.output_shape(window.shape[1:]))
    difference = np.abs(scores - expected)
    tolerance = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 0.2, "float16": 0.03}[precision]
    assert difference.max() < tolerance
    assert difference.mean() < tolerance / 5
    np.testing.assert_allclose(scores.sum(axis=0), 1, rtol=1e-6)
    assert classes.dtype == np.uint8
    assert len(np.unique(classes)) == config.classes  # or the comparison of the classes would say little
    best = np.take_along_axis(scores, classes[None].astype(np.intp), axis=0)[0]
    np.testing.assert_array_equal(best, scores.max(axis=0))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_classes_are_the_same_with_and_without_scores(precision: Precision, tmp_path: Path) -> None:
    predictor, window = predictor_of(FLAT, tmp_path, precision), window_of(FLAT)
    classes, nothing, *_ = predictor.predict(window)
    assert nothing is None
    np.testing.assert_array_equal(classes, predictor.predict(window, scores=True)[0])


def test_of_equal_scores_the_lowest_class_wins(tmp_path: Path) -> None:
    model = load_model(save_random_model(tmp_path / "model", FLAT))
    network = model.network
    assert isinstance(network, UNet)
    network.head.weight[2] = network.head.weight[1]
    assert network.head.bias is not None
    network.head.bias[:] = torch.tensor([-100.0, 0.0, 0.0])
    classes, scores, *_ = Predictor(model, "cpu", "float32").predict(window_of(FLAT), scores=True)
    assert scores is not None
    np.testing.assert_array_equal(scores[1], scores[2])
    assert (classes == 1).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_maxima_of_pairs_are_what_pooling_gives(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    for shape, pool, layout in (
        ((2, 3, 8, 7), nn.MaxPool2d(2), torch.channels_last),
        ((1, 3, 5, 8, 6), nn.MaxPool3d(2), torch.channels_last_3d),
    ):
        tensor = torch.randn(shape, generator=random).to(dtype)
        for at, value in enumerate((torch.nan, torch.inf, -torch.inf)):
            tensor[(0, at, *[at] * (len(shape) - 2))] = value
        tensor = tensor.contiguous(memory_format=layout)
        expected, found = pool(tensor), PairwisePool()(tensor)
        assert expected.isnan().sum() == 1
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(7), expected.nan_to_num(7))
        assert found.is_contiguous(memory_format=layout)


def test_threads_that_share_a_predictor_get_what_one_alone_gets(tmp_path: Path) -> None:
    predictor = predictor_of(FLAT, tmp_path)
    windows = [window_of(FLAT, seed) for seed in range(8)]
    alone = [predictor.predict(window, scores=True) for window in windows]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda window: predictor.predict(window, scores=True), windows * 3))
    for number, (classes, scores, *_) in enumerate(together):
        np.testing.assert_array_equal(classes, alone[number % 8][0])
        np.testing.assert_array_equal(scores, alone[number % 8][1])


def test_the_layout_of_the_window_in_memory_does_not_matter(tmp_path: Path) -> None:
    predictor, window = predictor_of(FLAT, tmp_path), window_of(FLAT, dtype=np.float32)
    expected = predictor.predict(window, scores=True)[1]
    assert expected is not None
    strided = np.zeros((*window.shape[:-1], 2 * window.shape[-1]), dtype=np.float32)[..., ::2]
    strided[:] = window
    for other in (np.asfortranarray(window), strided, window.astype(np.float64)):
        np.testing.assert_array_equal(predictor.predict(other, scores=True)[1], expected)
    np.testing.assert_array_equal(window, window_of(FLAT, dtype=np.float32))  # and it is not written into


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_scores_that_are_not_finite_are_an_error_and_not_a_class(value: float, tmp_path: Path) -> None:
    predictor, window = predictor_of(FLAT, tmp_path, "float16"), window_of(FLAT)
    window[0, 20, 20] = value
    with pytest.raises(ModelError, match=r"not finite in float16.*precision float32"):
        predictor.predict(window)


@pytest.mark.slow
def test_the_number_of_threads_is_set_for_the_whole_process() -> None:
    code = (
        "import torch; from pipeline.models.predictor import limit_threads; "
        "limit_threads(1); print(torch.get_num_threads()); limit_threads(2); print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "2"]


def test_a_window_gives_the_same_bytes_whatever_came_before(tmp_path: Path) -> None:
    limit_threads(1)
    predictor, window = predictor_of(FLAT, tmp_path), window_of(FLAT)
    first = predictor.predict(window, scores=True)[1]
    larger = FLAT.footprint.window_shape((64, 48))
    predictor.predict(np.ones((2, *larger)), scores=True)
    again = predictor_of(FLAT, tmp_path / "again").predict(window, scores=True)[1]
    assert first is not None
    np.testing.assert_array_equal(predictor.predict(window, scores=True)[1], first)
    np.testing.assert_array_equal(again, first)


class _Own(nn.Module):
    """Makes float32 of its image, whatever it is given, or fails for a reason of its own."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.first, self.fault = nn.Conv2d(1, 3, 1), fault

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.fault:
            raise RuntimeError(self.fault)
        return torch.as_tensor(self.first(image.float()))


def test_a_network_with_a_type_of_its_own_is_told_which_precision_it_has(tmp_path: Path) -> None:
    card = load_model(save_random_model(tmp_path / "model", FLAT)).card
    window = np.zeros((1, 32, 32), dtype=np.float32)
    assert Predictor(LoadedModel(card, _Own()), "cpu", "float32").predict(window).classes.shape == (32, 32)
    with pytest.raises(ModelError, match=r"does not compute in bfloat16 \(Input type .*\); say --precision float32"):
        Predictor(LoadedModel(card, _Own()), "cpu", "bfloat16").predict(window)
    # Whoever looks for a memory that is too small is to find it.
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        Predictor(LoadedModel(card, _Own("out of memory")), "cpu", "bfloat16").predict(window)
