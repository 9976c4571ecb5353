"""What each operation of a forward pass does: which shapes it gives, where NaN went, and in which module that was."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

__all__ = ["Passed", "Places", "Watch"]


_SAMPLING = {
    "aten::grid_sampler_2d": 1, "aten::grid_sampler_3d": 1, "aten::_grid_sampler_2d_cpu_fallback": 1,
    "torchvision::deform_conv2d": 2,
}  # fmt: skip
"""Operations that read between pixels, by the number of the argument that says where."""

_GATHERING = {"aten::gather", "aten::scatter", "aten::scatter_", "aten::scatter_add", "aten::index_select"}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}


@dataclass(slots=True)
class Passed:
    """What one operation of a forward pass did.

    Parameters
    ----------
    place : str
        The module in which it happened: its qualified name and type.
    operation : str
        Torch's name.
    shapes : list of tuple of int
        Of its results.
    flooded : bool
        Whether its results are NaN everywhere although no argument was.
    profile : Tensor, optional
        Its first result, averaged over the channels and all axes but the examined one.
    places : tuple of (Tensor, int), optional
        Of an operation that is told where to read or write: that, and among how many places.
    """

    place: str
    operation: str
    shapes: list[tuple[int, ...]]
    flooded: bool = False
    profile: Tensor | None = None
    places: tuple[Tensor, int] | None = None

    def __str__(self) -> str:
        return f"{self.place}, {self.operation.removeprefix('aten::').strip('_')}" if self.place else self.operation


@dataclass(slots=True)
class Places:
    """Where in the network a forward pass is, innermost last."""

    stack: list[str] = field(default_factory=list)

    @property
    def here(self) -> str:
        """The innermost module; empty outside of all."""
        return self.stack[-1] if self.stack else ""

    @contextmanager
    def inside(self, place: str) -> Iterator[None]:
        """Be in a module meanwhile; after an error, still."""
        self.stack.append(place)
        yield
        self.stack.pop()


def _extent(tensor: Tensor, dimensions: set[int]) -> Tensor:
    """Drop what is only repeated along some dimensions."""
    for dimension in dimensions & set(range(tensor.ndim)):
        if tensor.stride(dimension) == 0 and tensor.shape[dimension] > 1:
            tensor = tensor.narrow(dimension, 0, 1)
    return tensor


def _all_nan(tensor: Tensor) -> bool:
    return bool(torch.isnan(_extent(tensor, set(range(tensor.ndim)))).all())


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what each operation does.

    Parameters
    ----------
    dims : int
        Number of spatial axes.
    axis : int, optional
        The one along which images vary; None where there are no numbers, only shapes.
    """

    def __init__(self, dims: int, axis: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dims, self.axis = dims, axis
        self.begin(Places())

    def begin(self, places: Places) -> None:
        """Begin a pass anew."""
        self.places = places
        self.passed: list[Passed] = []
        self.live = self.peak = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (torch's own)
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        given: Any
        if self.axis is None and func._schema.name == "aten::native_batch_norm" and not args[5]:
            # Torch takes milliseconds to find out that the shape stays.
            given = (torch.empty_like(args[0]), torch.empty_like(args[3]), torch.empty_like(args[3]))
        else:
            given = func(*args, **(kwargs or {}))
        results = [each for each in tree_flatten(given)[0] if isinstance(each, Tensor)]
        note = Passed(self.places.here, func._schema.name, [tuple(each.shape) for each in results])
        self.passed.append(note)
        if self.axis is not None:
            note.places = self._places_in(func._schema.name, args)
        if self.axis is None:
            if not func.is_view and not func._schema.is_mutable:
                for each in results:
                    self._count(each)
        else:
            # What is asked here is nothing that the network computes.
            with _disable_current_modes():
                arguments = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
                self._look(note, results, [each for each in arguments if each is not given])
        return given

    def _look(self, note: Passed, results: list[Tensor], arguments: list[Tensor]) -> None:
        floating = [each for each in results if each.is_floating_point() and each.numel() > 0]
        if not floating:
            return
        if _all_nan(floating[0]):
            note.flooded = not any(
                each.is_floating_point() and each.numel() > 0 and _all_nan(each) for each in arguments
            )
        if floating[0].ndim == self.dims + 2:
            first = _extent(floating[0], {0, 1, 2, 3, 4} - {2 + (self.axis or 0)})
            note.profile = first.mean(dim=[at for at in range(first.ndim) if at != 2 + (self.axis or 0)])

    def _places_in(self, name: str, args: tuple[Any, ...]) -> tuple[Tensor, int] | None:
        """Give where along the axes of an image an operation reads or writes, if it is told so."""
        if name in _SAMPLING:
            return args[_SAMPLING[name]].clone(), max(args[0].shape)
        if name in _GATHERING and args[0].ndim == self.dims + 2 and args[1] % args[0].ndim >= 2:
            return args[2].clone(), args[0].shape[args[1]]
        if name in _INDEXING and isinstance(args[0], Tensor) and args[0].ndim == self.dims + 2:
            numbers = [each for each in args[1][2:] if each is not None and each.dtype != torch.bool]
            return (torch.cat([each.flatten() for each in numbers]), max(args[0].shape)) if numbers else None
        return None

    def _count(self, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(tensor, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size
