"""Fewer operations for the same network: the same numbers."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.architecture import Precision, UNetConfig
from pipeline.models.fusing import (
    fold_normalisation,
    fuses_rectification,
    growth,
    rectified,
)
from pipeline.models.library import load_model
from pipeline.models.predictor import Predictor
from pipeline.models.streaming import StreamedUNet
from pipeline.models.unet import UNet
from tests.models.test_predictor import window_of
from tests.random_models import random_network, save_network


@pytest.mark.parametrize("dims", [2, 3])
def test_folding_changes_nothing_but_rounding_and_leaves_no_normalisation(dims: int) -> None:
    config = UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 3, "norm": "batch"})
    network = random_network(config).double()
    image = torch.from_numpy(window_of(config))[None]
    with torch.inference_mode():
        before = network(image)
        folded = fold_normalisation(copy.deepcopy(network))
        assert (folded(image) - before).abs().max() < 1e-12
    assert before.std() > 0.01
    kinds = {type(module).__name__ for module in folded.modules()}
    assert not {kind for kind in kinds if kind.startswith("BatchNorm")}
    assert any(type(module).__name__.startswith("BatchNorm") for module in network.modules())


def test_folding_leaves_a_network_without_normalisation_as_it_is() -> None:
    network = random_network(UNetConfig(depth=1, base_channels=2))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    after = fold_normalisation(network).state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def pair(config: UNetConfig, dtype: torch.dtype) -> tuple[UNet, UNet, torch.Tensor]:
    """Give a network, the same with its rectifications fused, and a window."""
    layout = torch.channels_last if config.dims == 2 else torch.channels_last_3d
    plain = random_network(config)
    plain.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    assert isinstance(plain, UNet)
    image = torch.from_numpy(window_of(config))[None].to(dtype).contiguous(memory_format=layout)
    return plain, rectified(plain), image


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_convolution_that_rectifies_gives_the_numbers_of_two_operations(
    dims: int, dtype: torch.dtype, padding: str
) -> None:
    if not fuses_rectification("cpu", dtype):
        pytest.skip(f"this processor convolves {dtype} elsewhere")
    config = UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 16, "padding": padding})
    plain, faster, image = pair(config, dtype)
    assert sum(isinstance(layer, nn.ReLU) for layer in plain.modules()) == 6
    assert not any(isinstance(layer, nn.ReLU) for layer in faster.modules())
    assert {id(each) for each in faster.parameters()} == {id(each) for each in plain.parameters()}
    with torch.inference_mode():
        wanted, found = plain(image), faster(image)
        slabs = StreamedUNet(faster)(image) if dims == 3 else found
    assert wanted.std() > 0
    # Torch convolves small images of float32 with another library.
    limit = 1e-5 if dtype == torch.float32 else 0
    for each in (found, slabs):
        assert each.shape == wanted.shape
        assert (each - wanted).abs().max() <= limit


@pytest.mark.parametrize(("precision", "device"), [("float64", "cpu"), ("float16", "cpu"), ("float32", "cuda")])
def test_numbers_and_devices_that_have_no_such_operation_keep_two(precision: Precision, device: str) -> None:
    assert not fuses_rectification(device, getattr(torch, precision))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_no_number_in_a_network_is_above_its_bound(dims: int, factor: float) -> None:
    config = UNetConfig.model_validate({"dims": dims, "depth": 2, "base_channels": 4, "norm": "batch"})
    network = random_network(config).double()
    assert isinstance(fold_normalisation(network), UNet)
    slope, offset = growth(network)
    seen = []
    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, __, given: seen.append(float(given.abs().max())))
    image = torch.from_numpy(window_of(config))[None].double() * factor
    with torch.inference_mode():
        network(image)
    bound = slope * float(image.abs().max()) + offset
    assert max(seen) <= bound


def test_the_bound_is_what_an_image_of_the_weights_signs_reaches() -> None:
    network = UNet(UNetConfig(depth=0, base_channels=1, classes=2)).requires_grad_(requires_grad=False)
    for weights in network.parameters():
        weights.zero_()
    state = network.state_dict()
    state["down.0.0.weight"][0, 0, 0] = torch.tensor([1.0, -2.0, 3.0])
    state["head.bias"][:] = torch.tensor([0.25, -0.5])
    assert growth(network) == pytest.approx((6.0, 0.5))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_what_leaves_the_range_of_numbers_is_told(dims: int, value: float, tmp_path: Path) -> None:
    """An operation that makes 0 of what is no number does not hide it."""
    config = UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 4})
    network = random_network(config)
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(8)
    save_network(tmp_path, config, network)
    predictor, window = Predictor(load_model(tmp_path), "cpu", "float32"), window_of(config)
    scores = predictor.predict(window, scores=True).scores
    assert scores is not None
    assert np.isfinite(scores).all()
    window[(0, *[edge // 2 for edge in window.shape[1:]])] = value
    with pytest.raises(ModelError, match="not finite"):
        predictor.predict(window)
