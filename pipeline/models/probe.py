"""A network under examination: which sizes it takes, and what it makes of images that vary along one axis."""

from __future__ import annotations

import io
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from pipeline.models.lines import LineMode

__all__ = ["Around", "Passed", "Probe", "load_script", "named_outputs"]


def load_script(content: bytes, device: str) -> nn.Module:
    """Load a TorchScript file onto a device; its unpickler makes tensors and nothing else."""
    with warnings.catch_warnings():
        # Torch would rather have every file exported anew.
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded: nn.Module = torch.jit.load(io.BytesIO(content), map_location=device)  # type: ignore[no-untyped-call]
    return loaded


def named_outputs(given: Any) -> dict[str, Tensor]:  # noqa: ANN401 (whatever a network gives)
    """Name what a network gives: by its keys, or by number."""
    if isinstance(given, Tensor):
        return {"0": given}
    if isinstance(given, Mapping):
        return {
            str(key) if name == "0" else f"{key}.{name}": tensor
            for key, value in given.items()
            for name, tensor in named_outputs(value).items()
        }
    if isinstance(given, Sequence):
        flat = [value for value in tree_flatten(given)[0] if isinstance(value, Tensor)]
        return {str(number): tensor for number, tensor in enumerate(flat)}
    return {}


class Around(nn.Module):
    """A layer around a network, of which there can be another one around a copy of that.

    Parameters
    ----------
    network : nn.Module
        What it is around.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.opaque = bool(getattr(network, "opaque", False))

    def around(self, network: nn.Module) -> Around:
        """Give the same around another network."""
        raise NotImplementedError


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
    """

    place: str
    operation: str
    shapes: list[tuple[int, ...]]
    flooded: bool = False
    profile: Tensor | None = None

    def __str__(self) -> str:
        return f"{self.place}, {self.operation.removeprefix('aten::').strip('_')}" if self.place else self.operation


@dataclass(slots=True)
class _Places:
    """Where in the network a forward pass is, innermost last."""

    stack: list[str] = field(default_factory=list)

    @property
    def here(self) -> str:
        return self.stack[-1] if self.stack else ""


def _extent(tensor: Tensor) -> Tensor:
    """Drop what is only repeated."""
    for dimension in range(tensor.ndim):
        if tensor.stride(dimension) == 0 and tensor.shape[dimension] > 1:
            tensor = tensor.narrow(dimension, 0, 1)
    return tensor


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what each operation does."""

    def __init__(self, places: _Places, dims: int, axis: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places, self.dims, self.axis = places, dims, axis
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
        floating = [each for each in results if each.is_floating_point() and each.numel() > 0]
        if self.axis is None:
            if not func.is_view and not func._schema.is_mutable:
                for each in results:
                    self._count(each)
        elif floating:
            first = _extent(floating[0])
            if bool(torch.isnan(first).all()):
                tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
                note.flooded = not any(
                    each.is_floating_point() and each.numel() > 0 and bool(torch.isnan(_extent(each)).all())
                    for each in tensors
                    if each is not given
                )
            if first.ndim == self.dims + 2:
                note.profile = first.mean(dim=[at for at in range(first.ndim) if at != 2 + self.axis])
        return given

    def _count(self, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(tensor, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size


class Probe:
    """Runs a network on what one wants to know.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode, on the CPU. Takes images of (1, channels, [Z,] Y, X).
    channels : int
        Channels of its input.
    dims : int
        Spatial axes of its input.
    """

    def __init__(self, network: nn.Module, channels: int, dims: int) -> None:
        self.network, self.channels, self.dims = network, channels, dims
        # A network that is no torch code cannot be watched, nor run without numbers.
        self.opaque = bool(getattr(network, "opaque", False))
        self.complaint, self.complaint_place = "", ""
        self.together = 1 if self.opaque else 16
        self._sizes: dict[tuple[int, ...], dict[str, tuple[int, ...]] | None] = {}
        self._empty = None if self.opaque else _without_numbers(network)
        self._lines = None if self.opaque else [LineMode(axis, dims) for axis in range(dims)]

    @contextmanager
    def _placed(self, network: nn.Module) -> Iterator[_Places]:
        places = _Places()

        def enter(name: str) -> Any:  # noqa: ANN401 (a hook)
            return lambda *_: places.stack.append(name)

        def leave(*_: Any) -> None:  # noqa: ANN401
            places.stack.pop()

        with ExitStack() as hooks:
            if not isinstance(network, torch.jit.ScriptModule):
                for name, module in network.named_modules():
                    if name and not isinstance(module, torch.jit.ScriptModule):
                        label = f"{name} ({type(module).__name__})"
                        hooks.callback(module.register_forward_pre_hook(enter(label)).remove)
                        hooks.callback(module.register_forward_hook(leave).remove)
            yield places

    def _forward(self, network: nn.Module, image: Tensor, modes: list[Any], places: _Places) -> dict[str, Tensor]:
        """Run; None-like empty where the network refuses, with the reason kept."""
        with torch.no_grad(), ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            try:
                return named_outputs(network(image))
            except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, NotImplementedError) as error:
                self.complaint = " ".join(str(error).split())[:200]
                self.complaint_place = places.here
                return {}

    def sizes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]] | None:
        """Give the shapes of the outputs for an input of a spatial shape; None where the network refuses it."""
        if shape not in self._sizes:
            passed = self.shapes_passed(shape)
            self._sizes[shape] = passed[0] or None
        return self._sizes[shape]

    def shapes_passed(self, shape: tuple[int, ...]) -> tuple[dict[str, tuple[int, ...]], list[Passed], int]:
        """Give the shapes of the outputs, of all results on the way, and the bytes held at the peak (0: unknown)."""
        if self._empty is not None:
            with self._placed(self._empty) as places:
                watch = _Watch(places, self.dims, None)
                image = torch.empty(1, self.channels, *shape, device="meta")
                outputs = self._forward(self._empty, image, [watch], places)
            if outputs or "meta" not in self.complaint.lower():
                return {name: tuple(each.shape) for name, each in outputs.items()}, watch.passed, watch.peak
            self._empty = None  # something in it wants numbers
        longest = max(range(self.dims), key=lambda axis: shape[axis])
        outputs, passed = self.run(longest, torch.full((1, self.channels, shape[longest]), 0.5), shape, full=True)
        return {name: tuple(each.shape) for name, each in outputs.items()}, passed, 0

    def operations(self, shape: tuple[int, ...]) -> int:
        """Count the floating-point operations of a pass on an input of a spatial shape; 0 where nobody can tell."""
        if self._empty is None or not self.sizes(shape):
            return 0
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False)
        with self._placed(self._empty) as places:
            self._forward(self._empty, torch.empty(1, self.channels, *shape, device="meta"), [counter], places)
        return int(counter.get_total_flops())

    def run(
        self, axis: int, lines: Tensor, shape: tuple[int, ...], *, full: bool = False, watched: bool = True
    ) -> tuple[dict[str, Tensor], list[Passed]]:
        """Run the network on images that vary along one axis.

        Parameters
        ----------
        axis : int
            The axis.
        lines : Tensor
            Images, channels, pixels along the axis.
        shape : tuple of int
            Spatial shape of the images.
        full : bool
            Whether the outputs are wanted as they are, not averaged over the other axes.
        watched : bool
            Whether the operations are noted; costs time.

        Returns
        -------
        outputs : dict of str to Tensor
            Images, channels, pixels along the axis; where the output has no spatial axes, as it is. Empty on refusal.
        passed : list of Passed
        """
        extent = [*lines.shape[:2], *[1] * self.dims]
        extent[2 + axis] = lines.shape[2]
        image = lines.reshape(extent).clone().expand(*lines.shape[:2], *shape)
        if self._lines is None:
            image = image.contiguous()
        with self._placed(self.network) as places:
            watch = _Watch(places, self.dims, axis)
            modes: list[Any] = []
            if self._lines is not None:
                modes.append(self._lines[axis])
            if watched and not self.opaque:
                modes.append(watch)
            outputs = self._forward(self.network, image, modes, places)
            if not outputs and self._lines is not None:
                # Perhaps the lines are at fault.
                complaint = self.complaint, self.complaint_place
                places.stack.clear()
                again = self._forward(self.network, image.contiguous(), modes[1:], places)
                if not again:
                    self.complaint, self.complaint_place = complaint
                else:
                    self._lines, self.together = None, 1
                outputs = again
        if full:
            return outputs, watch.passed
        others = [2 + other for other in range(self.dims) if other != axis]
        return {
            name: each.double().mean(dim=others) if each.ndim == self.dims + 2 else each
            for name, each in outputs.items()
        }, watch.passed


def _without_numbers(network: nn.Module) -> nn.Module | None:
    """Give a copy of a network on the meta device, which knows shapes and computes nothing; None where none can be."""
    if isinstance(network, Around):
        inner = _without_numbers(network.network)
        return None if inner is None else network.around(inner)
    if isinstance(network, torch.jit.ScriptModule):
        content = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                torch.jit.save(network, content)
            return load_script(content.getvalue(), "meta")
        except RuntimeError:
            return None
    return _Empty(network)


class _Empty(nn.Module):
    """A network called with tensors that have shapes and no numbers in place of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = [network]
        own = dict(network.named_parameters(remove_duplicate=False)) | dict(
            network.named_buffers(remove_duplicate=False)
        )
        self._tensors = {name: torch.empty_like(each, device="meta") for name, each in own.items()}

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (torch's own)
        """Give those of the network itself."""
        return self._network[0].named_modules(*args, **kwargs)

    def forward(self, image: Tensor) -> Any:  # noqa: ANN401 (whatever the network gives)
        """Run the network."""
        return torch.func.functional_call(self._network[0], self._tensors, (image,))
