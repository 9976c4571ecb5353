"""Pipes, sockets and devices where a file should be: whoever opens a pipe waits until somebody writes to it."""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING

from pipeline.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.remote.paths import AnyPath

__all__ = ["refuse_pipe", "stat_of_file"]


def stat_of_file(path: AnyPath) -> os.stat_result:
    """Look at a file before it is opened.

    Raises
    ------
    OSError
        If it is not there, or nobody may look at it.
    ImageError
        If it is a folder, pipe, socket or device.
    """
    stat: os.stat_result = path.stat()
    if not S_ISREG(stat.st_mode):
        raise ImageError(f"{path}: neither a file nor a folder, but a pipe, socket or device; give an image")
    return stat


def refuse_pipe(path: Path) -> None:
    """Refuse, of what may belong to an image, what is there and neither a file nor a folder.

    Raises
    ------
    ImageError
        If it is a pipe, socket or device.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (a fifth of the time, and there are many chunks)
    except OSError:
        return  # whoever opens it tells what is wrong
    if not S_ISREG(mode) and not S_ISDIR(mode):
        raise ImageError(f"{path}: a pipe, socket or device, where a file of the image should be; take it away")
