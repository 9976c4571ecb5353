"""seamfree: segments microscopy images too large for memory so that the tiling never shows.

The names below are the public surface; each is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.batch import segment
    from pipeline.config import RunConfig
    from pipeline.errors import SeamfreeError
    from pipeline.models.convolutional import make_fully_convolutional
    from pipeline.models.library import load_model
    from pipeline.overview import plan
    from pipeline.results import open_result

__all__ = ["RunConfig", "SeamfreeError", "load_model", "make_fully_convolutional", "open_result", "plan", "segment"]

_HOMES = {
    "RunConfig": "pipeline.config",
    "SeamfreeError": "pipeline.errors",
    "load_model": "pipeline.models.library",
    "make_fully_convolutional": "pipeline.models.convolutional",
    "open_result": "pipeline.results",
    "plan": "pipeline.overview",
    "segment": "pipeline.batch",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever it is)
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
