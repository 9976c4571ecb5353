"""From a trained network to a model's folder: the card that says what it is and how it was made."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.models.card import Channel, InstanceRule, IntensityRule, ModelCard, Training, Weights, describe_footprint
from pipeline.models.library import save_model
from pipeline.training.targets import BACKGROUND, CLASSES, CONTACT, DEPTH, MINIMUM_SIZE, NUCLEUS

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.models.unet import UNet
    from pipeline.training.train import TrainConfig

__all__ = ["make_card", "train_model"]

log = logging.getLogger(__name__)


def make_card(config: TrainConfig, scores: dict[str, float], origin: str) -> ModelCard:
    """Describe a network that was trained on fluorescence nuclei.

    Parameters
    ----------
    config : TrainConfig
        How it was trained.
    scores : dict
        What it reached, by name.
    origin : str
        Where the configuration came from.

    Returns
    -------
    ModelCard
        The hash of the weights is still missing; `save_model` puts it in.
    """
    return ModelCard(
        name=config.name,
        description=(
            "Nuclei in fluorescence images, 8 to 80 pixels across: "
            f"{CLASSES[BACKGROUND]}, {CLASSES[NUCLEUS]}, and {CLASSES[CONTACT]}, the strip where two nuclei meet. It "
            "parts touching nuclei; a watershed parts those between which it has gaps, and gives each its share of it."
        ),
        licence=config.licence,
        architecture=config.architecture,
        axes="yx",
        channels=(Channel(name="nuclei", description="A fluorescent stain of DNA, bright on dark."),),
        classes=CLASSES,
        intensity=IntensityRule(method="percentile", low=config.low, high=config.high),
        instances=InstanceRule(
            method="watershed",
            classes=(CLASSES[NUCLEUS],),
            contact=(CLASSES[CONTACT],),
            depth=DEPTH,
            minimum_size=MINIMUM_SIZE,
        ),
        training=Training(
            data=config.data,
            licence=config.data_licence,
            held_out=config.held_out,
            steps=config.steps,
            seed=config.seed,
            configuration=origin,
        ),
        scores=scores,
        footprint=describe_footprint(config.architecture),
        weights=Weights(sha256="0" * 64),
    )


def train_model(config: Path, data: Path, output: Path) -> ModelCard:
    """Train a network as a configuration says, measure it on the groups held out, and write its folder.

    A training that was killed goes on where the folder says that it stood, and gives what it would have given.

    Parameters
    ----------
    config : Path
        A YAML file of `TrainConfig`.
    data : Path
        Folder with ``images/*.tif`` and ``masks/*.tif``.
    output : Path
        The model's folder.

    Returns
    -------
    ModelCard

    Raises
    ------
    ConfigError
        If the configuration is not valid, holds out nothing, everything or a group that is not there, or the folder
        cannot be written to.
    ImageError
        If the data cannot be read.
    StoreError
        If what was noted of an unfinished training cannot be read, or cannot be written.
    """
    from pipeline.config import load_config
    from pipeline.training.checkpoint import CHECKPOINT_FILE, Checkpoint, describe_training
    from pipeline.training.data import load_fields, split
    from pipeline.training.evaluate import Agreement
    from pipeline.training.train import TrainConfig, agreement_by_group, train_network

    try:
        settings = TrainConfig.model_validate(load_config(config))
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(map(str, found["loc"])) or "configuration"
        raise ConfigError(f"{config}: {place}: {found['msg']}") from error
    fields = load_fields(data, settings.low, settings.high)
    groups = sorted({field.group for field in fields})
    for group in settings.held_out:
        if group not in groups:
            # Or a slip of the pen would have the network learn from what was to be kept from it.
            raise ConfigError(f"{config}: held_out: there is no group {group!r}; there are {', '.join(groups)}")
    learn, test = split(fields, settings.held_out)
    if not learn or not test:
        raise ConfigError(f"{config}: held_out leaves {len(learn)} images to learn from and {len(test)} to test with")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{output}: cannot be used as the model's folder ({error.strerror or error})") from error

    def report(step: int, loss: float, network: UNet) -> None:
        total = sum(agreement_by_group(network, test[::4]).values(), start=Agreement())
        log.info("step %d: loss %.4f, F1 on a quarter of the groups held out %.4f", step, loss, total.f1)

    checkpoint = Checkpoint(output / CHECKPOINT_FILE, describe_training(settings, learn))
    network = train_network(settings, learn, report, checkpoint)
    by_group = agreement_by_group(network, test)
    total = sum(by_group.values(), start=Agreement())
    scores = {"f1_iou50_held_out": round(total.f1, 4), "precision": round(total.precision, 4)}
    scores |= {"recall": round(total.recall, 4), "nuclei": total.annotated}
    scores |= {f"f1_iou50 {group}": round(counts.f1, 4) for group, counts in sorted(by_group.items())}
    card = save_model(output, make_card(settings, scores, config.as_posix()), network)
    checkpoint.remove()
    return card
