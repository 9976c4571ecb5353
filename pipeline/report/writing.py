"""Writing the report of a result: beside it, whole or not at all. No report is worth a result."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pipeline.errors import PlanError, StoreError
from pipeline.images.plates import is_plate
from pipeline.results import PlateResult, open_result
from pipeline.stores.publish import not_ours

if TYPE_CHECKING:
    from pipeline.planning import RunPlan
    from pipeline.remote.paths import AnyPath

__all__ = [
    "drop_report",
    "drop_reports",
    "plan_of",
    "refuse_foreign_report",
    "report_beside",
    "report_path",
    "reports_of",
    "write_report",
]

log = logging.getLogger(__name__)

_TITLE = " \N{MIDDLE DOT} seamfree</title>".encode()
"""By which a report is known, in the first bytes of the page."""

_MOST_BEFORE_TITLE = 4096

_DEPTH = 3
"""Row, column and name of a field."""


def report_path(result: Path) -> Path:
    """Give where the report of a result lies: ``NAME.report.html`` beside ``NAME.ome.zarr``.

    Those of a plate's fields lie in a folder beside the plate, for a Zarr holds nothing else: that of
    ``P.ome.zarr/A/1/0`` is ``P.reports/A/1/0.report.html``. While the plate is unfinished, so is the folder:
    ``P.reports.partial``.
    """
    plate = _plate_of(result)
    if plate is not None:
        folder = reports_of(plate)
        return folder / result.parent.relative_to(plate) / f"{result.name}.report.html"
    return result.with_name(f"{result.name.removesuffix('.ome.zarr')}.report.html")


def reports_of(plate: Path) -> Path:
    """Give the folder in which the reports of a plate's fields lie."""
    partial = ".partial" if plate.name.endswith(".partial") else ""
    name = plate.name.removesuffix(".partial").removesuffix(".ome.zarr")
    return plate.with_name(f"{name}.reports{partial}")


def _plate_of(result: Path) -> Path | None:
    """Give the folder of the plate that a result is a field of: fields lie three folders below it."""
    if len(result.parts) <= _DEPTH or result.name.endswith(".ome.zarr"):
        return None
    plate = result.parents[_DEPTH - 1]
    ours = plate.name.removesuffix(".partial").endswith((".ome.zarr", ".in-place"))
    return plate if ours or is_plate(plate) else None


def write_report(result: AnyPath, path: Path | None = None) -> Path:
    """Write the report of a finished result.

    Parameters
    ----------
    result : Path or RemotePath
        Its folder; nothing in it is changed.
    path : Path, optional
        The file; `report_path` by default, of what lies on a disk.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StoreError, PlanError
        If the result cannot be read, or the disk refuses.
    """
    # Loads scikit-image, which a run does without until its end.
    from pipeline.report.page import draw_page

    if path is None:
        if not isinstance(result, Path):
            raise StoreError(f"{result}: where shall its report be written? give -o FILE")
        path = report_path(result)
    opened = open_result(result)
    if isinstance(opened, PlateResult):
        raise StoreError(f"{result}: this is a plate; take the result of a field, such as {opened.fields[0].path}")
    text = draw_page(opened, plan_of(result, opened.provenance))
    # Always the same, so that nothing is left of a process that was killed here, once the report is made again.
    beside = path.with_name(f".{path.name}.tmp")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not into a link of that name.
            beside.unlink(missing_ok=True)
            with beside.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: the report cannot be written ({error.strerror or error})") from error
    return path


def plan_of(result: AnyPath, provenance: dict[str, object]) -> RunPlan:
    """Give the plan of a result, for the place where it lies now.

    Raises
    ------
    PlanError
        If it is of another version of seamfree.
    """
    from pipeline.planning import RunPlan

    held = provenance.get("plan")
    try:
        return RunPlan.model_validate(dict(held) | {"output": str(result)})  # type: ignore[call-overload]
    except (ValidationError, TypeError, ValueError) as error:
        raise PlanError(f"{result}: the plan is not one of this version of seamfree") from error


def refuse_foreign_report(path: Path) -> None:
    """Refuse to replace what has a report's name and is none.

    Raises
    ------
    StoreError
        If something is there that seamfree has not made.
    """
    try:
        if not os.path.lexists(path):
            return
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if _TITLE in file.read(_MOST_BEFORE_TITLE):
                    return
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error}); choose another -o") from error
    raise not_ours(path)


def drop_report(result: Path) -> None:
    """Take away the report of a result that is about to be replaced: it would tell of another one."""
    try:
        report_path(result).unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: the old report cannot be removed (%s)", report_path(result), error.strerror or error)


def drop_reports(plate: Path) -> None:
    """Take away the reports of the fields of a plate that is about to be replaced."""
    try:
        if reports_of(plate).exists():
            shutil.rmtree(reports_of(plate))
    except OSError as error:
        log.warning("%s: the old reports cannot be removed (%s)", reports_of(plate), error.strerror or error)


def report_beside(plan: RunPlan) -> None:
    """Write the report of a plan's finished result, if the plan has one; what hinders it is told, and loses nothing."""
    if not plan.report:
        return
    try:
        write_report(Path(plan.output), report_path(plan.held))
    except Exception as error:
        # Whatever hinders the page, the result is finished.
        log.warning("%s: the result is finished, but its report could not be made (%s: %s); try seamfree report %s",
                    plan.name, type(error).__name__, error, plan.output)  # fmt: skip
        log.debug("why there is no report", exc_info=error)
