"""Networks that are no U-Net of seamfree's own: the file they come in, and what is said of them. Knows no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.models.pixels import PixelRule

__all__ = ["Architecture", "NetworkFile", "NetworkFormat", "NetworkUse", "usual_order"]

NetworkFormat = Literal["factory", "torchscript", "torch-export", "onnx", "state-dict"]


class Architecture(BaseModel):
    """Code of a package that makes its network. It is run only where the user trusts it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """Its file in the package, or an installed module."""
    callable: str
    """What is called."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """By name."""
    sha256: str | None = None
    """Of its file in the package; None for an installed module."""


def usual_order(spatial: str) -> str:
    """Give the order of axes in which networks take and give images, unless something else is said."""
    return f"bc{spatial}"


class NetworkFile(BaseModel):
    """How a network is made of the weights' file beside its card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: NetworkFormat = Field(
        description="factory: a function that gives the network, named on the command line, and safetensors; "
        "torchscript: of torch.jit.save; torch-export: a .pt2 of torch.export.save; onnx; state-dict: a package's "
        "weights, whose network code of the package makes."
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="What a factory is called with, by name.")
    output: str | None = Field(
        default=None, description="Which of several outputs gives the scores: its name, or its number from 0."
    )
    window: tuple[int, ...] | None = Field(
        default=None,
        description="For a patch classifier that takes any size, such as one with a global average: edges of the "
        "windows that it was trained on, one for each of the axes.",
    )
    order: str | None = Field(
        default=None,
        description="Axes of the input in order, letters of bczyx, if others than b, c and the spatial ones.",
    )
    output_order: str | None = Field(default=None, description="The same of the output.")
    steps: tuple[PixelRule, ...] = Field(default=(), description="What is done to the output before it is scores.")
    background: bool = Field(
        default=False,
        description="Whether the output is probabilities of all classes but the first, which gets the rest.",
    )
    architecture: Architecture | None = Field(default=None, description="For the format state-dict of packages only.")


class NetworkUse(BaseModel):
    """What is made of a network beside running it as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str | None = None
    """Which of several outputs, where it is not the one that the card names."""
    fully_convolutional: bool = False
    """Whether a classifier of patches slides over the image."""
    resolution: Literal["network", "image"] = "network"
    """Whether an output that is coarser than the image stays so, or is computed at each of the image's pixels."""
    tta: bool = False
    """Whether scores are averaged over mirrored and transposed windows."""
    rescale: tuple[tuple[int, int], ...] | None = None
    """Pixels of the network, and of the image, on one length, along each spatial axis, where they differ."""

    def at(self, ratios: tuple[tuple[int, int], ...]) -> NetworkUse:
        """Give the same at another pixel size."""
        return self.model_copy(update={"rescale": ratios})
