"""What a user wishes of a run: validated before any work starts, and never read again once the plan is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.complaints import complain
from pipeline.errors import ConfigError
from pipeline.images.patterns import PRESETS, parse_pattern
from pipeline.models.network import NetworkUse
from pipeline.models.plain_yaml import read_yaml
from pipeline.remote.addresses import without_secrets

__all__ = [
    "LARGEST",
    "AuditConfig",
    "ClusterConfig",
    "ExecutionConfig",
    "InstancesConfig",
    "OutputConfig",
    "RunConfig",
    "SequenceConfig",
    "load_config",
    "make_config",
]


Whole = Annotated[int, Field(strict=True)]
"""A whole number: neither a text that looks like one nor yes or no, which YAML knows, too."""

Flag = Annotated[bool, Field(strict=True)]
"""Yes or no, as YAML writes it: ``true`` and ``false``; neither a text nor a number."""

Number = Annotated[float, Field(strict=True)]
"""A number, whole or not; neither a text that looks like one nor yes or no."""

PixelSize = Annotated[tuple[Annotated[Number, Field(ge=1e-6, le=1e6)], ...], Field(min_length=2, max_length=3)]
"""Of Y and X, or of Z, Y and X, in micrometers."""

Extent = Annotated[Whole, Field(ge=1, le=2**20)]
"""Of an object, in pixels."""


LARGEST = 2**24
"""Pixels of the largest bounding box in which touching objects are parted, unless told otherwise: 4096 x 4096. The same
on every machine, for the result depends on it."""


class Settings(BaseModel):
    """Base of all settings: immutable, and a key that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _without_secrets(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse a password in what is noted with results, or with runs."""
    if without_secrets(said := str(options)) != said:
        raise ValueError("options are noted, and have an address with a password or token; take it from elsewhere")
    return options


Options = Annotated[dict[str, Any], AfterValidator(_without_secrets)]
"""What a function, or a class of others, is called with."""


class InstancesConfig(Settings):
    """How objects are made of the semantic labels."""

    method: Literal["components", "watershed", "overlap", "none"] | None = Field(
        default=None, description="How to tell objects apart; null takes what the model's card recommends."
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Classes whose pixels belong to objects; null takes what the model's card says.",
    )
    minimum_size: Whole | None = Field(
        default=None,
        ge=0,
        le=2**48,
        description="Objects with fewer pixels are dropped, wherever a tile may have ended. Null drops none with the "
        "method components where that is given, and else takes what the card recommends.",
    )
    depth: Number | None = Field(
        default=None,
        ge=0,
        description="How much farther from the background than the neck between them, in pixels, the middle of an "
        "object must be for a watershed to part it from another one; null takes what the card recommends.",
    )
    largest: Whole = Field(
        default=LARGEST,
        ge=1,
        le=2**30,
        description="Pixels of the largest bounding box in which a watershed parts touching objects; what is larger "
        "stays one object, whatever the minimum size, and is listed.",
    )
    fill_holes: Flag = Field(
        default=False, description="Whether background that touches a single component, and no edge, is part of it."
    )
    border: Literal["keep", "drop"] = Field(
        default="keep", description="Whether objects at the image's edge, of which a part may be missing, are kept."
    )
    function: str | None = Field(
        default=None,
        description="For the method overlap: what finds objects in a window, in the network's place; module:function, "
        "file.py:function, or an entry point of the group seamfree.detectors.",
    )
    diameter: Extent | tuple[Extent, ...] | None = Field(
        default=None,
        description="For the method overlap: the largest extent of an object in pixels, along each axis if several.",
    )
    dimensions: Literal[2, 3] = Field(
        default=2, description="For the method overlap: whether the function takes planes or volumes."
    )
    intensity: Literal["percentile", "mean_std", "none"] = Field(
        default="percentile",
        description="For the method overlap: how intensities are scaled, by the whole image's statistics; percentile "
        "makes the first 0 and the 99.8th 1.",
    )
    options: Options = Field(
        default_factory=dict, description="For the method overlap: what else the function is called with, by name."
    )

    @model_validator(mode="after")
    def _has_a_use(self) -> InstancesConfig:
        """Refuse what has no effect: where there are no objects, or none is parted, or a class is named twice."""
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes names one twice: {', '.join(self.classes)}")
        if self.method == "none":
            for name in ("classes", "minimum_size", "depth", "largest", "fill_holes", "border"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for objects, and the method none makes none; leave out one of them")
        for name in ("depth", "largest"):
            given = getattr(self, name) != type(self).model_fields[name].default
            if given and self.method not in (None, "watershed", "overlap"):
                raise ValueError(
                    f"{name} is for the method watershed, and the method is {self.method}; leave out one of them"
                )
        return self


class OutputConfig(Settings):
    """What is written."""

    ome_zarr: Literal["0.5", "0.4"] = Field(
        default="0.5", description="Version of OME-Zarr: 0.5 is Zarr v3 with shards, 0.4 is Zarr v2 for older readers."
    )
    image: Literal["auto", "copy", "none"] = Field(
        default="auto",
        description="Whether the image pyramid is part of the result; auto copies all but OME-Zarr, which has one.",
    )
    in_place: Flag = Field(
        default=False,
        description="Whether labels and tables become part of the OME-Zarr that they are made of; the output folder "
        "holds what is unfinished, and the summaries.",
    )
    staging: str | None = Field(
        default=None,
        description="Folder on a disk in which results for an object store are made before they are sent; null takes "
        "seamfree-staging where the run is started.",
    )
    missing_fields: Literal["refuse", "leave_out"] = Field(
        default="refuse",
        description="Of a plate with fields that cannot be segmented: refuse keeps it unfinished, with what is done; "
        "leave_out makes a plate of the others, and notes which are missing.",
    )
    probabilities: Literal["none", "float16", "float32", "float64"] = Field(
        default="none", description="Whether, and as what type, the class probabilities are kept."
    )
    table: Flag = Field(default=True, description="Whether objects are measured, and a table of them is written.")
    report: Flag = Field(
        default=True,
        description="Whether a page with pictures, plots and the audit, NAME.report.html, is written beside it.",
    )
    chunk: Whole = Field(default=512, ge=16, le=2**16, description="Largest edge of a chunk in Y and X, in pixels.")

    @model_validator(mode="after")
    def _fits_the_place(self) -> OutputConfig:
        """Refuse what is not written where labels become part of an image that is there."""
        if self.in_place:
            wanted = {
                "image: copy": self.image == "copy",
                f"probabilities: {self.probabilities}": self.probabilities != "none",
                f"staging: {self.staging}": self.staging is not None,
            }
            for name in (name for name, is_wanted in wanted.items() if is_wanted):
                raise ValueError(
                    f"in_place adds labels and tables to the image itself, and nothing else; leave out it or {name}"
                )
        return self


class SequenceConfig(Settings):
    """Images of many TIFF files, one for each plane, channel or time point, found by the names of the files."""

    pattern: str | None = Field(
        default=None,
        description="How the files are called, with {well} or {row} and {column}, {field}, {channel}, {time} and {z} "
        f"where these stand; or {', '.join(PRESETS)}. Inputs are then folders with such files.",
    )
    pixel_size: PixelSize | None = Field(
        default=None, description="Y and X, or Z, Y and X, in micrometers; null takes what the files tell."
    )
    channel_names: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="In the order of the channels; null takes what the files' names tell."
    )

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            parse_pattern(value)
        return value


class ClusterConfig(Settings):
    """The cluster that a run starts, and closes in the end. Changes nothing in the result."""

    kind: Literal["local", "cuda", "slurm", "pbs", "sge", "lsf", "htcondor", "oar", "moab", "kubernetes"] = Field(
        default="local",
        description="local: processes of this machine; cuda: one for each of its GPUs, by dask-cuda; a batch system, "
        "by dask-jobqueue; or kubernetes, by dask-kubernetes.",
    )
    options: Options = Field(
        default_factory=dict, description="What the library's class of the cluster is called with, by name."
    )

    @model_validator(mode="after")
    def _takes_options(self) -> ClusterConfig:
        if self.kind == "local" and self.options:
            raise ValueError("options are those of another kind of cluster, and local has none; give a kind")
        return self


class ExecutionConfig(Settings):
    """Where the work is done. Changes nothing in the result."""

    workers: Whole | None = Field(
        default=None,
        ge=1,
        le=2**16,
        description="Worker processes; null takes one per core or GPU of this machine.",
    )
    scheduler: str | None = Field(
        default=None, description="Address of a Dask scheduler; null starts workers; 'serial' uses none."
    )
    cluster: ClusterConfig = ClusterConfig()
    patience: Number = Field(
        default=600.0, ge=0, description="Seconds to wait for the first worker of a cluster that is not this machine's."
    )

    @model_validator(mode="after")
    def _is_one_place(self) -> ExecutionConfig:
        """Refuse two places at once, and a number of workers that nobody knows."""
        if self.cluster.kind != "local" and self.scheduler is not None:
            raise ValueError(
                f"scheduler is a cluster that runs already, and cluster.kind {self.cluster.kind} starts one; leave out "
                "one of them"
            )
        if self.scheduler is not None and self.workers is not None:
            has = "uses none" if self.scheduler == "serial" else "has its own"
            raise ValueError(f"workers are those that a run starts, and scheduler {has}; leave out one of them")
        if self.cluster.kind not in ("local", "cuda") and self.workers is None:
            raise ValueError(f"a cluster of the kind {self.cluster.kind} needs a number of workers; give it as workers")
        return self

    @field_validator("scheduler")
    @classmethod
    def _keeps_no_secret(cls, value: str | None) -> str | None:
        """Refuse a user and a password before the address is shown or recorded anywhere."""
        if value is not None and ("@" in value or without_secrets(value) != value):
            raise ValueError("an address has no user, password or token; Dask takes certificates, with tls://")
        return value


class AuditConfig(Settings):
    """What is computed again before a result gets its name. Changes nothing in its arrays."""

    windows: Whole | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="Windows on seams that are computed again and compared; null takes so many that they add a "
        "fiftieth to the network's work, and 4 at least; 0 leaves the audit out. Where a function finds the objects, "
        "as many more are taken as it takes to see 100 objects across seams, or all.",
    )


class RunConfig(Settings):
    """Everything that a run can be told."""

    model: str = Field(default="nuclei-fluorescence", description="A bundled model's name or a model's folder.")
    tile: Whole | None = Field(
        default=None, ge=1, description="Edge of a core in pixels, rounded up to a legal one; null chooses."
    )
    planner: Literal["auto", "measure", "off"] = Field(
        default="auto",
        description="Whether the tile is chosen by time: auto where it was measured, or where there is so much to do "
        "that measuring hardly adds to it; measure in any case; off takes the largest known to do well.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        default="float32",
        description="Arithmetic of the network; auto measures, on tiles of each image, which is the fastest whose "
        "labels are those of float32.",
    )
    precision_tolerance: Number = Field(
        default=1e-4, ge=0, le=1, description="For auto: share of pixels whose labels may differ from those of float32."
    )
    skip_below: Number | None = Field(
        default=None,
        description="An intensity, as in the file: where all that the network could look at is below it, in each "
        "channel that it takes, pixels are background and it does not run. What that changes is measured and told.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes a GPU where there is one.")
    channels: tuple[Annotated[Whole, Field(ge=0)] | str, ...] | None = Field(
        default=None, min_length=1, description="Channels of the image that feed the model, by number or name."
    )
    series: Whole | None = Field(default=None, ge=0, description="Which image of a file that holds several.")
    pixel_size: PixelSize | None = Field(
        default=None,
        description="Of images that do not say theirs: Y and X, or Z, Y and X, in micrometers. What a file says of an "
        "axis goes before.",
    )
    sequence: SequenceConfig = SequenceConfig()
    identify: Literal["time", "content"] = Field(
        default="time",
        description="How an image is known again when a run is resumed: by size and time of modification, or by size "
        "and a SHA-256 of all its bytes, which are read for that once more.",
    )
    factory: str | None = Field(
        default=None,
        description="package.module:function that makes the model's network, where its card says format: factory. "
        "It is imported and called.",
    )
    trust_model_code: Flag = Field(
        default=False, description="Load model files that can run code, such as .pt2; only from who is trusted."
    )
    allow_nonlocal: Flag = Field(
        default=False,
        description="Tile a network that sees the whole image, with much overlap: seams are possible, and noted.",
    )
    head: str | None = Field(
        default=None,
        min_length=1,
        description="Which of the network's outputs, by name or number; null takes the card's.",
    )
    fully_convolutional: Flag = Field(
        default=False, description="Let a classifier of patches slide over the image, as a network of convolutions."
    )
    resolution: Literal["network", "image"] = Field(
        default="network",
        description="For a network whose output is coarser than the image: network leaves it so, image computes it at "
        "each of the image's pixels, by shift-and-stitch.",
    )
    rescale: Literal["off", "auto"] = Field(
        default="off",
        description="Where a model's card says at which pixel size it was trained: auto runs it at that size, and "
        "gives labels of the image's own pixels; off tells by how much the image's differ.",
    )
    tta: Flag = Field(
        default=False, description="Average the scores over mirrored and transposed windows: 8 passes in 2-D."
    )
    instances: InstancesConfig = InstancesConfig()
    output: OutputConfig = OutputConfig()
    self_check: Literal["auto", "always", "off"] = Field(
        default="auto",
        description="Whether two tiles are held against one larger pass before all are computed: auto leaves that out "
        "where it would add more than a twentieth to the network's work, or the image is a single tile; always does it "
        "there, too.",
    )
    audit: AuditConfig = AuditConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @property
    def network_use(self) -> NetworkUse:
        """What is made of the network."""
        return NetworkUse(
            head=self.head, fully_convolutional=self.fully_convolutional, resolution=self.resolution, tta=self.tta
        )


def make_config(values: dict[str, Any], origin: str = "the configuration") -> RunConfig:
    """Validate settings.

    Parameters
    ----------
    values : dict
        Settings by name, nested as in the YAML files.
    origin : str
        Where they came from, for the message.

    Returns
    -------
    RunConfig

    Raises
    ------
    ConfigError
        If a key is unknown or a value not allowed; names the key's path and what is allowed.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {complain(error, RunConfig)}") from error


def load_config(path: Path) -> dict[str, Any]:
    """Read settings from a YAML file, not yet validated, so that the command line can be laid over them.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        values = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of settings, this is a {type(values).__name__}")
    return values
