"""Which of an image's channels and of a model's classes a run is about, and what users state of images."""

from __future__ import annotations

from dataclasses import replace
from math import isclose, prod
from typing import TYPE_CHECKING, Literal

from pipeline.errors import ConfigError, PlanError
from pipeline.images.source import AXES
from pipeline.measure.units import in_one_unit, is_length
from pipeline.models.rescaling import ALIKE, choose_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config import RunConfig, SequenceConfig
    from pipeline.detect import DetectorCard
    from pipeline.images.source import ImageInfo
    from pipeline.models.architecture import Precision
    from pipeline.models.card import ModelCard
    from pipeline.models.facts import ModelFacts
    from pipeline.models.rescaling import Ratio, Rescaling

__all__ = [
    "NOT_OF_MANY_FILES",
    "as_stated",
    "choose_channels",
    "choose_classes",
    "choose_precision",
    "choose_rescaling",
    "choose_sizes",
    "choose_skipping",
    "count_channels",
]

NOT_OF_MANY_FILES = "sequence.pixel_size and sequence.channel_names are for images of many files; leave them out"

_LISTED = 16
"""Channels that a message lists at most."""


def count_channels(config: RunConfig, card: ModelCard | DetectorCard) -> int:
    """Give the number of channels that the model takes.

    Raises
    ------
    ConfigError
        If another number of them is chosen.
    """
    needed = len(card.channels)
    if config.channels is not None and len(config.channels) != needed:
        raise ConfigError(f"channels: {len(config.channels)} channel(s) chosen, the model {card.name!r} takes {needed}")
    return needed


def as_stated(config: RunConfig, info: ImageInfo) -> tuple[ImageInfo, tuple[str, ...]]:
    """Give an image the pixel size and the names of channels that the user states, if any.

    Returns
    -------
    info : ImageInfo
        Positions are those of the same pixels, where the image has them without a unit.
    told : tuple of str
        What the user should know: where the image says something else.

    Raises
    ------
    PlanError
        If it does not go with the image.
    """
    if config.sequence.pixel_size is not None or config.sequence.channel_names is not None:
        info = _describe_sequence(config.sequence, info)
    if config.pixel_size is None:
        return info, ()
    unknown: dict[int, float] = {}
    told = []
    for at, size in enumerate(config.pixel_size, len(AXES) - len(config.pixel_size)):
        own, unit = info.pixel_size[at], info.units[at]
        says = f"{info.path}: it says {own:g} {unit or 'without a unit'} along {AXES[at]}"
        if is_length(unit):
            if not isclose(in_one_unit((own, size), (0.0, 0.0), (unit, "micrometer"))[0][0], size):
                told.append(f"{says}, and the {size:g} micrometers of pixel_size are not used")
            continue
        unknown[at] = size
        if own not in (1.0, size):
            told.append(f"{says}, which is taken for the {size:g} micrometers of pixel_size")
    if unknown and config.output.in_place:
        raise PlanError(
            f"{info.path}: pixel_size is not for labels that become part of an image, which lie as it says itself; "
            "write the size into the image, or leave out --in-place"
        )
    return _sized(info, unknown), tuple(told)


def _describe_sequence(stated: SequenceConfig, info: ImageInfo) -> ImageInfo:
    """Give an image of many files what is stated of it alone."""
    if info.kind != "sequence":
        raise PlanError(f"{info.path}: {NOT_OF_MANY_FILES}")
    if stated.channel_names is not None and len(stated.channel_names) != info.shape[1]:
        raise PlanError(
            f"{info.path}: sequence.channel_names has {len(stated.channel_names)} names, and the image "
            f"{info.shape[1]} channels: {', '.join(info.channel_names[:_LISTED])}"
        )
    if stated.channel_names is not None:
        info = replace(info, channel_names=stated.channel_names)
    sizes = stated.pixel_size or ()
    return _sized(info, dict(enumerate(sizes, len(AXES) - len(sizes))))


def _sized(info: ImageInfo, sizes: Mapping[int, float]) -> ImageInfo:
    """Give an image pixel sizes in micrometers along some axes."""
    # What is at a place in pixels stays there.
    moved = {at: info.translation[at] / info.pixel_size[at] * size for at, size in sizes.items()
             if not is_length(info.units[at])}  # fmt: skip
    return replace(
        info,
        pixel_size=tuple(sizes.get(at, size) for at, size in enumerate(info.pixel_size)),  # type: ignore[arg-type]
        translation=tuple(moved.get(at, place) for at, place in enumerate(info.translation)),  # type: ignore[arg-type]
        units=tuple("micrometer" if at in sizes else unit for at, unit in enumerate(info.units)),  # type: ignore[arg-type]
    )


def choose_precision(config: RunConfig, card: ModelCard | DetectorCard) -> tuple[Precision, float | None]:
    """Give the arithmetic of the network and, where it is to be measured which is taken, the tolerance.

    Raises
    ------
    ConfigError
        If the network does not compute in it.
    """
    form = getattr(getattr(card, "network", None), "format", None)
    if config.precision != "auto":
        if form == "onnx" and config.precision != "float32":
            raise ConfigError(
                f"precision: the model {card.name!r} is an ONNX graph, whose arithmetic is in its file and stays "
                f"float32; leave out {config.precision!r}, or bring the network as TorchScript or by a factory"
            )
        return config.precision, None
    open_to_measure = form != "onnx" and config.instances.method != "overlap"
    return "float32", config.precision_tolerance if open_to_measure else None


def choose_skipping(config: RunConfig, card: ModelCard | DetectorCard) -> float | None:
    """Give the intensity below which background is skipped, None where nothing is.

    Raises
    ------
    ConfigError
        If the model has no background to take pixels for.
    """
    if config.skip_below is None:
        return None
    if len(card.classes) < 2 or 0 in choose_classes(config, card):
        raise ConfigError(
            f"skip_below: what is skipped becomes the first class, and {card.classes[0]!r} is no background; leave "
            "it out"
        )
    return config.skip_below


def choose_channels(config: RunConfig, info: ImageInfo, card: ModelCard | DetectorCard) -> tuple[int, ...]:
    """Find the image's channels that feed the model.

    Raises
    ------
    ConfigError, PlanError
        If it takes another number of them, or the image does not have them.
    """
    needed, present = count_channels(config, card), info.shape[1]
    named = ", ".join(f"{number} ({name!r})" for number, name in enumerate(info.channel_names[:_LISTED]))
    named += ", ..." if present > _LISTED else ""
    if config.channels is None:
        if needed != present:
            raise PlanError(
                f"{info.path}: the model {card.name!r} takes {needed} channel(s) and the image has {present}: {named}; "
                "choose with --channel"
            )
        return tuple(range(present))
    chosen = []
    for wish in config.channels:
        # A text is a name before it is a number: channels may well be named 488 or 1.
        found = [number for number, name in enumerate(info.channel_names) if name == wish]
        if not found and (isinstance(wish, int) or (wish.isdecimal() and len(wish) < 10)):
            found = [int(wish)]
        if len(found) > 1:
            raise PlanError(
                f"{info.path}: the channels {', '.join(map(str, found))} are all named {wish!r}; choose by number"
            )
        if not found or not 0 <= found[0] < present:
            raise PlanError(f"{info.path}: there is no channel {wish!r}; the image has {named}")
        chosen += found
    return tuple(chosen)


def choose_classes(config: RunConfig, card: ModelCard | DetectorCard) -> tuple[int, ...]:
    """Find the numbers of the classes that objects are made of.

    Raises
    ------
    ConfigError
        If the model has no such class.
    """
    wanted = config.instances.classes or card.instances.classes
    for name in wanted:
        if name not in card.classes:
            raise ConfigError(
                f"instances.classes: the model {card.name!r} has no class {name!r}; it has {', '.join(card.classes)}"
            )
    return tuple(card.classes.index(name) for name in wanted)


def choose_rescaling(config: RunConfig, info: ImageInfo, facts: ModelFacts) -> tuple[tuple[Ratio, ...] | None, str]:
    """Compare the image's pixel size with that of the model's training, and choose how the one becomes the other.

    Returns
    -------
    ratios : tuple of Ratio or None
        Pixels of the network, and of the image, on one length, along the spatial axes; None where nothing is resampled.
    note : str
        What the user should know; empty for nothing.

    Raises
    ------
    PlanError
        If it shall be done and cannot: one of the sizes is not known, or they are too far from each other.
    """
    card, automatic = facts.card, config.rescale == "auto"
    if card.pixel_size is None:
        if automatic:
            raise PlanError(
                f"rescale: the card of the model {card.name!r} does not say at which pixel size it was trained; add "
                "pixel_size and pixel_size_unit to it, or leave out --rescale"
            )
        return None, ""
    first = -len(card.pixel_size)
    factors = []
    for at, wanted in enumerate(card.pixel_size, len(AXES) + first):
        size, unit = info.pixel_size[at], info.units[at]
        (here, there), _, known = in_one_unit((size, wanted), (0.0, 0.0), (unit, card.pixel_size_unit))
        if known is None:
            if automatic:
                how = "pixel_size: [Z, Y, X] in a configuration" if AXES[at] == "Z" else "--pixel-size"
                raise PlanError(
                    f"{info.path}: rescale: its pixel size along {AXES[at]} is not known ({size:g} "
                    f"{unit or 'without a unit'}, the model's is {wanted:g} {card.pixel_size_unit}); state it with "
                    f"{how}, or leave out --rescale"
                )
            return None, ""
        factors.append(here / there)
    strides = facts.context.stride or (1,) * len(factors)
    told = " x ".join(f"{factor:.3g}" for factor in factors)
    if automatic:
        try:
            ratios = tuple(choose_ratio(factor, stride) for factor, stride in zip(factors, strides, strict=True))
        except PlanError as error:
            raise PlanError(
                f"{info.path}: rescale: {error}; correct the pixel size of the image or of the model's card, or leave "
                "out --rescale"
            ) from error
        return (None, "") if set(ratios) == {(1, 1)} else (ratios, "")
    if all(1 / ALIKE <= factor <= ALIKE for factor in factors):
        return None, ""
    return None, (
        f"{info.path}: its pixels are {told} times as large as those that the model {card.name!r} was trained at; "
        "--rescale auto runs the network at that size"
    )


def choose_sizes(
    config: RunConfig, card: ModelCard | DetectorCard, rescaling: Rescaling | None
) -> tuple[Literal["components", "watershed", "overlap", "none"], int, float]:
    """Choose how objects are told apart, from which size on they count, and how deep a neck parts them.

    Sizes are in pixels of the image; those that the card recommends are in pixels of the network.
    """
    wanted, advice = config.instances, card.instances
    finer = [image / network for network, image in rescaling.ratios] if rescaling is not None else []
    # What is asked for as components is every component.
    recommended = 0 if wanted.method == "components" else round(advice.minimum_size * prod(finer))
    minimum_size = wanted.minimum_size if wanted.minimum_size is not None else recommended
    depth = wanted.depth if wanted.depth is not None else advice.depth * min(finer, default=1)
    return wanted.method or advice.method, minimum_size, depth
