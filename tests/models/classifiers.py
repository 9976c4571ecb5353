"""Classifiers of patches, as people train them: random ones, and what they say of every window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

__all__ = ["Branching", "Classifier", "Head", "classifiers", "cut", "make", "slide"]


End = Literal["flatten", "view", "global", "mean", "parts"]
"""How a classifier goes from an image to numbers."""


class Classifier(nn.Module):
    """Convolutions and poolings over a fixed window, then linear layers.

    Each stage is kernel, stride, and pooling; `extent` is what they leave of the window along each axis.
    """

    def __init__(
        self,
        dims: Literal[2, 3] = 2,
        stages: tuple[tuple[int, int, int], ...] = ((3, 1, 2), (3, 1, 2)),
        extent: tuple[int, ...] = (5, 5),
        end: End = "flatten",
        hidden: tuple[int, ...] = (8,),
        norm: bool = True,
        largest: bool = True,
        classes: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        convolution: Any = nn.Conv2d if dims == 2 else nn.Conv3d
        batch: Any = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
        pools: Any = {2: (nn.MaxPool2d, nn.AvgPool2d), 3: (nn.MaxPool3d, nn.AvgPool3d)}[dims]
        adaptive: Any = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims]
        layers: list[nn.Module] = []
        width = 1
        for kernel, stride, pool in stages:
            layers.append(convolution(width, 4, kernel, stride=stride))
            width = 4
            if norm:
                layers.append(batch(width))
            layers.append(nn.ReLU(inplace=True))
            if pool > 1:
                layers.append(pools[0 if largest else 1](pool))
        features = width
        for edge in extent if end in ("flatten", "view") else ():
            features *= edge
        if end == "global":
            layers.append(adaptive(1))
        if end == "parts":
            layers.append(adaptive(tuple(2 if edge % 2 == 0 else 1 for edge in extent)))
            for edge in extent:
                features *= 2 if edge % 2 == 0 else 1
        self.features, self.end, self.dims = nn.Sequential(*layers), end, dims
        head: list[nn.Module] = []
        for outgoing in hidden:
            head += [nn.Linear(features, outgoing), nn.BatchNorm1d(outgoing) if norm else nn.Identity(), nn.ReLU(),
                     nn.Dropout(0.3)]  # fmt: skip
            features = outgoing
        self.head = nn.Sequential(*head, nn.Linear(features, classes))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.7, 1.5)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.features(image)
        if self.end == "mean":
            found = found.mean(dim=tuple(range(2, 2 + self.dims)))
        elif self.end == "view":
            found = found.view(found.size(0), -1)
        else:
            found = torch.flatten(found, 1)
        scores: Tensor = self.head(found)
        return scores


class Branching(nn.Module):
    """A residual, a concatenation, functions in the place of layers, and two heads by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.cell, self.kind = nn.Linear(8 * 4 * 4, 3), nn.Linear(8 * 4 * 4, 2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        one = torch.relu(self.first(image))
        two = torch.relu(self.second(one)) + one[:, :, 1:-1, 1:-1]
        both = torch.cat([two, one[:, :, 1:-1, 1:-1]], dim=1)
        flat = nn.functional.max_pool2d(both, 2).flatten(1)
        return {"cell": self.cell(flat), "kind": nn.functional.softmax(self.kind(flat), dim=1)}


class Head(nn.Module):
    """One of several outputs."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.network(image)[self.name]
        return scores


@st.composite
def classifiers(draw: st.DrawFn, dims: Literal[2, 3]) -> tuple[Classifier, tuple[int, ...], tuple[int, ...]]:
    """Draw a classifier, its window and its stride."""
    stages = tuple(
        (draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([1, 2, 2, 3])))
        for _ in range(draw(st.integers(1, 3 if dims == 2 else 2)))
    )
    extent = tuple(draw(st.integers(1, 5 if dims == 2 else 3)) for _ in range(dims))
    ends: list[End] = ["flatten", "view", "global", "mean", "parts"]
    end = draw(st.sampled_from(ends))
    window, stride = [], []
    for edge in extent:
        size, step = edge, 1
        for kernel, by, pool in reversed(stages):
            # What a pooling leaves over is not seen.
            size = (size * pool + draw(st.integers(0, pool - 1)) - 1) * by + kernel
            step *= by * pool
        if end == "parts" and edge % 2 == 0:
            step *= edge // 2
        window.append(size)
        stride.append(step)
    network = Classifier(
        dims, stages, extent, end, tuple(draw(st.lists(st.integers(2, 6), max_size=2))), draw(st.booleans()),
        draw(st.booleans()), draw(st.integers(2, 4)), draw(st.integers(0, 9)),
    )  # fmt: skip
    return network.eval(), tuple(window), tuple(stride)


def cut(image: Tensor, start: Sequence[int], edges: Sequence[int]) -> Tensor:
    """Cut a window out of an image; what lies beyond is left out."""
    for axis, (at, edge) in enumerate(zip(start, edges, strict=True)):
        image = image.narrow(2 + axis, at, min(edge, image.shape[2 + axis] - at))
    return image


def slide(
    network: Callable[[Tensor], Tensor], image: Tensor, window: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """Give what a classifier says of every window of an image, one by one: (1, classes, [Z,] Y, X)."""
    counts = [(have - edge) // by + 1 for have, edge, by in zip(image.shape[2:], window, stride, strict=True)]
    found = []
    for place in product(*(range(count) for count in counts)):
        start = [at * by for at, by in zip(place, stride, strict=True)]
        found.append(network(cut(image, start, window))[0])
    return torch.stack(found, dim=1).reshape(1, -1, *counts)


def make(**how: Any) -> nn.Module:  # noqa: ANN401
    """Make a classifier: a factory, as a user would write one."""
    how = {name: tuple(map(tuple, value)) if name == "stages" else value for name, value in how.items()}
    return Classifier(**how)
