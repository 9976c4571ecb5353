"""What an image is known again by when neither its name nor its time of modification count: all of its bytes."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from pipeline.errors import ImageError
from pipeline.remote.paths import RemotePath, is_url, open_ahead

if TYPE_CHECKING:
    from pipeline.images.source import ImageSource

__all__ = ["content_sha256"]


def content_sha256(source: ImageSource) -> str:
    """Give a SHA-256 of all files that an image is read from, and of their places among each other.

    Raises
    ------
    ImageError
        If one cannot be read.
    """
    path = source.info.path
    if is_url(path) and not RemotePath(path).is_listed and source.info.kind != "tiff":
        raise ImageError(f"{path}: a web server does not list the chunks of a Zarr; leave out identify: content")
    digest = hashlib.sha256()
    try:
        for name, file in sorted((os.path.relpath(str(file), path), file) for file in source.files()):
            with open_ahead(file) as opened:
                digest.update(os.fsencode(name) + b"\0" + hashlib.file_digest(opened, "sha256").digest())
    except OSError as error:
        raise ImageError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()
