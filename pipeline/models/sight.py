"""Which outputs of a network see which pixels of its input: where one NaN went, or what changed when a pixel did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.errors import ModelError
from pipeline.models.sizes import Sizes
from pipeline.models.travel import Travel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pipeline.models.watch import Passed

__all__ = ["LOUD", "Sight", "one_stride"]

LOUD = 1e6
"""What a pixel is changed to: far outputs see it through many small weights."""


class Sight(Sizes):
    """One network, as far as what it sees of images that vary along one axis goes."""

    def line(self, edge: int, seed: int = 0, nan: slice | None = None) -> Tensor:
        """Give an image of random positive numbers: zeros are a case of their own to logarithms and deviations."""
        line = torch.rand(self.probe.channels, edge, generator=torch.Generator().manual_seed(seed)) + 0.1
        if nan is not None:
            line[:, nan] = torch.nan
        return line

    def run(
        self, axis: int, *lines: Tensor, watched: bool = False, travel: Travel | None = None
    ) -> tuple[Tensor, list[Passed]]:
        """Run the network on images that vary along one axis.

        Parameters
        ----------
        axis : int
            The axis.
        lines : Tensor
            Channels, pixels along the axis; of one length.
        watched, travel
            As for `pipeline.models.probe.Probe.run`.

        Returns
        -------
        outputs : Tensor
            Of the one output: images, channels, pixels along the axis.
        passed : list of Passed
            What the operations did, where they are watched.

        Raises
        ------
        ModelError
            If the network refuses the size.
        """
        shape = self.at(axis, lines[0].shape[1])
        outputs, passed = self.probe.run(axis, torch.stack(lines), shape, watched=watched, travel=travel)
        if self.name in outputs and len(outputs[self.name]) == len(lines):
            return outputs[self.name], passed
        if len(lines) == 1:
            raise ModelError(f"the network refuses a size that it should take: {self.probe.complaint}")
        # Some take one image at a time.
        self.probe.together = 1
        return torch.cat([self.run(axis, line, travel=travel)[0] for line in lines]), []

    def seen(self, axis: int, edge: int, places: Sequence[slice], method: str) -> list[list[int]]:
        """Give, for each of some parts of the input, the outputs that see any of it, in order.

        Parameters
        ----------
        axis, edge : int
            The axis, and the extent of the input along it.
        places : sequence of slice
            The parts.
        method : str
            ``"nan"`` or ``"perturbation"``.
        """
        if method == "nan":
            return self._seen_by_nan(axis, edge, places)
        found = []
        images = (0, 1) if not self.probe.opaque or self.probe.compares else (0,)
        before = {seed: self.run(axis, self.line(edge, seed))[0] for seed in images}
        for at in places:
            changed = torch.zeros(before[0].shape[2], dtype=torch.bool)
            for seed in images:
                other = self.line(edge, seed + 2)[:, at] * 2 - 1
                for value in (LOUD, -LOUD, 0.0, *((other,) if len(images) > 1 else ())):
                    line = self.line(edge, seed)
                    line[:, at] = value
                    changed |= _differs(before[seed], self.run(axis, line)[0])[0]
            found.append(changed.nonzero()[:, 0].tolist())
        return found

    def _seen_by_nan(self, axis: int, edge: int, places: Sequence[slice]) -> list[list[int]]:
        bad: list[Tensor] = []
        while len(bad) < len(places):
            lines = [self.line(edge, nan=at) for at in places[len(bad) : len(bad) + self.probe.together]]
            travel = Travel(guess=False)
            given, _ = self.run(axis, *lines, travel=travel)
            seen = torch.isnan(given).any(dim=1)
            for guess in (True, None) if travel.guessed else ():
                # What a comparison with NaN decides has been seen as well.
                other, _ = self.run(axis, *lines, travel=Travel(guess))
                seen |= torch.isnan(other).any(dim=1) | _differs(given, other)
            bad += seen
        return [each.nonzero()[:, 0].tolist() for each in bad]

    def nan_travels(self, axis: int, edge: int, stride: int) -> bool:
        """Tell whether NaN gets wherever a change does, and nowhere by itself."""
        untouched, _ = self.run(axis, self.line(edge))
        if not bool(torch.isfinite(untouched).all()):
            return False
        middle = [one_stride(edge, stride)]
        (bad,), (changed,) = self.seen(axis, edge, middle, "nan"), self.seen(axis, edge, middle, "perturbation")
        return set(changed) <= set(bad)


def one_stride(edge: int, stride: int) -> slice:
    """Give a stride of pixels in the middle: one of each phase."""
    return slice(edge // 2, edge // 2 + stride)


def _differs(one: Tensor, other: Tensor) -> Tensor:
    """Tell where images differ in any of their channels."""
    return ((one != other) & ~(one.isnan() & other.isnan())).any(dim=1)
