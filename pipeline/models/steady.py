"""Whether a network does the same with all windows of an image, wherever they lie and however large they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pipeline.geometry import round_up
from pipeline.models.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pipeline.models.sizes import Axis

__all__ = ["UNTOLD", "Steady"]

UNTOLD = "a layer that cannot be told"

_LARGE = {2: 1024, 3: 128}
"""Pixels along all axes of the largest image of which it is tried whether it is treated as small ones are."""

_MOST_BYTES = 2 * 2**30
"""What a pass on it may hold; else it is a smaller one."""

_ALIKE = 1e-4
"""Of the size of an output: below this, two outputs are the same but for rounding in float32."""


class Steady(Sight):
    """One network, as far as it does the same everywhere."""

    def steady(self, axis: int, edge: int, found: Axis, longest: int) -> Axis:
        """Try whether a network gives the same of other windows: a stride farther, much larger, and as small as can be.

        Parameters
        ----------
        axis : int
            The axis along which windows are others.
        edge : int
            Of a window that is long enough for what outputs see.
        found : Axis
            What was found along the axis, with the halo.
        longest : int
            Pixels of the largest window, as far as smaller ones do not need more.

        Returns
        -------
        Axis
            With a problem, where it does not.
        """
        assert found.reach is not None
        stride, scale = found.stride, found.scale
        far = max(0, *found.reach)
        # What a window's edges spoil is thrown away as far as the halo says, and no farther.
        border = -(-found.halo // scale)
        # Whatever is lost at the ends, some strides are left to be compared.
        ends = 2 * (found.margin + border * scale)
        edge = found.phase + round_up(max(edge + 2 * far + 4 * stride, ends + 8 * stride), stride)
        long = found.phase + round_up(min(8 * edge, max(longest, 2 * edge)), stride)
        # Far, and yet no multiple of two strides: what repeats itself more seldom than the stride shows.
        shift = ((edge - ends) // (4 * stride) * 2 + 1) * stride
        image = self.line(shift + long, seed=1) * 4 - 2
        first = image[:, :edge]
        (one,) = self.run(axis, first)[0]
        for start, second in ((stride, image[:, stride : edge + 2 * stride]), (shift, image[:, shift:])):
            (other,) = self.run(axis, second)[0]
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
        small = _smallest_window(found)
        (other,) = self.run(axis, first[:, 2 * stride : 2 * stride + small])[0]
        inner = slice(border, other.shape[1] - border)
        step = 2 * stride // scale
        if not _alike(one[:, border + step : inner.stop + step], other[:, inner]):
            problem = f"not the same everywhere: {_otherwise(f'{small} pixels along {self.letter(axis)}', str(edge))}"
            return replace(found, kind="unsteady", problem=problem)
        return found

    def same_when_large(self, axes: list[Axis]) -> str:
        """Try whether a network does the same with images that are large along all axes, if it does other operations.

        Of images that vary along one axis only, none is large along the others.

        Parameters
        ----------
        axes : list of Axis
            What was found along each axis, with the halo.

        Returns
        -------
        str
            What is wrong, if anything.
        """
        small = tuple(_smallest_window(each) for each in axes)
        edge, ways = _LARGE[self.dims], [list[str](), list[str]()]
        large, peak = small, _MOST_BYTES + 1
        while peak > _MOST_BYTES and edge >= 2 * max(small):
            large = tuple(each.phase + round_up(max(edge, 4 * least), each.stride)
                          for each, least in zip(axes, small, strict=True))  # fmt: skip
            _, passed, peak = self.probe.shapes_passed(large)
            ways[1] = [note.operation for note in passed]
            edge //= 2
        ways[0] = [note.operation for note in self.probe.shapes_passed(small)[1]]
        if large == small or ways[0] == ways[1]:
            return ""
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, self.probe.channels, *large, generator=generator) + 0.1
        starts = [large[axis] // (2 * each.stride) * each.stride for axis, each in enumerate(axes)]
        cut = _part(image, [slice(start, start + least) for start, least in zip(starts, small, strict=True)])
        whole, window = (self.probe.give(each).get(self.name) for each in (image, cut))
        if whole is None or window is None:
            return f"the network refuses a size that it should take: {self.probe.complaint}"
        borders = [-(-each.halo // each.scale) for each in axes]
        inner = [slice(by, length - by) for by, length in zip(borders, window.shape[2:], strict=True)]
        steps = [start // each.scale for start, each in zip(starts, axes, strict=True)]
        there = [slice(at.start + by, at.stop + by) for at, by in zip(inner, steps, strict=True)]
        if _alike(_part(whole, there), _part(window, inner)):
            return ""
        return f"not the same everywhere: {_otherwise(f'{_by(small)} pixels', _by(large))}"

    def _name_unsteady(self, axis: int, one: Tensor, other: Tensor) -> str:
        """Name the first operation that gives something else when a window is shifted by a stride."""
        before, after = (self.run(axis, window, watched=True)[1] for window in (one, other))
        for first, second in zip(before, after, strict=False):
            if first.profile is not None and second.profile is not None:
                grown, length = len(second.profile) - len(first.profile), len(first.profile)
                third = length // 3
                if grown < 1 or third < 1 or third + grown > length:
                    continue
                inner = first.profile[third + grown : 2 * third + grown], second.profile[third : 2 * third]
                if len(inner[0]) == len(inner[1]) and not _alike(inner[0].double(), inner[1].double()):
                    return str(first)
        return UNTOLD


def _smallest_window(found: Axis) -> int:
    """Give the edge of the smallest window that a run could compute."""
    context = found.margin + round_up(found.halo, found.stride)
    return found.phase + round_up(max(found.smallest, 2 * context + found.stride) - found.phase, found.stride)


def _part(image: Tensor, places: Sequence[slice]) -> Tensor:
    """Cut a part out of an image, along its spatial axes."""
    return image[(slice(None), slice(None), *places)]


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _otherwise(small: str, large: str) -> str:
    return f"it does something else with a window of {small} than with one of {large}"


def _alike(one: Tensor, other: Tensor) -> bool:
    """Tell whether two outputs are the same but for rounding."""
    if one.numel() == 0:
        return True
    size = float(one.abs().max()) or 1.0
    return bool(torch.isfinite(one).all()) and float((one - other).abs().max()) <= _ALIKE * size
