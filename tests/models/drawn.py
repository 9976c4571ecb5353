"""Networks put together by chance of the parts that people use; some with a part that no tiling can serve."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.zoo import SelfAttention, Squeeze

__all__ = ["SPOILERS", "Drawn", "draw_network"]

WIDTH = 3

Dims = Literal[2, 3]

_CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_LARGEST: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MEAN: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_BATCH: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class Function(nn.Module):
    """A function of an image, as a layer that prints its name."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image)

    def extra_repr(self) -> str:
        return self.name


def _global(image: Tensor, by: Callable[[Tensor], Tensor]) -> Tensor:
    return by(image.flatten(2)).reshape(*image.shape[:2], *[1] * (image.ndim - 2))


def _coordinates(image: Tensor) -> Tensor:
    return image + 0.01 * torch.arange(image.shape[2]).reshape(-1, *[1] * (image.ndim - 3))


def _meet(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Cut two images to what they have in common around their middle."""
    for axis in range(2, one.ndim):
        surplus = int(one.shape[axis] - other.shape[axis])
        # Counted from both ends, so that a trace of it holds for images of any size.
        cut = (slice(None),) * axis + (slice(abs(surplus) // 2, -((abs(surplus) + 1) // 2) or None),)
        one, other = (one[cut], other) if surplus > 0 else (one, other[cut])
    return one, other


SPOILERS: dict[str, Callable[[Dims], nn.Module]] = {
    "instance norm": lambda dims: _INSTANCE[dims](WIDTH),
    "group norm": lambda _: nn.GroupNorm(1, WIDTH),
    "global mean": lambda _: Function("mean", lambda image: image - _global(image, lambda flat: flat.mean(2))),
    "global maximum": lambda _: Function("maximum", lambda image: image / _global(image, lambda flat: flat.amax(2))),
    "softmax over space": lambda _: Function("softmax", lambda image: image.flatten(2).softmax(2).view(image.shape)),
    "squeeze": lambda dims: Squeeze(WIDTH) if dims == 2 else nn.GroupNorm(WIDTH, WIDTH),
    "attention": lambda dims: SelfAttention(WIDTH) if dims == 2 else nn.GroupNorm(1, WIDTH),
    "a mirror": lambda _: Function("mirror", lambda image: image + image.flip(-1)),
    "coordinates": lambda _: Function("coordinates", _coordinates),
    "a running sum": lambda _: Function("running sum", lambda image: image.cumsum(2) / 64),
}
"""What makes a network one that cannot be tiled."""


class Block(nn.Module):
    """Some convolutions with what stands between them."""

    def __init__(self, random: Random, dims: Dims, incoming: int, style: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(random.choice((1, 1, 2))):
            layers += _convolution(random, dims, incoming if number == 0 else WIDTH, style)
            if random.random() < 0.3:
                layers.append(_BATCH[dims](WIDTH))
            layers.append(
                random.choice((nn.ReLU, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Identity, nn.Softplus, nn.Hardswish))()
            )
        self.body = nn.Sequential(*layers)
        self.skip = _CONVOLUTION[dims](incoming, WIDTH, 1) if random.random() < 0.3 else None

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.body(image)
        if self.skip is None:
            return found
        skip, found = _meet(self.skip(image), found)
        return found + skip


def _convolution(random: Random, dims: Dims, incoming: int, style: str) -> list[nn.Module]:
    """Draw a convolution, or two with even kernels that together lose as much on both sides."""
    kind = _CONVOLUTION[dims]
    kernel = [random.choice((1, 3, 3, 3, 5)) for _ in range(dims)]
    dilation = [random.choice((1, 1, 1, 2, 3) if dims == 2 else (1, 1, 2)) for _ in range(dims)]
    if style == "valid":
        if random.random() < 0.2:
            return [kind(incoming, WIDTH, 2), kind(WIDTH, WIDTH, 2)]
        return [kind(incoming, WIDTH, tuple(kernel), dilation=tuple(dilation))]
    reach = tuple(by * (edge - 1) // 2 for by, edge in zip(dilation, kernel, strict=True))
    mode = random.choice(("zeros", "zeros", "zeros", "reflect", "replicate", "circular"))
    if random.random() < 0.15 and dims == 2:
        return [kind(incoming, WIDTH, (kernel[0], 1), padding=(kernel[0] // 2, 0)),
                kind(WIDTH, WIDTH, (1, kernel[1]), padding=(0, kernel[1] // 2))]  # fmt: skip
    return [kind(incoming, WIDTH, tuple(kernel), dilation=tuple(dilation), padding=reach, padding_mode=mode)]


def _pooling(random: Random, dims: Dims, scale: tuple[int, ...]) -> nn.Module:
    wide = tuple(3 if by == 2 else by for by in scale)
    around = tuple(1 if by == 2 else 0 for by in scale)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "largest": lambda: _LARGEST[dims](scale),
        "mean": lambda: _MEAN[dims](scale),
        "wide": lambda: _LARGEST[dims](wide, stride=scale, padding=around),
        "strided": lambda: _CONVOLUTION[dims](WIDTH, WIDTH, wide, stride=scale, padding=around),
    }
    if scale == (2, 2):
        kinds["shuffled"] = lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * WIDTH, WIDTH, 1))
    return kinds[random.choice((*kinds, "largest", "largest"))]()


def _growing(random: Random, dims: Dims, scale: tuple[int, ...]) -> nn.Module | None:
    """Draw an upsampling; None is one to the size of the skip."""
    wide = tuple(2 * by if by == 2 else by for by in scale)
    around = tuple(1 if by == 2 else 0 for by in scale)
    factor = tuple(float(by) for by in scale)
    linear = "bilinear" if dims == 2 else "trilinear"
    kinds: dict[str, Callable[[], nn.Module | None]] = {
        "transposed": lambda: _TRANSPOSED[dims](WIDTH, WIDTH, scale, stride=scale),
        "wide": lambda: _TRANSPOSED[dims](WIDTH, WIDTH, wide, stride=scale, padding=around),
        "nearest": lambda: nn.Upsample(scale_factor=factor),
        "linear": lambda: nn.Upsample(scale_factor=factor, mode=linear),
        "to size": lambda: None,
    }
    if scale == (2, 2):
        kinds["shuffled"] = lambda: nn.Sequential(nn.Conv2d(WIDTH, 4 * WIDTH, 1), nn.PixelShuffle(2))
    return kinds[random.choice(tuple(kinds))]()


class Drawn(nn.Module):
    """An encoder, a decoder of as many levels or fewer, and skips between them.

    Parameters
    ----------
    random : Random
        Draws its parts.
    dims : int
        Spatial axes.
    spoiler : str, optional
        One of `SPOILERS` that it has somewhere.
    """

    def __init__(self, random: Random, dims: Dims, spoiler: str | None) -> None:
        super().__init__()
        depth = random.choice((0, 1, 1, 2, 2, 3) if dims == 2 else (0, 1, 1))
        style = random.choice(("same", "same", "same", "valid"))
        self.scales = [tuple(random.choice((1, 2, 2, 2, 3)) for _ in range(dims)) for _ in range(depth)]
        if random.random() < 0.5:
            self.scales = [(by[0],) * dims for by in self.scales]
        self.dims = dims
        self.down = nn.ModuleList(Block(random, dims, 1 if level == 0 else WIDTH, style) for level in range(depth + 1))
        self.pool = nn.ModuleList(_pooling(random, dims, by) for by in self.scales)
        self.levels = depth if random.random() < 0.85 else random.randint(0, depth)
        self.grow = nn.ModuleList(_growing(random, dims, by) or nn.Identity() for by in self.scales)
        self.joins = [random.choice(("joined", "joined", "added", "gated")) for _ in range(depth)]
        self.merge = nn.ModuleList(
            Block(random, dims, 2 * WIDTH if join == "joined" else WIDTH, style) for join in self.joins
        )
        self.gate = nn.ModuleList(_CONVOLUTION[dims](WIDTH, 1, 1) for _ in range(depth))
        self.spoiler = SPOILERS[spoiler](dims) if spoiler is not None else nn.Identity()
        self.spoiled = random.randint(0, depth)
        self.head = _CONVOLUTION[dims](WIDTH, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        copies: list[Tensor] = []
        current = image
        for level, block in enumerate(self.down):
            current = block(current)
            if level == self.spoiled:
                current = self.spoiler(current)
            if level < len(self.pool):
                copies.append(current)
                current = self.pool[level](current)
        for level in reversed(range(len(self.pool) - self.levels, len(self.pool))):
            skip = copies[level]
            if isinstance(self.grow[level], nn.Identity):
                scaled = [edge * by for edge, by in zip(current.shape[2:], self.scales[level], strict=True)]
                current = functional.interpolate(current, size=scaled)
            else:
                current = self.grow[level](current)
            skip, current = _meet(skip, current)
            if self.joins[level] == "joined":
                current = torch.cat([skip, current], dim=1)
            else:
                seen = torch.sigmoid(self.gate[level](current)) if self.joins[level] == "gated" else 1
                current = current + skip * seen
            current = self.merge[level](current)
        scores: Tensor = self.head(current)
        return scores


def draw_network(seed: int, number: int, *, spoiled: bool = False) -> tuple[Drawn, Dims, str | None]:
    """Draw a network.

    Parameters
    ----------
    seed, number : int
        The same give the same.
    spoiled : bool
        Whether it has one of `SPOILERS`.

    Returns
    -------
    network : Drawn
        In evaluation mode.
    dims : int
        Its spatial axes.
    spoiler : str or None
        What it has that no tiling can serve.
    """
    random = Random(f"{seed} {number}")
    torch.manual_seed(random.randrange(2**32))
    dims: Dims = 3 if random.random() < 0.2 else 2
    spoiler = random.choice(tuple(SPOILERS)) if spoiled else None
    network = Drawn(random, dims, spoiler)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.7, 1.5)
    return network.eval(), dims, spoiler
