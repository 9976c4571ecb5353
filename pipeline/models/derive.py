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
from pipeline.models.sight import LOUD, one_stride
from pipeline.models.sizes import STRIDES, Axis, NotLocalError
from pipeline.models.steady import UNTOLD, Steady
from pipeline.models.travel import Travel

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LONGEST_PROBE", "derive_context"]

LONGEST_PROBE = 4096
"""Pixels along the examined axis beyond which nobody looks for what an output sees.

Windows that are compared afterwards have the context of both ends besides, and are twice as long where that is more: up
to 12,292 pixels for a network that sees 1,023.
"""

_LONGEST_OPAQUE = {2: 1024, 3: 192}
"""The same where every probe costs a whole forward pass."""

_FIRST_PROBE = 128
"""Pixels of the smallest probe: a single kernel that reaches farther would step over its ends, unseen."""

_TURNING = (
    "beyond the edges of what it is given it sees the opposite ones (circular padding); beyond those of an image it "
    "sees the mirrored image here, as all networks do"
)

_UNWATCHED = (
    "its operations cannot be watched: what changed with a stride of pixels was seen, so that reach and halo may be "
    "larger than they need be, by less than a stride"
)

_BLIND = "no output depends on its input"


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
        Pixels along an axis of the largest image in which what an output sees is looked for. Windows that are compared
        afterwards may be longer, and so are images of which the shapes alone are asked for.
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


class _Derivation(Steady):
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
            problem = next((each.problem for each in axes if each.problem), "") or self.same_when_large(axes)
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
                try:
                    found = self._look(axis, candidate)
                except ModelError as error:
                    # Of sizes farther on, others than those of this stride are legal.
                    found = replace(candidate, kind="unsteady", problem=str(error))
                if found.kind != "unsteady":
                    return found
                # Of all phases that fail, the likeliest says why.
                first = first if first is not None and first.problem != _BLIND else found
        if first is None:
            raise NotLocalError(f"its output has neither the image's grid along {self.letter(axis)} nor a coarser one")
        return first

    def _look(self, axis: int, candidate: Axis) -> Axis:
        """See how far outputs see at all phases, and whether the network shifts with its image."""
        candidate = replace(candidate, smallest=self.smallest(axis, candidate))
        if candidate.kind:
            return candidate
        stride, scale = candidate.stride, candidate.scale
        edge = candidate.phase + round_up(max(candidate.smallest, 4 * stride, _FIRST_PROBE), stride)
        lines = self.line(edge), self.line(edge, seed=1), self.line(edge + stride)
        if layer := self.probe.reads_elsewhere(axis, *lines, self.at(axis, edge)):
            problem = f"not local: {layer}, reads its input where the image says, which may be anywhere"
            return replace(candidate, kind="global", problem=problem)
        method: Literal["nan", "perturbation"] = "nan"
        notes: tuple[str, ...] = ()
        if self.probe.opaque:
            method, notes = "perturbation", (_UNWATCHED,)
        elif not self.nan_travels(axis, edge, stride):
            method, notes = "perturbation", ("an operation swallows NaN: what changed with a pixel was seen",)
        candidate = replace(candidate, method=method, notes=notes)
        flooded = ""
        slack = -(-stride // scale)
        while True:
            # A stride of pixels, for a strided kernel may step over some; and whole halves, for a dilated one may step
            # over the end of a probe.
            (seen,), (left, right) = (
                self.seen(axis, edge, places, method)
                for places in ([one_stride(edge, stride)], [slice(0, edge // 2 + 1), slice(edge // 2, edge)])
            )
            length = self.out(axis, edge) or 0
            if not seen:
                # Where the stride is but guessed, another one tells which pixels are passed over.
                kind: Literal["global", "unsteady"] = "unsteady" if self.probe.opaque else "global"
                return replace(candidate, kind=kind, problem=_BLIND)
            if any(_end(left, right, length, slack, around) for around in (0, seen[-1] - seen[0] + slack)):
                farthest = self._as_far(axis, edge, candidate, seen)
                if farthest != "no":
                    break
                if self.probe.opaque:
                    # It may as well be that another stride is the right one.
                    problem = f"an output sees farther than small probes tell, {edge} pixels along {self.letter(axis)}"
                    return replace(candidate, kind="unsteady", problem=problem)
                length = -1  # it is no flood
            flood = self._flood(axis, edge, stride) if len(seen) == length else ""
            if flood and (flood == flooded or 2 * edge > self.longest):
                problem = f"not local: after {flood}, each output depends on the whole image"
                return replace(candidate, kind="global", problem=problem)
            flooded = flood
            if 2 * edge > self.longest:
                where = f"{edge} pixels along {self.letter(axis)}"
                problem = f"an output sees farther than the largest probe tells, {where}"
                return replace(candidate, kind="global", problem=problem)
            edge = candidate.phase + round_up(2 * edge, stride)
        if farthest == "round":
            candidate = replace(candidate, notes=(*candidate.notes, _TURNING))
        candidate = self._reach(axis, edge, candidate)
        return self.steady(axis, edge, candidate, self.longest)

    def _as_far(self, axis: int, edge: int, candidate: Axis, seen: list[int]) -> Literal["yes", "no", "round"]:
        """Tell whether outputs of the largest probe see no farther: sparse kernels step over the ends of others.

        They may see as far round its ends, from one to the other.
        """
        stride, scale = candidate.stride, candidate.scale
        size = candidate.phase + round_up(max(edge, self.longest - candidate.stride), stride)
        middle = one_stride(edge, stride).start
        nearest, farthest = seen[0] * scale - middle, seen[-1] * scale - middle
        # At the ends, too: from there one sees twice as far.
        starts = (size // stride // 2 * stride, 0, (size - stride) // stride * stride)
        shift = middle % stride
        places = [slice(at + shift, at + shift + stride) for at in starts if at + shift + stride <= size]
        away = {
            output * scale - at.start
            for at, outputs in zip(places, self.seen(axis, size, places, candidate.method), strict=True)
            for output in outputs
        }
        beyond = {by for by in away if not nearest - stride < by < farthest + stride}
        round_it = all(any(nearest - stride < by + turn < farthest + stride for turn in (size, -size)) for by in beyond)
        return "yes" if not beyond else "round" if round_it else "no"

    def _flood(self, axis: int, edge: int, stride: int) -> str:
        """Name the operation after which a few NaN, or changes, are everywhere."""
        if self.probe.opaque:
            changed = self.line(edge)
            changed[:, one_stride(edge, stride)] = LOUD
            return self.probe.first_flooded(self.line(edge), changed, axis, self.at(axis, edge)) or UNTOLD
        line = self.line(edge, nan=one_stride(edge, stride))
        _, passed = self.run(axis, line, watched=True, travel=Travel(guess=False))
        return next((str(note) for note in passed if note.flooded), UNTOLD)

    def _reach(self, axis: int, edge: int, found: Axis) -> Axis:
        """Measure how far outputs see, worst case over all phases, and whether they ever see padding."""
        stride, scale, margin = found.stride, found.scale, found.margin
        # Where a probe costs a whole forward pass, all phases are changed at once: what sees any of them may see the
        # farthest, so that what is found is up to a stride too far.
        middle = one_stride(edge, stride)
        phases = [middle] if self.probe.opaque else [slice(at, at + 1) for at in range(middle.start, middle.stop)]
        reach: list[tuple[int, int]] = []
        beyond = 0
        length = self.out(axis, edge) or 0
        for part, outputs in zip(phases, self.seen(axis, edge, phases, found.method), strict=True):
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


def _end(left: list[int], right: list[int], length: int, slack: int, around: int) -> bool:
    """Tell whether the halves of an image are seen no farther than somewhere in the other half.

    Parameters
    ----------
    left, right : list of int
        Outputs that see the left half, and the right half.
    length, slack : int
        How many outputs there are, and how many a stride is.
    around : int
        So many outputs at each end may see the opposite one.
    """
    last = max((output for output in left if output < length - around), default=0)
    first = min((output for output in right if output >= around), default=length)
    return first >= around + slack and last < length - around - slack
