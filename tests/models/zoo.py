"""Small networks of every kind that people bring: what can be tiled, and what cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ZOO", "Exhibit", "Net", "make", "make_positive"]

WIDTH = 3


class Block(nn.Module):
    """Two convolutions, with what is in fashion between them."""

    def __init__(self, dims: int, incoming: int, outgoing: int, padding: str, norm: str | None, dilation: int,
                 residual: bool) -> None:  # fmt: skip
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        pad = dilation if padding == "same" else 0
        self.residual = residual
        layers: list[nn.Module] = []
        for channels in (incoming, outgoing):
            layers.append(convolution(channels, outgoing, 3, padding=pad, dilation=dilation))
            if norm == "batch":
                layers.append((nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(outgoing))
            elif norm == "instance":
                layers.append((nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(outgoing))
            elif norm == "group":
                layers.append(nn.GroupNorm(1, outgoing))
            layers.append(nn.LeakyReLU(0.1) if residual else nn.ReLU(inplace=True))
        self.body = nn.Sequential(*layers)
        self.skip = convolution(incoming, outgoing, 1) if residual else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.body(image)
        if self.residual:
            result = result + crop(self.skip(image), result)
        return result


class Gate(nn.Module):
    """An attention gate after Oktay 2018: local, for it is made of 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip, self.up, self.look = (nn.Conv2d(channels, width, 1) for width in (channels, channels, 1))

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        return skip * torch.sigmoid(self.look(torch.relu(self.skip(skip) + self.up(up))))


class Squeeze(nn.Module):
    """Squeeze and excitation: weighs channels by what the whole image holds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool, self.look = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        return image * torch.sigmoid(self.look(self.pool(image)))


class SelfAttention(nn.Module):
    """Every pixel looks at every other one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 1, batch_first=True)

    def forward(self, image: Tensor) -> Tensor:
        tokens = image.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return image + torch.as_tensor(mixed).transpose(1, 2).reshape(image.shape)


def crop(tensor: Tensor, like: Tensor) -> Tensor:
    for axis in range(2, tensor.ndim):
        surplus = tensor.shape[axis] - like.shape[axis]
        tensor = tensor.narrow(axis, surplus // 2, like.shape[axis])
    return tensor


class Net(nn.Module):
    """An encoder and a decoder with skips, of any fashion."""

    def __init__(
        self,
        dims: Literal[2, 3] = 2,
        pools: tuple[int | tuple[int, ...], ...] = (2, 2),
        padding: str = "same",
        up: Literal["transposed", "nearest", "bilinear", "aligned", "to size"] = "transposed",
        norm: str | None = None,
        dilation: int = 1,
        residual: bool = False,
        gates: bool = False,
        middle: Callable[[int], nn.Module] | None = None,
        heads: bool = False,
        channels: int = 1,
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        pool = nn.MaxPool2d if dims == 2 else nn.MaxPool3d
        transposed: Any = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        self.up_mode, self.dims = up, dims
        self.scales = [(size,) * dims if isinstance(size, int) else size for size in pools]
        self.down = nn.ModuleList(
            Block(dims, channels if level == 0 else WIDTH, WIDTH, padding, norm, dilation, residual)
            for level in range(len(pools) + 1)
        )
        self.pool = nn.ModuleList(pool(scale) for scale in self.scales)
        self.grow = nn.ModuleList(
            transposed(WIDTH, WIDTH, scale, stride=scale) if up == "transposed" else nn.Identity()
            for scale in self.scales
        )
        self.merge = nn.ModuleList(Block(dims, 2 * WIDTH, WIDTH, padding, norm, dilation, residual) for _ in pools)
        self.gates = nn.ModuleList(Gate(WIDTH) for _ in pools) if gates else None
        self.middle = middle(WIDTH) if middle else nn.Identity()
        self.head = convolution(WIDTH, 2, 1)
        self.far = convolution(WIDTH, 1, 3, padding=1) if heads else None

    def enlarge(self, image: Tensor, level: int, like: Tensor) -> Tensor:
        linear = "bilinear" if self.dims == 2 else "trilinear"
        scale = tuple(float(factor) for factor in self.scales[level])
        if self.up_mode == "nearest":
            return functional.interpolate(image, scale_factor=scale, mode="nearest")
        if self.up_mode == "bilinear":
            return functional.interpolate(image, scale_factor=scale, mode=linear, align_corners=False)
        if self.up_mode == "aligned":
            return functional.interpolate(image, scale_factor=scale, mode=linear, align_corners=True)
        if self.up_mode == "to size":
            return functional.interpolate(image, size=like.shape[2:], mode="nearest")
        return torch.as_tensor(self.grow[level](image))

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        copies: list[Tensor] = []
        current = image
        for level, block in enumerate(self.down):
            current = block(current)
            if level < len(self.pool):
                copies.append(current)
                current = self.pool[level](current)
        current = self.middle(current)
        for level in reversed(range(len(self.pool))):
            skip = copies[level]
            current = self.enlarge(current, level, skip)
            skip = crop(skip, current)
            if self.gates is not None:
                skip = self.gates[level](skip, current)
            current = self.merge[level](torch.cat([skip, current], dim=1))
        scores: Tensor = self.head(current)
        return {"scores": scores, "edges": self.far(current)} if self.far is not None else scores


class Plain(nn.Sequential):
    """Convolutions one after the other."""

    def __init__(self, *strides: int) -> None:
        layers: list[nn.Module] = []
        for number, stride in enumerate(strides):
            layers += [nn.Conv2d(1 if number == 0 else WIDTH, WIDTH, 3, stride=stride, padding=1), nn.ReLU()]
        super().__init__(*layers)


def circular() -> nn.Module:
    """Give convolutions that go on with the opposite edge, around a pooling."""
    first, second, third = (
        nn.Conv2d(channels, WIDTH, 3, padding=1, padding_mode="circular") for channels in (1, WIDTH, WIDTH)
    )
    return nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.Upsample(scale_factor=2.0), third)


class LayerNormed(nn.Module):
    """Layer norm between convolutions: of each pixel's channels, as in ConvNeXt, or of the whole image."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.first, self.last = nn.Conv2d(1, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, image: Tensor) -> Tensor:
        image = self.first(image)
        if self.whole:
            image = nn.functional.layer_norm(image, image.shape[1:])
        else:
            image = self.norm(image.movedim(1, -1)).movedim(-1, 1)
        result: Tensor = self.last(image)
        return result


class Skipping(nn.Module):
    """Looks at each pixel's neighbours, and far around at every second pixel only."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(1, 2, 3, padding=1)
        self.skip, self.far = nn.Conv2d(1, WIDTH, 1, stride=2), nn.Conv2d(WIDTH, 2, 5, padding=4, dilation=2)

    def forward(self, image: Tensor) -> Tensor:
        odd = self.skip(functional.pad(image, (-1, 1, -1, 1)))
        return torch.as_tensor(self.near(image)) + functional.interpolate(self.far(odd), scale_factor=2.0)


class Swallowing(nn.Module):
    """Puts 0 where something is not a number, and so hides how far it looks; perhaps where torch does not see it."""

    def __init__(self, elsewhere: bool = False) -> None:
        super().__init__()
        self.elsewhere = elsewhere
        self.first, self.second = nn.Conv2d(1, WIDTH, 5, padding=2), nn.Conv2d(WIDTH, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        found = self.first(image)
        if self.elsewhere:
            return torch.as_tensor(self.second(torch.from_numpy(np.nan_to_num(found.numpy(), nan=0.0))))
        return torch.as_tensor(self.second(torch.nan_to_num(found, nan=0.0)))


class Coordinates(nn.Module):
    """Adds to each pixel where it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        rows = torch.arange(image.shape[2], device=image.device, dtype=image.dtype)
        return torch.as_tensor(self.look(torch.cat([image, rows[None, None, :, None].expand_as(image)], dim=1)))


def classifier() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, WIDTH, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(WIDTH * 49, 2))


@dataclass(frozen=True)
class Exhibit:
    """A network, and what is known of it by construction."""

    make: Callable[[], nn.Module]
    dims: Literal[2, 3] = 2
    refused: str | None = None
    method: str = "nan"
    scale: int = 1
    output: str | None = None


ZOO: dict[str, Exhibit] = {
    "classic U-Net, valid": Exhibit(lambda: Net(padding="valid")),
    "classic U-Net, same": Exhibit(Net),
    "3-D U-Net, valid": Exhibit(lambda: Net(dims=3, pools=(2,), padding="valid"), dims=3),
    "3-D U-Net, same": Exhibit(lambda: Net(dims=3, pools=(2,)), dims=3),
    "3-D U-Net, anisotropic": Exhibit(lambda: Net(dims=3, pools=((1, 2, 2),)), dims=3),
    "poolings of 3 and 2": Exhibit(lambda: Net(pools=(3, 2))),
    "poolings of 2 by 4": Exhibit(lambda: Net(pools=((2, 4),))),
    "dilated": Exhibit(lambda: Net(pools=(), dilation=4)),
    "dilated U-Net": Exhibit(lambda: Net(pools=(2,), dilation=3)),
    "residual": Exhibit(lambda: Net(residual=True)),
    "residual, valid": Exhibit(lambda: Net(residual=True, padding="valid")),
    "batch norm": Exhibit(lambda: Net(norm="batch")),
    "nearest upsampling": Exhibit(lambda: Net(up="nearest")),
    "bilinear upsampling": Exhibit(lambda: Net(up="bilinear")),
    "trilinear upsampling": Exhibit(lambda: Net(dims=3, pools=(2,), up="bilinear"), dims=3),
    "upsampling to the skip's size": Exhibit(lambda: Net(up="to size")),
    "attention gates": Exhibit(lambda: Net(gates=True)),
    "circular padding": Exhibit(circular),
    "plain CNN": Exhibit(lambda: Plain(1, 1, 1)),
    "strided convolutions": Exhibit(lambda: Plain(1, 2, 2), scale=4),
    "strided kernels of one pixel": Exhibit(
        lambda: nn.Sequential(nn.Conv2d(1, WIDTH, 1, 2), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 1, 2)), scale=4
    ),
    "pixels that are skipped": Exhibit(Skipping),
    "two heads, the second": Exhibit(lambda: Net(heads=True), output="edges"),
    "NaN swallowed": Exhibit(Swallowing),
    "NaN swallowed elsewhere": Exhibit(lambda: Swallowing(elsewhere=True), method="perturbation"),
    "instance norm": Exhibit(lambda: Net(norm="instance"), refused="down.0.body.1 (InstanceNorm2d)"),
    "layer norm of each pixel": Exhibit(lambda: LayerNormed(whole=False)),
    "layer norm": Exhibit(lambda: LayerNormed(whole=True), refused="layer_norm"),
    "group norm": Exhibit(lambda: Net(norm="group"), refused="down.0.body.1 (GroupNorm)"),
    "3-D instance norm": Exhibit(
        lambda: Net(dims=3, pools=(2,), norm="instance"), dims=3, refused="down.0.body.1 (InstanceNorm3d)"
    ),
    "squeeze and excitation": Exhibit(lambda: Net(middle=Squeeze), refused="middle.pool (AdaptiveAvgPool2d)"),
    "self-attention": Exhibit(lambda: Net(middle=SelfAttention), refused="middle.attention (MultiheadAttention)"),
    "aligned corners": Exhibit(lambda: Net(up="aligned"), refused="upsample_bilinear2d"),
    "coordinates": Exhibit(Coordinates, refused="not the same everywhere"),
    "flattening": Exhibit(classifier, refused="3 (Flatten)"),
    "an even kernel": Exhibit(lambda: nn.Conv2d(1, 2, 2), refused="odd number of pixels"),
}


def make(name: str) -> nn.Module:
    """Make an exhibit's network: a factory, as a user would write one."""
    return ZOO[name].make()


def make_positive(network: nn.Module) -> nn.Module:
    """Draw positive weights whose sums are 1, so that every change of a pixel reaches whoever sees it."""
    random = torch.Generator().manual_seed(0)
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):
            drawn = torch.rand(weight.shape, generator=random) + 0.5
            with torch.no_grad():
                weight.copy_(drawn if weight.ndim == 1 else drawn / drawn[:1].sum() * weight.shape[0] ** 0.5)
    return network.eval()
