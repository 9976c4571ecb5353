"""Networks that do something odd: local ones of which NaN alone would not tell how far they look, and others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LOCAL", "NOT_LOCAL", "Odd", "look"]


class Odd(nn.Module):
    """A function of an image and some layers."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, image: Tensor) -> Any:  # noqa: ANN401 (whatever it gives)
        return self.function(image, *self.layers)


def look(far: int, outgoing: int = 2, incoming: int = 1) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, 2 * far + 1, padding=far)


def local_maxima(image: Tensor, first: nn.Module) -> Tensor:
    found: Tensor = first(image)
    return found * (found == functional.max_pool2d(found, 11, 1, 5)).float()


def threshold(image: Tensor, first: nn.Module, second: nn.Module) -> Any:  # noqa: ANN401
    return second((first(image) > 0).float())


def likeliest(image: Tensor, first: nn.Module, second: nn.Module) -> Any:  # noqa: ANN401
    return second(functional.one_hot(first(image).argmax(1), 3).movedim(-1, 1).float())


def unpooled(image: Tensor, first: nn.Module, deep: nn.Module, last: nn.Module) -> Any:  # noqa: ANN401
    """Unpool to where the largest were, as SegNet does."""
    pooled, places = functional.max_pool2d(first(image), 2, return_indices=True)
    return last(functional.max_unpool2d(deep(pooled), places, [2, 2], output_size=list(image.shape)))


def rank(image: Tensor) -> Tensor:
    parts = functional.unfold(functional.pad(image, [2] * 4), 5)
    return parts.reshape(image.shape[0], 25, *image.shape[2:]).sort(1)[0][:, 12:13]


def windows(image: Tensor, first: nn.Module, attention: nn.Module, last: nn.Module) -> Any:  # noqa: ANN401
    """Attend within windows of 4 pixels only."""
    found: Tensor = first(image)
    number, channels, height, width = found.shape
    tokens = found.reshape(number, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
    tokens = tokens.reshape(-1, 16, channels)
    tokens = attention(tokens, tokens, tokens, need_weights=False)[0]
    tokens = tokens.reshape(number, height // 4, width // 4, 4, 4, channels).permute(0, 5, 1, 3, 2, 4)
    return last(tokens.reshape(found.shape))


def shuffled(image: Tensor, middle: nn.Module) -> Tensor:
    return functional.pixel_shuffle(middle(functional.pixel_unshuffle(image, 2)), 2)


def rounded_up(image: Tensor, first: nn.Module) -> Tensor:
    pooled = functional.max_pool2d(first(image), 3, 2, 1, ceil_mode=True)
    grown = functional.interpolate(pooled, scale_factor=2.0, mode="bilinear")
    return grown[:, :, : image.shape[2], : image.shape[3]]


def gathered(image: Tensor, first: nn.Module) -> Tensor:
    height = image.shape[2]
    rows = torch.arange(height)[None, None, :, None] + (first(image) > 0).long()
    return torch.gather(image, 2, rows.clamp(max=height - 1))


def deformed(image: Tensor, first: nn.Module, flow: nn.Module) -> Tensor:
    height, width = image.shape[2:]
    rows, columns = ((2 * torch.arange(edge) + 1) / edge - 1 for edge in (height, width))
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
    by = flow(image).tanh().permute(0, 2, 3, 1) * 2 / torch.tensor([width, height])
    return functional.grid_sample(first(image), grid + by, align_corners=False)


def padded(image: Tensor, first: nn.Module) -> Tensor:
    """Pad to a multiple of 16, evenly, pool by 4, and cut back."""
    height, width = image.shape[2:]
    down, right = -height % 16, -width % 16
    whole = functional.pad(image, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")
    grown = functional.interpolate(functional.max_pool2d(first(whole), 4), scale_factor=4.0)
    return grown[:, :, down // 2 : down // 2 + height, right // 2 : right // 2 + width]


def quarter(image: Tensor, first: nn.Module) -> Tensor:
    """Pool to a quarter of the size, which fewer than 4 pixels have not."""
    height, width = image.shape[2:]
    pooled = functional.adaptive_avg_pool2d(first(image), (height // 4, width // 4))
    return functional.interpolate(pooled, size=(height, width))


def shifted_windows(image: Tensor, first: nn.Module) -> Tensor:
    """Take means of windows of 4 pixels that lie across those windows which an image must be a multiple of."""
    rolled = torch.roll(first(image), (-2, -2), (2, 3))
    number, channels, height, width = rolled.shape
    means = rolled.reshape(number, channels, height // 4, 4, width // 4, 4).mean((3, 5), keepdim=True)
    same = means.expand(-1, -1, -1, 4, -1, 4).reshape(rolled.shape)
    return torch.roll(same, (2, 2), (2, 3))


def antialiased(image: Tensor, first: nn.Module) -> Tensor:
    """Halve as a photographer does: torch computes something else where but one pixel is left."""
    halved = functional.interpolate(first(image), scale_factor=0.5, mode="bilinear", antialias=True)
    return functional.interpolate(halved, scale_factor=2.0)


def framed(image: Tensor) -> Tensor:
    """Make the outermost pixels darker, as a convolution of ones does, and look at no other pixel."""
    return image * functional.conv2d(torch.ones_like(image), torch.ones(1, 1, 3, 3), padding=1) / 9


def row_by_row(image: Tensor, first: nn.Module) -> Tensor:
    whole = functional.pad(image, (0, 0, 1, 1))
    return torch.cat([first(whole[:, :, row : row + 3]) for row in range(image.shape[2])], dim=2)


def thrifty(image: Tensor, first: nn.Module) -> Any:  # noqa: ANN401
    """Save memory where an image is large along both axes."""
    return first(functional.avg_pool2d(image, 3, 1, 1) if image.shape[2] * image.shape[3] > 500_000 else image)


LOCAL: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    # how it is made, how far it sees on either side, its stride
    "a kernel of distant points": (lambda: nn.Conv2d(1, 2, 3, dilation=200, padding=200), 200, 1),
    "local maxima": (lambda: Odd(local_maxima, look(1)), 6, 1),
    "a threshold": (lambda: Odd(threshold, look(4, 3), look(1, 2, 3)), 5, 1),
    "the likeliest of three": (lambda: Odd(likeliest, look(4, 3), look(1, 2, 3)), 5, 1),
    "the sign": (lambda: Odd(lambda image, first: first(image).sign(), look(4)), 4, 1),
    "unpooling": (lambda: Odd(unpooled, look(1, 3), look(1, 3, 3), look(1, 2, 3)), 5, 2),
    "a rank filter": (lambda: Odd(rank), 2, 1),
    "attention in windows": (
        lambda: Odd(windows, look(0, 8), nn.MultiheadAttention(8, 2, batch_first=True), look(0, 2, 8)), 3, 4
    ),
    "shuffled pixels": (lambda: Odd(shuffled, look(1, 8, 4)), 3, 2),
    "a pooling that rounds up": (lambda: Odd(rounded_up, look(1)), 4, 2),
    "a dilated pooling": (
        lambda: nn.Sequential(nn.ZeroPad2d(4), nn.MaxPool2d(3, 1, dilation=4), look(1)), 5, 1
    ),
    "circular edges": (lambda: nn.Conv2d(1, 2, 5, padding=2, padding_mode="circular"), 2, 1),
    "a roll": (lambda: Odd(lambda image: torch.roll(image, (200, 200), (2, 3)) + image), 200, 1),
    "reflected edges": (lambda: nn.Conv2d(1, 2, 5, padding=2, padding_mode="reflect"), 2, 1),
    "half precision": (
        lambda: Odd(lambda image, first: first(image.half()).float(), look(1).half()), 1, 1
    ),
    "row by row": (lambda: Odd(row_by_row, nn.Conv2d(1, 2, 3, padding=(0, 1))), 1, 1),
    "padded to a multiple": (lambda: Odd(padded, look(1)), 4, 16),
    "pooled to a quarter": (lambda: Odd(quarter, look(1)), 4, 4),
    "means of shifted windows": (lambda: Odd(shifted_windows, look(1)), 4, 4),
    "antialiased": (lambda: Odd(antialiased, look(1)), 3, 2),
    "lists in a dictionary": (
        lambda: Odd(lambda image, first: {"a": [first(image), image], "b": (image,)}, look(2)), 2, 1
    ),
}  # fmt: skip

NOT_LOCAL: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a threshold at the mean": (
        lambda: Odd(lambda image: image * (image > image.mean((2, 3), keepdim=True)).float()), "mean"
    ),
    "a stretch to the whole range": (
        lambda: Odd(lambda image: torch.nan_to_num((image - image.min()) / (image.max() - image.min()))), "not local"
    ),
    "a faint mean": (lambda: Odd(lambda image: image + 1e-3 * image.mean((2, 3), keepdim=True)), "aten::mean"),
    "a Fourier transform": (lambda: Odd(lambda image: torch.fft.ifft2(torch.fft.fft2(image) * 0.5).real), "not local"),
    "faint coordinates": (
        lambda: Odd(lambda image: image + 0.01 * torch.linspace(0, 1, image.shape[2])[:, None]),
        "not the same everywhere",
    ),
    "the size of the image": (lambda: Odd(lambda image: image + 1.0 / image.shape[2]), "not the same everywhere"),
    "a frame": (lambda: Odd(framed), "not the same everywhere"),
    "another way with small images": (
        lambda: Odd(lambda image: image * (1.0 if image.shape[2] > 20 else 0.5)), "something else with a window of"
    ),
    "another way with large images": (lambda: Odd(thrifty, look(1)), "something else with a window of 3 x 3 pixels"),
    "deformable sampling": (lambda: Odd(deformed, look(1), look(1)), "reads its input where the image says"),
    "a shift by what the image says": (lambda: Odd(gathered, look(1, 1)), "aten::gather, reads its input where"),
    "a roll by a part of the image": (
        lambda: Odd(lambda image: torch.roll(image, image.shape[2] // 4, 2) + image), "farther than the largest probe"
    ),
    "a mirror": (lambda: Odd(lambda image: image + image.flip(3)), "farther than the largest probe"),
    "transposed": (lambda: Odd(lambda image: image + image.transpose(2, 3)), "as long as each other"),
    "a finer output": (lambda: nn.Upsample(scale_factor=2), "neither the image's grid along Y nor a coarser one"),
    "a running sum": (lambda: Odd(lambda image: image.cumsum(2)), "farther than the largest probe"),
    "sorted pixels": (lambda: Odd(lambda image: image.sort(2)[0]), "not local"),
    "a kernel beyond all probes": (lambda: nn.Conv2d(1, 2, 3, dilation=3000, padding=3000), "farther than the largest"),
    "booleans": (lambda: Odd(lambda image: image > 0), "its output is booleans"),
    "complex numbers": (lambda: Odd(lambda image: torch.complex(image, image)), "complex numbers"),
}  # fmt: skip
