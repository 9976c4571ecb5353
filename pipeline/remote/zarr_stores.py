"""How zarr reads what lies in an object store or on a web server: through its own store for obstore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import ObjectStore, StorePath

if TYPE_CHECKING:
    from pipeline.remote.paths import AnyPath

__all__ = ["readable"]


def readable(path: AnyPath) -> Path | StorePath:
    """Give what zarr takes for a place, to read from it."""
    if isinstance(path, Path):
        return path
    return StorePath(ObjectStore(path.store, read_only=True), path.key)
