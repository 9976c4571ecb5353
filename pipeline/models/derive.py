"""How far a network looks, found out by looking: its margin, stride, legal sizes and receptive field, on each axis.

One pixel is NaN, and wherever the output is NaN, that pixel was seen, whatever the weights are. It is done for all
positions that a pooling can tell apart, with images that vary along one axis. That this network shifts with its image
is tried, too: an upsampling that aligns corners does not, and no tiling can serve it.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Literal

import torch

from pipeline.errors import ModelError
from pipeline.geometry import Margin, round_up
from pipeline.models.context import ModelContext, Output
from pipeline.models.probe import Probe
from pipeline.models.sizes import STRIDES, Axis, NotLocalError, Sizes
from pipeline.models.travel import Travel
from pipeline.models.watch import Passed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

__all__ = ["LONGEST_PROBE", "derive_context"]

LONGEST_PROBE = 4096
"""Pixels along the examined axis beyond which nobody looks."""

_LONGEST_OPAQUE = {2: 1024, 3: 192}
"""The same where every probe costs a whole forward pass."""

_FIRST_PROBE = 128
"""Pixels of the smallest probe: a single kernel that reaches farther would step over its ends, unseen."""

_LOUD = 1e6
"""What a pixel is changed to: far outputs see it through many small weights."""

_ALIKE = 1e-4
"""Of the size of an output: below this, two outputs are the same but for rounding in float32."""


_UNTOLD = "a layer that cannot be told"


def derive_context(
    network: nn.Module,
    channels: int,
    dims: Literal[2, 3],
    output: str | None = None,
    longest: int = LONGEST_PROBE,
    first: tuple[int, ...] | None = None,
) -> ModelContext:
    """Find out how far a network looks, and whether it can be tiled.

    Parameters
    ----------
    network : nn.Module
        Any network from (1, channels, [Z,] Y, X) to one or several images; on the CPU, in evaluation mode.
    channels : int
        Channels of its input.
    dims : int
        Spatial axes of its input, 2 or 3.
    output : str, optional
        Which of several outputs it is about: a key, or a number from 0. The first, where absent.
    longest : int
        Extent of the largest probe, in pixels.
    first : tuple of int, optional
        A size that the network takes, where that is known.

    Returns
    -------
    ModelContext

    Raises
    ------
    ModelError
        If the network takes no image of so many channels, of any size that was tried, or has no such output.
    """
    if network.training:
        raise ModelError("the network is in training mode, where outputs depend on each other; call its eval() first")
    threads = torch.get_num_threads()
    # Lines are so short that threads would but wait for each other.
    torch.set_num_threads(1)
    try:
        return _Derivation(Probe(network, channels, dims), output, longest, first).context()
    finally:
        torch.set_num_threads(threads)


class _Derivation(Sizes):
    """One network under examination."""

    def __init__(self, probe: Probe, output: str | None, longest: int, first: tuple[int, ...] | None) -> None:
        super().__init__(probe, output, first)
        self.longest = min(longest, _LONGEST_OPAQUE[probe.dims]) if probe.opaque else longest

    def context(self) -> ModelContext:
        """Put together what was found along each axis."""
        axes: list[Axis] = []
        problem = ""
        try:
            self.check_image()
            axes = [self._along(axis) for axis in range(self.dims)]
            problem = next((each.problem for each in axes if each.problem), "")
        except NotLocalError as error:
            problem = str(error)
        reaches = tuple(each.reach for each in axes if each.reach is not None)
        local = not problem
        reason = problem
        if local:
            far = ", ".join(str(max(0, *reach)) for reach in reaches)
            reason = f"each output sees a bounded part of the image, up to {far} pixels away"
        return ModelContext(
            local=local,
            reason=reason,
            margin=tuple(each.margin for each in axes),
            reach=reaches if local else (),
            halo=tuple(each.halo for each in axes) if local else (),
            stride=tuple(each.stride for each in axes),
            phase=tuple(each.phase for each in axes),
            smallest=tuple(each.smallest for each in axes),
            scale=tuple(each.scale for each in axes),
            method="perturbation" if any(each.method == "perturbation" for each in axes) else "nan",
            outputs=tuple(Output(name, shape[1] if len(shape) > 1 else 1) for name, shape in self.shapes.items()),
            output=self.name,
            notes=tuple(dict.fromkeys(note for each in axes for note in each.notes)),
            pixel_bytes=self._pixel_bytes(axes),
        )

    def _pixel_bytes(self, axes: list[Axis]) -> int:
        """Measure what a forward pass holds at its peak, per input pixel, with half as much again for the kernels."""
        shape = self.base
        if axes:
            long = 2048 if self.dims == 2 else 256
            shape = tuple(each.phase + round_up(max(long, each.smallest), each.stride) for each in axes)
        _, _, peak = self.probe.shapes_passed(shape)
        return (peak * 3 // 2 if peak else 4 * 64 * 8 * prod(shape)) // prod(shape) + 1

    def _along(self, axis: int) -> Axis:
        """Examine one axis."""
        guess = self.guess_stride(axis)
        first: Axis | None = None
        for stride in (guess,) if guess is not None else STRIDES:
            for candidate in self.candidates(axis, stride):
                found = self._look(axis, candidate)
                if found.kind != "unsteady":
                    return found
                # Of all phases that fail, the likeliest says why.
                first = first if first is not None else found
        if first is None:
            raise NotLocalError(f"along axis {axis} there is no input whose output has the same or a coarser grid")
        return first

    def _look(self, axis: int, candidate: Axis) -> Axis:
        """See how far outputs see at all phases, and whether the network shifts with its image."""
        candidate = replace(candidate, smallest=self.smallest(axis, candidate))
        if candidate.kind:
            return candidate
        stride, scale = candidate.stride, candidate.scale
        edge = candidate.phase + round_up(max(candidate.smallest, 4 * stride, _FIRST_PROBE), stride)
        lines = self._line(edge), self._line(edge, seed=1), self._line(edge + stride)
        if layer := self.probe.reads_elsewhere(axis, *lines, self.at(axis, edge)):
            problem = f"not local: {layer}, reads its input where the image says, which may be anywhere"
            return replace(candidate, kind="global", problem=problem)
        method: Literal["nan", "perturbation"] = "nan"
        notes: tuple[str, ...] = ()
        if self.probe.opaque:
            method, notes = "perturbation", ("its operations cannot be watched: what changed with a pixel was seen",)
        elif not self._nan_travels(axis, edge, stride):
            method, notes = "perturbation", ("an operation swallows NaN: what changed with a pixel was seen",)
        candidate = replace(candidate, method=method, notes=notes)
        flooded = ""
        slack = -(-stride // scale)
        while True:
            # A stride of pixels, for a strided kernel may step over some; and whole halves, for a dilated one may step
            # over the end of a probe.
            (seen,), (left, right) = (
                self._seen(axis, edge, places, method)
                for places in ([_middle(edge, stride)], [slice(0, edge // 2 + 1), slice(edge // 2, edge)])
            )
            length = self.out(axis, edge) or 0
            if not seen:
                return replace(candidate, kind="global", problem="no output depends on its input")
            if right[0] >= slack and left[-1] < length - slack:
                if self._as_far(axis, edge, candidate, seen):
                    break
                if self.probe.opaque:
                    # It may as well be that another stride is the right one.
                    problem = f"an output sees farther than small probes tell, {edge} pixels along axis {axis}"
                    return replace(candidate, kind="unsteady", problem=problem)
                length = -1  # it is no flood
            flood = self._flood(axis, edge, stride) if len(seen) == length else ""
            if flood and (flood == flooded or 2 * edge > self.longest):
                problem = f"not local: after {flood}, each output depends on the whole image"
                return replace(candidate, kind="global", problem=problem)
            flooded = flood
            if 2 * edge > self.longest:
                problem = f"an output sees farther than the largest probe tells, {edge} pixels along axis {axis}"
                return replace(candidate, kind="global", problem=problem)
            edge = candidate.phase + round_up(2 * edge, stride)
        candidate = self._reach(axis, edge, candidate)
        return self._steady(axis, edge, candidate)

    def _as_far(self, axis: int, edge: int, candidate: Axis, seen: list[int]) -> bool:
        """Tell whether outputs of the largest probe see no farther: sparse kernels step over the ends of others."""
        stride, scale = candidate.stride, candidate.scale
        size = candidate.phase + round_up(max(edge, self.longest - candidate.stride), stride)
        middle = _middle(edge, stride).start
        nearest, farthest = seen[0] * scale - middle, seen[-1] * scale - middle
        # At the ends, too: from there one sees twice as far.
        starts = (size // stride // 2 * stride, 0, (size - stride) // stride * stride)
        shift = middle % stride
        places = [slice(at + shift, at + shift + stride) for at in starts if at + shift + stride <= size]
        return all(
            not outputs
            or (nearest - stride < outputs[0] * scale - at.start and outputs[-1] * scale - at.start < farthest + stride)
            for at, outputs in zip(places, self._seen(axis, size, places, candidate.method), strict=True)
        )

    def _flood(self, axis: int, edge: int, stride: int) -> str:
        """Name the operation after which a few NaN, or changes, are everywhere."""
        if self.probe.opaque:
            changed = self._line(edge)
            changed[:, _middle(edge, stride)] = _LOUD
            return self.probe.first_flooded(self._line(edge), changed, axis, self.at(axis, edge)) or _UNTOLD
        line = self._line(edge, nan=_middle(edge, stride))
        _, passed = self._run(axis, line, watched=True, travel=Travel(guess=False))
        return next((str(note) for note in passed if note.flooded), _UNTOLD)

    def _line(self, edge: int, seed: int = 0, nan: slice | None = None) -> Tensor:
        """Give an image of random positive numbers: zeros are a case of their own to logarithms and deviations."""
        line = torch.rand(self.probe.channels, edge, generator=torch.Generator().manual_seed(seed)) + 0.1
        if nan is not None:
            line[:, nan] = torch.nan
        return line

    def _run(
        self, axis: int, *lines: Tensor, watched: bool = False, travel: Travel | None = None
    ) -> tuple[Tensor, list[Passed]]:
        shape = self.at(axis, lines[0].shape[1])
        outputs, passed = self.probe.run(axis, torch.stack(lines), shape, watched=watched, travel=travel)
        if self.name in outputs and len(outputs[self.name]) == len(lines):
            return outputs[self.name], passed
        if len(lines) == 1:
            raise ModelError(f"the network refuses a size that it should take: {self.probe.complaint}")
        # Some take one image at a time.
        self.probe.together = 1
        return torch.cat([self._run(axis, line, travel=travel)[0] for line in lines]), []

    def _seen(self, axis: int, edge: int, places: Sequence[slice], method: str) -> list[list[int]]:
        """Give, for each of some parts of the input, the outputs that see any of it, in order."""
        if method == "nan":
            return self._seen_by_nan(axis, edge, places)
        found = []
        images = (0, 1) if not self.probe.opaque or self.probe.compares else (0,)
        before = {seed: self._run(axis, self._line(edge, seed))[0] for seed in images}
        for at in places:
            changed = torch.zeros(before[0].shape[2], dtype=torch.bool)
            for seed in images:
                other = self._line(edge, seed + 2)[:, at] * 2 - 1
                for value in (_LOUD, -_LOUD, 0.0, *((other,) if len(images) > 1 else ())):
                    line = self._line(edge, seed)
                    line[:, at] = value
                    changed |= _differs(before[seed], self._run(axis, line)[0])[0]
            found.append(changed.nonzero()[:, 0].tolist())
        return found

    def _seen_by_nan(self, axis: int, edge: int, places: Sequence[slice]) -> list[list[int]]:
        bad: list[Tensor] = []
        while len(bad) < len(places):
            lines = [self._line(edge, nan=at) for at in places[len(bad) : len(bad) + self.probe.together]]
            travel = Travel(guess=False)
            given, _ = self._run(axis, *lines, travel=travel)
            seen = torch.isnan(given).any(dim=1)
            for guess in (True, None) if travel.guessed else ():
                # What a comparison with NaN decides has been seen as well.
                other, _ = self._run(axis, *lines, travel=Travel(guess))
                seen |= torch.isnan(other).any(dim=1) | _differs(given, other)
            bad += seen
        return [each.nonzero()[:, 0].tolist() for each in bad]

    def _nan_travels(self, axis: int, edge: int, stride: int) -> bool:
        """Tell whether NaN gets wherever a change does, and nowhere by itself."""
        untouched, _ = self._run(axis, self._line(edge))
        if not bool(torch.isfinite(untouched).all()):
            return False
        middle = [_middle(edge, stride)]
        (bad,), (changed,) = self._seen(axis, edge, middle, "nan"), self._seen(axis, edge, middle, "perturbation")
        return set(changed) <= set(bad)

    def _reach(self, axis: int, edge: int, found: Axis) -> Axis:
        """Measure how far outputs see, worst case over all phases, and whether they ever see padding."""
        stride, scale, margin = found.stride, found.scale, found.margin
        # Where a probe costs a whole forward pass, all phases are changed at once: what sees any of them may see the
        # farthest, so that what is found is up to a stride too far.
        middle = _middle(edge, stride)
        phases = [middle] if self.probe.opaque else [slice(at, at + 1) for at in range(middle.start, middle.stop)]
        reach: list[tuple[int, int]] = []
        beyond = 0
        length = self.out(axis, edge) or 0
        for part, outputs in zip(phases, self._seen(axis, edge, phases, found.method), strict=True):
            for output in outputs:
                start = output * scale + margin
                before, after = start - part.start, part.stop - (start + scale)
                reach.append((before, after))
                # The first and the last output of this phase have but the margin, and then what the network pads with.
                to_first, to_last = output * scale % stride, (length - 1 - output) * scale % stride
                beyond = max(beyond, before - to_first, after - to_last)
        # Below 0 where a coarser output does not even see all of its own pixels.
        low, high = (max(distances) for distances in zip(*reach, strict=True))
        halo = max(low, high) - margin if beyond > margin else 0
        return replace(found, reach=Margin(low, high), halo=halo)

    def _steady(self, axis: int, edge: int, found: Axis) -> Axis:
        """Try whether the network gives the same for other windows of an image: a stride farther, and much larger."""
        assert found.reach is not None
        stride, scale = found.stride, found.scale
        far = max(0, *found.reach)
        border = -(-(far + found.margin) // scale) + 1
        # Whatever is lost at the ends, some strides are left to be compared.
        ends = 2 * (found.margin + border * scale)
        edge = found.phase + round_up(max(edge + 2 * far + 4 * stride, ends + 8 * stride), stride)
        long = found.phase + round_up(min(8 * edge, max(self.longest, 2 * edge)), stride)
        # Far, and yet no multiple of two strides: what repeats itself more seldom than the stride shows.
        shift = ((edge - ends) // (4 * stride) * 2 + 1) * stride
        image = self._line(shift + long, seed=1) * 4 - 2
        first = image[:, :edge]
        for start, second in ((stride, image[:, stride : edge + 2 * stride]), (shift, image[:, shift:])):
            (one,), (other,) = (self._run(axis, window)[0] for window in (first, second))
            step = start // scale
            last = one.shape[1] - border
            # There is nothing to compare where outputs are fewer than the scale says.
            if last > border + step and _alike(one[:, border + step : last], other[:, border : last - step]):
                continue
            layer = self._name_unsteady(axis, first, image[:, stride : edge + 2 * stride])
            problem = (
                f"not the same everywhere: {layer}, gives something else when the image is shifted by {start} pixels "
                "or is larger, as upsampling with aligned corners, coordinates as an input, or learned positions do"
            )
            return replace(found, kind="unsteady", problem=problem)
        return found

    def _name_unsteady(self, axis: int, one: Tensor, other: Tensor) -> str:
        """Name the first operation that gives something else when a window is shifted by a stride."""
        before, after = (self._run(axis, window, watched=True)[1] for window in (one, other))
        for first, second in zip(before, after, strict=False):
            if first.profile is not None and second.profile is not None:
                grown, length = len(second.profile) - len(first.profile), len(first.profile)
                third = length // 3
                if grown < 1 or third < 1 or third + grown > length:
                    continue
                inner = first.profile[third + grown : 2 * third + grown], second.profile[third : 2 * third]
                if len(inner[0]) == len(inner[1]) and not _alike(inner[0].double(), inner[1].double()):
                    return str(first)
        return _UNTOLD


def _middle(edge: int, stride: int) -> slice:
    """Give a stride of pixels in the middle: one of each phase."""
    return slice(edge // 2, edge // 2 + stride)


def _differs(one: Tensor, other: Tensor) -> Tensor:
    """Tell where images differ in any of their channels."""
    return ((one != other) & ~(one.isnan() & other.isnan())).any(dim=1)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Tell whether two outputs are the same but for rounding."""
    if one.numel() == 0:
        return True
    size = float(one.abs().max()) or 1.0
    return bool(torch.isfinite(one).all()) and float((one - other).abs().max()) <= _ALIKE * size
