"""`seamfree view`: a finished result in the browser, or in napari."""

from __future__ import annotations

import sys
import tempfile
import webbrowser
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.printing import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


def view(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="Folder NAME.ome.zarr, of an image or a plate.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="On the loopback interface; 0 takes any.")] = 0,
    browser: Annotated[
        bool | None, typer.Option(help="Whether a browser is opened; it is where somebody sits before a screen.")
    ] = None,
    napari: Annotated[
        bool, typer.Option("--napari", help="Show it in napari instead, where that is installed.")
    ] = False,
) -> None:
    """Look at a finished result: image, classes, objects and their measurements, at any zoom. Ends with Ctrl-C."""
    from pipeline.errors import ConfigError
    from pipeline.remote.paths import RemotePath
    from pipeline.results import check_result

    folder = check_result(result)
    if isinstance(folder, RemotePath):
        raise ConfigError(f"{folder}: what is on no disk of this machine cannot be viewed; copy it here")
    if napari:
        from pipeline.viewer.in_napari import show

        show(folder)
        return
    from pipeline.viewer.server import ViewerServer
    from pipeline.viewer.site import Site

    with ViewerServer(Site(folder), port) as server:
        typer.echo(printable(f"{folder}: {server.url}"))
        typer.echo("Whoever has this address sees the result. Ctrl-C ends it.")
        with _shown(server.url, _somebody_looks() if browser is None else browser):
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                typer.echo("ended")


def _somebody_looks() -> bool:
    """Say whether this runs in a terminal, and a graphical browser would be seen."""
    if not sys.stdout.isatty():
        return False
    try:
        # Browsers of the terminal would take it over.
        return not isinstance(webbrowser.get(), webbrowser.GenericBrowser)
    except webbrowser.Error:
        return False


@contextmanager
def _shown(url: str, wanted: bool) -> Iterator[None]:
    """Open the browser with a page that leads to the address: what it is started with, others on the machine see."""
    if not wanted:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="seamfree-view-") as folder:
        page = Path(folder) / "open.html"
        page.write_text(f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={url}">', encoding="utf-8")
        webbrowser.open(page.as_uri())
        yield
