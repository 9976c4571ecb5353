"""What is wrong with settings and model together, found once and before any work, not image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.choices import (
    NOT_OF_MANY_FILES,
    choose_classes,
    choose_precision,
    choose_skipping,
    count_channels,
)
from pipeline.detect import check_detector
from pipeline.errors import ConfigError
from pipeline.images.discover import discover
from pipeline.images.sequences import as_sequence
from pipeline.models.facts import learn_facts
from pipeline.models.library import check_weights
from pipeline.package_check import check_package

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import RunConfig
    from pipeline.images.discover import InputImage

__all__ = ["check_settings", "find_images"]


def check_settings(config: RunConfig) -> None:
    """Find out whether any image at all could be run with these settings.

    Raises
    ------
    ConfigError
        If settings contradict each other, or name what the model does not have.
    ModelError
        If there is no such model, it cannot be loaded, or its network does not give its own test output.
    """
    if check_detector(config):
        if config.rescale != "off":
            raise ConfigError("rescale: is for networks; a function sees the image as it is; leave it out")
        return
    facts = learn_facts(config.model, factory=config.factory, trust=config.trust_model_code, use=config.network_use)
    card = facts.card
    if card.network is None:
        # A network of another kind has been loaded by now.
        check_weights(config.model)
    if config.factory is not None and (card.network is None or card.network.format != "factory"):
        raise ConfigError(f"factory: the model {card.name!r} has a network of its own; leave out {config.factory!r}")
    check_package(config.model, trust=config.trust_model_code)
    count_channels(config, card)
    choose_classes(config, card)
    choose_precision(config, card)
    choose_skipping(config, card)


def find_images(config: RunConfig, inputs: Sequence[str]) -> list[InputImage]:
    """Find the images that the inputs name, and hold what is stated of images of many files to what they are.

    Parameters
    ----------
    config : RunConfig
        The user's wishes.
    inputs : sequence of str
        As for `pipeline.images.discover.discover`.

    Raises
    ------
    ConfigError
        As `discover`; or if something is stated that is not for one of the images.
    """
    images = discover(inputs, config.sequence.pattern)
    if config.sequence.pixel_size is not None or config.sequence.channel_names is not None:
        for image in images:
            if as_sequence(image.path) is None:
                raise ConfigError(f"{image.path}: {NOT_OF_MANY_FILES}")
    return images
