"""What Prefect's pages show of an image: how far it is, and, at the end, what came of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from httpx import HTTPError
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from pipeline.errors import SeamfreeError
from pipeline.overlay import thumbnail
from pipeline.printing import printable
from pipeline.progress import JobDone, StageStarted, listening_too
from pipeline.remote.paths import to_path
from pipeline.report.words import duration
from pipeline.results import open_result
from pipeline.stores.publish import read_provenance

if TYPE_CHECKING:
    from uuid import UUID

    from pipeline.planning import RunPlan
    from pipeline.progress import Event
    from pipeline.run import ImageReport

__all__ = ["as_code", "as_text", "publish_outcome", "recordable", "showing_progress"]

log = logging.getLogger(__name__)

_MEASURES = ("area", "area_physical", "axis_major_length", "axis_minor_length", "intensity_mean-0")
"""Columns of the table of objects that a first look is for."""

_PAUSE = 2.0
"""Seconds between two updates of a bar."""


def recordable(text: str) -> str:
    """Replace what Prefect cannot send to its server."""
    return text.encode(errors="backslashreplace").decode()


def as_text(text: str) -> str:
    """Give a name, or a reason with one in it, as Markdown shows it as it is, also in a table: without orders in it."""
    return _OBEYED.sub(r"\\\g<0>", recordable(printable(text)))


def as_code(text: str) -> str:
    """Give a name as Markdown shows it as code, whatever is in it; in a table, `as_text` is wanted."""
    shown = recordable(printable(text))
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(shown)), default=0))
    room = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{room}{shown}{room}{fence}"


_OBEYED = re.compile(r"[\\`*_{}\[\]<>&#|~!$]")
"""What Markdown, or HTML within it, obeys and does not show."""

_BACKTICKS = re.compile("`+")


@contextmanager
def _not_vital() -> Iterator[None]:
    """Log that the server could not be told, or of what, and go on: a result does not depend on it."""
    try:
        yield
    except (HTTPError, PrefectException, SeamfreeError, OSError) as error:
        log.warning("the server could not be told (%s)", type(error).__name__)


@contextmanager
def showing_progress(plan: RunPlan) -> Iterator[None]:
    """Keep a progress artifact for the stage that has most of the work: that of the network's tiles."""
    bar: UUID | None = None
    with _not_vital():
        # Outside of an event loop it is no coroutine.
        bar = create_progress_artifact(  # type: ignore[assignment]
            progress=0.0, key="seamfree-progress", description=recordable(f"Tiles of {plan.name}")
        )
    total = done = 0
    told = monotonic()

    def listen(event: Event) -> None:
        nonlocal total, done, told
        match event:
            case StageStarted(_, "segment", jobs, finished):
                total, done = jobs, finished
            case JobDone(_, "segment", _):
                done += 1
            case _:
                return
        if bar is not None and (done == total or monotonic() - told > _PAUSE):
            told = monotonic()
            with _not_vital():
                update_progress_artifact(artifact_id=bar, progress=100.0 * done / max(total, 1))

    with listening_too(listen):
        yield


def publish_outcome(report: ImageReport) -> None:
    """Put what came of an image where people look: tables of the objects and of the stages' seconds, and a summary."""
    if report.result is None:
        return
    with _not_vital():
        _publish_outcome(report, report.result)
    with _not_vital():
        _publish_measures(report, report.result)


def _publish_measures(report: ImageReport, result: str) -> None:
    """Put a table of what the objects are like where people look."""
    if not report.objects or not (Path(result) / "tables").exists():
        return
    opened = open_result(result)
    wanted = [name for name in _MEASURES if name in opened.columns]
    table = opened.read_table(wanted)
    rows = [
        {
            "of the objects": name,
            "unit": opened.units.get(name, ""),
            **{f"{share} %": float(f"{table[name].quantile(share / 100):.4g}") for share in (0, 25, 50, 75, 100)},
        }
        for name in wanted
    ]
    create_table_artifact(rows, key="seamfree-objects", description=recordable(f"Objects of {report.name}"))


def _publish_outcome(report: ImageReport, result: str) -> None:
    provenance = read_provenance(to_path(result))
    stages: dict[str, Any] = provenance["timings"]["stages"]
    rows = [{"stage": stage, "seconds": seconds} for stage, seconds in stages.items()]
    create_table_artifact(rows, key="seamfree-stages", description=recordable(f"Stages of {report.name}, in seconds"))
    audit = provenance["audit"].get("passed")
    verdict = {True: "passed", False: "failed", None: "not made"}[audit]
    source, plan = provenance["plan"]["source"], provenance["plan"]
    shape = ", ".join(f"{axis} {length}" for axis, length in zip("TCZYX", source["shape"], strict=True) if length > 1)
    tile = " x ".join(str(edge) for edge in plan["core"] if edge > 1)
    objects = provenance.get("objects")
    found = "semantic labels" if objects is None else f"{objects:,} objects"
    lines = [
        f"# {as_text(report.name)}",
        "",
        f"**{found}** in {shape}; audit of seams {verdict}",
        "",
        f"- image: {as_code(source['path'])}",
        # That of a field of a plate is called so once all are done.
        f"- result: {as_code(result.replace('.ome.zarr.partial/', '.ome.zarr/'))}",
        f"- model: {as_code(str(plan['model']))}, {plan['precision']}, tiles of {tile}",
        f"- time: {duration(report.seconds)}",
    ]
    page = to_path(result.removesuffix(".ome.zarr") + ".report.html")
    if isinstance(page, Path) and page.exists():
        # Browsers follow no link from a server's page to a file.
        lines.append(f"- report: {as_code(str(page))}")
    lines += ["", f"![{found}]({thumbnail(open_result(result))})"]
    create_markdown_artifact(
        "\n".join(lines), key="seamfree-image", description=recordable(f"Outcome of {report.name}")
    )
