"""The loss: weighted cross entropy, and the soft Dice overlap of the classes that are not background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["segmentation_loss"]


def segmentation_loss(scores: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Give the loss of a batch.

    Parameters
    ----------
    scores : Tensor
        Batch, classes, YX; before the softmax.
    target : Tensor of int64
        Batch, YX.
    weights : Tensor
        Batch, YX.

    Returns
    -------
    Tensor
        A scalar.
    """
    entropy = functional.cross_entropy(scores, target, reduction="none")
    weighted = (entropy * weights).sum() / weights.sum()
    probabilities = scores.softmax(dim=1)
    truth = functional.one_hot(target, scores.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    axes = (0, 2, 3)
    overlap = 2 * (probabilities * truth).sum(axes) + 1
    total = probabilities.sum(axes) + truth.sum(axes) + 1
    dice = 1 - (overlap / total)[1:].mean()
    return weighted + 0.5 * torch.as_tensor(dice)
