"""What is wrong with the place where results go, and not with an acquisition: over one day, and then gone on with."""

from __future__ import annotations

import errno
import os
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from pipeline.errors import ImageError, StoreError, TileError
from pipeline.stores.hold import TakenError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["next_delay", "tells_of_disks", "why_not_writable", "why_postponed"]

_OF_DISKS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN,
    errno.ENODEV, errno.EHOSTDOWN,
)  # fmt: skip
"""What systems say of disks that are full, read-only or away."""

_PROBE = bytes(2**16)

_FIRST_DELAY, _LONGEST_DELAY = 30.0, 3600.0
"""Seconds until a run that was postponed is started again, at first and at most."""


def next_delay(before: float) -> float:
    """Give the seconds until a run that was postponed is started again: each time longer than the time before."""
    return min(max(2 * before, _FIRST_DELAY), _LONGEST_DELAY)


def why_not_writable(output: Path) -> str | None:
    """Say that a folder of results cannot be written to now, None if it can.

    Parameters
    ----------
    output : Path
        The folder; it is made where it is missing.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=output, prefix=".seamfree-", buffering=0) as probe:
            # A disk that is full still makes files of nothing.
            probe.write(_PROBE)
            os.fsync(probe.fileno())
    except OSError as error:
        return (
            f"{output}: cannot be written to ({error.strerror or error}); make room, or see that it may be written to"
        )
    return None


def why_postponed(error: Exception, output: Path) -> str | None:
    """Say why an acquisition's run is to be started again later; None where it failed for the acquisition itself.

    Parameters
    ----------
    error : Exception
        What has ended the run.
    output : Path
        The folder of results.
    """
    if isinstance(error, ImageError):
        return None
    if isinstance(error, TakenError):
        return str(error)
    if reason := why_not_writable(output):
        return reason
    if isinstance(error, StoreError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_DISKS:
        return f"{error.filename or output}: {error.strerror}"
    return str(error) if isinstance(error, TileError) and tells_of_disks(error.cause) else None


def tells_of_disks(reason: str) -> bool:
    """Say whether a reason that is a text by now, as workers and fields of plates give it, is one of those of disks."""
    return any(os.strerror(code) in reason for code in _OF_DISKS)
