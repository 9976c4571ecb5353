"""The errors that seamfree raises on purpose.

Each one is for the user: it says what was wrong, where (file, axis, value) and what to do, in one line.

::

    SeamfreeError
    ├── ConfigError (ValueError)      the configuration contradicts itself or names something unknown
    ├── GeometryError (ValueError)    a shape, core or window that no seam-free tiling can have
    ├── PlanError (ValueError)        image, model and configuration do not fit together
    ├── ImageError (OSError)          an input that cannot be read, or whose content disagrees with itself
    ├── StoreError (OSError)          a result that cannot be written, read or published
    ├── ModelError (RuntimeError)     a model file that cannot be loaded or does not do what its card says
    ├── ClusterError (RuntimeError)   the Dask cluster, or Prefect's server, has gone
    ├── TileError (RuntimeError)      a tile whose work failed; carries the stage and the tile's index
    │   ├── TileMemoryError           for which memory was too short
    │   └── WorkersKilledError        of which worker processes died
    └── AuditError (RuntimeError)     a result that is not what it would be without tiles

The leaves double as the standard errors beside them, so callers who know nothing of seamfree still catch them.
Every error survives pickling, for it may come from a Dask worker.
"""

from __future__ import annotations

__all__ = [
    "AuditError",
    "ClusterError",
    "ConfigError",
    "GeometryError",
    "ImageError",
    "ModelError",
    "PlanError",
    "SeamfreeError",
    "StoreError",
    "TileError",
    "TileMemoryError",
    "WorkersKilledError",
]


class SeamfreeError(Exception):
    """Base of all errors that seamfree raises on purpose."""


class ConfigError(SeamfreeError, ValueError):
    """The configuration contradicts itself or names something unknown."""


class GeometryError(SeamfreeError, ValueError):
    """A shape, core or window that no seam-free tiling can have."""


class PlanError(SeamfreeError, ValueError):
    """Image, model and configuration do not fit together."""


class ImageError(SeamfreeError, OSError):
    """An input cannot be read, or its content disagrees with itself."""


class StoreError(SeamfreeError, OSError):
    """A result cannot be written, read or published."""


class ModelError(SeamfreeError, RuntimeError):
    """A model file cannot be loaded or does not do what its card says."""


class AuditError(SeamfreeError, RuntimeError):
    """A result is not what it would be without tiles: a fault of the program, or of the machine."""


class ClusterError(SeamfreeError, RuntimeError):
    """The Dask cluster, or Prefect's server, has gone."""


class TileError(SeamfreeError, RuntimeError):
    """The work on one tile failed.

    Parameters
    ----------
    stage : str
        Name of the stage, for example ``"segment"``.
    index : int
        Index of the tile in the stage's grid.
    cause : str
        One line saying what happened.
    where : str, optional
        The file, and the box of pixels.
    """

    def __init__(self, stage: str, index: int, cause: str, where: str | None = None) -> None:
        super().__init__(stage, index, cause, where)
        self.stage = stage
        self.index = index
        self.cause = cause
        self.where = where

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.stage}, tile {self.index}{place}: {self.cause}"


class TileMemoryError(TileError):
    """Memory was too short for a tile."""


class WorkersKilledError(TileError):
    """Several worker processes died of one tile."""
