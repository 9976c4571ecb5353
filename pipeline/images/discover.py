"""From what a user names to a list of images: files, folders, globs; the fields of a plate are images, too."""

from __future__ import annotations

import glob
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from pipeline.errors import ConfigError, ImageError
from pipeline.images.micromanager import continues_a_stack
from pipeline.images.openslides import is_slide
from pipeline.images.patterns import FilePattern, parse_pattern
from pipeline.images.plates import is_plate, is_zarr, read_plate
from pipeline.images.sequences import SequencePath, as_sequence, list_files, sequences_below
from pipeline.images.vendors import is_of_a_vendor
from pipeline.remote.paths import RemotePath, is_url, to_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.remote.paths import AnyPath

__all__ = [
    "EXPORTS", "InputImage", "check_name", "discover", "images_below", "images_in", "plate_of", "result_name",
    "with_whole_plates",
]  # fmt: skip

EXPORTS = "seamfree-exports.json"
"""By which a folder of what seamfree has exported is known, which holds no images; says of which result a file is."""

_SUFFIXES = (
    ".ome.tiff", ".ome.tif", ".ome.btf", ".ome.tf8", ".ome.tf2", ".ome.zarr", ".tiff", ".tif", ".btf", ".tf8", ".tf2",
    ".zarr", ".svs", ".ndpi", ".qptiff",
)  # fmt: skip
"""Of images; the longer ones first, so that the whole suffix goes from a name."""

_LONGEST_NAME = 255
"""Bytes of a name in a folder, as all file systems in use have it."""

_LONGEST_SHOWN = 400
"""Characters of a name that a message repeats."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """One image to be segmented.

    Parameters
    ----------
    path : str
        Where it lies.
    name : str, optional
        Its result's name: the path below the output folder, with ``/`` and without suffix. The file's own where absent.
    place : str, optional
        Path of its result below the output folder; the name with ``.ome.zarr`` where not given.
    plate : str, optional
        Name of the plate's result that its own is a part of.
    refused : str, optional
        Why it cannot be segmented now, where that is known beforehand.
    destination : str, optional
        URL of its result, where it goes to an object store.
    """

    # The descriptions are those of the form in which Prefect asks for an image; the rest is not for people to give.
    path: Annotated[str, Field(description="Path of a TIFF, an OME-Zarr, or a plate.")]
    name: Annotated[str, Field(description="Name of the result; the image's own where that is left out.")] = ""
    place: SkipJsonSchema[str] = ""
    plate: SkipJsonSchema[str] = ""
    refused: SkipJsonSchema[str] = ""
    destination: SkipJsonSchema[str] = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", result_name(to_path(self.path).absolute().name))

    def result_in(self, output: Path) -> Path:
        """Give the path of its result."""
        return output / (self.place or f"{self.name}.ome.zarr")

    def staging_in(self, output: Path) -> Path:
        """Give what its result would be called that becomes part of the image itself, and is made elsewhere."""
        if not self.plate:
            return output / f"{self.name}.in-place"
        return output / f"{self.plate}.in-place{self.name.removeprefix(self.plate)}"


def result_name(name: str) -> str:
    """Take the image suffix from a file name; a name without a known one loses its last suffix, if any."""
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


def check_name(image: InputImage) -> None:
    """Refuse an image whose result would have a name that no file system takes.

    Raises
    ------
    ImageError
        If a part of it is too long.
    """
    longest = _LONGEST_NAME - len(".ome.zarr.partial.tmp")
    for part in image.name.split("/"):
        if (length := len(os.fsencode(part))) > longest:
            raise ImageError(
                f"{image.path}: a result named after it would have a name of {length} bytes and more; the most are "
                f"{longest}; rename it"
            )


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def images_in(path: AnyPath, name: str) -> list[InputImage]:
    """Give the image of a path, or the fields of a plate, each of them an image.

    What cannot be read stays an image, so that it fails when it is opened: a plate, or a well of it.
    """
    if not is_plate(path):
        return [
            InputImage(str(path / part), f"{name}/{part}" if part else name) for part in _fields_without_wells(path)
        ]
    try:
        layout = read_plate(path)
    except ImageError:
        return [InputImage(str(path), name)]
    inside = [*(field.path for field in layout.fields), *layout.unreadable]
    return [InputImage(str(path / part), f"{name}/{part}", f"{name}.ome.zarr/{part}", name) for part in inside]


def plate_of(field: InputImage) -> AnyPath:
    """Give the plate that a field lies in."""
    return to_path(field.path.removesuffix(field.name.removeprefix(field.plate)))


def with_whole_plates(images: Sequence[InputImage]) -> list[InputImage]:
    """Put each plate in the place of its fields, as what is segmented as one."""
    found = (InputImage(str(plate_of(image)), image.plate) if image.plate else image for image in images)
    return list(dict.fromkeys(found))


def _fields_without_wells(path: AnyPath) -> list[str]:
    """Give the fields that a pattern finds, if any; else the image itself."""
    sequence = as_sequence(path)
    if sequence is None or sequence.inside or "field" not in sequence.pattern.names:
        return [""]
    return ["/".join(image) for image in list_files(sequence.folder, sequence.pattern).images]


def _sequences(given: str, pattern: FilePattern | None) -> list[InputImage]:
    """Give the images of many files that an input names, by a pattern in it, or as a folder of files that fit one.

    Raises
    ------
    ConfigError
        If there is none.
    """
    try:
        sequence = as_sequence(given)
        if sequence is not None and (sequence.inside or list_files(sequence.folder, sequence.pattern).images):
            named = "/".join((_sequence_name(sequence.folder.absolute()), *sequence.inside))
            return images_in(Path(given), named)
        if pattern is None:
            return []
        found: list[InputImage] = []
        for folder in _folders(given):
            for each in sequences_below(folder, pattern):
                inside = each.relative_to(folder).parts
                named = _sequence_name(folder.absolute().joinpath(*inside))
                above = inside[: -1 - (len(inside) > 1 and inside[-1] == _OF_HARMONY)]
                found += images_in(SequencePath(each, pattern).whole, "/".join((*above, named)))
    except ImageError as error:
        raise ConfigError(str(error)) from error
    return found


def _folders(given: str) -> list[Path]:
    """Give the folders that an input names, in which there may be images of many files."""
    if is_url(given):
        raise ConfigError(f"{given}: images of many files are read from a disk")
    # Not `Path.is_dir`, which fails for names that no file can have.
    found = [given] if os.path.isdir(given) else filter(os.path.isdir, glob.glob(given, recursive=True))  # noqa: PTH112, PTH207
    if not (folders := sorted(map(Path, found))):
        raise ConfigError(f"{given}: no such folder; images of many files are looked for in folders")
    return folders


_OF_HARMONY = "Images"
"""What Harmony calls the folder of a plate's files, in the plate's."""


def _sequence_name(folder: Path) -> str:
    """Give what images in a folder are named after: the folder, or the one around it."""
    return folder.parent.name if folder.name == _OF_HARMONY and folder.parent.name else folder.name


def _is_result(folder: AnyPath) -> bool:
    """Say whether a folder is a result of seamfree, and not an image that labels were added to."""
    try:
        facts = json.loads((folder / "seamfree.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return not (isinstance(facts, dict) and facts.get("in_place"))


def _elsewhere(url: str) -> list[InputImage]:
    """Give the images that a URL names: one, a plate's fields, or all below what can be listed.

    Raises
    ------
    ConfigError
        If there is none, or nobody answers.
    """
    place = to_path(url)
    assert isinstance(place, RemotePath)
    try:
        if _is_image_name(place.name) or is_zarr(place):
            return images_in(place, result_name(place.name))
        found = [
            InputImage(str(image), image.relative_to(place).with_name(result_name(image.name)).as_posix())
            for image in _walk_elsewhere(place)
        ]
    except OSError as error:
        raise ConfigError(f"{place}: cannot be looked at ({error.strerror or error})") from error
    if not found:
        unlisted = "a web server does not say what it has; name one image or Zarr"
        why = f"looked for {', '.join(_SUFFIXES)}" if place.is_listed else unlisted
        raise ConfigError(f"{place}: no image, and no images below it ({why})")
    return [field for image in found for field in images_in(to_path(image.path), image.name)]


def _walk_elsewhere(folder: RemotePath) -> Iterator[RemotePath]:
    """Give the images below a place that can be listed, in the order of their names; see `_walk`."""
    if not folder.is_listed:
        return
    below, objects = folder.children()
    folders = set(below)
    for path in sorted([*below, *objects]):
        if path.name.startswith("."):
            continue
        if path in folders and not path.name.lower().endswith(".zarr"):
            yield from _walk_elsewhere(path)
        elif (path in folders and not _is_result(path)) or (path not in folders and _is_image_name(path.name)):
            yield path


def _walk(folder: Path) -> Iterator[Path]:
    """Give the images below a folder, in the order of their names; a Zarr is one image, hidden names are none."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        # Not `Path.is_dir`, which fails for a link that leads to itself.
        is_folder = os.path.isdir(here)  # noqa: PTH112
        if here is not folder and here.name.lower().endswith(".zarr"):
            if is_folder and not _is_result(here):
                yield here
        elif is_folder:
            children = _children(here, seen)
            if here is folder or here / EXPORTS not in children:
                waiting += reversed(children)
        elif _is_image_name(here.name):
            yield here


def _children(folder: Path, seen: set[tuple[int, int]]) -> list[Path]:
    """Give what lies in a folder and may be or hold an image, by name; nothing where it has been seen before."""
    try:
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a symbolic link back to where we are
            return []
        seen.add((stat.st_dev, stat.st_ino))
        children = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(
            f"{folder}: this folder cannot be searched for images ({error.strerror or error}); make it readable, or "
            "name the images one by one"
        ) from error
    return [path for path in children if not path.name.startswith(".") and not path.name.endswith(".partial")]


def images_below(folder: Path) -> list[InputImage]:
    """Find the images below a folder, whether they share results or not; see `discover`. A plate is a single one here.

    Raises
    ------
    ConfigError
        If a folder cannot be searched.
    """
    return [
        InputImage(str(image), (image.parent.relative_to(folder) / result_name(image.name)).as_posix())
        for image in _walk(folder)
    ]


def _matches(given: str) -> Iterator[Path]:
    """Give what a glob matches, by name, without exports; those of a folder that it names itself are meant."""
    named = not glob.has_magic(os.path.dirname(given))  # noqa: PTH120 (it is no path)
    for match in map(Path, sorted(glob.glob(given, recursive=True))):  # noqa: PTH207 (it may be absolute)
        # Not `Path.exists`, which fails in a folder that cannot be searched.
        if named or not os.path.lexists(match.parent / EXPORTS):
            yield match


def discover(inputs: Sequence[str], pattern: str | None = None) -> list[InputImage]:
    """Find the images that the inputs name.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders (searched in depth; a folder ending in ``.zarr`` is one image, or a plate whose fields are
        images), URLs of either, or globs, which leave out exports. Results of former runs and their exports, hidden
        files and unfinished ones are left out of folders. A path that ends in a pattern is an image of many files, or a
        plate.
    pattern : str, optional
        Of the names of files that make an image together, or the name of a preset; then the inputs are folders with
        such files in or below them.

    Returns
    -------
    list of InputImage
        In the order of the inputs, and of the names within a folder.

    Raises
    ------
    ConfigError
        If an input does not exist or holds no image, the pattern is none, or two images would share a result.
    """
    found: list[InputImage] = []
    try:
        fitting = None if pattern is None else parse_pattern(pattern)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for given in inputs:
        if images := _sequences(given, fitting):
            found.extend(images)
            continue
        if is_url(given):
            found.extend(_elsewhere(given))
            continue
        path = Path(given)
        shown = given if len(given) < _LONGEST_SHOWN else f"{given[:_LONGEST_SHOWN]}..."
        # Not `Path.is_dir`, which fails for names that no file can have.
        if os.path.isdir(path) and not path.name.lower().endswith(".zarr") and not is_zarr(path):  # noqa: PTH112
            images = [
                found
                for image in images_below(path)
                if not continues_a_stack(Path(image.path))
                for found in images_in(Path(image.path), image.name)
            ]
            if not images:
                raise ConfigError(f"{shown}: no images in this folder (looked for {', '.join(_SUFFIXES)})")
        elif os.path.lexists(path):
            images = images_in(path, result_name(path.absolute().name))
        elif glob.has_magic(given):
            images = [
                found
                for match in _matches(given)
                if _is_image_name(match.name) or is_of_a_vendor(match) or is_slide(match)
                if not continues_a_stack(match)
                for found in images_in(match, result_name(match.name))
            ]
            if not images:
                raise ConfigError(f"{shown}: no image matches")
        else:
            raise ConfigError(f"{shown}: no such file or folder")
        found.extend(images)
    by_name: dict[str, InputImage] = {}
    plates = {image.plate: image for image in found if image.plate}
    for image in found:
        other = by_name.setdefault(image.name, image)
        if not image.plate and image.name in plates:
            other = plates[image.name]
        if other.path != image.path:
            raise ConfigError(
                f"{other.path} and {image.path} would share the result {image.name}.ome.zarr; rename one or run them "
                "apart"
            )
    return list(by_name.values())
