"""A network under examination: which sizes it takes, and what it makes of images that vary along one axis."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from pipeline.models.lines import LineMode
from pipeline.models.steps import ExportSteps, ScriptSteps, UnknownStepError, is_exported
from pipeline.models.travel import Travel
from pipeline.models.watch import Passed, Places, Watch

__all__ = ["Around", "Probe", "load_script", "named_outputs"]


_COMPLAINTS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""How code of anybody's says that it does not take an image."""

_LONGEST_NUMBERS = 2**17
"""Pixels along an edge beyond which only shapes are asked for, and no numbers computed.

Above the first of the growths of `pipeline.models.sizes`, where a network whose sizes need numbers must compute them.
"""


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
        self.compares = bool(getattr(network, "compares", False))

    def around(self, network: nn.Module) -> Around:
        """Give the same around another network."""
        raise NotImplementedError


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
        self.compares = bool(getattr(network, "compares", False))
        self.complaint, self.complaint_place = "", ""
        self.together = 1 if self.opaque else 16
        self._sizes: dict[tuple[int, ...], dict[str, tuple[int, ...]] | None] = {}
        self._empty = [] if self.opaque else _without_numbers(network)
        self._lines = [] if self.opaque else [LineMode(axis, dims) for axis in range(dims)]
        self._stepwise = True

    @contextmanager
    def _placed(self, network: nn.Module, *, stepwise: bool) -> Iterator[tuple[nn.Module, Places]]:
        """Let a network tell where in it a pass is; give what to run for that."""
        places = Places()

        def enter(name: str) -> Any:  # noqa: ANN401 (a hook)
            return lambda *_: places.stack.append(name)

        def leave(*_: Any) -> None:  # noqa: ANN401
            places.stack.pop()

        with ExitStack() as hooks:
            if stepwise and self._stepwise:
                network = _in_steps(network, places)
            for name, module in network.named_modules():
                if name and not isinstance(module, (torch.jit.ScriptModule, ScriptSteps, ExportSteps, fx.GraphModule)):
                    label = f"{name} ({type(module).__name__})"
                    hooks.callback(module.register_forward_pre_hook(enter(label)).remove)
                    hooks.callback(module.register_forward_hook(leave).remove)
            yield network, places

    def _forward(
        self, network: nn.Module, image: Tensor, modes: Sequence[TorchDispatchMode], watch: Watch | None
    ) -> dict[str, Tensor]:
        """Run; empty where the network refuses, with the reason kept."""
        with torch.no_grad(), self._placed(network, stepwise=watch is not None) as (placed, places):
            if watch is not None:
                watch.begin(places)
                modes = [*modes, watch]
            try:
                with ExitStack() as stack:
                    for mode in modes:
                        stack.enter_context(mode)
                    given = placed(image)
            except UnknownStepError:
                # Torch runs it nevertheless; nobody knows then where in it.
                self._stepwise = False
                return self._forward(network, image, modes[:-1] if watch is not None else modes, watch)
            except _COMPLAINTS as error:
                complaint, place = _in_short(error), getattr(error, "place", "") or places.here
            else:
                if outputs := named_outputs(given):
                    return outputs
                complaint, place = f"it gives a {type(given).__name__}, and no tensor", ""
            if watch is not None and placed is not network and self._forward(network, image, modes[:-1], None):
                # It is not the network that refuses.
                self._stepwise = False
                return self._forward(network, image, modes[:-1], watch)
            self.complaint, self.complaint_place = complaint, place
            return {}

    def sizes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]] | None:
        """Give the shapes of the outputs for an input of a spatial shape; None where the network refuses it."""
        if shape not in self._sizes:
            passed = self.shapes_passed(shape)
            self._sizes[shape] = passed[0] or None
        return self._sizes[shape]

    def shapes_passed(
        self, shape: tuple[int, ...], *, named: bool = False
    ) -> tuple[dict[str, tuple[int, ...]], list[Passed], int]:
        """Give the shapes of the outputs, of all results on the way, and the bytes held at the peak (0: unknown).

        Of a network that another runtime computes the results on the way are given only where they are to be `named`.
        """
        for empty in tuple(self._empty):
            watch = Watch(self.dims, None)
            outputs = self._forward(empty, torch.empty(1, self.channels, *shape, device="meta"), [], watch)
            if outputs:
                self._empty = [empty]
                return {name: tuple(each.shape) for name, each in outputs.items()}, watch.passed, watch.peak
            if self._wants_numbers(shape):
                self._empty.remove(empty)
        if self._empty:
            return {}, [], 0
        if max(shape) > _LONGEST_NUMBERS:
            return {}, [], 0
        longest = max(range(self.dims), key=lambda axis: shape[axis])
        line = torch.full((1, self.channels, shape[longest]), 0.5)
        outputs, passed = self.run(longest, line, shape, full=True, watched=named or not self.opaque)
        return {name: tuple(each.shape) for name, each in outputs.items()}, passed, 0

    def _wants_numbers(self, shape: tuple[int, ...]) -> bool:
        """Tell whether it was for want of numbers that a network was refused, and numbers can be had."""
        if max(shape) > _LONGEST_NUMBERS:
            return False
        if self.complaint:
            return "meta" in self.complaint.lower()
        # Of a script, torch may keep to itself why it failed.
        told = self.complaint, self.complaint_place
        taken = bool(self._forward(self.network, torch.full((1, self.channels, *shape), 0.5), [], None))
        if taken or not self.complaint:
            self.complaint, self.complaint_place = told
        return taken

    def give(self, image: Tensor) -> dict[str, Tensor]:
        """Give the outputs for an image of any kind; empty where the network refuses it."""
        return self._forward(self.network, image, [], None)

    def operations(self, shape: tuple[int, ...]) -> int:
        """Count the floating-point operations of a pass on an input of a spatial shape; 0 where nobody can tell."""
        # In this order: what a size shows may be that something wants numbers.
        if not self.sizes(shape) or not self._empty:
            return 0
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False)
        self._forward(self._empty[0], torch.empty(1, self.channels, *shape, device="meta"), [counter], None)  # type: ignore[list-item]  # it is one
        return int(counter.get_total_flops())

    def run(
        self,
        axis: int,
        lines: Tensor,
        shape: tuple[int, ...],
        *,
        full: bool = False,
        watched: bool = True,
        travel: Travel | None = None,
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
        travel : Travel, optional
            What keeps NaN from being swallowed, where some are in the lines.

        Returns
        -------
        outputs : dict of str to Tensor
            Images, channels, pixels along the axis; where the output has no spatial axes, as it is. Empty on refusal.
        passed : list of Passed
        """
        extent = [*lines.shape[:2], *[1] * self.dims]
        extent[2 + axis] = lines.shape[2]
        image = lines.reshape(extent).clone().expand(*lines.shape[:2], *shape)
        if not self._lines:
            image = image.contiguous()
        watch = Watch(self.dims, axis) if watched and not self.opaque else None
        modes = [] if travel is None or self.opaque else [travel]
        outputs = self._forward(self.network, image, [*self._lines[axis : axis + 1], *modes], watch)
        if not outputs and self._lines:
            # Perhaps the lines are at fault.
            complaint = self.complaint, self.complaint_place
            outputs = self._forward(self.network, image.contiguous(), modes, watch)
            if outputs:
                self._lines, self.together = [], 1
            elif complaint[0]:
                self.complaint, self.complaint_place = complaint
        passed = watch.passed if watch is not None else []
        if watched and self.opaque:
            passed = [self._passed(name, found, axis) for name, found in self._ask("results", image)]
        if full:
            return outputs, passed
        others = [2 + other for other in range(self.dims) if other != axis]
        return {
            name: each.double().mean(dim=others) if each.ndim == self.dims + 2 else each
            for name, each in outputs.items()
        }, passed

    def _ask(self, what: Literal["results", "places"], image: Tensor) -> list[tuple[str, Tensor]]:
        """Ask a network that another runtime computes for what it gives on the way, where that can be had."""
        asked: Callable[[Tensor], list[tuple[str, Tensor]]] | None = getattr(self.network, what, None)
        try:
            return asked(image) if asked is not None else []
        except RuntimeError:
            return []  # it refuses this image, which is told where it was run

    def _image(self, line: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
        extent = [1, line.shape[0], *(line.shape[1] if at == axis else 1 for at in range(self.dims))]
        return line.reshape(extent).expand(1, line.shape[0], *shape).contiguous()

    def _passed(self, name: str, found: Tensor, axis: int) -> Passed:
        profile = None
        if found.is_floating_point() and found.ndim == self.dims + 2:
            profile = found.double().mean(dim=[at for at in range(found.ndim) if at != 2 + axis])
        return Passed("", name, [tuple(found.shape)], profile=profile)

    def first_flooded(self, one: Tensor, other: Tensor, axis: int, shape: tuple[int, ...]) -> str:
        """Name the first operation that gives something else everywhere, of two images that differ in a part."""
        results = [self._ask("results", self._image(line, axis, shape)) for line in (one, other)]
        for (name, before), (_, after) in zip(*results, strict=False):
            differs = before != after if before.shape == after.shape else torch.zeros(1, 0)
            if differs.numel() and bool(differs.any(dim=1 if differs.ndim > 1 else ()).all()):
                return str(name)
        return ""

    def reads_elsewhere(self, axis: int, one: Tensor, other: Tensor, larger: Tensor, shape: tuple[int, ...]) -> str:
        """Name an operation that reads an image at places which depend on the image; empty where there is none.

        Parameters
        ----------
        axis : int
            The axis along which images vary.
        one, other, larger : Tensor
            Three images, channels first, of which the first two are of a size.
        shape : tuple of int
            Spatial shape of the first.
        """
        if self.opaque:
            told = [self._ask("places", self._image(line, axis, shape)) for line in (one, other)]
            pairs = zip(*told, strict=False)
            return next((str(name) for (name, first), (_, second) in pairs if not torch.equal(first, second)), "")
        shapes = [(*shape[:axis], line.shape[1], *shape[axis + 1 :]) for line in (one, other, larger)]
        passed = [
            self.run(axis, line[None], edges)[1] for line, edges in zip((one, other, larger), shapes, strict=True)
        ]
        for first, second, third in zip(*passed, strict=False):
            if first.places is None or second.places is None or third.places is None:
                continue
            # Among so many places as there are classes, whatever the size of the image, none is far.
            if first.places[1] != third.places[1] and not torch.equal(first.places[0], second.places[0]):
                return str(first)
        return ""


def _in_short(error: Exception) -> str:
    """Give what an operation complains of, without the way there."""
    # Of a script, torch writes all its code between that this failed and why.
    text = " ".join(str(error).rpartition("RuntimeError: ")[2].split())[:200]
    # Of a key that is missing, the text is that key alone.
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) else text


def _without_numbers(network: nn.Module) -> list[nn.Module]:
    """Give copies of a network on the meta device, which knows shapes and computes nothing: what is tried in turn."""
    if isinstance(network, Around):
        return [network.around(inner) for inner in _without_numbers(network.network)]
    if isinstance(network, torch.jit.ScriptModule):
        # Constants of a script are perhaps numbers that sizes are computed from, and perhaps multiplied with an image.
        made = (_empty_script(network, constants=device) for device in ("cpu", "meta"))
        return [each for each in made if each is not None]
    return [_Empty(network)]


def _empty_script(network: torch.jit.ScriptModule, constants: str) -> nn.Module | None:
    """Copy a script without the numbers of its weights, its constants on a device; None where torch cannot."""
    content = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(network, content)
        emptied = load_script(content.getvalue(), constants)
        for module in emptied.modules():
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                setattr(module, name, tensor.to("meta"))
    except RuntimeError:
        return None
    return emptied


def _in_steps(network: nn.Module, places: Places) -> nn.Module:
    """Give a network that tells where in it a pass is, where hooks cannot."""
    if isinstance(network, Around):
        return network.around(_in_steps(network.network, places))
    if isinstance(network, _Empty):
        return network.around(_in_steps(network.network, places))
    if isinstance(network, torch.jit.ScriptModule):
        return ScriptSteps(network, places)
    return ExportSteps(network, places) if isinstance(network, fx.GraphModule) and is_exported(network) else network


class _Empty(nn.Module):
    """A network called with tensors that have shapes and no numbers in place of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = [network]
        own = dict(network.named_parameters(remove_duplicate=False)) | dict(
            network.named_buffers(remove_duplicate=False)
        )
        self._tensors = {name: torch.empty_like(each, device="meta") for name, each in own.items()}

    @property
    def network(self) -> nn.Module:
        """The network, which has its own tensors as ever."""
        return self._network[0]

    def around(self, network: nn.Module) -> _Empty:
        """Give the same around another network."""
        return self if network is self.network else _Empty(network)

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (torch's own)
        """Give those of the network itself."""
        return self.network.named_modules(*args, **kwargs)

    def forward(self, image: Tensor) -> Any:  # noqa: ANN401 (whatever the network gives)
        """Run the network."""
        return torch.func.functional_call(self.network, self._tensors, (image,))
