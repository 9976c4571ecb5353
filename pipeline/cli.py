"""The command line. Imports what a command needs when it is called, so that help comes at once."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from pipeline.errors import ConfigError, ModelError, SeamfreeError
from pipeline.interrupt import ending_at_signals
from pipeline.printing import PlainFormatter, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config import RunConfig
    from pipeline.run import ImageReport

__all__ = ["app", "main"]

app = typer.Typer(
    name="seamfree",
    help="Segments microscopy images too large for memory, so that the tiling never shows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Inputs = Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders, globs or OME-Zarr.")]
Model = Annotated[
    str | None, typer.Option("-m", "--model", help="A bundled model's name, a model's folder, or a package.")
]
Config = Annotated[Path | None, typer.Option("-c", "--config", readable=False, help="Settings, as YAML.")]
Tile = Annotated[int | None, typer.Option(help="Edge of a tile's core in pixels, rounded up to a legal one.")]
Channels = Annotated[list[str] | None, typer.Option("--channel", help="Channel that feeds the model; repeatable.")]
Series = Annotated[int | None, typer.Option(help="Which image of a file that holds several.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; one per core or GPU by default.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler to join; 'serial' uses none.")]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where the network runs.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16", "float64"] | None, typer.Option(help="Arithmetic of the network.")
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
Tta = Annotated[bool, typer.Option("--tta", help="Average over mirrored and transposed windows.")]
Instances = Annotated[
    Literal["components", "watershed", "overlap", "none"] | None, typer.Option(help="How objects are told apart.")
]
Function = Annotated[
    str | None,
    typer.Option(help="What finds objects in the network's place, for overlap: module:function, or its name."),
]
Diameter = Annotated[int | None, typer.Option(min=1, help="Largest extent of an object in pixels, for overlap.")]


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"seamfree {version('seamfree')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and log more.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Take the options of all commands."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    # The libraries tell of their own doings at length; only what goes wrong concerns the user. What goes wrong in a
    # flow, Prefect tells with its traceback, and the table of results without; of a bad file, tifffile before we do; of
    # a worker that dies, Dask's nanny, and what that means for the image the driver tells.
    ours = ("pipeline", "flows") if debug else ()
    told_otherwise = ("prefect", "EventsWorker", "APILogWorker", "tifffile", "distributed")
    handler.addFilter(
        lambda record: (
            record.name.startswith(ours)
            or (record.levelno >= logging.WARNING and (debug or not record.name.startswith(told_otherwise)))
        )
    )
    logging.getLogger().addHandler(handler)
    if debug:
        for name in ours:
            logging.getLogger(name).setLevel(logging.DEBUG)


def _settings(
    config: Path | None,
    *,
    model: str | None = None,
    tile: int | None = None,
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
    factory: str | None = None,
    trust: bool = False,
    allow_nonlocal: bool = False,
    head: str | None = None,
    fully_convolutional: bool = False,
    resolution: str | None = None,
    tta: bool = False,
) -> RunConfig:
    """Lay the command line over the configuration file, and validate both together."""
    from pipeline.config import load_config, make_config

    values: dict[str, Any] = load_config(config) if config is not None else {}
    given: dict[str, Any] = {
        "model": model,
        "tile": tile,
        "precision": precision,
        "device": device,
        "series": series,
        "channels": channels or None,
        "factory": factory,
        "trust_model_code": trust or None,
        "allow_nonlocal": allow_nonlocal or None,
        "head": head,
        "fully_convolutional": fully_convolutional or None,
        "resolution": resolution,
        "tta": tta or None,
    }
    values.update({name: value for name, value in given.items() if value is not None})
    nested: dict[str, dict[str, Any]] = {
        "instances": {"method": instances, "function": function, "diameter": diameter},
        "execution": {"workers": workers, "scheduler": scheduler},
        "output": {"image": None if image else "none"},
    }
    for section, entries in nested.items():
        chosen = {name: value for name, value in entries.items() if value is not None}
        if chosen:
            below = values.get(section, {})
            if not isinstance(below, dict):
                raise ConfigError(f"{config}: {section}: a mapping of settings is wanted, got {below!r}")
            values[section] = {**below, **chosen}
    return make_config(values, origin=str(config) if config is not None else "the command line")


def _orchestrator() -> Callable[..., list[ImageReport]]:
    """Find who records and retries runs: the layer above, which this one does not import, announces itself."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="seamfree.orchestrators", name="prefect"):
        found: Callable[..., list[ImageReport]] = entry.load()
        return found
    raise ConfigError("the flows of seamfree are not installed; install seamfree again, or use --direct")


@app.command()
@ending_at_signals()
def run(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    model: Model = None,
    config: Config = None,
    instances: Instances = None,
    function: Function = None,
    diameter: Diameter = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, even where there is a result.")] = False,
    direct: Annotated[bool, typer.Option("--direct", help="Without Prefect: same result, no flow record.")] = False,
    tile: Tile = None,
    precision: Precision = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    device: Device = None,
    channel: Channels = None,
    series: Series = None,
    factory: Factory = None,
    trust_model_code: Trust = False,
    allow_nonlocal: AllowNonlocal = False,
    head: Head = None,
    fully_convolutional: FullyConvolutional = False,
    resolution: Resolution = None,
    tta: Tta = False,
    no_image: Annotated[bool, typer.Option("--no-image", help="Leave the image out of the result.")] = False,
) -> None:
    """Segment images: labels as OME-Zarr, one result for each image."""
    from pipeline.site import start_early

    settings = _settings(
        config, model=model, tile=tile, precision=precision, device=device, instances=instances, channels=channel,
        function=function, diameter=diameter, series=series, workers=workers, scheduler=scheduler, image=not no_image,
        factory=factory, trust=trust_model_code, allow_nonlocal=allow_nonlocal, head=head,
        fully_convolutional=fully_convolutional, resolution=resolution, tta=tta,
    )  # fmt: skip
    start_early(settings)
    from rich.console import Console

    from pipeline.batch import segment, write_summary
    from pipeline.display import report_table, show_progress
    from pipeline.images.discover import discover

    console = Console(stderr=True)
    count = len(discover(inputs))
    reports: list[ImageReport]
    with show_progress(console, count):
        if direct:
            reports = list(segment(inputs, output, settings, fresh=fresh))
        else:
            reports = _orchestrator()(inputs=inputs, output=str(output), config=settings, fresh=fresh)
    summary = write_summary(output, reports)
    # A terminal folds long paths; a file or another program gets them whole.
    Console(width=None if sys.stdout.isatty() else 10_000).print(report_table(reports))
    typer.echo(printable(f"summary: {summary}"))
    if any(report.status == "failed" for report in reports):
        raise typer.Exit(1)


@app.command()
def plan(
    inputs: Inputs,
    model: Model = None,
    config: Config = None,
    instances: Instances = None,
    function: Function = None,
    diameter: Diameter = None,
    tile: Tile = None,
    precision: Precision = None,
    workers: Workers = None,
    device: Device = None,
    channel: Channels = None,
    series: Series = None,
    factory: Factory = None,
    trust_model_code: Trust = False,
    allow_nonlocal: AllowNonlocal = False,
    head: Head = None,
    fully_convolutional: FullyConvolutional = False,
    resolution: Resolution = None,
    tta: Tta = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole plans, as JSON.")] = False,
) -> None:
    """Say what would be done: tiles, memory, disk. Computes nothing."""
    from pipeline.overview import plan as make_overviews

    settings = _settings(
        config, model=model, tile=tile, precision=precision, device=device, channels=channel, series=series,
        workers=workers, instances=instances, function=function, diameter=diameter,
        factory=factory, trust=trust_model_code, allow_nonlocal=allow_nonlocal, head=head,
        fully_convolutional=fully_convolutional, resolution=resolution, tta=tta,
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


@app.command()
def inspect(
    subject: Annotated[str, typer.Argument(metavar="MODEL|IMAGE", help="A model or an image.")],
    factory: Factory = None,
    trust_model_code: Trust = False,
    head: Head = None,
    fully_convolutional: FullyConvolutional = False,
    resolution: Resolution = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a model or an image is."""
    from dataclasses import asdict

    from pipeline.inspection import describe_facts, is_model
    from pipeline.models.context import draw_footprint
    from pipeline.models.facts import learn_facts
    from pipeline.models.library import bundled_models

    path = Path(subject)
    facts: dict[str, Any]
    known = None
    if is_model(subject):
        use = _settings(None, head=head, fully_convolutional=fully_convolutional, resolution=resolution).network_use
        known = learn_facts(subject, factory=factory, trust=trust_model_code, use=use)
        facts = describe_facts(subject, known, trust=trust_model_code)
    elif path.exists():
        from pipeline.images.opening import open_image

        source = open_image(path)
        facts = asdict(source.info) | ({"notes": list(source.notes)} if source.notes else {})
        source.close()
    else:
        raise ConfigError(f"{subject}: neither a model ({', '.join(bundled_models())}) nor an image")
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        width = max(len(name) for name in facts) + 2
        for name, value in facts.items():
            typer.echo(printable(f"{name:<{width}}{value}"))
        if known is not None:
            typer.echo(draw_footprint(known.context))


@app.command()
def models() -> None:
    """List the models at hand."""
    from pipeline.models.card import read_card
    from pipeline.models.library import bundled_models

    for name, folder in bundled_models().items():
        typer.echo(f"{name}: {read_card(folder).description}")


@app.command()
@ending_at_signals()
def verify(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="Folder NAME.ome.zarr.")],
    audit: Annotated[bool, typer.Option(help="Compute windows on seams again, and compare.")] = True,
    windows: Annotated[int | None, typer.Option(min=1, help="How many; as many as for the run by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses other windows than the run's own.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; 1 does it in this one.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="File for a plot of the run's audit, as SVG.")] = None,
) -> None:
    """Check a finished result: metadata, checksums, and that its tiles do not show."""
    from pipeline.results import check_result, open_result
    from pipeline.verify import verify as check

    checks = check(check_result(result), audit=audit, windows=windows, seed=seed, workers=workers)
    for found in checks:
        verdict = ("ok    " if found.passed else "FAILED") if found.made else "not made"
        typer.echo(printable(f"{verdict} {found.what}{': ' if found.detail else ''}{found.detail}"))
    if plot is not None:
        from pipeline.audit_plot import why_no_plot, write_plot

        report = open_result(result).provenance.get("audit", {})
        why = why_no_plot(report)
        if why is None:
            write_plot(plot, report, result.name)
        typer.echo(f"{'not made' if why else 'written'} plot: {why or plot}")
    if not all(found.passed for found in checks):
        raise typer.Exit(1)


@app.command()
def export(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="Folder NAME.ome.zarr.")],
    geojson: Annotated[Path | None, typer.Option(help="Outlines and measurements, for QuPath.")] = None,
    anndata: Annotated[Path | None, typer.Option(help="The table of objects as .h5ad, for scverse.")] = None,
) -> None:
    """Write objects of a finished result in formats of other programs."""
    from pipeline.results import check_result, open_result

    if geojson is None and anndata is None:
        raise ConfigError("export what? give --geojson FILE or --anndata FILE")
    opened = open_result(check_result(result))
    if geojson is not None:
        typer.echo(f"{geojson}: {opened.write_geojson(geojson):,} objects")
    if anndata is not None:
        typer.echo(f"{anndata}: {opened.write_anndata(anndata):,} objects")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Training configuration, as YAML.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with images/*.tif and masks/*.tif.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the model.")],
) -> None:
    """Train a model of nuclei from images with instance masks."""
    from rich.console import Console

    from pipeline.display import show_progress
    from pipeline.training.publish import train_model

    with show_progress(Console(stderr=True), 0):
        card = train_model(config, data, output)
    typer.echo(f"{output}: {card.name}, {card.scores}")


_UsageProblem = cast(
    "type[Exception]", next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
)
"""What the parser of the command line raises. Click's, or that of the copy which newer releases of typer carry."""


def _usage(error: Exception) -> str:
    """Say in one line what is wrong with the command line, and where it is told how to do it right."""
    context = getattr(error, "ctx", None)
    text = " ".join(str(getattr(error, "format_message", error.__str__)()).split()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; see '{context.command_path if context else 'seamfree'} --help'"


def main() -> None:
    """Run the command line: exit code 0 for all done, 1 if some image failed, 2 for bad usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold what the terminal's encoding does not; the standard error does this by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="seamfree", standalone_mode=False)
    except _UsageProblem as error:
        # Without any argument, the help has been shown.
        if type(error).__name__ != "NoArgsIsHelpError":
            _complain(_usage(error))
        sys.exit(2)
    except typer.Abort:
        sys.exit(1)
    except SeamfreeError as error:
        if "--debug" in sys.argv[1:]:
            raise
        _complain(str(error))
        # A model that does not exist or cannot be loaded is found before any work, like a setting that cannot be.
        sys.exit(2 if isinstance(error, ConfigError | ModelError) else 1)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(text: str) -> None:
    typer.echo(printable(f"seamfree: {text}"), err=True)


if __name__ == "__main__":
    main()
