"""`seamfree verify`, `export` and `report`: what is done with finished results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import Factory, Trust
from pipeline.errors import ConfigError
from pipeline.interrupt import ending_at_signals
from pipeline.printing import printable


@ending_at_signals()
def verify(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="Folder NAME.ome.zarr, or its URL.")],
    audit: Annotated[bool, typer.Option(help="Compute windows on seams again, and compare.")] = True,
    windows: Annotated[int | None, typer.Option(min=1, help="How many; as many as for the run by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses other windows than the run's own.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; 1 does it in this one.")] = 1,
    function: Annotated[
        str | None, typer.Option(help="The function that found the objects, as the run was told it: call it again.")
    ] = None,
    factory: Factory = None,
    trust_model_code: Trust = False,
    plot: Annotated[Path | None, typer.Option(help="File for a plot of the run's audit, as SVG.")] = None,
) -> None:
    """Check a finished result: metadata, checksums, what it holds, and that its tiles do not show."""
    from pipeline.look import TERMINAL_STYLES
    from pipeline.results import check_result, open_result
    from pipeline.verify import verify as check

    place = check_result(result)
    checks = check(
        place, audit=audit, windows=windows, seed=seed, workers=workers, function=function, factory=factory,
        trust_model_code=trust_model_code,
    )  # fmt: skip
    for found in checks:
        verdict, kind = ("ok    ", "good") if found.passed else ("FAILED", "bad")
        if not found.made:
            verdict, kind = "not made", "care"
        told = printable(f"{found.what}{': ' if found.detail else ''}{found.detail}")
        # Colours are for terminals; a file or another program gets none.
        typer.echo(f"{typer.style(verdict, fg=TERMINAL_STYLES[kind])} {told}")
    if plot is not None:
        from pipeline.audit_plot import why_no_plot, write_plot

        report = open_result(place).provenance.get("audit", {})
        why = why_no_plot(report)
        if why is None:
            write_plot(plot, report, place.name)
        typer.echo(f"{'not made' if why else 'written'} plot: {why or plot}")
    if not all(found.passed for found in checks):
        raise typer.Exit(1)


def export(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="Folder NAME.ome.zarr, or its URL.")],
    geojson: Annotated[Path | None, typer.Option(help="Outlines and measurements, for QuPath.")] = None,
    anndata: Annotated[Path | None, typer.Option(help="The table of objects as .h5ad, for scverse.")] = None,
    ome_tiff: Annotated[
        Path | None, typer.Option("--ome-tiff", help="Image and labels with pyramids, for QuPath and ImageJ.")
    ] = None,
) -> None:
    """Write a finished result, or its objects, in formats of other programs."""
    from pipeline.results import check_result, open_result

    if geojson is None and anndata is None and ome_tiff is None:
        raise ConfigError("export what? give --geojson FILE, --anndata FILE or --ome-tiff FILE")
    opened = open_result(check_result(result))
    if geojson is not None:
        typer.echo(f"{geojson}: {opened.write_geojson(geojson):,} objects")
    if anndata is not None:
        typer.echo(f"{anndata}: {opened.write_anndata(anndata):,} objects")
    if ome_tiff is not None:
        typer.echo(f"{ome_tiff}: {', '.join(opened.write_ome_tiff(ome_tiff))}")


def report(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="Folder NAME.ome.zarr, or its URL.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; NAME.report.html beside the result by default.")
    ] = None,
) -> None:
    """Write the report of a finished result again: one page of pictures, plots and the audit."""
    from pipeline.report.writing import write_report
    from pipeline.results import check_result

    # The name of the folder is that of the result, wherever one stands.
    typer.echo(printable(str(write_report(check_result(result).absolute(), output))))
