"""Networks with weights made for tests, saved as models: random ones, and one that tells bright from dark."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pipeline.models.architecture import UNetConfig
from pipeline.models.card import Channel, InstanceRule, IntensityRule, ModelCard, Training, Weights
from pipeline.models.library import save_model
from pipeline.models.unet import UNet

__all__ = ["random_network", "save_network", "save_random_model", "save_threshold_model"]


def random_network(config: UNetConfig, seed: int = 0) -> UNet:
    """Draw weights so that signals neither die nor explode, and statistics so that the normalisation does something."""
    torch.manual_seed(seed)
    network = UNet(config)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.7, 1.5)
    # Scores before the softmax of about the size that trained networks give; rounding grows with them.
    with torch.no_grad():
        network.head.weight.mul_(0.3)
    return network.eval()


def save_random_model(folder: Path, config: UNetConfig, seed: int = 0, contact: tuple[str, ...] = ()) -> str:
    """Save such a network as a model, and give what to call it by; its last class is that of objects."""
    return save_network(folder, config, random_network(config, seed), contact)


def save_threshold_model(folder: Path, dims: int, *, contact: bool = False) -> str:
    """Save a network whose objects are the brighter half of the intensities, so that any shapes can be had.

    With `contact` only the brightest quarter are objects; the half between them and background parts them. Of each
    convolution only the centre's weight counts, and what comes from below is left out.
    """
    config = UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 1, "classes": 3 if contact else 2})
    network = UNet(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        centre = (1,) * dims
        for block in (network.down[0], network.merge[0]):
            assert isinstance(block, nn.Sequential)
            for layer in block:
                if isinstance(layer, nn.Conv2d | nn.Conv3d):
                    layer.weight[(0, 0, *centre)] = 1
        assert network.head.bias is not None
        for number, (slope, bias) in enumerate([(1, -0.25), (3, -1.75)] if contact else [(1, -0.5)], start=1):
            network.head.weight[number, 0] = slope
            network.head.bias[number] = bias
    return save_network(folder, config, network.eval(), ("class 1",) if contact else ())


def save_network(folder: Path, config: UNetConfig, network: UNet, contact: tuple[str, ...] = ()) -> str:
    """Save a network as a model, and give what to call it by; its last class is that of objects."""
    classes = tuple(f"class {number}" for number in range(config.classes))
    card = ModelCard(
        name=folder.name,
        description="made for a test",
        licence="none",
        architecture=config,
        axes="yx" if config.dims == 2 else "zyx",
        channels=tuple(Channel(name=f"channel {number}") for number in range(config.in_channels)),
        classes=classes,
        intensity=IntensityRule(method="percentile", low=1, high=99),
        instances=InstanceRule(method="components", classes=(classes[-1],), contact=contact),
        training=Training(data="none", licence="none"),
        weights=Weights(sha256="0" * 64),
    )
    save_model(folder, card, network)
    return str(folder)
