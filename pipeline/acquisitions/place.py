"""Where a watcher keeps what it knows: a folder beside the results that looks for images leave out."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pipeline.acquisitions.ledger import LEDGER
from pipeline.errors import ConfigError
from pipeline.stores.hold import is_held

__all__ = [
    "SERVED",
    "SERVER",
    "check_folders",
    "identity_of",
    "ledger_of",
    "note_trouble",
    "place_of",
    "run_hold",
    "served_by",
    "trouble_of",
    "watch_hold",
]

SERVER = "server.json"
"""Says where the server of a running watcher is."""

SERVED = "served.json"
"""Says which deployment segments, and on which server."""

_IDENTITY = "identity"

_TROUBLE = "trouble"

_FOLDER = ".seamfree"


def check_folders(folder: Path, output: Path) -> None:
    """See that a folder can be watched whose results go to another one.

    Raises
    ------
    ConfigError
        If it is not there, or all that comes into it would come into the results.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder to watch")
    if output.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ConfigError(
            f"{folder}: lies in the folder for the results, {output}, in which no acquisitions are looked for; choose "
            "another -o, which may lie in the folder that is watched"
        )


def place_of(output: Path) -> Path:
    """Give the folder, made where it is missing; nobody else may look into it.

    Raises
    ------
    ConfigError
        If it cannot be made.
    """
    place = output.absolute() / _FOLDER
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{place}: cannot be made ({error.strerror or error}); choose another -o") from error
    return place


def identity_of(output: Path) -> str:
    """Give what tells a folder of results from all others, also from one of the same path on another machine.

    Raises
    ------
    ConfigError
        If it can neither be read nor made.
    """
    path = place_of(output) / _IDENTITY
    try:
        if not path.exists() or not path.stat().st_size:
            # A watcher that is killed here, or a full disk, must not leave an empty one: that is what others may have.
            made = path.with_name(f"{_IDENTITY}.{os.getpid()}")
            made.write_text(uuid4().hex, encoding="utf-8")
            made.replace(path)
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read or made ({error}); choose another -o") from error


def ledger_of(output: Path) -> Path:
    """Give the path of the ledger of acquisitions, whether it is there or not."""
    return output.absolute() / _FOLDER / LEDGER


def note_trouble(output: Path, reason: str | None) -> None:
    """Keep why the folder could not be looked through the last time, or that it could; see `trouble_of`."""
    path = output.absolute() / _FOLDER / _TROUBLE
    # Where even that cannot be written, all else cannot, and is told by others.
    with suppress(OSError):
        if reason is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(reason, encoding="utf-8", errors="backslashreplace")


def trouble_of(output: Path) -> str | None:
    """Give why the watched folder could not be looked through the last time, None if it could."""
    try:
        told = (output.absolute() / _FOLDER / _TROUBLE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    # A full disk still makes files, of nothing.
    return told or f"{output}: could not be written to; make room, or see that it may be written to"


def watch_hold(output: Path) -> Path:
    """Give what a watcher holds while it lives; see `pipeline.stores.hold`."""
    return output.absolute() / _FOLDER / "watch"


def run_hold(output: Path, run: str) -> Path:
    """Give what the process of a run holds while it lives; see `pipeline.stores.hold`."""
    return output.absolute() / _FOLDER / "runs" / run


def served_by(output: Path) -> tuple[str, str]:
    """Find the watcher that is at work on a folder of results.

    Parameters
    ----------
    output : Path
        The folder.

    Returns
    -------
    url : str
        Of its Prefect server.
    deployment : str
        Name of the deployment that segments, ``flow/name``.

    Raises
    ------
    ConfigError
        If none is, or it has not come so far.
    """
    advice = f"start one with `seamfree watch DIR -o {output}`, or take `seamfree run`"
    if not is_held(watch_hold(output)):
        raise ConfigError(f"{output}: no watcher is at work on it; {advice}")
    try:
        facts = json.loads((place_of(output) / SERVED).read_text(encoding="utf-8"))
        return str(facts["url"]), str(facts["deployment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{output}: its watcher is about to start; try again in a moment") from error
