"""The loss, against its formula written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.training.loss import segmentation_loss


def plain_loss(scores: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> float:
    batch, classes, height, width = scores.shape
    entropy = total_weight = 0.0
    overlap, total = [0.0] * classes, [0.0] * classes
    for at, y, x in np.ndindex(batch, height, width):
        exponentials = [math.exp(scores[at, number, y, x].item()) for number in range(classes)]
        true = int(target[at, y, x])
        weight = weights[at, y, x].item()
        entropy -= weight * math.log(exponentials[true] / sum(exponentials))
        total_weight += weight
        for number in range(classes):
            probability = exponentials[number] / sum(exponentials)
            overlap[number] += probability * (number == true)
            total[number] += probability + (number == true)
    dice = [(2 * both + 1) / (either + 1) for both, either in zip(overlap, total, strict=True)]
    return entropy / total_weight + 0.5 * (1 - sum(dice[1:]) / (classes - 1))


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_that_of_the_formula(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=random)
    target = torch.randint(0, 3 if seed else 1, (2, 4, 5), generator=random)
    weights = 1 + 3 * torch.rand(2, 4, 5, dtype=torch.float64, generator=random)
    assert segmentation_loss(scores, target, weights).item() == pytest.approx(plain_loss(scores, target, weights))


def test_sure_and_right_costs_next_to_nothing_and_sure_and_wrong_much() -> None:
    target = torch.arange(3).repeat(5, 4)[None]
    truth = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    weights = torch.ones(target.shape)
    assert segmentation_loss(30 * truth, target, weights).item() == pytest.approx(0, abs=1e-6)
    assert segmentation_loss(-30 * truth, target, weights).item() > 10


def test_a_mistake_costs_more_where_the_weight_is_higher() -> None:
    target = torch.ones(1, 4, 4, dtype=torch.int64)
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 1] = 5
    scores[0, :, 2, 3] = torch.tensor([5.0, 0.0, 0.0])
    flat, heavy = torch.ones(1, 4, 4), torch.ones(1, 4, 4)
    heavy[0, 2, 3] = 4
    assert segmentation_loss(scores, target, heavy).item() > segmentation_loss(scores, target, flat).item() + 0.1


def test_the_gradient_leads_towards_the_target() -> None:
    target = torch.arange(3).repeat(5, 4)[None]
    scores = torch.zeros(1, 3, *target.shape[1:], requires_grad=True)
    segmentation_loss(scores, target, torch.ones(target.shape)).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    np.testing.assert_array_equal((-scores.grad).argmax(dim=1), target)
