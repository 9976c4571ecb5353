"""What has come of an acquisition: whether its result is there, and whose result has taken its place."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.place import ledger_of
from pipeline.acquisitions.readiness import plate_content
from pipeline.errors import StoreError
from pipeline.stores.publish import read_provenance

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["content_of_result", "note_replaced", "why_no_result"]


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


def note_replaced(output: Path, name: str, path: str) -> None:
    """Note in a watcher's ledger, if there is one, that a person has had a result replaced by that of another image.

    What it was of is not segmented again, for the person has wanted it so; unless it is what the image was before.

    Parameters
    ----------
    output : Path
        The folder of results.
    name : str
        The result's name.
    path : str
        The image whose result it is now.

    Raises
    ------
    StoreError
        If the ledger or the result cannot be read, or the ledger not be written.
    """
    if ledger_of(output).is_file():
        content = content_of_result(output / f"{name}.ome.zarr")
        with AcquisitionLedger(ledger_of(output)) as ledger:
            reason = f"a person has had its result replaced by that of {path}"
            ledger.displace(name, reason, time(), content=str(content), by_hand=path)
