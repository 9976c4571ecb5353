"""How long it takes to derive how far real networks look, as `seamfree inspect` does, and how long its passes are.

    python tests/benchmarks/deriving.py [NAME ...]

Weights are random: what is derived does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2]))

from pipeline.models import derive
from pipeline.models.architecture import UNetConfig
from pipeline.models.derive import derive_context
from pipeline.models.facts import learn_facts
from pipeline.models.library import load_model
from pipeline.models.probe import Probe
from pipeline.models.unet import UNet


class Residual(nn.Module):
    """The basic block of ResNet-34."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False), nn.BatchNorm2d(outgoing), nn.ReLU(),
            nn.Conv2d(outgoing, outgoing, 3, 1, 1, bias=False), nn.BatchNorm2d(outgoing),
        )  # fmt: skip
        self.skip = nn.Sequential(nn.Conv2d(incoming, outgoing, 1, stride, bias=False), nn.BatchNorm2d(outgoing))

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.body(image) + self.skip(image))


class ResidualUNet(nn.Module):
    """A U-Net whose encoder is that of ResNet-34, of 24 million weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        stages = ((64, 64, 3, 1), (64, 128, 4, 2), (128, 256, 6, 2), (256, 512, 3, 2))
        self.down = nn.ModuleList(
            nn.Sequential(
                *(Residual(before if at == 0 else after, after, by if at == 0 else 1) for at in range(blocks))
            )
            for before, after, blocks, by in stages
        )
        widths = ((512 + 256, 256), (256 + 128, 128), (128 + 64, 64), (64 + 64, 32), (32, 16))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
                          nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in widths
        )  # fmt: skip
        self.head = nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        copies = [self.stem(image)]
        current = self.pool(copies[0])
        for stage in self.down:
            current = stage(current)
            copies.append(current)
        copies.pop()
        for merge in self.up:
            current = nn.functional.interpolate(current, scale_factor=2.0, mode="nearest")
            current = merge(torch.cat([current, copies.pop()], dim=1) if copies else current)
        return torch.as_tensor(self.head(current))


class Passes(Probe):
    """Notes the longest image that numbers are computed of.

    It watches from without: inside of a mode of torch's, scripts cannot be copied without their numbers, and more would
    be computed than otherwise.
    """

    longest = 0

    def run(self, axis: int, lines: Tensor, shape: tuple[int, ...], **wishes: Any) -> Any:  # noqa: ANN401 (as its base)
        Passes.longest = max(Passes.longest, *shape)
        return super().run(axis, lines, shape, **wishes)


def traced() -> nn.Module:
    """Give the U-Net of the paper as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.jit.trace(UNet(UNetConfig(padding="same")).eval(), torch.rand(1, 1, 64, 64))  # type: ignore[no-untyped-call]
    return made


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Literal[2, 3]]] = {
    "bundled": (lambda: load_model("nuclei-fluorescence").network, 2),
    "2-D, 64 channels, depth 4": (lambda: UNet(UNetConfig(padding="same")), 2),
    "the same as TorchScript": (traced, 2),
    "3-D, 32 channels, depth 3": (lambda: UNet(UNetConfig(dims=3, depth=3, base_channels=32, padding="same")), 3),
    "with an encoder of ResNet-34": (ResidualUNet, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    names = parser.parse_args().names
    derive.Probe = Passes  # type: ignore[attr-defined]
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores")
    began = perf_counter()
    learn_facts("nuclei-fluorescence")
    print(f"the bundled model, by arithmetic: {perf_counter() - began:.2f} s")
    # Torch loads what it needs for shapes alone once.
    derive_context(nn.Conv2d(1, 1, 3).eval(), 1, 2)
    for name in names:
        make, dims = NETWORKS[name]
        network = make().eval()
        Passes.longest = 0
        began = perf_counter()
        context = derive_context(network, 1, dims)
        seconds = perf_counter() - began
        facts = {
            "weights": sum(each.numel() for each in network.parameters()),
            "seconds": round(seconds, 1),
            "local": context.local,
            "reach": [max(each) for each in context.reach],
            "longest_pass": Passes.longest,
        }
        print(name, json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
