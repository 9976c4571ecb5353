"""`seamfree watch`, `seamfree submit` and `seamfree status`: acquisitions that come in while nobody looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import (
    Channels,
    Config,
    Device,
    Factory,
    Inputs,
    Instances,
    Model,
    Precision,
    Trust,
    Workers,
    named_folder,
    settings_of,
)
from pipeline.errors import ConfigError
from pipeline.interrupt import ending_at_signals
from pipeline.printing import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.acquisitions.ledger import Acquisition


def _service(name: str) -> Callable[..., Any]:
    """Find what the layer above offers, which this one does not import."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="seamfree.orchestrators", name=name):
        found: Callable[..., Any] = entry.load()
        return found
    raise ConfigError("the flows of seamfree are not installed; install seamfree again")


def _is_web_address(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@ending_at_signals()
def watch(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", parser=named_folder, help="Folder into which acquisitions come.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", parser=named_folder, help="Folder for the results.")
    ],
    model: Model = None,
    config: Config = None,
    instances: Instances = None,
    channel: Channels = None,
    precision: Precision = None,
    device: Device = None,
    workers: Workers = None,
    factory: Factory = None,
    trust_model_code: Trust = False,
    every: Annotated[
        float, typer.Option(min=1, max=30 * 86400, help="Seconds between two looks at the folder.")
    ] = 30.0,
    cron: Annotated[str | None, typer.Option(help="When to look instead, as cron has it: '*/10 * * * *'.")] = None,
    settle: Annotated[float, typer.Option(min=0, help="Seconds for which files must have been still.")] = 30.0,
    patience: Annotated[float, typer.Option(min=0, help="Seconds until what stays broken is given up.")] = 600.0,
    sentinel: Annotated[
        str | None, typer.Option(help="File that tells that one is finished: '{name}.done' or '{stem}.done'.")
    ] = None,
    missing_chunks: Annotated[str, typer.Option(help="What is not there: wait for it, or zeros.")] = "wait",
    at_once: Annotated[int, typer.Option(min=1, help="Images that are segmented at the same time.")] = 1,
    hours: Annotated[
        float | None, typer.Option(help="An image that takes longer is given up; what is done stays.")
    ] = None,
    notify: Annotated[str | None, typer.Option(help="URL that is told what becomes of each image.")] = None,
    keep_runs: Annotated[
        int, typer.Option(min=100, help="Runs that Prefect's pages show at most, the latest; results stay anyway.")
    ] = 2000,
) -> None:
    """Segment each finished acquisition of a folder once, until interrupted."""
    from pydantic import ValidationError

    from pipeline.acquisitions.place import check_folders
    from pipeline.acquisitions.rules import WatchRules
    from pipeline.checking import check_settings

    check_folders(folder, output)
    if notify is not None and not _is_web_address(notify):
        raise ConfigError("--notify: an address that begins with http:// or https:// is wanted")
    settings = settings_of(
        config, model=model, instances=instances, channels=channel, precision=precision, device=device,
        workers=workers, factory=factory, trust=trust_model_code,
    )  # fmt: skip
    try:
        rules = WatchRules.model_validate(
            {"settle": settle, "patience": patience, "sentinel": sentinel, "missing_chunks": missing_chunks}
        )
    except ValidationError as error:
        found = error.errors()[0]
        raise ConfigError(
            f"--{str(found['loc'][0]).replace('_', '-')}: {found['msg'].removeprefix('Value error, ')}"
        ) from error
    if settings.output.in_place:
        raise ConfigError("in_place changes the acquisitions that are watched; leave it out")
    if any(value is not None for _, value in settings.sequence):
        raise ConfigError(
            "sequence: a watcher takes single files and OME-Zarr; hand finished folders to seamfree run --sequence"
        )
    if hours is not None and not 0 < hours <= 10_000:
        raise ConfigError(f"--hours {hours:g}: between 0 and 10,000 are possible")
    check_settings(settings)
    _service("watch")(
        folder, output, settings, rules, every=every, cron=cron, at_once=at_once, hours=hours, notify=notify,
        keep_runs=keep_runs,
    )  # fmt: skip


@ending_at_signals()
def submit(
    inputs: Inputs,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", parser=named_folder, help="The watcher's folder of results."),
    ],
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, even where there is a result.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to wait for the results.")] = True,
) -> None:
    """Hand images to the watcher that is at work on a folder of results, and follow them."""
    import sys

    from rich.console import Console

    from pipeline.display import report_table, show_progress
    from pipeline.images.discover import discover, with_whole_plates

    with show_progress(Console(stderr=True), len(with_whole_plates(discover(inputs))) if wait else 0):
        reports = _service("submit")(inputs, output, fresh=fresh, wait=wait)
    if reports is None:
        typer.echo("handed over; `seamfree status` does not list them, Prefect's pages do")
        return
    Console(width=None if sys.stdout.isatty() else 10_000).print(report_table(reports))
    if any(report.status == "failed" for report in reports):
        raise typer.Exit(1)


def status(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", parser=named_folder, help="The watcher's folder of results.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
) -> None:
    """Say what a watcher knows: acquisitions segmented, running, waited for, in quarantine."""
    from dataclasses import asdict

    from rich.console import Console

    from pipeline.acquisitions.ledger import AcquisitionLedger
    from pipeline.acquisitions.place import ledger_of, trouble_of
    from pipeline.display import acquisition_table
    from pipeline.stores.hold import is_held

    path = ledger_of(output)
    if not path.is_file():
        raise ConfigError(f"{output}: no watcher has put results there; `seamfree watch DIR -o {output}` does")
    with AcquisitionLedger(path, read_only=True) as ledger:
        sightings = list(ledger.sightings().values())
        acquisitions = [_as_it_is(each, output.absolute()) for each in ledger.acquisitions()]
    alive, trouble = is_held(path.with_name("watch")), trouble_of(output)
    if as_json:
        facts = {
            "watcher": alive,
            "trouble": trouble,
            "acquisitions": [asdict(each) for each in acquisitions],
            "files": [asdict(each) for each in sightings],
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    Console().print(acquisition_table(acquisitions, sightings))
    if trouble is not None:
        typer.echo(printable(f"the folder could not be looked through: {trouble}"))
    typer.echo(printable(f"a watcher is {'at work on' if alive else 'not at work on'} {output}"))


def _as_it_is(held: Acquisition, output: Path) -> Acquisition:
    """Say where a result is now: its folder may have been moved, and it may have been taken away."""
    from dataclasses import replace

    if held.state != "done":
        return held
    result = output / f"{held.name}.ome.zarr"
    if result.exists():
        return replace(held, result=str(result))
    return replace(held, result=None, reason="its result is not there any more; `seamfree submit` makes it again")
