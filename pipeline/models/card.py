"""The model card: what a person, and the pipeline, must know of a network. YAML, and no torch to read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ModelError
from pipeline.models.architecture import UNetConfig
from pipeline.models.network import NetworkFile
from pipeline.models.pixels import PixelRule
from pipeline.models.plain_yaml import read_yaml

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CARD_FILE", "Channel", "InstanceRule", "IntensityRule", "ModelCard", "Training", "Weights", "read_card"]

CARD_FILE = "card.yaml"


class Part(BaseModel):
    """Base of a card's parts: immutable, and a key that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Channel(Part):
    """One channel of the input."""

    name: str
    description: str = ""


class IntensityRule(Part):
    """How intensities are scaled, from the whole image's statistics per channel and time point."""

    method: Literal["percentile", "mean_std", "none"]
    low: float = Field(default=1.0, ge=0, lt=100, description="Percentile that becomes 0.")
    high: float = Field(default=99.8, gt=0, le=100, description="Percentile that becomes 1.")
    eps: float = Field(default=0.0, ge=0, description="Added to what intensities are divided by.")
    together: bool = Field(default=False, description="Whether statistics are of all channels at once.")
    before: tuple[PixelRule, ...] = Field(default=(), description="Done first, after statistics were taken.")
    after: tuple[PixelRule, ...] = Field(default=(), description="Done last.")

    @model_validator(mode="after")
    def _consistent(self) -> IntensityRule:
        if self.low >= self.high:
            raise ValueError(f"the low percentile {self.low} is not below the high one {self.high}")
        if any(step.kind == "softmax" for step in self.before + self.after):
            raise ValueError("a softmax of intensities is not known")
        return self


class InstanceRule(Part):
    """How objects are told apart, unless the user says otherwise."""

    method: Literal["components", "watershed", "none"]
    classes: tuple[str, ...] = Field(description="Classes whose pixels belong to objects.")
    contact: tuple[str, ...] = Field(
        default=(), description="Classes between touching objects; a watershed gives their pixels to the objects."
    )
    depth: float = Field(
        default=1.0,
        ge=0,
        description="How much farther from the background than the neck between them, in pixels, the middle of an "
        "object must be for a watershed to part it from another one.",
    )
    minimum_size: int = Field(default=0, ge=0, description="Objects with fewer pixels of those classes are noise.")


class Training(Part):
    """Where the weights come from."""

    data: str
    licence: str
    held_out: tuple[str, ...] = Field(default=(), description="Groups of images that the network never saw.")
    steps: int | None = None
    seed: int | None = None
    configuration: str | None = None


class Weights(Part):
    """The file of weights beside the card."""

    file: str = "weights.safetensors"
    sha256: str

    @field_validator("sha256")
    @classmethod
    def _is_a_digest(cls, given: str) -> str:
        # Some tools write it in capitals.
        if re.fullmatch("[0-9a-f]{64}", given.lower()) is None:
            raise ValueError(
                f"{given!r:.80} is not 64 digits from 0 to f; give what sha256sum says of the file of weights"
            )
        return given.lower()


class ModelCard(Part):
    """A network, described."""

    format: Literal["seamfree-model/1"] = "seamfree-model/1"
    name: str
    description: str
    licence: str
    architecture: UNetConfig | None = Field(default=None, description="A U-Net of seamfree's own.")
    network: NetworkFile | None = Field(default=None, description="Any other network; instead of an architecture.")
    axes: Literal["yx", "zyx"]
    channels: tuple[Channel, ...]
    classes: tuple[str, ...]
    activation: Literal["softmax", "sigmoid", "none"] = Field(
        default="softmax",
        description="softmax: the network gives a score for each class, before the softmax. sigmoid: one for each "
        "class but the first, the background, before a sigmoid; classes may overlap. none: probabilities already.",
    )
    intensity: IntensityRule
    pixel_type: str | None = Field(
        default=None, description="Integer type that the image must have, or fit into; any where absent."
    )
    pixel_size: tuple[float, ...] | None = Field(
        default=None, description="Pixel size that the network was trained at, in the order of the axes."
    )
    pixel_size_unit: str | None = None
    instances: InstanceRule
    training: Training
    scores: dict[str, float] = Field(default_factory=dict, description="Measured, by name.")
    footprint: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="What is declared; the pipeline derives it, and tells where the two differ."
    )
    weights: Weights

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ModelCard:
        if (self.architecture is None) == (self.network is None):
            raise ValueError("a card has either an architecture or a network; give one of the two")
        if self.architecture is not None:
            _check_architecture(self, self.architecture)
        if not self.channels or not self.classes or len(self.classes) > 256:
            raise ValueError(
                f"{len(self.channels)} channels and {len(self.classes)} classes: at least one of each, and at most 256 "
                "classes, for labels are bytes"
            )
        for step in self.intensity.before + self.intensity.after:
            if step.channels not in (1, len(self.channels)):
                raise ValueError(
                    f"a step {step.kind!r} has numbers for {step.channels} of {len(self.channels)} channels"
                )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes are named twice: {self.classes}")
        if self.instances.method != "none" and not self.instances.classes:
            raise ValueError("instances are made of no class; name one, or say method: none")
        for name in self.instances.classes + self.instances.contact:
            if name not in self.classes:
                raise ValueError(f"instances are made of a class {name!r}, which is not one of {self.classes}")
        if set(self.instances.classes) & set(self.instances.contact):
            raise ValueError(f"instances have a class both of objects and of contact: {self.instances.contact}")
        if self.pixel_size is not None:
            if len(self.pixel_size) != len(self.axes) or self.pixel_size_unit is None:
                raise ValueError(
                    f"pixel_size has {len(self.pixel_size)} entries and pixel_size_unit is {self.pixel_size_unit!r}; "
                    f"give one size for each of the axes {self.axes!r}, and their unit"
                )
            if min(self.pixel_size) <= 0:
                raise ValueError(f"pixel_size {self.pixel_size} is not above 0")
        return self

    @property
    def dims(self) -> Literal[2, 3]:
        """Spatial axes that the network takes at once."""
        return 2 if self.axes == "yx" else 3

    @property
    def design(self) -> UNetConfig | NetworkFile:
        """How the network is made of its weights: all that the weights' digest does not say."""
        if self.architecture is not None:
            return self.architecture
        assert self.network is not None  # held by the validation
        return self.network


def _check_architecture(card: ModelCard, architecture: UNetConfig) -> None:
    """Hold what a card says to what follows from the architecture."""
    if card.dims != architecture.dims:
        raise ValueError(f"axes {card.axes!r} do not fit an architecture of {architecture.dims} dimensions")
    if len(card.channels) != architecture.in_channels:
        raise ValueError(f"{len(card.channels)} channels described, the network takes {architecture.in_channels}")
    if len(card.classes) != architecture.classes:
        raise ValueError(f"{len(card.classes)} classes named, the network gives {architecture.classes}")
    if card.footprint and card.footprint != describe_footprint(architecture):
        raise ValueError(
            f"footprint {card.footprint} is not what follows from the architecture, {describe_footprint(architecture)}"
        )


def describe_footprint(architecture: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Give the footprint in the form in which a card states it."""
    footprint = architecture.footprint
    return {
        "margin": footprint.margin,
        "halo": footprint.halo,
        "stride": footprint.stride,
        "phase": footprint.phase,
        "smallest": footprint.smallest,
    }


def read_card(folder: Path) -> ModelCard:
    """Read and validate the card in a model's folder.

    Raises
    ------
    ModelError
        If there is no card, or it is not a valid one.
    """
    path = folder / CARD_FILE
    try:
        return ModelCard.model_validate(read_yaml(path))
    except OSError as error:
        raise ModelError(f"{path}: the model's card cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"]) or "card"
        raise ModelError(f"{path}: {place}: {found['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:
        raise ModelError(f"{path}: the model's card is not valid YAML ({error})") from error
