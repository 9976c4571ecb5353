"""What tests of images share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Tifffile logs what it finds in damaged files; only what seamfree says matters here."""
    logger = logging.getLogger("tifffile")
    before, logger.level = logger.level, logging.CRITICAL
    yield
    logger.level = before
