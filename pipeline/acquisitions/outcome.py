"""What has come of an acquisition: whether its result is there, and whose result has taken its place."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.place import ledger_of
from pipeline.acquisitions.readiness import content_of, plate_content
from pipeline.acquisitions.recipe import recipe_of
from pipeline.errors import SeamfreeError, StoreError
from pipeline.stores.publish import read_provenance

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.run import ImageReport

__all__ = ["content_of_result", "note_by_hand", "why_no_result"]

log = logging.getLogger(__name__)


def content_of_result(result: Path) -> str | None:
    """Read which content a result was made of: as `pipeline.acquisitions.readiness.content_of` gives it.

    Parameters
    ----------
    result : Path
        A finished result, or a plate of them.

    Returns
    -------
    str or None
        None where it does not say, or fields of a plate were left out.

    Raises
    ------
    StoreError
        If there is none, or it cannot be read.
    """
    facts = read_provenance(result)
    if not isinstance(facts.get("fields"), list):
        content: str | None = facts["plan"].get("content_sha256")
        return content
    contents = {
        str(field["path"]): read_provenance(result / str(field["path"]))["plan"].get("content_sha256")
        for field in facts["fields"]
    }
    return None if facts.get("missing") or None in contents.values() else plate_content(contents)


def why_no_result(result: Path, content: str) -> str | None:
    """Say that a result is not there, or is of another content, None if it is as it should be."""
    try:
        found = content_of_result(result)
    except StoreError as error:
        return str(error)
    return None if found in (None, content) else f"{result}: the result is of another image"


def note_by_hand(output: Path, config: RunConfig, report: ImageReport) -> None:
    """Note in a watcher's ledger, if there is one, what a person has had segmented into its folder of results.

    What a result was of whose place it has taken is not segmented again, for the person has wanted it so; unless it is
    what the image was before. What had failed is done. That the ledger cannot be told is logged, and changes nothing.

    Parameters
    ----------
    output : Path
        The folder of results.
    config : RunConfig
        What the image was segmented with.
    report : ImageReport
        What has become of it.
    """
    result = output.absolute() / f"{report.name}.ome.zarr"
    # Fields of a plate, images in place and object stores have results elsewhere.
    if report.status != "done" or not ledger_of(output).is_file() or Path(str(report.result)).absolute() != result:
        return
    try:
        # A run that knows images by size and time has not read what it is of.
        content = content_of_result(result) or content_of(Path(report.input), config.series)
        with AcquisitionLedger(ledger_of(output)) as ledger:
            reason = f"a person has had its result replaced by that of {report.input}"
            ledger.displace(report.name, reason, time(), content=content, by_hand=report.input)
            held = ledger.find(content, recipe_of(config))
            if held is not None and held.name == report.name and held.state in ("failed", "cancelled", "replaced"):
                done = replace(
                    held, state="done", reason=None, result=str(result), objects=report.objects, since=time()
                )
                ledger.change(held, done)
    except SeamfreeError as error:
        log.warning("%s: the watcher could not be told: %s", report.name, error)
