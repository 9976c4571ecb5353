"""`seamfree run` and `seamfree plan`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import (
    AllowNonlocal,
    Channels,
    Config,
    Device,
    Diameter,
    Export,
    Factory,
    FullyConvolutional,
    Function,
    Head,
    InPlace,
    Inputs,
    Instances,
    Model,
    OmeZarr,
    PixelSize,
    Planner,
    Precision,
    Rescale,
    Resolution,
    Scheduler,
    SelfCheck,
    Sequence,
    Series,
    SkipBelow,
    Tile,
    Trust,
    Tta,
    Workers,
    settings_of,
)
from pipeline.errors import ConfigError
from pipeline.interrupt import ending_at_signals
from pipeline.printing import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from pipeline.run import ImageReport


def _orchestrator() -> Callable[..., list[ImageReport]]:
    """Find who records and retries runs: the layer above, which this one does not import, announces itself."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="seamfree.orchestrators", name="prefect"):
        found: Callable[..., list[ImageReport]] = entry.load()
        return found
    raise ConfigError("the flows of seamfree are not installed; install seamfree again, or use --direct")


@ending_at_signals()
def run(
    inputs: Inputs,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FOLDER|URL", help="Folder for the results.")],
    model: Model = None,
    config: Config = None,
    instances: Instances = None,
    function: Function = None,
    diameter: Diameter = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, even where there is a result.")] = False,
    direct: Annotated[bool, typer.Option("--direct", help="Without Prefect: same result, no flow record.")] = False,
    tile: Tile = None,
    planner: Planner = None,
    precision: Precision = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    device: Device = None,
    channel: Channels = None,
    series: Series = None,
    sequence: Sequence = None,
    skip_below: SkipBelow = None,
    factory: Factory = None,
    trust_model_code: Trust = False,
    allow_nonlocal: AllowNonlocal = False,
    head: Head = None,
    fully_convolutional: FullyConvolutional = False,
    resolution: Resolution = None,
    tta: Tta = False,
    rescale: Rescale = None,
    pixel_size: PixelSize = None,
    self_check: SelfCheck = None,
    no_image: Annotated[bool, typer.Option("--no-image", help="Leave the image out of the result.")] = False,
    ome_zarr: OmeZarr = None,
    in_place: InPlace = False,
    export: Export = None,
) -> None:
    """Segment images: labels as OME-Zarr, one result for each image."""
    from pipeline.site import start_early

    settings = settings_of(
        config, model=model, tile=tile, planner=planner, precision=precision, device=device, instances=instances,
        channels=channel, function=function, diameter=diameter, series=series, workers=workers,
        scheduler=scheduler, image=not no_image,
        skip_below=skip_below, factory=factory, trust=trust_model_code, allow_nonlocal=allow_nonlocal, head=head,
        fully_convolutional=fully_convolutional, resolution=resolution, tta=tta, rescale=rescale, ome_zarr=ome_zarr,
        in_place=in_place, sequence=sequence, self_check=self_check,
        pixel_size=pixel_size,
    )  # fmt: skip
    start_early(settings)
    from rich.console import Console

    from pipeline.batch import segment
    from pipeline.checking import find_images
    from pipeline.destination import local_folder, send_summary
    from pipeline.display import report_table, show_progress
    from pipeline.export_beside import check_formats, export_results
    from pipeline.summary import write_summary
    from pipeline.wells import wells_path

    console = Console(stderr=True)
    folder = local_folder(output, settings)
    if export:
        check_formats(export, output, settings)
    images = find_images(settings, inputs)
    reports: list[ImageReport]
    with show_progress(console, len(images)):
        if direct:
            reports = list(segment(inputs, output, settings, fresh=fresh))
        else:
            reports = _orchestrator()(inputs=inputs, output=output, config=settings, fresh=fresh)
    if export:
        reports = export_results(images, reports, folder, export, lambda told: typer.echo(printable(told)))
    summary = send_summary(write_summary(folder, reports), output)
    # A terminal folds long paths; a file or another program gets them whole.
    terminal = Console(width=None if sys.stdout.isatty() else 10_000)
    terminal.print(report_table(reports))
    _show_wells(
        terminal, [wells_path(folder, plate) for plate in {image.plate: None for image in images if image.plate}]
    )
    typer.echo(printable(f"summary: {summary}"))
    if any(report.status == "failed" for report in reports):
        raise typer.Exit(1)


def _show_wells(terminal: Console, summaries: list[Path]) -> None:
    """Show the wells of plates, as their summaries list them."""
    from pipeline.display import wells_table
    from pipeline.wells import read_wells

    for path, summary in read_wells(summaries):
        terminal.print(wells_table(summary))
        typer.echo(printable(f"wells: {path}"))


def plan(
    inputs: Inputs,
    model: Model = None,
    config: Config = None,
    instances: Instances = None,
    function: Function = None,
    diameter: Diameter = None,
    tile: Tile = None,
    planner: Planner = None,
    precision: Precision = None,
    workers: Workers = None,
    device: Device = None,
    channel: Channels = None,
    series: Series = None,
    sequence: Sequence = None,
    skip_below: SkipBelow = None,
    factory: Factory = None,
    trust_model_code: Trust = False,
    allow_nonlocal: AllowNonlocal = False,
    head: Head = None,
    fully_convolutional: FullyConvolutional = False,
    resolution: Resolution = None,
    tta: Tta = False,
    rescale: Rescale = None,
    pixel_size: PixelSize = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole plans, as JSON.")] = False,
) -> None:
    """Say what would be done: tiles, memory, disk. Computes nothing."""
    from pipeline.overview import plan as make_overviews

    settings = settings_of(
        config, model=model, tile=tile, planner=planner, precision=precision, device=device, channels=channel,
        series=series, workers=workers, instances=instances, function=function, diameter=diameter,
        skip_below=skip_below, factory=factory, trust=trust_model_code, allow_nonlocal=allow_nonlocal, head=head,
        fully_convolutional=fully_convolutional, resolution=resolution, tta=tta, rescale=rescale,
        sequence=sequence, pixel_size=pixel_size,
    )  # fmt: skip
    overviews = make_overviews(inputs, settings)
    if as_json:
        entries = [
            {"input": found.input, "reason": found.reason, "plan": found.plan and found.plan.model_dump(mode="json")}
            for found in overviews
        ]
        typer.echo(json.dumps(entries, indent=2))
    else:
        for found in overviews:
            typer.echo("\n".join(map(printable, found.lines())))
    if any(found.plan is None for found in overviews):
        raise typer.Exit(1)
