"""What is said of an image that cannot be opened or read: what, where and what to do."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ImageError

if TYPE_CHECKING:
    from pipeline.geometry import Box
    from pipeline.images.source import ImageInfo
    from pipeline.remote.paths import AnyPath

__all__ = ["AGAIN", "not_opened", "not_read", "why"]

AGAIN = "copy it again, or write it anew"
"""What to do with a damaged file."""


def why(error: BaseException) -> str:
    """Give what an error says; its kind, too, where that is a single word."""
    text = " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__}: {text}"


def not_opened(path: AnyPath, error: OSError) -> ImageError:
    """Give the error of an image that the system does not open.

    Parameters
    ----------
    path : Path or RemotePath
        Of the image.
    error : OSError
        What the system says.
    """
    said, place = error.strerror or str(error), error.filename or path
    told = f"{place}: cannot be read ({said})"
    if isinstance(path, Path) and path.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
        return ImageError(f"{told}; it is a link to {str(path.readlink())!r}: mend the link, or give the image itself")
    if error.errno in (errno.EACCES, errno.EPERM) and isinstance(path, Path):
        return ImageError(f"{told}; make it readable for the user who runs seamfree")
    return ImageError(told)


def not_read(info: ImageInfo, box: Box, error: Exception) -> ImageError:
    """Give the error of a region that cannot be read: the disk, or a server, refuses, or the file is damaged.

    Parameters
    ----------
    info : ImageInfo
        Of the image.
    box : Box
        TCZYX, the region.
    error : Exception
        What the system, or the library that decodes, has said.
    """
    spans = ", ".join(
        f"{axis.lower()} {start}" if stop - start == 1 else f"{axis.lower()} {start} to {stop}"
        for axis, length, start, stop in zip("TCZYX", info.shape, box.start, box.stop, strict=True)
        if length > 1 or axis in "YX"
    )
    where = f"{info.path}: the pixels at {spans}"
    if isinstance(error, EOFError):
        return ImageError(f"{where} are not there any more: {error}; copy it again")
    if isinstance(error, OSError):
        return ImageError(f"{where} cannot be read ({error.strerror or error}); run again when they can")
    return ImageError(f"{where} cannot be decoded ({why(error)}); the file is damaged there: {AGAIN}")
