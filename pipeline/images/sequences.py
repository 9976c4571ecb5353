"""Images of many files, one for each plane, channel or time point: which files there are, and what belongs together.

Such an image has a path like any other: that of the folder, then the pattern of its files' names or the preset's name
in braces, and where the folder holds several images, which one: ``scan/img_t{time}_z{z}.tif``,
``plate/{phenix}/C/03/1``. So it can be noted, and found again, by its path alone.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pipeline.errors import ImageError
from pipeline.images.patterns import AXIS_NAMES, FIELDS, PRESETS, SUFFIXES, FilePattern, parse_pattern, row_letters
from pipeline.remote.paths import RemotePath, is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.remote.paths import AnyPath

__all__ = [
    "Arrangement",
    "Listing",
    "SequencePath",
    "arrange",
    "as_sequence",
    "list_files",
    "on_disk",
    "sequences_below",
]

_MARKED = re.compile(rf"\{{(?:{'|'.join((*FIELDS, *PRESETS))})(?::\d+)?\}}")
"""What tells a pattern, or the name of a preset, in a path."""

_WELL = re.compile(r"([A-Za-z]{1,2})(\d{1,3})")

_STILL_NS = 2_000_000_000
"""A folder that has changed since then may change again without its time telling: it is listed anew."""

_KEPT = 8
"""So many listings are kept in a process."""

_LEFT_ALONE = (".zarr", ".partial")
"""What folders are called that hold no files of a sequence."""


@dataclass(frozen=True, slots=True)
class SequencePath:
    """A path that names images by a pattern.

    Parameters
    ----------
    folder : Path
        In which, or below which, the files lie.
    pattern : FilePattern
        Of their names.
    inside : tuple of str
        Which of several images: row, column and field of a plate, or field. Empty for all of them.
    """

    folder: Path
    pattern: FilePattern
    inside: tuple[str, ...] = ()

    @property
    def whole(self) -> Path:
        """The path that names all images."""
        return self.folder / self.pattern.shown

    @property
    def is_plate(self) -> bool:
        """Whether it names a whole plate."""
        return self.pattern.has_wells and not self.inside


def as_sequence(path: AnyPath | str) -> SequencePath | None:
    """Understand a path that names images by a pattern; None for a path of another kind, or of what is there.

    Raises
    ------
    ImageError
        If there is a pattern in it that cannot be understood.
    """
    text = str(path)
    if "{" not in text or isinstance(path, RemotePath) or is_url(text) or os.path.lexists(path):
        return None
    parts = Path(text).parts
    first = next((at for at, part in enumerate(parts) if _MARKED.search(part)), None)
    if first is None:
        return None
    last = first
    if parts[first].strip("{}") not in PRESETS:
        ends = (at for at in range(first, len(parts)) if parts[at].lower().endswith(SUFFIXES))
        last = next(ends, len(parts) - 1)
    try:
        pattern = parse_pattern("/".join(parts[first : last + 1]))
    except ValueError as error:
        raise ImageError(f"{text}: {error}") from error
    inside = parts[last + 1 :]
    if len(inside) not in (0, 3 if pattern.has_wells else 1 if "field" in pattern.names else 0):
        raise ImageError(f"{text}: what comes after the pattern is no {'/'.join(_inside_names(pattern)) or 'image'}")
    return SequencePath(Path(*parts[:first]), pattern, inside)


_PLACE = ("ROW", "COLUMN", "FIELD")


def on_disk(path: str) -> Path:
    """Give what has to be there for an image to be read: the path itself, or the folder of its files."""
    sequence = as_sequence(path)
    return Path(path) if sequence is None else sequence.folder


def _inside_names(pattern: FilePattern) -> tuple[str, ...]:
    return _PLACE if pattern.has_wells else ("FIELD",) if "field" in pattern.names else ()


@dataclass(frozen=True, slots=True)
class Member:
    """One file, and what its name tells.

    Parameters
    ----------
    path : str
        Below the folder, with ``/``.
    image : tuple of str
        Which image it belongs to; see `SequencePath`.
    texts : tuple of str
        Time, channel and Z, as they are written; empty where the name does not tell.
    """

    path: str
    image: tuple[str, ...]
    texts: tuple[str, str, str]


@dataclass(frozen=True)
class Listing:
    """The files of a folder that fit a pattern.

    Parameters
    ----------
    images : dict
        Of each image the files, in the order of rows, columns and fields, and of names within.
    unfit : tuple of str
        Other TIFF files there.
    """

    images: dict[tuple[str, ...], list[Member]]
    unfit: tuple[str, ...] = ()
    stamp: tuple[tuple[str, int], ...] = field(default=(), repr=False)

    @cached_property
    def axes(self) -> tuple[dict[int | str, str], ...]:
        """Of time, channel and Z, all that any image of the folder has: a member that shows it, by value."""
        found: tuple[dict[int | str, str], ...] = ({}, {}, {})
        for members in self.images.values():
            for member in members:
                for axis, text in zip(found, member.texts, strict=True):
                    axis.setdefault(_value(text), member.path)
        return found


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The files of one image, in their places.

    Parameters
    ----------
    axes : str
        Those of T, C and Z along which the files lie.
    texts : tuple of tuple of str
        Of T, C and Z: what the names call each index; a single empty text for an axis that the files have themselves.
    files : dict
        By index along T, C and Z, the path below the folder.
    """

    axes: str
    texts: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    files: dict[tuple[int, int, int], str]


_listings: dict[tuple[str, str], Listing] = {}
_turn = Lock()


def list_files(folder: Path, pattern: FilePattern) -> Listing:
    """Find the files that fit a pattern; what was found is kept as long as no folder has changed.

    Raises
    ------
    ImageError
        If the folder cannot be read, or no file fits.
    """
    key = (str(folder.absolute()), pattern.text)
    with _turn:
        held = _listings.get(key)
        try:
            if held is not None and held.stamp and all(Path(at).stat().st_mtime_ns == when for at, when in held.stamp):
                return held
            made = _list(folder, pattern)
        except OSError as error:
            raise ImageError(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from error
        _listings.pop(key, None)
        while len(_listings) >= _KEPT:
            del _listings[next(iter(_listings))]
        _listings[key] = made
    if not made.images:
        raise ImageError(f"{folder}: {_why_none(pattern, made.unfit)}")
    return made


def _why_none(pattern: FilePattern, unfit: tuple[str, ...]) -> str:
    there = (
        f"there is {unfit[0]}, for instance" if unfit else "there are no TIFF files; name the folder in which they lie"
    )
    return f"no file is called like {pattern.text}; {there}"


def _list(folder: Path, pattern: FilePattern) -> Listing:
    began = time.time_ns()
    stamp: list[tuple[str, int]] = []
    found: list[Member] = []
    unfit: list[str] = []
    for name in sorted(_names_below(folder, pattern.depth, stamp)):
        fits = pattern.regex.fullmatch(name)
        member = None if fits is None else _member(name, fits, pattern)
        if member is not None:
            found.append(member)
        elif name.lower().endswith(SUFFIXES):
            unfit.append(name)
    images: dict[tuple[str, ...], list[Member]] = {}
    called: dict[tuple[int, int | str], str] = {}
    for member in found:
        # "1" and "01" are the same, and called as the first file has it.
        image = tuple(called.setdefault((at, _value(text)), text) for at, text in enumerate(member.image))
        images.setdefault(image, []).append(member)
    still = all(when < began - _STILL_NS for _, when in stamp)
    ordered = {image: images[image] for image in sorted(images, key=_order_of_image)}
    return Listing(ordered, tuple(unfit), tuple(stamp) if still else ())


def _names_below(folder: Path, depth: int, stamp: list[tuple[str, int]], before: str = "") -> Iterator[str]:
    """Give the files of a folder, and of those below it down to a depth; note the times of these folders."""
    stamp.append((str(folder), folder.stat().st_mtime_ns))
    below: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                below += [] if entry.name.lower().endswith(_LEFT_ALONE) else [entry.name]
            else:
                yield before + entry.name
    for name in sorted(below) if depth else []:
        yield from _names_below(folder / name, depth - 1, stamp, f"{before}{name}/")


def _member(name: str, fits: re.Match[str], pattern: FilePattern) -> Member | None:
    """Give what a name tells; None where its well is none."""
    told = {field: text or "" for field, text in fits.groupdict().items()}
    image: tuple[str, ...] = ()
    if pattern.has_wells:
        row, column = told.get("row", ""), told.get("column", "")
        if "well" in told:
            well = _WELL.fullmatch(told["well"])
            if well is None:
                return None
            row, column = well[1], well[2]
        if row.isdecimal():
            if not 1 <= int(row) <= 702:
                return None
            row = row_letters(int(row))
        image = (row.upper(), column, told.get("field") or "0")
    elif "field" in told:
        image = (told["field"] or "0",)
    return Member(name, image, (told.get("time", ""), told.get("channel", ""), told.get("z", "")))


def _value(text: str) -> int | str:
    """Give what a text of a name stands for: numbers are the same with zeros in front."""
    return int(text) if text.isdecimal() else text


def _order(value: int | str) -> tuple[int, int, str]:
    """Numbers come before texts."""
    return (0, value, "") if isinstance(value, int) else (1, 0, value)


def _order_of_image(image: tuple[str, ...]) -> tuple[tuple[int, int, str], ...]:
    """Rows come as a plate has them: Z before AA."""
    found = [_order(_value(text)) for text in image]
    return tuple(found) if len(found) < len(_PLACE) else ((1, len(image[0]), image[0]), *found[1:])


def arrange(path: SequencePath, members: list[Member]) -> Arrangement:
    """Put the files of one image into their places.

    Parameters
    ----------
    path : SequencePath
        The image.
    members : list of Member
        Its files.

    Raises
    ------
    ImageError
        If two files have one place, one is missing, or some names tell more than others: names a file.
    """
    folder, names = path.folder, tuple(AXIS_NAMES.values())
    texts: list[tuple[str, ...]] = []
    indices: list[dict[int | str, int]] = []
    for at, name in enumerate(names):
        by_value = {_value(member.texts[at]): member for member in reversed(members)}
        if "" in by_value and len(by_value) > 1:
            other = next(member for value, member in by_value.items() if value != "")
            raise ImageError(
                f"{folder / by_value[''].path}: its name tells no {name}, and that of {other.path} beside it does"
            )
        values = sorted(by_value, key=_order)
        if name != "channel":
            _check_steps(folder, name, values, by_value)
        texts.append(tuple(by_value[value].texts[at] for value in values))
        indices.append({value: number for number, value in enumerate(values)})
    files: dict[tuple[int, int, int], str] = {}
    for member in members:
        time, channel, z = (index[_value(text)] for index, text in zip(indices, member.texts, strict=True))
        other_path = files.setdefault((time, channel, z), member.path)
        if other_path != member.path:
            raise ImageError(
                f"{folder / member.path}: by its name it is the same plane as {other_path}; take one of them away, or "
                f"write more of the name into the pattern {path.pattern.text}"
            )
    shape = tuple(map(len, indices))
    if len(files) < prod(shape):
        hole = next(
            (t, c, z)
            for t in range(shape[0])
            for c in range(shape[1])
            for z in range(shape[2])
            if (t, c, z) not in files
        )
        told = ", ".join(
            f"{name} {called[number]}" for name, called, number in zip(names, texts, hole, strict=True) if called[0]
        )
        raise ImageError(
            f"{folder / members[0].path}: {prod(shape) - len(files)} of the {prod(shape)} files of its image are "
            f"missing, first that of {told}; copy all of them"
        )
    axes = "".join(axis for axis, called in zip(AXIS_NAMES, texts, strict=True) if called[0])
    return Arrangement(axes, tuple(texts), files)  # type: ignore[arg-type]


def _check_steps(folder: Path, name: str, values: list[int | str], by_value: dict[int | str, Member]) -> None:
    """Refuse a number that is left out of a row of numbers: no file of that time or plane is there."""
    numbers = [value for value in values if isinstance(value, int)]
    steps = [after - before for before, after in pairwise(numbers)]
    for before, step in zip(numbers, steps, strict=False):
        if step != min(steps):
            after = by_value[before + step].path
            raise ImageError(
                f"{folder / by_value[before].path}: {name} {before + min(steps)} is missing between this file and "
                f"{after}"
            )


def sequences_below(folder: Path, pattern: FilePattern) -> list[Path]:
    """Find the folders, this one and those below it, in which files fit a pattern; in the order of their names.

    Raises
    ------
    ImageError
        If there is none: says what there is instead.
    """
    regex = re.compile(f"(?P<folder>(?:[^/]+/)*?){pattern.regex.pattern}", re.IGNORECASE)
    found: set[str] = set()
    other = ""

    def refuse(error: OSError) -> None:
        raise ImageError(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from error

    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and not name.lower().endswith(_LEFT_ALONE)]
        below = "" if Path(here) == folder else Path(here).relative_to(folder).as_posix() + "/"
        for name in files:
            if fits := regex.fullmatch(below + name):
                found.add(fits["folder"])
            elif name.lower().endswith(SUFFIXES):
                other = min(other or below + name, below + name)
    if not found:
        raise ImageError(f"{folder}: {_why_none(pattern, (other,) if other else ())}")
    return [folder / name for name in sorted(found)]
