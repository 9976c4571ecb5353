"""The command line. Imports what a command needs when it is called, so that help comes at once."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from pipeline.commands import models, results, segment, viewing, watching
from pipeline.errors import ConfigError, ModelError, SeamfreeError
from pipeline.printing import PlainFormatter, printable, unexpected

__all__ = ["app", "main"]

app = typer.Typer(
    name="seamfree",
    help="Segments microscopy images too large for memory, so that the tiling never shows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"seamfree {version('seamfree')}")
        raise typer.Exit


class Terminal(logging.StreamHandler[TextIO]):
    """What shows warnings; there is one, also where commands are called one after the other by a program.

    Prefect takes away the handlers of others whose class has no public name.
    """


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and log more.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Take the options of all commands."""
    root = logging.getLogger()
    for former in [each for each in root.handlers if isinstance(each, Terminal)]:
        root.removeHandler(former)
    handler = Terminal()
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
    root.addHandler(handler)
    if debug:
        for name in ours:
            logging.getLogger(name).setLevel(logging.DEBUG)


for _command in (
    segment.run, segment.plan, watching.watch, watching.submit, watching.status, models.inspect, models.models,
    results.verify, viewing.view, results.report, results.export, models.train,
):  # fmt: skip
    app.command()(_command)


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
    # Closed by whoever started this: what would be told has nowhere to go, and the work is done nevertheless.
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open until the end)
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
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
    except Exception as error:
        if "--debug" in sys.argv[1:]:
            raise
        _complain(unexpected(error))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(text: str) -> None:
    typer.echo(printable(f"seamfree: {text}"), err=True)


if __name__ == "__main__":
    main()
