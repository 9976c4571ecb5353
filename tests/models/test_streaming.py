"""A 3-D U-Net that is fed slab by slab gives what one pass gives, in a fraction of the memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.architecture import UNetConfig
from pipeline.models.fusing import fold_normalisation
from pipeline.models.streaming import StreamedUNet
from pipeline.models.unet import UNet

LIMITS = {torch.float64: 1e-12, torch.float32: 1e-6}


def networks(config: UNetConfig, dtype: torch.dtype) -> UNet:
    """Make a network whose normalisations have seen something, as a predictor has it."""
    torch.manual_seed(0)
    network = UNet(config).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(layer.weight, 0.5, 2)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 2)
    folded = fold_normalisation(network.double())
    assert isinstance(folded, UNet)
    return folded.to(dtype=dtype, memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


@settings(deadline=None, max_examples=30)
@given(
    st.builds(
        UNetConfig,
        dims=st.just(3), depth=st.integers(0, 2), base_channels=st.just(2), in_channels=st.integers(1, 2),
        classes=st.integers(2, 3), padding=st.sampled_from(["valid", "same"]), norm=st.sampled_from(["none", "batch"]),
    ),
    st.sampled_from([torch.float64, torch.float32]),
    st.sampled_from([None, 1, 2, 3, 7, 500]),
    st.tuples(*[st.integers(0, 2)] * 3),
)  # fmt: skip
def test_slabs_of_any_thickness_give_what_one_pass_gives(
    config: UNetConfig, dtype: torch.dtype, planes: int | None, steps: tuple[int, int, int]
) -> None:
    network, footprint = networks(config, dtype), config.footprint
    window = [
        least + step * stride for least, stride, step in zip(footprint.smallest, footprint.stride, steps, strict=True)
    ]
    image = torch.rand(1, config.in_channels, *window, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        whole, streamed = network(image), StreamedUNet(network, planes)(image)
    assert streamed.shape == whole.shape
    assert (streamed - whole).abs().max() <= LIMITS[dtype]


def test_the_papers_network_in_slabs() -> None:
    config = UNetConfig(dims=3, depth=3, base_channels=2)
    network = networks(config, torch.float32)
    image = torch.rand(1, 1, 132, 100, 100).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        assert (StreamedUNet(network)(image) - network(image)).abs().max() <= LIMITS[torch.float32]


@pytest.mark.parametrize("planes", [None, 5])
def test_what_is_not_finite_is_seen_where_one_pass_sees_it(planes: int | None) -> None:
    config = UNetConfig(dims=3, depth=2, base_channels=2)
    network = networks(config, torch.float32)
    image = torch.rand(1, 1, *config.footprint.window_shape((8, 8, 8)))
    image[0, 0, 30, 25, 20] = torch.nan
    image = image.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        whole, streamed = network(image), StreamedUNet(network, planes)(image)
    assert whole.isnan().any()
    assert torch.equal(whole.isnan(), streamed.isnan())
