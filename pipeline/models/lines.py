"""Running a network on images that vary along one axis only, at the cost of a line.

How far a network looks along an axis is the same wherever along the other axes it looks from. So the probes of
`pipeline.models.derive` are constant along the others, and are held as tensors whose strides there are 0. This mode
keeps them so: it computes convolutions, poolings and the like along the one axis, with kernels summed over the
others, and lets the sizes of the others be what they would have been. What it does not know it leaves to torch, which
then computes on the full extent: slower, and no less right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

__all__ = ["LineMode"]

_CONVOLUTIONS = {"aten::convolution", "aten::_convolution"}
_POOLINGS = {f"aten::{kind}" for kind in (
    "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d")}  # fmt: skip
_UPSAMPLINGS = {f"aten::{kind}" for kind in (
    "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d")}  # fmt: skip
_PADDINGS = {f"aten::{kind}" for kind in (
    "constant_pad_nd", "reflection_pad2d", "reflection_pad3d", "replication_pad2d", "replication_pad3d")}  # fmt: skip
_NEVER = {"aten::max_unpool2d", "aten::max_unpool3d"}
"""Operations that cannot be left to torch, either: they take numbers of pixels, which are others on a line."""

_RESIZING = _CONVOLUTIONS | _POOLINGS | _UPSAMPLINGS | _PADDINGS
_POINTWISE = {f"aten.{kind}" for kind in (
    "where.ScalarSelf", "where.ScalarOther", "where.Scalar", "__and__.Tensor", "__or__.Tensor", "hardswish.default",
    "_prelu_kernel.default", "_to_copy.default")}  # fmt: skip
"""What torch does not tag as pointwise, and is."""

_NORMALISATIONS = {"aten::native_batch_norm", "aten::_native_batch_norm_legit_no_training"}
_ALONG_A_DIMENSION = {"aten::_softmax", "aten::_log_softmax", "aten::mean", "aten::sum", "aten::amax", "aten::amin"}


def _per_axis(value: int | Sequence[int], axes: int) -> list[int]:
    """Write out what torch lets one say once for all axes."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


class LineMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes along one spatial axis what is constant along the others.

    Parameters
    ----------
    axis : int
        The spatial axis along which images vary.
    dims : int
        Number of spatial axes.
    """

    def __init__(self, axis: int, dims: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.axis, self.dims = axis, dims
        self._others = [2 + other for other in range(dims) if other != axis]
        self._shapes: dict[str, tuple[int, ...]] = {}
        # By identity, with the kernel itself, so that its identity is not given to another one.
        self._kernels: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (torch's own)
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Compute one operation along the line if that is known how, else as torch does."""
        named = kwargs or {}
        if func._schema.name in _NEVER:
            raise NotImplementedError(f"{func} counts pixels of the whole image")
        line = self._rule(func, args)
        if line is None:
            return func(*args, **named)
        if func._schema.is_mutable:
            line(named)
            return args[0]
        results = line(named)
        if isinstance(results, Tensor):
            return results.expand(self._shape(func, args, named, results))
        # Of several results only the first is an image.
        return (results[0].expand(self._shape(func, args, named, results[0])), *results[1:])

    def _shape(self, func: Any, args: tuple[Any, ...], named: dict[str, Any], result: Tensor) -> tuple[int, ...]:  # noqa: ANN401
        """Give the shape that an operation's result would have if it were not on a line."""
        shape = list(result.shape)
        if func._schema.name not in _RESIZING:
            given = [each for each in tree_flatten(args)[0] if isinstance(each, Tensor) and each.ndim == self.dims + 2]
            for other in self._others:
                shape[other] = max(each.shape[other] for each in given)
            return tuple(shape)
        empty = tree_map_only(Tensor, lambda tensor: tuple(tensor.shape), (args, named))
        key = f"{func} {empty}"
        if key not in self._shapes:
            empty = tree_map_only(Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), (args, named))
            found = func(*empty[0], **empty[1])
            self._shapes[key] = tuple((found if isinstance(found, Tensor) else found[0]).shape)
        return self._shapes[key]

    def _is_line(self, value: Any) -> bool:  # noqa: ANN401 (an operation's argument)
        return (
            isinstance(value, Tensor)
            and value.ndim == self.dims + 2
            and all(value.stride(other) == 0 or value.shape[other] == 1 for other in self._others)
        )

    def _cut(self, tensor: Tensor) -> Tensor:
        for other in self._others:
            tensor = tensor.narrow(other, 0, min(1, tensor.shape[other]))
        return tensor

    def _rule(self, func: Any, args: tuple[Any, ...]) -> Callable[[dict[str, Any]], Any] | None:  # noqa: ANN401
        """Find how an operation is done on lines; None where it is not."""
        name = func._schema.name
        if torch.Tag.pointwise in func.tags or str(func) in _POINTWISE:
            return self._pointwise(func, args)
        if name == "aten::cat" and all(self._is_line(each) for each in args[0]):
            dimension = (args[1] if len(args) > 1 else 0) % (self.dims + 2)
            pieces = [self._cut(each) for each in args[0]]
            return None if dimension in self._others else lambda _: torch.cat(pieces, dimension)
        if not args or not self._is_line(args[0]):
            return None
        image, *rest = args
        cut = self._cut(image)
        if name in _CONVOLUTIONS and not func._schema.is_mutable:
            return lambda _: func(cut, *self._convolution(rest))
        if name in _POOLINGS:
            pooled = self._pooling(name, rest)
            return lambda named: func(cut, *pooled, **named)
        if name in _UPSAMPLINGS and func._overloadname == "default":
            return lambda named: func(cut, *self._upsampling(rest), **named)
        if name in _PADDINGS:
            padded = [self._padding(rest[0]), *rest[1:]]
            return lambda named: func(cut, *padded, **named)
        if name == "aten::native_batch_norm" and rest[4]:
            return None  # statistics of the image itself
        if name in _NORMALISATIONS:
            return lambda named: func(cut, *rest, **named)
        if name in _ALONG_A_DIMENSION and rest:
            along = {number % image.ndim for number in _per_axis(rest[0], 1)} if rest[0] is not None else {2, 3, 4}
            kept = len(rest) > 1 and bool(rest[1])
            if along == {1} and (kept or "softmax" in name):
                return lambda named: func(cut, *rest, **named)
        return None

    def _pointwise(self, func: Any, args: tuple[Any, ...]) -> Callable[[dict[str, Any]], Any] | None:  # noqa: ANN401
        """Cut all images; what has fewer dimensions is the same along the others anyway, or there is no rule."""
        full = self.dims + 2
        tensors = [each for each in args if isinstance(each, Tensor) and each.ndim > 0]
        if not any(self._is_line(each) for each in tensors):
            return None
        for tensor in tensors:
            missing = full - tensor.ndim
            if missing < 0 or any(
                tensor.shape[other - missing] > 1 and tensor.stride(other - missing) != 0
                for other in self._others
                if other >= missing
            ):
                return None
        cut = [self._cut(each) if isinstance(each, Tensor) and each.ndim == full else each for each in args]
        return lambda named: func(*cut, **named)

    def _only(self, values: list[int], elsewhere: int) -> list[int]:
        """Keep a value of the one axis, and put another at the others."""
        return [value if axis == self.axis else elsewhere for axis, value in enumerate(values)]

    def _convolution(self, rest: list[Any]) -> list[Any]:
        weight, bias, stride, padding, dilation, transposed, output_padding, groups, *switches = rest
        if id(weight) not in self._kernels:
            self._kernels[id(weight)] = weight, weight.sum(dim=self._others, keepdim=True)
        return [
            self._kernels[id(weight)][1],
            bias,
            self._only(_per_axis(stride, self.dims), 1),
            self._only(_per_axis(padding, self.dims), 0),
            self._only(_per_axis(dilation, self.dims), 1),
            transposed,
            self._only(_per_axis(output_padding, self.dims), 0),
            groups,
            *switches,
        ]

    def _pooling(self, name: str, rest: list[Any]) -> list[Any]:
        kernel = _per_axis(rest[0], self.dims)
        stride = _per_axis(rest[1], self.dims) if len(rest) > 1 and rest[1] else kernel
        padding = _per_axis(rest[2], self.dims) if len(rest) > 2 else [0] * self.dims
        after = list(rest[3:])
        if after and "max" in name:
            after[0] = self._only(_per_axis(after[0], self.dims), 1)
        return [self._only(kernel, 1), self._only(stride, 1), self._only(padding, 0), *after]

    def _upsampling(self, rest: list[Any]) -> list[Any]:
        size, *switches = rest
        scales = switches[-self.dims :] if len(switches) >= self.dims else []
        before = switches[: len(switches) - len(scales)]
        return [
            self._only(list(size), 1),
            *before,
            *(scale if axis == self.axis else None for axis, scale in enumerate(scales)),
        ]

    def _padding(self, pads: Sequence[int]) -> list[int]:
        """Pairs of pixels before and after, from the last axis on."""
        kept = []
        for pair in range(len(pads) // 2):
            dimension = self.dims + 1 - pair
            kept += [0, 0] if dimension in self._others else list(pads[2 * pair : 2 * pair + 2])
        return kept
