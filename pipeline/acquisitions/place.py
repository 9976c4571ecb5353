"""Where a watcher keeps what it knows: a folder beside the results that looks for images leave out."""

from __future__ import annotations

from pathlib import Path

from pipeline.acquisitions.ledger import LEDGER
from pipeline.errors import ConfigError

__all__ = ["SERVER", "ledger_of", "place_of", "run_hold", "watch_hold"]

SERVER = "server.json"
"""Says where the server of a running watcher is."""

_FOLDER = ".seamfree"


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


def ledger_of(output: Path) -> Path:
    """Give the path of the ledger of acquisitions, whether it is there or not."""
    return output.absolute() / _FOLDER / LEDGER


def watch_hold(output: Path) -> Path:
    """Give what a watcher holds while it lives; see `pipeline.stores.hold`."""
    return output.absolute() / _FOLDER / "watch"


def run_hold(output: Path, run: str) -> Path:
    """Give what the process of a run holds while it lives; see `pipeline.stores.hold`."""
    return output.absolute() / _FOLDER / "runs" / run
