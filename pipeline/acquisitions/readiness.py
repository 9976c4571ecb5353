"""Finished means finished: still, whole, and with nothing beside it that says otherwise."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ImageError
from pipeline.images.companions import companion_named_by, is_companion
from pipeline.images.content import content_sha256
from pipeline.images.discover import result_name
from pipeline.images.opening import open_coarser, open_image
from pipeline.images.plates import is_plate, read_plate
from pipeline.images.tiff_metadata import describes_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.acquisitions.rules import WatchRules
    from pipeline.images.source import ImageSource

__all__ = ["Broken", "Ready", "content_of", "examine", "fingerprint", "plate_content", "why_held_back"]

_UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".lock")
"""What programs append to, or put around, the name of a file that they are still writing."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An acquisition that is still, and cannot be segmented as it is.

    Parameters
    ----------
    reason : str
        What is wrong, in one line, and what to do.
    waits : bool
        Whether it may be over without any change of the acquisition's own files: it is described by another one.
    """

    reason: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """An acquisition that is finished.

    Parameters
    ----------
    content : str
        SHA-256 of all its files.
    files : tuple of str
        The files that it consists of, in the order of their names; the path itself where that is a folder. Whichever
        file of several is opened, the first one stands for all.
    """

    content: str
    files: tuple[str, ...]


def fingerprint(path: Path) -> str:
    """Give what changes when an acquisition grows: a digest of sizes and times of all that is below its path.

    Raises
    ------
    ImageError
        If it cannot be looked at, for it has just gone, for instance.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name, stat in _stats(path):
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
    except OSError as error:
        raise ImageError(f"{error.filename or path}: cannot be looked at ({error.strerror or error})") from error
    return digest.hexdigest()


def _stats(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Give what is known of a file, or of everything in a folder, in an order that does not change by itself."""
    if not os.path.isdir(path):  # noqa: PTH112 (it fails for fewer links than `Path.is_dir`)
        yield "", _stat(path)
        return
    waiting = [path]
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except PermissionError:
            # It is as it is until somebody changes that; opening it tells.
            yield f"{os.path.relpath(here, path)} ", here.stat()
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                yield os.path.relpath(entry.path, path), _stat(Path(entry.path))


def _stat(path: Path) -> os.stat_result:
    """Give what is known of a file; of a link that leads nowhere, what is known of the link, which is still as well."""
    try:
        return path.stat()
    except OSError:
        if path.is_symlink():
            return path.lstat()
        raise


def why_held_back(path: Path, rules: WatchRules) -> str | None:
    """Say what beside an acquisition tells that it is not finished, None if nothing does.

    Parameters
    ----------
    path : Path
        The acquisition.
    rules : WatchRules
        With the name of the sentinel.
    """
    for suffix in _UNFINISHED:
        for name in (path.name + suffix, f".{path.name}{suffix}", result_name(path.name) + suffix):
            if os.path.lexists(beside := path.with_name(name)):
                return f"{beside.name} is still there, which its writer holds"
    wanted = rules.sentinel_of(path.name, result_name(path.name))
    if wanted is not None and not os.path.lexists(path.with_name(wanted)):
        return f"{wanted}, which tells that it is finished, is not there"
    return None


def examine(path: Path, rules: WatchRules, series: int | None = None) -> Ready | Broken:
    """Open an acquisition that is still, see whether its metadata agree with its pixels, and read all its bytes once.

    Parameters
    ----------
    path : Path
        The acquisition.
    rules : WatchRules
        What missing chunks mean.
    series : int, optional
        Which image of a file that holds several.

    Returns
    -------
    Ready or Broken
    """
    if is_plate(path):
        return _examine_plate(path, rules, series)
    try:
        source = open_image(path.absolute(), series)
    except ImageError as error:
        return Broken(str(error), waits=companion_named_by(path) is not None)
    try:
        if not path.is_dir() and (reason := _why_undescribed(path)):
            return Broken(reason, waits=companion_named_by(path) is not None)
        if rules.missing_chunks == "wait":
            for resolution in (source, *open_coarser(path.absolute(), series)):
                if reason := _why_incomplete(resolution):
                    return Broken(reason)
        # A folder is one acquisition, whatever lies in it.
        files = [] if path.is_dir() else [str(file.absolute()) for file in source.files()]
        # One that is looked at by itself, too, comes first.
        files.sort(key=lambda file: (is_companion(file), file))
        return Ready(content_sha256(source), tuple(files) or (str(path.absolute()),))
    except ImageError as error:
        return Broken(str(error))
    finally:
        source.close()


def _examine_plate(path: Path, rules: WatchRules, series: int | None) -> Ready | Broken:
    """Examine a plate: it is finished when all wells that it lists, and all fields that these list, are."""
    contents: dict[str, str] = {}
    try:
        layout = read_plate(path)
    except ImageError as error:
        return Broken(str(error))
    for well in layout.unreadable:
        return Broken(f"{path / well}: this well of the plate has no metadata that can be read")
    for field in layout.fields:
        seen = examine(path / field.path, rules, series)
        if isinstance(seen, Broken):
            return seen
        contents[field.path] = seen.content
    if not contents:
        return Broken(f"{path}: the plate lists no wells")
    return Ready(plate_content(contents), (str(path.absolute()),))


def plate_content(contents: dict[str, str]) -> str:
    """Give what stands for the contents of a plate's fields, by their paths in it."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def content_of(path: Path, series: int | None = None) -> str:
    """Read an acquisition's content, whether it is finished or not: as `examine` gives it.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    if is_plate(path):
        return plate_content({field.path: content_of(path / field.path, series) for field in read_plate(path).fields})
    source = open_image(path.absolute(), series)
    try:
        return content_sha256(source)
    finally:
        source.close()


def _why_undescribed(path: Path) -> str | None:
    """Say that a file is one of a set that another file describes, which would have named it were it there."""
    if describes_images(path):
        return None
    if (companion := companion_named_by(path)) is not None and not companion.exists():
        return f"{companion}: describes {path.name}, and is not there"
    return f"{path}: the file of its set that describes the image is not there, or does not name this one"


def _why_incomplete(source: ImageSource) -> str | None:
    """Say how many pieces an image is short of, None if all are there."""
    present, total = source.pieces()
    if present >= total:
        return None
    return (
        f"{source.info.path}: {total - present} of {total} chunks, strips or planes are not there; if what is missing "
        "is meant to be zeros, set missing_chunks: zeros"
    )
