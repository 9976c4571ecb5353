"""Every decision of a run, made before it starts: nothing downstream reads a wish."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from pipeline import audit_windows, sizing
from pipeline.choices import choose_channels, choose_classes, choose_precision, choose_sizes, choose_skipping
from pipeline.config import LARGEST
from pipeline.detect import DetectorCard, DetectorFacts, DetectorFunction
from pipeline.errors import PlanError
from pipeline.geometry import Box, Footprint, TileGrid
from pipeline.identity import versions_of
from pipeline.images.source import ImageInfo
from pipeline.intent import Intent, Target
from pipeline.measure.units import in_one_unit
from pipeline.models.architecture import UNetConfig
from pipeline.models.card import IntensityRule
from pipeline.models.context import Stitching, tiling_footprint
from pipeline.models.facts import ModelFacts
from pipeline.models.library import bundled_models
from pipeline.models.network import NetworkFile, NetworkUse
from pipeline.models.rescaling import Rescaling
from pipeline.pyramids import Pyramid, coarse_shape, plain_grid
from pipeline.stores.arrays import ArraySpec
from pipeline.stores.levels import level_shapes
from pipeline.stores.tables import TABLE
from pipeline.tiles import Tiling, Wanted, choose_tiling

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.images.discover import InputImage
    from pipeline.labels.watershed import PartingRule
    from pipeline.measure.subject import Subject

__all__ = ["Intent", "RunPlan", "Target", "make_plan"]

BUDGET_SHARE = 0.6
"""Share of a worker's memory that the network's activations may take."""


class RunPlan(BaseModel):
    """One image's run, fully resolved. Travels to the workers with each job; a few kilobytes.

    Labels and tiles are addressed TZYX, images TCZYX, whatever axes the files have. Where the network's output is
    coarser than the image, so are the labels, and only windows are counted in pixels of the image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The result's name: its path under the output folder without ``.ome.zarr``."""
    output: str
    """Path of the published result; in place, of the image's own group."""
    in_place: bool = False
    """Whether labels and table become part of the image that they are made of."""
    staging: str | None = None
    """In place: what the result would be called under the output folder, where it lies until it is complete."""
    destination: str | None = None
    """URL of the published result where it goes to an object store; it is made on a disk, and sent from there."""
    source: ImageInfo
    content_sha256: str | None = None
    """Of all bytes that the image is read from, where it shall be known again by them."""
    series: int | None
    model: str
    """What to load: a bundled model's name or a folder."""
    factory: str | None
    trust_model_code: bool
    network: UNetConfig | NetworkFile | DetectorFunction
    """How the network is made of the weights; or the function in its place, whose code they then stand for."""
    use: NetworkUse = NetworkUse()
    """What is made of the network beside running it as it is."""
    stitching: Stitching | None = None
    rescaling: Rescaling | None = None
    """How the network is run at another pixel size than the image's; everything else is in the image's pixels."""
    weights_sha256: str
    code_sha256: str | None = None
    """Of code of the user's that makes the network, where there is such."""
    channels: tuple[NonNegativeInt, ...]
    """Channels of the image, in the order in which the model takes them."""
    spatial_ndim: Literal[2, 3]
    footprint: Footprint
    """TZYX; axes that the model takes one by one have no context."""
    centre: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """Where the first pixel of the label images lies, in pixels of the image, TZYX."""
    seams: str | None
    """Why seams are possible, where the user insists on a network that no tiling can serve."""
    core: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    tiling: Tiling | None = None
    """How the core was chosen."""
    label_chunk: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    ome_zarr: Literal["0.4", "0.5"] = "0.5"
    """Version of OME-Zarr that the result is written in."""
    levels: PositiveInt | None = None
    """How many levels label images have: in place, as many as the image; None for what suits their size."""
    copy_image: bool
    image_chunk: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    image_shard: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    region: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    """What one reading job takes of the image: whole shards of the copy, whole strips of the file."""
    intensity: IntensityRule
    classes: tuple[str, ...]
    instances: Literal["components", "watershed", "overlap", "none"]
    object_classes: tuple[NonNegativeInt, ...]
    contact_classes: tuple[NonNegativeInt, ...]
    minimum_size: NonNegativeInt
    fill_holes: bool
    border: Literal["keep", "drop"]
    parting_depth: float
    """For the watershed, in pixels of the axis with the smallest spacing."""
    largest: PositiveInt = LARGEST
    """For the watershed: pixels of the largest bounding box in which a component is parted."""
    spacing: tuple[PositiveInt, ...]
    """Of the spatial axes, for the watershed: in the ratio of the pixel sizes, as whole numbers."""
    table: bool
    """Whether objects are measured."""
    report: bool = True
    """Whether a page about the result is written beside it; no byte of the result depends on it."""
    probabilities: Literal["none", "float16", "float32", "float64"]
    skip_below: float | None = None
    """Intensity of the file below which all that the network could see is background, without running it."""
    precision: Literal["float32", "bfloat16", "float16", "float64"]
    precision_tolerance: float | None = None
    """Share of pixels whose label may be another one than in float32, where the precision is chosen by measuring."""
    precision_measured: dict[str, Any] | None = None
    """What was measured, and so decided the precision; no array depends on it."""
    device: Literal["cpu", "cuda"]
    window_bytes: NonNegativeInt
    """Estimate of what one forward pass allocates."""
    gpu_bytes: NonNegativeInt | None = None
    """What a worker may take of its GPU, where it computes on one; no array depends on it."""
    self_check: Literal["auto", "always", "off"] = "auto"
    """Whether two tiles are held against a larger pass before all are computed; no array depends on it."""
    audit_windows: NonNegativeInt
    """Windows that are computed again before the result gets its name, 0 for no audit; no array depends on it."""
    versions: dict[str, str]
    """Of the libraries that numbers depend on."""

    @property
    def label_shape(self) -> tuple[int, int, int, int]:
        """Shape of the label images, TZYX."""
        return coarse_shape(self.source.shape, self.footprint)

    @property
    def precision_open(self) -> bool:
        """Whether the precision is still to be decided, by `pipeline.precision`, before the run starts."""
        return self.precision_tolerance is not None and self.precision_measured is None

    @property
    def coarse(self) -> bool:
        """Whether the label images are coarser than the image."""
        return max(self.footprint.scale) > 1

    @property
    def label_spacing(self) -> tuple[float, ...]:
        """Size of a pixel of the label images, TZYX."""
        sizes = self.source.pixel_size
        return tuple(size * scale for size, scale in zip((sizes[0], *sizes[2:]), self.footprint.scale, strict=True))

    @property
    def label_translation(self) -> tuple[float, ...]:
        """Where the centre of the first pixel of the label images lies, TZYX."""
        sizes, starts = self.source.pixel_size, self.source.translation
        return tuple(
            start + size * at
            for start, size, at in zip((starts[0], *starts[2:]), (sizes[0], *sizes[2:]), self.centre, strict=True)
        )

    @cached_property
    def tiles(self) -> TileGrid:
        """The tiles, TZYX; each core is a shard of the label images."""
        return TileGrid(self.label_shape, self.core, self.footprint, unit=self.core)

    @cached_property
    def regions(self) -> TileGrid:
        """The reading jobs, TCZYX."""
        return plain_grid(self.source.shape, self.region)

    @cached_property
    def pyramids(self) -> tuple[Pyramid, ...]:
        """All pyramids of the result."""
        image_levels = tuple(level_shapes(self.source.shape))
        label_levels = tuple(level_shapes(self.label_shape, count=self.levels))
        image_axes, label_axes = self.source.axes, self.source.axes.replace("C", "")
        stored: dict[str, Any] = {"zarr_format": 2 if self.ome_zarr == "0.4" else 3}
        label: dict[str, Any] = {"frame": "TZYX", "axes": label_axes, "levels": label_levels, "method": "nearest"}
        label |= stored
        label |= {"chunk": self.label_chunk, "shard": self.core}
        found = [Pyramid(path="labels/semantic", dtype="uint8", **label)]
        if self.copy_image:
            image: dict[str, Any] = {"axes": image_axes, "levels": image_levels, "method": "mean", **stored}
            image |= {"chunk": self.image_chunk, "shard": self.image_shard}
            found.insert(0, Pyramid(path="", frame="TCZYX", dtype=self.source.dtype, **image))
        if self.instances != "none":
            found.append(Pyramid(path="labels/instances", dtype="uint32", **label))
        if self.probabilities != "none":
            axes = "".join(axis for axis in "TCZYX" if axis in label_axes or axis == "C")
            time, *spatial = self.label_shape
            chunk_time, *chunk = self.label_chunk
            core_time, *core = self.core
            found.append(
                Pyramid(
                    path="probabilities",
                    frame="TCZYX",
                    axes=axes,
                    dtype=self.probabilities,
                    levels=((time, len(self.classes), *spatial),),
                    chunk=(chunk_time, 1, *chunk),
                    shard=(core_time, len(self.classes), *core),
                    method="mean",
                    **stored,
                )
            )
        return tuple(found)

    @cached_property
    def array_specs(self) -> dict[str, ArraySpec]:
        """All arrays of the result, by path."""
        return {spec.path: spec for pyramid in self.pyramids for spec in pyramid.specs()}

    @property
    def parting(self) -> PartingRule:
        """How components become objects, where the method is the watershed."""
        from pipeline.labels.watershed import PartingRule

        return PartingRule(self.parting_depth, self.minimum_size, self.spacing, self.largest)

    @cached_property
    def subject(self) -> Subject:
        """What is measured of objects."""
        from pipeline.measure.subject import Subject

        source, first = self.source, -self.spatial_ndim
        sizes, positions, unit = in_one_unit(
            self.label_spacing[first:], self.label_translation[first:], source.units[first:]
        )
        axes = source.axes.replace("C", "")
        # Pixels of coarser labels have no intensity of their own.
        channels = () if self.coarse else source.channel_names
        return Subject(self.label_shape, axes, self.spatial_ndim, sizes, positions, unit, self.classes,
                       self.object_classes, channels, source.dtype)  # fmt: skip

    @property
    def partial(self) -> Path:
        """Where the result lies until it is complete."""
        return Path(f"{self.held}.partial")

    @property
    def held(self) -> Path:
        """What is held against other runs, whether it is there or not."""
        return Path(self.staging or self.output)

    @property
    def parts(self) -> tuple[str, ...]:
        """What is added to an image in place: the groups of labels, and of the table."""
        labels = tuple(pyramid.path for pyramid in self.pyramids)
        return (*labels, *((TABLE,) if self.table else ()))

    @property
    def work(self) -> Path:
        """Where notes between the stages lie; gone when the result is published."""
        return self.partial / ".work"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the result's bytes depend on, as JSON: work of equal identity may be gone on with."""
        beside = {"name", "output", "staging", "destination", "model", "window_bytes", "gpu_bytes", "trust_model_code",
                  "self_check", "audit_windows", "report", "tiling", "precision_tolerance",
                  "precision_measured"}  # fmt: skip
        facts = self.model_dump(mode="json", exclude=beside)
        if self.content_sha256 is not None:
            # Copied or touched, it is the same image.
            del facts["source"]["modified_ns"], facts["source"]["files_sha256"]
        if self.code_sha256 is None:
            del facts["code_sha256"]
        return facts

    @property
    def pixels(self) -> int:
        """Pixels of the label image."""
        return prod(self.label_shape)

    def image_box(self, box: Box, channels: tuple[int, int] | None = None) -> Box:
        """Give a TZYX box its channels, all where none are named: a TCZYX box."""
        start, stop = channels if channels is not None else (0, self.source.shape[1])
        return box.insert(1, start, stop)


def make_plan(
    config: RunConfig,
    image: InputImage,
    info: ImageInfo,
    facts: ModelFacts | DetectorFacts,
    output: Path,
    intent: Intent,
    content_sha256: str | None = None,
    target: Target | None = None,
) -> RunPlan:
    """Decide everything about one image's run. Computes nothing, reads nothing.

    Parameters
    ----------
    config : RunConfig
        The user's wishes.
    image : InputImage
        The input and its result's name.
    info : ImageInfo
        The facts of the image.
    facts : ModelFacts or DetectorFacts
        The facts of the model, or of the function in its place.
    output : Path
        Folder under which results go.
    intent : Intent
        The device and the memory at hand.
    content_sha256 : str, optional
        Of the image's files, where it shall be known again by them.
    target : Target, optional
        The image's own group, where labels and table shall become part of it.

    Returns
    -------
    RunPlan

    Raises
    ------
    PlanError
        If image, model and wishes do not fit together.
    """
    card = facts.card
    channels = choose_channels(config, info, card)
    spatial_ndim = card.dims
    if spatial_ndim == 3 and info.shape[2] == 1:
        raise PlanError(
            f"{info.path}: the model {card.name!r} is three-dimensional and the image has a single plane; "
            "choose a two-dimensional model"
        )
    precision, tolerance = choose_precision(config, card)
    footprint, seams = tiling_footprint(card.name, facts.context, insist=config.allow_nonlocal)
    whole = footprint.behind(4 - spatial_ndim)
    label_shape = coarse_shape(info.shape, whole)

    def memory(window: tuple[int, ...]) -> int:
        return facts.window_bytes(window, precision, intent.device)

    free = 4 - spatial_ndim
    chunk_limits = (1, 1, sizing.LONGEST_CHUNK_Z, config.output.chunk, config.output.chunk)
    budget = int(intent.worker_memory * BUDGET_SHARE)
    wanted = Wanted(
        shape=label_shape[free:], planes=prod(label_shape[:free]), footprint=footprint, device=intent.device,
        chunk=chunk_limits[-spatial_ndim:], memory=memory, flops=facts.flops, budget=budget, workers=intent.workers,
    )  # fmt: skip
    core, tiling = choose_tiling(
        wanted, config.tile, intent.worker_memory, intent.rates, kept=intent.core, always=config.planner == "measure"
    )
    full_core = (1,) * (4 - spatial_ndim) + core
    label_chunk = tuple(sizing.chunk_edge(edge, limit) for edge, limit in zip(full_core, chunk_limits[1:], strict=True))
    rows = 1024
    row_bytes = info.shape[1] * info.shape[4] * info.itemsize
    if info.block[4] > 1024:
        rows = max(config.output.chunk, min(rows, 2**26 // row_bytes))
    image_chunk, image_shard = sizing.image_shard(info.shape, config.output.chunk, rows)
    region = sizing.reading_region(info.shape, info.block, image_shard)
    reading = int((intent.host_memory or intent.worker_memory) * BUDGET_SHARE)  # wherever the network computes
    sizing.check_region(info.path, region, info.block, info.itemsize, reading)
    copy_image = config.output.image == "copy" or (config.output.image == "auto" and info.kind != "ome-zarr")
    method, minimum_size, depth = choose_sizes(config, card, rescaling := facts.context.rescaling)
    return RunPlan.model_validate(
        {
            "name": image.name,
            "output": str(image.result_in(output) if target is None else target.group),
            "in_place": target is not None,
            "staging": None if target is None else str(image.staging_in(output)),
            "destination": image.destination or None,
            "source": info,
            "content_sha256": content_sha256,
            "series": config.series,
            "model": card.name if isinstance(card, DetectorCard) else _place(config.model),
            "factory": config.factory,
            "trust_model_code": config.trust_model_code,
            "network": card.design,
            "use": config.network_use if rescaling is None else config.network_use.at(rescaling.ratios),
            "stitching": facts.context.stitching,
            "rescaling": rescaling,
            "weights_sha256": card.weights.sha256,
            "code_sha256": facts.code_sha256 if isinstance(facts, ModelFacts) else None,
            "channels": channels,
            "spatial_ndim": spatial_ndim,
            "footprint": whole,
            "centre": (0.0,) * (4 - spatial_ndim) + facts.context.centre,
            "seams": seams,
            "core": full_core,
            "tiling": tiling,
            "label_chunk": label_chunk,
            "ome_zarr": config.output.ome_zarr if target is None else target.version,
            "levels": None if target is None else target.levels,
            "copy_image": copy_image and target is None,
            "image_chunk": image_chunk,
            "image_shard": image_shard,
            "region": region,
            "intensity": card.intensity,
            "classes": card.classes,
            "instances": method,
            "object_classes": choose_classes(config, card),
            "contact_classes": tuple(card.classes.index(name) for name in card.instances.contact),
            "minimum_size": minimum_size,
            "fill_holes": config.instances.fill_holes and method != "none",
            "border": config.instances.border,
            "parting_depth": depth,
            "largest": config.instances.largest,
            "spacing": _spacing(info, footprint),
            "table": config.output.table and method != "none",
            "report": config.output.report,
            "probabilities": config.output.probabilities,
            "skip_below": choose_skipping(config, card),
            "precision": precision,
            "precision_tolerance": tolerance,
            "device": intent.device,
            "window_bytes": memory(footprint.window_shape(core)),
            "gpu_bytes": intent.worker_memory if intent.device == "cuda" else None,
            "self_check": config.self_check,
            "audit_windows": audit_windows.choose_count(label_shape, full_core, footprint)
            if config.audit.windows is None
            else config.audit.windows,
            "versions": versions_of(info.kind, objects=method != "none") | facts.versions,
        }
    )


def _spacing(info: ImageInfo, footprint: Footprint) -> tuple[int, ...]:
    """Give the ratio of the label pixels' edges, as whole numbers: axes may have different units."""
    first = -footprint.ndim
    sizes, _, _ = in_one_unit(info.pixel_size[first:], info.translation[first:], info.units[first:])
    return sizing.whole_spacing([size * scale for size, scale in zip(sizes, footprint.scale, strict=True)])


def _place(model: str) -> str:
    """Give what to load: workers may have been started in another folder."""
    return model if model in bundled_models() else str(Path(model).absolute())
