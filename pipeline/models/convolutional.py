"""From a classifier of patches to a network that slides over an image: what is flattened becomes a convolution.

A layer that looks at all of its input is a convolution whose kernel covers that input, and each layer behind it a
convolution of one pixel. On a window of the trained size the network gives what the classifier gave; on a larger image
it gives what the classifier would give of every window, at the stride of its poolings, and computes what windows share
but once.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, fx, nn

from pipeline.errors import ModelError
from pipeline.models.conversion import Conversion
from pipeline.models.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["find_window", "make_fully_convolutional"]

LONGEST_WINDOW = 256
"""Pixels along an edge beyond which nobody looks for the window of a classifier."""


def find_window(network: nn.Module, channels: int, dims: Literal[2, 3]) -> tuple[int, ...]:
    """Find the window of a classifier that takes but one size: the smallest that it takes.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    channels, dims : int
        Channels and spatial axes of its input.

    Returns
    -------
    tuple of int
        Edges of the window.

    Raises
    ------
    ModelError
        If it takes none that is as long along all axes, or larger ones, too, so that its shape does not tell.
    """
    probe = Probe(network, channels, dims)
    for edge in range(1, LONGEST_WINDOW + 1):
        if probe.sizes((edge,) * dims):
            if probe.sizes((2 * edge + LONGEST_WINDOW,) * dims):
                raise ModelError("it takes images of any size; say which it was trained on, as network.window")
            return (edge,) * dims
    raise ModelError("no size was found that it takes; say which it was trained on, as network.window")


def make_fully_convolutional(network: nn.Module, channels: int, window: Sequence[int]) -> nn.Module:
    """Turn a classifier of patches into a network of convolutions, which says of a whole image what it says of windows.

    It is what `--fully-convolutional` does; from `pipeline`, it can be imported, too.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode, from (1, channels, *window) to (1, classes), or several of these in a tuple or by name.
        Made of convolutions and poolings without padding, batch normalisation, activations, dropout, flattening or
        means over the window, linear layers, and sums or concatenations of their results; in any modules that
        `torch.fx` can follow.
    channels : int
        Channels of its input.
    window : sequence of int
        Edges of its window, YX or ZYX.

    Returns
    -------
    nn.Module
        From (1, channels, [Z,] Y, X) to (1, classes, [Z,] Y, X): an output for each window that starts on a multiple of
        the stride. Its weights are copies.

    Raises
    ------
    ModelError
        If a layer depends on where in the window a pixel lies, or on the window as a whole, in a way that no
        convolution has; names the layer. If the network is in training mode, or takes no such window.

    Examples
    --------
    A classifier of windows of 6 x 6 pixels, with a stride of 2, on an image in which 3 x 4 such windows fit:

    >>> import torch
    >>> from pipeline import make_fully_convolutional
    >>> from torch import nn
    >>> classifier = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
    >>> sliding = make_fully_convolutional(classifier, channels=1, window=(6, 6))
    >>> image = torch.rand(1, 1, 10, 12)
    >>> sliding(image).shape
    torch.Size([1, 3, 3, 4])
    >>> window = image[..., 4:10, 2:8]
    >>> torch.allclose(sliding(image)[..., 2, 1], classifier(window), atol=1e-5)
    True
    """
    if network.training:
        raise ModelError("the network is in training mode, where outputs depend on each other; call its eval() first")
    try:
        traced = fx.symbolic_trace(deepcopy(network))
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"what the network computes cannot be followed ({text})") from error
    # Two images, so that no other axis is taken for that of images.
    example = torch.zeros(2, channels, *window, dtype=next((each.dtype for each in network.parameters()), None))
    try:
        with torch.no_grad():
            _Shapes(traced, garbage_collect_values=True).run(example)
    except Exception as error:
        fits = _fitting(network, channels, len(window)) or f" ({' '.join(str(error).split())[:200]})"
        raise ModelError(f"the network takes no window of {tuple(window)} pixels{fits}") from error
    made = Conversion(traced, len(window)).convert()
    _check(network, made, channels, tuple(window))
    return made


def _fitting(network: nn.Module, channels: int, dims: int) -> str:
    """Say which window a classifier does take; nothing where that cannot be told."""
    try:
        return f"; it takes windows of {find_window(network, channels, 2 if dims == 2 else 3)}"
    except ModelError:
        return ""


class _Shapes(fx.Interpreter):
    """Runs a network and notes at each operation the shape of what it gives; errors are raised, not printed."""

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 (whatever an operation gives)
        """Run one operation."""
        given = super().run_node(n)
        if isinstance(given, Tensor):
            n.meta["shape"] = tuple(given.shape)
        return given


def _check(network: nn.Module, made: nn.Module, channels: int, window: tuple[int, ...]) -> None:
    """Make sure that both give the same of a window."""
    generator = torch.Generator().manual_seed(0)
    dtype = next((each.dtype for each in network.parameters()), torch.float32)
    image = torch.rand(1, channels, *window, generator=generator).to(dtype)
    with torch.inference_mode():
        one, other = (_flat(each(image)) for each in (network, made))
    for wanted, given in zip(one, other, strict=True):
        size = max(float(wanted.abs().max()), 1.0)
        if wanted.numel() != given.numel() or float((wanted.ravel() - given.ravel()).abs().max()) > 1e-4 * size:
            raise ModelError("what was made of it does not give what the network gives of one window")


def _flat(outputs: Any) -> list[Tensor]:  # noqa: ANN401 (whatever a network gives)
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for each in values for tensor in _flat(each)]
