"""Which sizes of images a network takes, and what they become: its stride, margin and scale along each axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise, product
from math import lcm, prod
from typing import TYPE_CHECKING, Literal

import torch

from pipeline.errors import ModelError
from pipeline.models.probe import Probe

if TYPE_CHECKING:
    from pipeline.geometry import Margin

__all__ = ["STRIDES", "Axis", "NotLocalError", "Sizes"]

_FIRST_SIZES = (*range(8, 33), *range(1, 8), 48, 64, 96, 128, 188, 192, 256, 320, 512, 572, *range(33, 257))
"""Tried in this order: of fewer than 8 pixels a pooling may leave one, or none, which is a case of its own."""

_UNEVEN = 96
"""Pixels from which on sizes are tried that differ along the axes."""

STRIDES = (1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 5, 10, 20, 40, 128, 7, 14, 28, 9, 18)
"""Tried in this order where the network's operations cannot be watched."""

_LARGEST_STRIDE = 512

_MOST_FAILED = 32
"""Sizes of which a network may give shapes and no numbers, before no more are tried."""

_MOST_CHANNELS = 8
"""Channels up to which it is tried how many a network takes that does not take those of its card."""

_EVEN = 64
"""Pixels up to which a stride is looked for by which all sizes on the way grow evenly."""

_GROWTHS = (2**7 * 3**2 * 5 * 7, 2**4 * 3**5 * 5**3 * 7**2 * 11 * 13)
"""By how many pixels an image grows to show the stride: multiples of the common ones, and of most others."""


class NotLocalError(Exception):
    """The network cannot be tiled without a seam; says why."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What was found along one axis."""

    margin: int
    stride: int
    phase: int
    smallest: int
    scale: int
    reach: Margin | None = None
    halo: int = 0
    kind: Literal["", "global", "unsteady", "uneven"] = ""
    problem: str = ""
    method: Literal["nan", "perturbation"] = "nan"
    notes: tuple[str, ...] = ()


class Sizes:
    """One network, as far as the sizes of its images go.

    Parameters
    ----------
    probe : Probe
        Runs it.
    output : str, optional
        Which of several outputs it is about; the first, where absent.
    first : tuple of int, optional
        A size that the network takes, where that is known.

    Raises
    ------
    ModelError
        If the network takes no image of any size that was tried, or has no such output.
    """

    def __init__(self, probe: Probe, output: str | None, first: tuple[int, ...] | None) -> None:
        self.probe, self.dims = probe, probe.dims
        self.base = self._find_base(first)
        shapes = self.probe.sizes(self.base) or {}
        self.name = output if output is not None else next(iter(shapes))
        if self.name not in shapes:
            raise ModelError(f"the network has no output {self.name!r}; it has {', '.join(shapes)}")
        self.shapes = shapes

    def _find_base(self, first: tuple[int, ...] | None) -> tuple[int, ...]:
        """Find some size that the network takes."""
        sizes = _FIRST_SIZES if not self.probe.opaque else (64, 128, 256, 16, 32, 188, 512)
        # Where legal sizes differ from axis to axis, perhaps no square is one.
        uneven = product(range(_UNEVEN, _UNEVEN + 12 // (self.dims - 1)), repeat=0 if self.probe.opaque else self.dims)
        failed = 0
        for shape in (*([first] if first else []), *((edge,) * self.dims for edge in sizes), *filter(None, uneven)):
            found = self.probe.sizes(shape)
            if found and all(min(each, default=1) > 0 for each in found.values()):
                # Shapes may be had of what numbers cannot be had of.
                if self.probe.opaque or self._try(shape):
                    return shape
                failed += 1
            if failed == _MOST_FAILED:
                break
        place = f" in {self.probe.complaint_place}" if self.probe.complaint_place else ""
        raise ModelError(
            f"the network takes no image of {self.probe.channels} channel(s) and {self.dims} spatial axes of any size "
            f"that was tried{self._other_channels()}; the last complaint{place}: {self.probe.complaint}"
        )

    def _try(self, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """Give the outputs for a grey image; none where the network refuses it."""
        line = torch.full((1, self.probe.channels, shape[0]), 0.5)
        return self.probe.run(0, line, shape, full=True, watched=False)[0]

    def _other_channels(self) -> str:
        """Say how many channels the network does take; nothing where that is not found."""
        for channels in range(1, _MOST_CHANNELS + 1):
            other = Probe(self.probe.network, channels, self.dims)
            if channels != self.probe.channels and any(other.sizes((edge,) * self.dims) for edge in (64, 188)):
                return f", and takes such of {channels} channel(s); correct the card's channels"
        return ""

    def check_image(self) -> None:
        """Refuse what gives no image, or no real numbers.

        Raises
        ------
        NotLocalError
            If so.
        ModelError
            If the axes of the output are others than those of images.
        """
        larger = (self.probe.sizes(tuple(each + by for each in self.base)) for by in (16, 32, 64))
        grown = next(filter(None, larger), self.shapes)
        if self.shapes[self.name][:2] != grown.get(self.name, ())[:2]:
            size, wanted = " x ".join(map(str, self.base)), ", ".join("ZYX"[-self.dims :])
            raise ModelError(
                f"its output {self.name!r} has the shape {self.shapes[self.name]} for an image of {size} pixels; let "
                f"the network give (1, classes, {wanted})"
            )
        if len(self.shapes[self.name]) != self.dims + 2:
            raise NotLocalError(f"not local: {self._flattening()}, leaves one answer for the whole image")
        outputs = self._try(self.base)
        if self.name in outputs and outputs[self.name].is_complex():
            raise NotLocalError("its output is complex numbers, of which none is larger; let it give scores")
        if self.name in outputs and outputs[self.name].dtype == torch.bool:
            raise NotLocalError("its output is booleans, of which there are two; let it give scores")

    def _flattening(self) -> str:
        """Name the operation after which there are no spatial axes any more."""
        larger, passed, _ = self.probe.shapes_passed(tuple(edge + 32 for edge in self.base), named=True)
        if not larger:
            _, passed, _ = self.probe.shapes_passed(self.base, named=True)
        for note in reversed(passed):
            if note.shapes and len(note.shapes[0]) == self.dims + 2 and prod(note.shapes[0][2:]) > 1:
                after = passed[passed.index(note) + 1 :]
                return str(after[0]) if after else str(note)
        return "the network"

    def letter(self, axis: int) -> str:
        """Give what people call an axis."""
        return "ZYX"[axis - self.dims]

    def at(self, axis: int, edge: int) -> tuple[int, ...]:
        """Give the shape of an image that is so long along an axis."""
        return (*self.base[:axis], edge, *self.base[axis + 1 :])

    def out(self, axis: int, edge: int) -> int | None:
        """Give the output's size along an axis; None where the input's is refused."""
        found = self.probe.sizes(self.at(axis, edge))
        if not found or len(found[self.name]) != self.dims + 2:
            return None
        return found[self.name][2 + axis] or None

    def guess_stride(self, axis: int) -> int | None:
        """Tell the stride from how sizes on the way grow with the input; None where that cannot be watched."""
        sizes = range(self.base[axis] + 1, self.base[axis] + 66)
        if self.probe.opaque:
            sizes = range(self.base[axis] + 16, self.base[axis] + 65, 16)
        if not any(self.out(axis, edge) for edge in sizes):
            if any(self.probe.sizes(tuple(each + by for each in self.base)) for by in (16, 32, 64)):
                raise NotLocalError("not local: it takes only images whose axes are as long as each other")
            place = self.probe.complaint_place or "a layer that the runtime does not name"
            raise NotLocalError(
                f"{place} takes only what comes of inputs of {self.base[axis]} pixels along {self.letter(axis)}: what "
                "stands for the whole image cannot be tiled; a fully convolutional network can, and a file exported "
                "with dynamic axes"
            )
        if self.probe.opaque or self._counts(axis):
            return None
        for growth in _GROWTHS:
            stride, rates = self._growing_stride(axis, growth)
            if 0 < stride <= _LARGEST_STRIDE:
                return self._even_stride(axis, stride, rates)
        return None

    def _counts(self, axis: int) -> bool:
        """Tell whether more pixels are more operations, as in a loop over rows, which would not end for very many."""
        before, after = (self._lengths(axis, self.base[axis] + by) for by in (0, _EVEN))
        return bool(before and after) and len(before) != len(after)

    def _growing_stride(self, axis: int, growth: int) -> tuple[int, list[Fraction]]:
        """Tell the stride from what sizes on the way grow by; more than true where that is no whole number of times.

        Also gives by how many pixels each of them grows with one of the image.
        """
        before = self._lengths(axis, self.base[axis])
        after = self._lengths(axis, self.base[axis] + growth)
        if not before or len(before) != len(after):
            return 0, []
        rates = [Fraction(large - small, growth) for small, large in zip(before, after, strict=True)]
        return lcm(1, *(rate.denominator for rate in rates if rate > 0)), rates

    def _even_stride(self, axis: int, stride: int, rates: list[Fraction]) -> int:
        """Give a multiple of a stride by which sizes on the way grow as they do in the long run.

        It is larger where a network pads its image to a multiple of something, or cuts it into windows.
        """

        def grows(step: int) -> bool:
            lengths = [self._lengths(axis, self.base[axis] + times * step) for times in (2, 3, 4)]
            return all(
                len(small) == len(large) == len(rates)
                and all(long - short == step * rate for short, long, rate in zip(small, large, rates, strict=True))
                for small, large in pairwise(lengths)
            )

        return next((step for step in range(stride, max(stride, _EVEN) + 1, stride) if grows(step)), stride)

    def _lengths(self, axis: int, edge: int) -> list[int]:
        """Give the sizes on the way along an axis, of an image that is so long along it; none where it is refused."""
        outputs, passed, _ = self.probe.shapes_passed(self.at(axis, edge))
        shapes = (shape for note in passed for shape in note.shapes) if outputs else ()
        return [shape[2 + axis] for shape in shapes if len(shape) == self.dims + 2]

    def candidates(self, axis: int, stride: int) -> list[Axis]:
        """Give the phases of legal sizes, the likeliest first: what loses least, evenly on both sides."""
        first = self.base[axis] + 2 * stride
        sizes = {edge: self.out(axis, edge) for edge in range(first, first + stride)}
        found: list[tuple[bool, int, int, Axis]] = []
        scale = 0
        for edge, here in sizes.items():
            if here is None:
                continue
            if not scale:
                grown = (self.out(axis, edge + stride) or 0) - here
                scale = stride // grown if grown > 0 and stride % grown == 0 else 0
            lost = edge - scale * here
            if scale and lost >= 0:
                phase = edge % stride
                found.append((lost % 2 == 1, lost, phase, Axis(lost // 2, stride, phase, edge, scale)))
        found.sort(key=lambda each: each[:3])
        if found and all(odd for odd, *_ in found):
            where = f"along {self.letter(axis)} ({found[0][1]})"
            problem = f"its output lacks an odd number of pixels {where}, so it has no middle"
            return [replace(found[0][3], kind="uneven", problem=problem)]
        return [each for odd, *_, each in found if not odd][:3]

    def smallest(self, axis: int, candidate: Axis) -> int:
        """Find the smallest legal size."""
        least = 2 * candidate.margin + 1
        edge = least + (candidate.phase - least) % candidate.stride
        while edge < candidate.smallest:
            size = self.out(axis, edge)
            if size is not None and edge - candidate.scale * size == 2 * candidate.margin:
                return edge
            edge += candidate.stride
        return candidate.smallest
