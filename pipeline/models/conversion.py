"""The operations of a classifier of patches, one after the other, as convolutions that slide over an image.

Each value of the classifier is followed as the image that stands for it: what is flattened stays an image, a layer that
looks at all of one becomes a convolution whose kernel covers it, and what depends on the window as a whole is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.nn import functional

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from torch.fx.node import Argument

__all__ = ["Conversion"]

# Typed loosely, for torch says of both what holds for one.
_CONVOLUTIONS: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_MEANS: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_LARGEST: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_NORMS: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

_POINTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Identity, nn.Dropout,
    nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
_POINTWISE_FUNCTIONS = {
    torch.relu, torch.sigmoid, torch.tanh, functional.relu, functional.relu6, functional.leaky_relu, functional.elu,
    functional.gelu, functional.silu, functional.mish, functional.sigmoid, functional.tanh, functional.hardswish,
    functional.hardsigmoid, functional.softplus, functional.dropout, functional.dropout2d, functional.dropout3d,
}  # fmt: skip
_POINTWISE_METHODS = {"relu", "relu_", "sigmoid", "tanh", "contiguous"}
_RESHAPING_FUNCTIONS = {torch.flatten, torch.reshape, torch.squeeze}
_RESHAPING_METHODS = {"flatten", "view", "reshape", "squeeze"}
_TOGETHER = {operator.add, torch.add, operator.iadd, operator.mul, torch.mul, operator.sub, torch.sub, torch.cat}


@dataclass(frozen=True, slots=True)
class _Held:
    """What a value of the classifier is in the network of convolutions, of one window.

    Parameters
    ----------
    shape : tuple of int
        In the classifier, without the images' axis.
    channels : int
        Of the image that stands for it.
    extent : tuple of int
        Of that image; the two hold the same numbers in the same order.
    stride : tuple of int
        Pixels of the input for one of its pixels.
    """

    shape: tuple[int, ...]
    channels: int
    extent: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def is_image(self) -> bool:
        """Whether it is an image in the classifier, too."""
        return self.shape == (self.channels, *self.extent)

    @property
    def is_vector(self) -> bool:
        """Whether each window has one number for each channel."""
        return len(self.shape) == 1 and prod(self.extent) == 1


class Conversion:
    """One network on its way.

    Parameters
    ----------
    traced : fx.GraphModule
        The classifier; changed in place. Each operation that gives a tensor has its shape, for two images, noted in
        ``meta["shape"]``.
    dims : int
        Spatial axes of its input.
    """

    def __init__(self, traced: fx.GraphModule, dims: int) -> None:
        self.traced, self.dims = traced, dims
        self.modules = dict(traced.named_modules())
        self.held: dict[fx.Node, _Held] = {}

    def convert(self) -> nn.Module:
        """Go from operation to operation, and replace those that must be others.

        Raises
        ------
        ModelError
            If an operation is none that a convolution can have; names the layer.
        """
        for node in list(self.traced.graph.nodes):
            if node.op == "output" or _shape(node) is None:
                continue
            self.held[node] = self._convert(node)
        for node in self._given():
            if not self.held[node].is_vector:
                raise self._refusal(
                    node, "it gives an image, not one answer for a window; it is no classifier of patches"
                )
        self.traced.graph.eliminate_dead_code()
        self.traced.delete_all_unused_submodules()
        self.traced.recompile()
        return self.traced.eval()

    def _given(self) -> list[fx.Node]:
        found: list[fx.Node] = []
        map_arg(next(node for node in self.traced.graph.nodes if node.op == "output").args, found.append)
        return found

    def _refusal(self, node: fx.Node, why: str) -> ModelError:
        name = str(node.target) if node.op == "call_module" else node.name
        kind = type(self.modules[str(node.target)]).__name__ if node.op == "call_module" else "operation"
        return ModelError(f"{name} ({kind}): {why}")

    def _convert(self, node: fx.Node) -> _Held:
        shape = _shape(node)
        assert shape is not None
        if node.op == "placeholder":
            return _Held(shape[1:], shape[1], shape[2:], (1,) * self.dims)
        inputs = [each for each in node.all_input_nodes if each in self.held]
        if node.op == "get_attr" or not inputs:
            raise self._refusal(node, "is a tensor of the network's own; only layers are followed")
        before = self.held[inputs[0]]
        if node.op == "call_module":
            return self._module(node, self.modules[str(node.target)], before, shape[1:])
        if node.target in _TOGETHER:
            return self._together(node, [self.held[each] for each in inputs], shape[1:])
        if len(inputs) > 1:
            raise self._refusal(node, "is not known to be the same wherever a window lies")
        pointwise = node.target in (_POINTWISE_METHODS if node.op == "call_method" else _POINTWISE_FUNCTIONS)
        if pointwise:
            return before
        if node.target in (_RESHAPING_METHODS if node.op == "call_method" else _RESHAPING_FUNCTIONS):
            return self._reshape(node, before, shape)
        if node.target in ("mean", torch.mean):
            return self._mean(node, before, shape[1:])
        if node.target is operator.getitem:
            return self._cut(node, before, shape[1:])
        if node.target in (functional.softmax, torch.softmax, functional.log_softmax, torch.log_softmax, "softmax"):
            return self._softmax(node, before)
        layer = self._as_layer(node)
        if layer is None:
            raise self._refusal(node, "is not known to be the same wherever a window lies")
        return layer

    def _as_layer(self, node: fx.Node) -> _Held | None:
        """Treat a pooling that was called as a function like the layer that it is."""
        shape, before = _shape(node), self.held[node.all_input_nodes[0]]
        assert shape is not None
        given = dict(zip(("kernel_size", "stride", "padding"), node.args[1:], strict=False)) | dict(node.kwargs)
        kinds: dict[Any, Callable[..., nn.Module]] = {
            functional.max_pool2d: nn.MaxPool2d, functional.max_pool3d: nn.MaxPool3d,
            functional.avg_pool2d: nn.AvgPool2d, functional.avg_pool3d: nn.AvgPool3d,
        }  # fmt: skip
        adaptive: dict[Any, Callable[..., nn.Module]] = {
            functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d, functional.adaptive_avg_pool3d: nn.AdaptiveAvgPool3d,
            functional.adaptive_max_pool2d: nn.AdaptiveMaxPool2d, functional.adaptive_max_pool3d: nn.AdaptiveMaxPool3d,
        }  # fmt: skip
        if node.target in kinds and len(node.args) <= 4:
            return self._pooling(node, kinds[node.target](**given), before, shape[1:])
        if node.target in adaptive:
            return self._adaptive(node, adaptive[node.target](*node.args[1:], **node.kwargs), before, shape[1:])
        return None

    def _put(self, node: fx.Node, layer: nn.Module) -> None:
        """Let a layer stand where a node stood; the node's first input is its only one."""
        name = f"fully_convolutional_{node.name}"
        self.traced.add_submodule(name, layer.eval())
        source = node.all_input_nodes[0]
        node.op, node.target = "call_module", name
        node.args, node.kwargs = (source,), {}

    def _module(self, node: fx.Node, layer: nn.Module, before: _Held, after: tuple[int, ...]) -> _Held:
        if isinstance(layer, _POINTWISE):
            return before
        if isinstance(layer, nn.Linear):
            return self._linear(node, layer, before)
        if isinstance(layer, nn.Flatten | nn.Unflatten):
            return self._reshape(node, before, (2, *after))
        if isinstance(layer, nn.BatchNorm1d) and before.is_vector and layer.running_mean is not None:
            return self._norm(node, layer, before)
        if isinstance(layer, nn.Softmax | nn.LogSoftmax) and before.is_vector:
            self._put(node, type(layer)(dim=1))
            return before
        if isinstance(layer, nn.PReLU) and (before.is_image or before.is_vector):
            return before
        if not before.is_image:
            raise self._refusal(node, "stands behind the flattening, and is no linear layer")
        if isinstance(layer, _CONVOLUTIONS[self.dims]):
            return self._convolution(node, layer, before, after)
        if isinstance(layer, (_MEANS[self.dims], _LARGEST[self.dims])):
            return self._pooling(node, layer, before, after)
        if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d | nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d):
            return self._adaptive(node, layer, before, after)
        if isinstance(layer, _NORMS[self.dims]) and layer.track_running_stats:
            return before
        raise self._refusal(node, "is not known to be the same wherever a window lies")

    def _convolution(self, node: fx.Node, layer: Any, before: _Held, after: tuple[int, ...]) -> _Held:  # noqa: ANN401
        padding = layer.padding
        pads = padding == "same" and max(layer.kernel_size) > 1
        if pads or (not isinstance(padding, str) and any(padding)):
            raise self._padded(node)
        return self._strided(before, layer.stride, after)

    def _padded(self, node: fx.Node) -> ModelError:
        return self._refusal(
            node, "pads: at the border of each window it sees what it pads with, where a larger image goes on"
        )

    def _pooling(self, node: fx.Node, layer: Any, before: _Held, after: tuple[int, ...]) -> _Held:  # noqa: ANN401
        kernel, stride, padding, dilation = (
            _per_axis(value, self.dims)
            for value in (layer.kernel_size, layer.stride or layer.kernel_size, layer.padding,
                          getattr(layer, "dilation", 1))
        )  # fmt: skip
        if any(padding):
            raise self._padded(node)
        if getattr(layer, "return_indices", False):
            raise self._refusal(node, "gives places in the window")
        reaches = [by * (edge - 1) + 1 for edge, by in zip(kernel, dilation, strict=True)]
        whole = [(have - reach) % step == 0 for have, reach, step in zip(before.extent, reaches, stride, strict=True)]
        if layer.ceil_mode:
            if not all(whole):
                raise self._refusal(node, "rounds up: the last of its results sees less of a window than the others")
            layer.ceil_mode = False
        if node.op != "call_module":
            self._put(node, layer)
        return self._strided(before, stride, after)

    def _adaptive(self, node: fx.Node, layer: Any, before: _Held, after: tuple[int, ...]) -> _Held:  # noqa: ANN401
        if getattr(layer, "return_indices", False):
            raise self._refusal(node, "gives places in the window")
        if any(have % wanted for have, wanted in zip(before.extent, after[1:], strict=True)):
            raise self._refusal(node, f"cuts {before.extent} pixels into {after[1:]} parts that are not equally large")
        kernel = tuple(have // wanted for have, wanted in zip(before.extent, after[1:], strict=True))
        # The mean of a whole window can be had at each pixel, several parts of one only where they lie side by side.
        stride = tuple(1 if wanted == 1 else edge for edge, wanted in zip(kernel, after[1:], strict=True))
        kinds = _MEANS if "Avg" in type(layer).__name__ else _LARGEST
        self._put(node, kinds[self.dims](kernel, stride))
        return self._strided(before, stride, after)

    def _strided(self, before: _Held, stride: Sequence[int], after: tuple[int, ...]) -> _Held:
        return _Held(after, after[0], after[1:], tuple(one * by for one, by in zip(before.stride, stride, strict=True)))

    def _linear(self, node: fx.Node, layer: nn.Linear, before: _Held) -> _Held:
        if len(before.shape) != 1:
            raise self._refusal(
                node, "mixes along an axis of the image; it is no layer of a classifier behind a flattening"
            )
        kind = _CONVOLUTIONS[self.dims]
        made = kind(before.channels, layer.out_features, before.extent, bias=layer.bias is not None)
        made = made.to(layer.weight.dtype)
        with torch.no_grad():
            made.weight.copy_(layer.weight.reshape(made.weight.shape))
            if made.bias is not None:
                made.bias.copy_(layer.bias)
        self._put(node, made.requires_grad_(requires_grad=False))
        return _Held((layer.out_features,), layer.out_features, (1,) * self.dims, before.stride)

    def _norm(self, node: fx.Node, layer: nn.BatchNorm1d, before: _Held) -> _Held:
        made = _NORMS[self.dims](layer.num_features, layer.eps, affine=layer.affine)
        made.load_state_dict(layer.state_dict())
        assert layer.running_mean is not None  # held by the caller
        self._put(node, made.to(layer.running_mean.dtype))
        return before

    def _softmax(self, node: fx.Node, before: _Held) -> _Held:
        if not before.is_vector:
            raise self._refusal(node, "is not taken over the classes")
        log = "log" in getattr(node.target, "__name__", str(node.target))
        self._put(node, (nn.LogSoftmax if log else nn.Softmax)(dim=1))
        return before

    def _reshape(self, node: fx.Node, before: _Held, shape: tuple[int, ...]) -> _Held:
        """Leave numbers where they are: what is flattened in the classifier stays an image here."""
        if shape[0] != 2 or prod(shape[1:]) != prod(before.shape):
            raise self._refusal(node, "mixes images")
        self._put(node, nn.Identity())
        return _Held(shape[1:], before.channels, before.extent, before.stride)

    def _mean(self, node: fx.Node, before: _Held, after: tuple[int, ...]) -> _Held:
        """Take a mean over the window's axes."""
        if not before.is_image or after not in ((before.channels,), (before.channels, *(1,) * self.dims)):
            raise self._refusal(node, "is no mean over the whole window")
        self._put(node, _MEANS[self.dims](before.extent, 1))
        return _Held(after, before.channels, (1,) * self.dims, before.stride)

    def _cut(self, node: fx.Node, before: _Held, after: tuple[int, ...]) -> _Held:
        """Cut off borders, counted from both ends, so that it is the same of a larger image."""
        index: Argument = node.args[1]
        parts = index if isinstance(index, tuple) else (index,)
        counted = all(
            isinstance(part, slice)
            and part.step in (None, 1)
            and (part.start is None or (isinstance(part.start, int) and part.start >= 0))
            and (part.stop is None or (isinstance(part.stop, int) and part.stop < 0))
            for part in parts
        )
        if not before.is_image or not counted or after[0] != before.channels:
            raise self._refusal(node, "takes a part of the window that is not counted from both of its ends")
        return _Held(after, before.channels, after[1:], before.stride)

    def _together(self, node: fx.Node, given: list[_Held], after: tuple[int, ...]) -> _Held:
        first = given[0]
        if any((each.extent, each.stride) != (first.extent, first.stride) for each in given):
            raise self._refusal(node, "puts together what has different strides")
        if node.target is not torch.cat:
            return first
        dimension = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if dimension != 1 or not all(each.is_image or each.is_vector for each in given):
            raise self._refusal(node, "joins something else than channels")
        return _Held(after, after[0], first.extent, first.stride)


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    """Give the shape of a node's result in the classifier; None where it is no tensor."""
    shape: tuple[int, ...] | None = node.meta.get("shape")
    return shape


def _per_axis(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values
