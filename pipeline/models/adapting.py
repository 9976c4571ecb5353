"""Layers around a network from elsewhere: its order of axes, and what makes its output scores of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.models.network import usual_order
from pipeline.models.probe import Around, named_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.models.network import NetworkFile
    from pipeline.models.pixels import PixelRule

__all__ = ["Reordered", "apply_steps", "finish_scores", "in_usual_order"]


class Reordered(Around):
    """A network that takes or gives its axes in another order.

    Parameters
    ----------
    network : nn.Module
        The network.
    order, output_order : str
        Letters of its axes; where batch or channels are missing, there is one of them.
    spatial : str
        Those of the spatial axes, in the order of this program.
    """

    def __init__(self, network: nn.Module, order: str, output_order: str, spatial: str) -> None:
        super().__init__(network)
        self.order, self.output_order, self.spatial = order, output_order, spatial
        self.usual = usual_order(spatial)

    def around(self, network: nn.Module) -> Reordered:
        """Give the same around another network."""
        return Reordered(network, self.order, self.output_order, self.spatial)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Run the network on an image in the usual order."""
        absent = [at for at, axis in enumerate(self.usual) if axis not in self.order]
        if absent:
            image = image.squeeze(absent)
        present = [axis for axis in self.usual if axis in self.order]
        given = named_outputs(self.network(image.permute([present.index(axis) for axis in self.order])))
        return {name: self._back(each) for name, each in given.items()}

    def _back(self, output: Tensor) -> Tensor:
        if output.ndim != len(self.output_order):
            return output
        present = [axis for axis in self.usual if axis in self.output_order]
        output = output.permute([self.output_order.index(axis) for axis in present])
        for at, axis in enumerate(self.usual):
            if axis not in self.output_order:
                output = output.unsqueeze(at)
        return output


def in_usual_order(network: nn.Module, design: NetworkFile, spatial: str) -> nn.Module:
    """Give a network that takes and gives the usual order of axes."""
    usual = usual_order(spatial)
    # A classifier gives no image whose axes could be in another order.
    output_order = design.output_order if set(design.output_order or "") & set(spatial) else None
    if design.order is None and output_order is None:
        return network
    return Reordered(network, design.order or usual, output_order or usual, spatial)


def apply_steps(scores: Tensor, steps: Sequence[PixelRule]) -> Tensor:
    """Do to an output, of (1, channels, [Z,] Y, X), what its description says."""
    for step in steps:
        first, second = (_along(numbers, scores) for numbers in (step.first, step.second))
        match step.kind:
            case "linear":
                scores = scores * first + second
            case "standardize":
                scores = (scores - first) / second
            case "clip":
                scores = scores.clamp(step.first[0], step.second[0])
            case "binarize":
                scores = (scores > first).to(scores.dtype)
            case "sigmoid":
                scores = scores.sigmoid()
            case "softmax":
                scores = scores.softmax(dim=1)
    return scores


def _along(numbers: tuple[float | None, ...], scores: Tensor) -> Any:  # noqa: ANN401 (a tensor, or nothing)
    """Give a step's numbers along the channels."""
    if None in numbers:
        return None
    return torch.tensor(numbers, dtype=scores.dtype, device=scores.device).reshape(-1, *[1] * (scores.ndim - 2))


def finish_scores(scores: Tensor, design: NetworkFile) -> Tensor:
    """Make scores of all classes of a network's output."""
    scores = apply_steps(scores, design.steps)
    if design.background:
        scores = torch.cat([1 - scores.amax(dim=1, keepdim=True), scores], dim=1)
    return scores
