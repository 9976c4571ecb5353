"""OME-TIFFs that only name the file beside them that describes their image: ``*.companion.ome``, without pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import tifffile

from pipeline.errors import ImageError

if TYPE_CHECKING:
    from pipeline.remote.paths import AnyPath

__all__ = ["companion_named_by", "companion_of", "is_companion", "with_companion"]

_MOST = 2**28
"""Bytes of a description; those of whole plates have some millions."""

_SUFFIXES = (".ome", ".xml")


def is_companion(name: str) -> bool:
    """Say whether a file is called as those that describe images and have no pixels."""
    return name.lower().endswith(_SUFFIXES)


def companion_of(path: AnyPath, file: tifffile.TiffFile) -> Path | None:
    """Give the file that describes a TIFF's image, whether it is there or not; None where the TIFF names none.

    Parameters
    ----------
    path : Path or RemotePath
        The TIFF; of one elsewhere, nothing beside it is looked at.
    file : tifffile.TiffFile
        The same, opened.
    """
    written = file.pages.first.description if isinstance(path, Path) and file.pages else ""
    if "BinaryOnly" not in written or "<!DOCTYPE" in written:
        return None
    try:
        elements = list(ET.fromstring(written))
    except ET.ParseError:
        return None  # told by who reads it
    named = [str(each.get("MetadataFile")) for each in elements if each.tag.rpartition("}")[2] == "BinaryOnly"]
    # A name alone: what lies elsewhere is not followed.
    found = [name for name in named if is_companion(name) and not set(name) & set("/\\\0")]
    return Path(path.parent / found[0]) if found and isinstance(path, Path) else None


def companion_named_by(path: Path) -> Path | None:
    """Give the file that a file says describes its image; None where it names none, or cannot be read."""
    try:
        with tifffile.TiffFile(path) as file:
            return companion_of(path, file)
    except Exception:  # noqa: BLE001 (whatever tifffile meets: who opens the image tells what is wrong with it)
        return None


def with_companion(path: AnyPath, file: tifffile.TiffFile) -> tuple[tifffile.TiffFile, Path | None]:
    """Have a TIFF described by the file beside it that it names, where that is there.

    Parameters
    ----------
    path : Path or RemotePath
        The TIFF.
    file : tifffile.TiffFile
        The same, opened; closed, where another one is given.

    Returns
    -------
    file : tifffile.TiffFile
        The TIFF, as it was or with the description.
    companion : Path or None
        The file that was read.

    Raises
    ------
    ImageError
        If the description cannot be read.
    """
    companion = companion_of(path, file)
    if companion is None or not companion.is_file():
        return file, None
    file.close()
    return tifffile.TiffFile(str(path), omexml=_read(companion, path)), companion


def _read(companion: Path, path: AnyPath) -> str:
    try:
        written = companion.read_text(encoding="utf-8") if companion.stat().st_size <= _MOST else None
        if written is not None and "<!DOCTYPE" not in written and "<!ENTITY" not in written:
            ET.fromstring(written)
            return written
    except (OSError, UnicodeDecodeError, ET.ParseError) as error:
        raise ImageError(f"{companion}: describes {path.name} and cannot be read ({error}); copy it again") from error
    what = "has more bytes than a description takes" if written is None else "defines a document type"
    raise ImageError(f"{companion}: {what}, which OME-XML never does; write the file anew")
