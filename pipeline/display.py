"""What the terminal shows: progress while a run goes on, and a table at its end."""

from __future__ import annotations

from contextlib import contextmanager
from math import isnan
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.look import TERMINAL_STYLES
from pipeline.printing import printable
from pipeline.progress import Event, ImageFinished, ImageStarted, JobDone, StageStarted, listening

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from rich.console import Console
    from rich.progress import Task, TaskID

    from pipeline.acquisitions.ledger import Acquisition, Sighting
    from pipeline.run import ImageReport

__all__ = ["acquisition_table", "report_table", "show_progress", "wells_table"]

STATUS_STYLES = {
    "done": TERMINAL_STYLES["good"], "failed": TERMINAL_STYLES["bad"], "quarantined": TERMINAL_STYLES["bad"],
    "started": TERMINAL_STYLES["care"], "skipped": TERMINAL_STYLES["soft"],
}  # fmt: skip


class _RateColumn(ProgressColumn):
    """Megapixels per second of the running stage."""

    def render(self, task: Task) -> Text:
        pixels, elapsed = task.fields.get("pixels", 0), task.elapsed
        return Text(f"{pixels / elapsed / 1e6:.2f} Mpx/s" if pixels and elapsed else "", style=TERMINAL_STYLES["soft"])


@contextmanager
def show_progress(console: Console, images: int) -> Iterator[None]:
    """Show bars for images and for the jobs of the running stage, with rate and time left.

    Parameters
    ----------
    console : Console
        Where to; nothing moves where it is no terminal.
    images : int
        How many there are; 0 for work that is not about images.
    """
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        _RateColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    overall = progress.add_task("images", total=images, visible=images > 0)
    stage: list[TaskID] = []

    def listen(event: Event) -> None:
        match event:
            case ImageStarted(name):
                progress.update(overall, description=escape(printable(name)))
            case StageStarted(_, name, total, done):
                for task in stage:
                    progress.remove_task(task)
                stage[:] = [progress.add_task(f"  {name}", total=total, completed=done, pixels=0)]
            case JobDone(_, _, pixels):
                for task in stage:
                    so_far = progress.tasks[progress.task_ids.index(task)].fields["pixels"]
                    progress.update(task, advance=1, pixels=so_far + pixels)
            case ImageFinished(name, status):
                progress.advance(overall)
                style = STATUS_STYLES.get(status, "white")
                progress.console.print(f"[{style}]{status:>8}[/] {escape(printable(name))}")

    with progress, listening(listen):
        yield


def report_table(reports: Sequence[ImageReport]) -> Table:
    """Give a table of what became of each image."""
    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("status")
    table.add_column("objects", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("result, or reason", overflow="fold")
    for report in reports:
        table.add_row(
            escape(printable(report.name)),
            Text(report.status, style=STATUS_STYLES.get(report.status, "white")),
            "" if report.objects is None else f"{report.objects:,}",
            f"{report.seconds:.1f}",
            "\n".join(
                [
                    escape(printable(report.reason or report.result or "")),
                    *(f"[{TERMINAL_STYLES['care']}]{escape(printable(note))}[/]" for note in report.notes),
                ]
            ),
        )
    return table


def wells_table(summary: pd.DataFrame) -> Table:
    """Give a table of a plate's wells."""
    shown = summary.drop(columns=["row", "column"])
    table = Table(box=None, pad_edge=False)
    for name in shown.columns:
        table.add_column(escape(printable(str(name))), justify="left" if name in ("well", "area_unit") else "right")
    for row in shown.itertuples(index=False):
        table.add_row(*(escape(printable(_cell(value))) for value in row))
    return table


def _cell(value: object) -> str:
    """Give a value as people read it; nothing where there is none."""
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:,.1f}" if value % 1 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def acquisition_table(acquisitions: Sequence[Acquisition], sightings: Sequence[Sighting]) -> Table:
    """Give a table of what a watcher knows: what was handed to runs, and what is waited for or in quarantine."""
    table = Table(box=None, pad_edge=False)
    table.add_column("acquisition", overflow="fold")
    table.add_column("status")
    table.add_column("objects", justify="right")
    table.add_column("result, or reason", overflow="fold")
    rows: list[tuple[str, str, int | None, str]] = [
        (held.path, held.state, held.objects, held.reason or held.result or "") for held in acquisitions
    ]
    rows += [(seen.path, seen.state, None, seen.reason or "") for seen in sightings
             if seen.state not in ("known", "part")]  # fmt: skip
    for path, state, objects, told in rows:
        table.add_row(
            escape(printable(path)),
            Text(state, style=STATUS_STYLES.get(state, "white")),
            "" if objects is None else f"{objects:,}",
            escape(printable(told)),
        )
    return table
