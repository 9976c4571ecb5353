"""The options that several commands share, and the settings that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import RunConfig


def named_folder(value: str) -> Path:
    """Take a folder on a disk; an empty name, as of a variable that is not set, would mean the one at hand."""
    if not value:
        raise typer.BadParameter("the name of a folder is wanted, this is empty")
    from pipeline.destination import on_a_disk

    return on_a_disk(Path(value))


Inputs = Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders, globs or OME-Zarr.")]
Model = Annotated[
    str | None, typer.Option("-m", "--model", help="A bundled model's name, a model's folder, or a package.")
]
Config = Annotated[Path | None, typer.Option("-c", "--config", readable=False, help="Settings, as YAML.")]
Tile = Annotated[int | None, typer.Option(help="Edge of a tile's core in pixels, rounded up to a legal one.")]
Planner = Annotated[
    Literal["auto", "measure", "off"] | None, typer.Option(help="Whether the tile is chosen by measured time.")
]
Channels = Annotated[list[str] | None, typer.Option("--channel", help="Channel that feeds the model; repeatable.")]
Series = Annotated[int | None, typer.Option(help="Which image of a file that holds several.")]
Sequence = Annotated[
    str | None,
    typer.Option(metavar="PATTERN|PRESET", help="How files of one image are called, such as img_t{time}_z{z}.tif."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; one per core or GPU by default.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler to join; 'serial' uses none.")]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where the network runs.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16", "float64"] | None, typer.Option(help="Arithmetic of the network.")
]
SkipBelow = Annotated[
    float | None, typer.Option("--skip-below", help="Take for background where all is below this intensity.")
]
Factory = Annotated[str | None, typer.Option(help="package.module:function that makes the model's network.")]
Trust = Annotated[bool, typer.Option("--trust-model-code", help="Run code of a package, or load a .pt2.")]
AllowNonlocal = Annotated[
    bool, typer.Option("--allow-nonlocal", help="Tile a network that sees everything; seams are possible.")
]
Head = Annotated[str | None, typer.Option(help="Which of the network's outputs, by name or number.")]
FullyConvolutional = Annotated[
    bool, typer.Option("--fully-convolutional", help="Let a classifier of patches slide over the image.")
]
Resolution = Annotated[
    Literal["network", "image"] | None, typer.Option(help="Of coarser outputs: as they are, or at each pixel.")
]
Rescale = Annotated[
    Literal["auto", "off"] | None, typer.Option(help="Run the network at the pixel size that its card names.")
]
SelfCheck = Annotated[
    Literal["auto", "always", "off"] | None,
    typer.Option("--self-check", help="Whether tiles are held against a larger pass before the run."),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        "--pixel-size", min=1e-6, max=1e6, help="Of images that do not say theirs, along Y and X, in micrometers."
    ),
]
Tta = Annotated[bool, typer.Option("--tta", help="Average over mirrored and transposed windows.")]
Instances = Annotated[
    Literal["components", "watershed", "overlap", "none"] | None, typer.Option(help="How objects are told apart.")
]
Function = Annotated[
    str | None,
    typer.Option(help="What finds objects in the network's place, for overlap: module:function, or its name."),
]
Diameter = Annotated[int | None, typer.Option(min=1, help="Largest extent of an object in pixels, for overlap.")]
OmeZarr = Annotated[
    Literal["0.5", "0.4"] | None, typer.Option("--ome-zarr", help="Version of the results; 0.4 for older readers.")
]
InPlace = Annotated[
    bool, typer.Option("--in-place", help="Add labels and table to the OME-Zarr that is read, instead of a result.")
]

Export = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ome-tiff|geojson|anndata", help="Write finished results like this, too, into NAME.exports; repeatable."
    ),
]


def settings_of(
    config: Path | None,
    *,
    model: str | None = None,
    tile: int | None = None,
    planner: str | None = None,
    precision: str | None = None,
    device: str | None = None,
    instances: str | None = None,
    function: str | None = None,
    diameter: int | None = None,
    channels: list[str] | None = None,
    series: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    image: bool = True,
    skip_below: float | None = None,
    factory: str | None = None,
    trust: bool = False,
    allow_nonlocal: bool = False,
    head: str | None = None,
    fully_convolutional: bool = False,
    resolution: str | None = None,
    tta: bool = False,
    rescale: str | None = None,
    ome_zarr: str | None = None,
    in_place: bool = False,
    sequence: str | None = None,
    self_check: str | None = None,
    pixel_size: float | None = None,
) -> RunConfig:
    """Lay the command line over the configuration file, and validate both together."""
    from pipeline.config import load_config, make_config

    values: dict[str, Any] = load_config(config) if config is not None else {}
    given: dict[str, Any] = {
        "model": model,
        "tile": tile,
        "planner": planner,
        "precision": precision,
        "device": device,
        "series": series,
        "channels": channels or None,
        "skip_below": skip_below,
        "factory": factory,
        "trust_model_code": trust or None,
        "allow_nonlocal": allow_nonlocal or None,
        "head": head,
        "fully_convolutional": fully_convolutional or None,
        "resolution": resolution,
        "tta": tta or None,
        "rescale": rescale,
        "pixel_size": None if pixel_size is None else [pixel_size, pixel_size],
        "self_check": self_check,
    }
    values.update({name: value for name, value in given.items() if value is not None})
    nested: dict[str, dict[str, Any]] = {
        "instances": {"method": instances, "function": function, "diameter": diameter},
        "sequence": {"pattern": sequence},
        "execution": {"workers": workers, "scheduler": scheduler},
        "output": {"image": None if image else "none", "ome_zarr": ome_zarr, "in_place": in_place or None},
    }
    for section, entries in nested.items():
        chosen = {name: value for name, value in entries.items() if value is not None}
        if chosen:
            below = values.get(section, {})
            if not isinstance(below, dict):
                raise ConfigError(f"{config}: {section}: a mapping of settings is wanted, got {below!r}")
            values[section] = {**below, **chosen}
    return make_config(values, origin=str(config) if config is not None else "the command line")
