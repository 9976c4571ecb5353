"""Training: patches in, averaged weights out.

Deterministic: each step's patches are drawn from a generator seeded by the seed and the step's number, the weights'
start by the seed. On one machine, with one number of threads, two trainings give the same weights; elsewhere the
rounding of bfloat16 differs.
"""

from __future__ import annotations

import copy
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.geometry import Box, mirror_indices
from pipeline.labels.parting import part_core
from pipeline.labels.watershed import PartingRule
from pipeline.models.architecture import UNetConfig
from pipeline.models.unet import UNet
from pipeline.progress import JobDone, StageStarted, tell
from pipeline.training.augment import change_appearance, cut_patch
from pipeline.training.evaluate import Agreement, match_objects
from pipeline.training.loss import segmentation_loss
from pipeline.training.targets import BACKGROUND, CLASSES, DEPTH, MINIMUM_SIZE, NUCLEUS, border_weights, class_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pipeline.training import data
    from pipeline.training.checkpoint import Checkpoint

__all__ = ["TrainConfig", "TrainingState", "agreement_by_group", "train_network"]

log = logging.getLogger(__name__)


class TrainConfig(BaseModel):
    """Everything that a training can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name of the model.")
    licence: str = Field(description="Of the weights.")
    data: str = Field(description="What the images and masks are, for the card.")
    data_licence: str = Field(description="Of the images and masks.")
    architecture: UNetConfig = Field(description="Shape of the network.")
    low: float = Field(default=1.0, ge=0, lt=100, description="Percentile of the image that becomes 0.")
    high: float = Field(default=99.8, gt=0, le=100, description="Percentile of the image that becomes 1.")
    held_out: tuple[str, ...] = Field(description="Groups that the network never sees while it learns.")
    seed: int = Field(default=0, ge=0)
    steps: int = Field(ge=1, description="Optimisation steps.")
    batch: int = Field(default=2, ge=1, description="Patches per step.")
    patch: int = Field(default=444, ge=1, description="Edge of a patch, in pixels; a legal input size.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Highest rate, after the warm-up.")
    warm_up: int = Field(default=200, ge=1, description="Steps until the highest rate is reached.")
    weight_decay: float = Field(default=1e-2, ge=0)
    averaging: float = Field(default=0.998, ge=0, lt=1, description="Decay of the averaged weights, per step.")
    bfloat16: bool = Field(default=True, description="Whether convolutions run in bfloat16.")
    threads: int = Field(default=2, ge=1, description="Threads within torch.")
    report_every: int = Field(
        default=500, ge=1, description="Steps between notes of the state, and measurements on the held-out groups."
    )

    @model_validator(mode="after")
    def _can_be_trained(self) -> TrainConfig:
        """Find now what would otherwise come up at the first step, or after the last."""
        shape = self.architecture
        if (shape.dims, shape.in_channels, shape.classes, shape.padding) != (2, 1, len(CLASSES), "valid"):
            raise ValueError(
                f"architecture: the training is of networks with dims 2, in_channels 1, classes {len(CLASSES)} "
                f"({', '.join(CLASSES)}) and padding valid"
            )
        shape.footprint.output_shape((self.patch,) * 2)
        if self.low >= self.high:
            raise ValueError(f"the low percentile {self.low} is not below the high one {self.high}")
        return self


def _sampling_weights(fields: Sequence[data.Field]) -> NDArray[np.float64]:
    """Prefer crowded fields a little, and keep large groups from drowning small ones."""
    sizes: dict[str, int] = {}
    for field in fields:
        sizes[field.group] = sizes.get(field.group, 0) + 1
    weights = []
    for field in fields:
        contact = float((class_target(field.mask) == CLASSES.index("contact")).mean())
        area = field.image.size / 256**2
        weights.append((1 + min(contact * 100, 2.0)) * area**0.3 * sizes[field.group] ** -0.4)
    total = np.asarray(weights)
    return np.asarray(total / total.sum(), dtype=np.float64)


def _draw_batch(
    config: TrainConfig, fields: Sequence[data.Field], chances: NDArray[np.float64], step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Make the patches of one step, a function of the seed and the step alone."""
    margin = config.architecture.footprint.margin[0]
    inner = slice(margin, config.patch - margin)
    images, targets, weights = [], [], []
    for item in range(config.batch):
        random = np.random.default_rng((config.seed, step, item))
        field = fields[int(random.choice(len(fields), p=chances))]
        image, mask = cut_patch(field, config.patch, random)
        image = change_appearance(image, mask, random)
        target = class_target(mask)
        images.append(image)
        targets.append(target[inner, inner])
        weights.append(border_weights(mask, target)[inner, inner])
    return (
        torch.from_numpy(np.stack(images)[:, None]).to(memory_format=torch.channels_last),
        torch.from_numpy(np.stack(targets)),
        torch.from_numpy(np.stack(weights)),
    )


@torch.no_grad()
def _average(averaged: UNet, network: UNet, decay: float) -> None:
    """Move the averaged weights, and the statistics of the normalisations, towards the network's."""
    for slow, fast in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if slow.dtype.is_floating_point:
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def _learning_rate(config: TrainConfig, step: int) -> float:
    """Rise in a line to the highest rate, then fall to nothing along a cosine."""
    rising = min(1.0, (step + 1) / config.warm_up)
    return config.learning_rate * (rising * 0.5 * (1 + float(np.cos(np.pi * min(step / config.steps, 1.0)))))


@dataclass(slots=True)
class TrainingState:
    """All that a training changes from step to step.

    Parameters
    ----------
    network, averaged : UNet
        The one that learns, in training mode, and the mean of what it was, in evaluation mode.
    optimiser : torch.optim.AdamW
        Of the former's parameters.
    step : int
        Steps that are done.
    """

    network: UNet
    averaged: UNet
    optimiser: torch.optim.AdamW
    step: int = 0

    @classmethod
    def begin(cls, config: TrainConfig) -> TrainingState:
        """Start at random, as the seed says; sets torch's seed and its number of threads."""
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        network = UNet(config.architecture)
        network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        return cls(network, copy.deepcopy(network).eval(), optimiser)


def train_network(
    config: TrainConfig,
    fields: Sequence[data.Field],
    report: Callable[[int, float, UNet], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> UNet:
    """Train a network.

    Parameters
    ----------
    config : TrainConfig
        All settings.
    fields : sequence of Field
        What to learn from.
    report : callable, optional
        Called every `config.report_every` steps with the step, the mean loss since the last call and the averaged
        network, which it must not change.
    checkpoint : Checkpoint, optional
        Where to go on from, and where to note the state at each report: a training that was killed in between gives
        the weights of one that was not.

    Returns
    -------
    UNet
        The averaged network, in evaluation mode.
    """
    state = TrainingState.begin(config)
    if checkpoint is not None:
        checkpoint.restore(state)
    network, optimiser = state.network, state.optimiser
    chances = _sampling_weights(fields)
    losses: list[float] = []
    tell(StageStarted(config.name, "train", config.steps, state.step))
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(_draw_batch, config, fields, chances, state.step)
        for step in range(state.step, config.steps):
            image, target, weights = upcoming.result()
            upcoming = pool.submit(_draw_batch, config, fields, chances, step + 1)
            for group in optimiser.param_groups:
                group["lr"] = _learning_rate(config, step)
            with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
                scores = network(image)
            loss = segmentation_loss(scores.float(), target, weights)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            # A young average follows quickly, or it would remember the random start for long.
            _average(state.averaged, network, min(config.averaging, (step + 1) / (step + 10)))
            state.step = step + 1
            losses.append(loss.item())
            tell(JobDone(config.name, "train", image.numel()))
            if state.step % config.report_every == 0 or state.step == config.steps:
                if checkpoint is not None:
                    checkpoint.save(state)
                if report is not None:
                    report(state.step, float(np.mean(losses)), state.averaged)
                losses.clear()
    return state.averaged


@torch.inference_mode()
def agreement_by_group(network: UNet, fields: Sequence[data.Field]) -> dict[str, Agreement]:
    """Segment whole fields in one pass each, and compare the objects with the annotated ones.

    Parameters
    ----------
    network : UNet
        In evaluation mode, with valid convolutions.
    fields : sequence of Field
        Annotated fields.

    Returns
    -------
    dict
        Agreement at an intersection over union of 0.5, by group.
    """
    footprint = network.config.footprint
    counts: dict[str, Agreement] = {}
    for field in fields:
        window = footprint.window_shape(field.image.shape)
        rows, columns = (
            np.asarray(mirror_indices(-margin, edge - margin, length))
            for margin, edge, length in zip(footprint.margin, window, field.image.shape, strict=True)
        )
        padded = torch.from_numpy(field.image[np.ix_(rows, columns)][None, None])
        scores = network(padded.to(memory_format=torch.channels_last))[0]
        classes = scores.argmax(dim=0).numpy()[: field.image.shape[0], : field.image.shape[1]]
        whole = classes[None, None]
        rule = PartingRule(DEPTH, MINIMUM_SIZE, (1, 1))
        found = part_core(whole != BACKGROUND, whole == NUCLEUS, Box.whole(whole.shape), whole.shape, 2, rule)
        counts[field.group] = counts.get(field.group, Agreement()) + match_objects(found.objects[0, 0], field.mask)
    return counts
