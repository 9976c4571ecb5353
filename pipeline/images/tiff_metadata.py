"""What a TIFF says of itself: pixel sizes, units and names, from OME-XML or ImageJ, and whether the pages agree."""

from __future__ import annotations

import re
from math import isfinite, prod
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from pipeline.errors import ImageError
from pipeline.images.companions import with_companion
from pipeline.images.micromanager import note_what_is_missing
from pipeline.images.pipes import refuse_pipe
from pipeline.images.slides import read_slide
from pipeline.images.source import AXES, is_size
from pipeline.remote.paths import RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import tifffile

    from pipeline.remote.paths import AnyPath

__all__ = [
    "check_agreement",
    "check_files",
    "check_xml",
    "describes_images",
    "images_described",
    "lost_planes",
    "names_of_files",
    "read_metadata",
]

_UNITS = {
    "µm": "micrometer", "um": "micrometer", "micron": "micrometer", "nm": "nanometer", "mm": "millimeter",
    "cm": "centimeter", "m": "meter", "Å": "angstrom", "pm": "picometer", "inch": "inch", "in": "inch",
    "s": "second", "sec": "second", "ms": "millisecond", "µs": "microsecond", "us": "microsecond", "ns": "nanosecond",
    "min": "minute", "h": "hour", "hr": "hour",
}  # fmt: skip
"""What OME-XML and ImageJ write, and how OME-Zarr names it."""


def read_metadata(
    file: tifffile.TiffFile, number: int
) -> tuple[
    tuple[float, float, float, float, float],
    tuple[str | None, str | None, str | None, str | None, str | None],
    tuple[str, ...],
]:
    """Find pixel sizes, their units and the channels' names."""
    size: dict[str, float] = {}
    unit: dict[str, str | None] = {}
    names: tuple[str, ...] = ()
    if file.is_ome:
        pixels = next((_children(image, "Pixels") for image in images_described(file)[number : number + 1]), [])
        for described in pixels[:1]:
            for axis, name in (("X", "PhysicalSizeX"), ("Y", "PhysicalSizeY"), ("Z", "PhysicalSizeZ"),
                               ("T", "TimeIncrement")):  # fmt: skip
                value = _number(described.get(name))
                if value > 0:
                    size[axis] = value
                    unit[axis] = _unit(described.get(f"{name}Unit", "s" if axis == "T" else "µm"))
            channels = _children(described, "Channel")
            names = tuple(channel.get("Name") or f"channel {at}" for at, channel in enumerate(channels))
    elif file.is_imagej and file.imagej_metadata:
        calibration = file.imagej_metadata
        page = file.pages.first
        length = calibration.get("unit", "")
        for axis, tag, given in (("X", "XResolution", length), ("Y", "YResolution", calibration.get("yunit", length))):
            over, under = page.tags[tag].value if tag in page.tags else (0, 0)
            if over and under and _unit(given) in _UNITS.values():
                size[axis], unit[axis] = under / over, _unit(given)
        depth_unit = _unit(calibration.get("zunit", length))
        if _number(calibration.get("spacing")) and depth_unit in _UNITS.values():
            size["Z"], unit["Z"] = abs(_number(calibration["spacing"])), depth_unit
        if _number(calibration.get("finterval")) > 0:
            size["T"] = _number(calibration["finterval"])
            unit["T"] = _unit(calibration.get("tunit", "s"))
    else:
        size, names = read_slide(file, number)
        unit = dict.fromkeys(size, "micrometer")
    size = {axis: length for axis, length in size.items() if is_size(length)}
    unit = {axis: name for axis, name in unit.items() if axis in size}
    time, channel, depth, height, width = (size.get(axis, 1.0) for axis in AXES)
    return (
        (time, channel, depth, height, width),
        tuple(unit.get(axis) if axis in size else None for axis in AXES),
        names,
    )  # type: ignore[return-value]


MOST_PLANES = 2**24
"""Of one image. tifffile makes a list of all planes that are spoken of, whether they are there or not."""


def check_xml(path: AnyPath, file: tifffile.TiffFile) -> None:
    """Refuse OME-XML that cannot be read, defines entities, speaks of absurdly many planes, or names files elsewhere.

    To be called before tifffile looks at the images, for then it follows what is written there.
    """
    written = (file.is_ome and file.ome_metadata) or (file.pages.first.description if file.pages else "")
    if "<OME" not in written[:4096] and not file.is_ome:
        return
    if "<!DOCTYPE" in written or "<!ENTITY" in written:
        # Entities may stand for each other, until a few lines fill the memory, or for files of this machine.
        raise ImageError(f"{path}: its OME-XML defines a document type, which OME-XML never has; write the file anew")
    try:
        images = _children(ET.fromstring(written), "Image")
    except ET.ParseError as error:
        raise ImageError(
            f"{path}: its OME-XML is not valid XML ({error}); write the file anew, or take the description out of it"
        ) from error
    for pixels in (pixels for image in images for pixels in _children(image, "Pixels")):
        for axis in "XYZCT":
            if not pixels.get(f"Size{axis}", "").strip().isdecimal():
                raise ImageError(
                    f"{path}: its OME-XML says Size{axis}={pixels.get(f'Size{axis}')!r}, which is no number; write the "
                    "file anew, or take the description out of it"
                )
    _check_planes(path, [pixels for image in images for pixels in _children(image, "Pixels")])
    for name in sorted({name for image in images for name in names_of_files(image)}):
        for kind in (PurePosixPath(name), PureWindowsPath(name)):
            if kind.is_absolute() or kind.drive or ".." in kind.parts:
                raise ImageError(
                    f"{path}: its OME-XML names the file {name!r}, which is not in its own folder; put all files into "
                    "one folder, and write their names alone"
                )
        if not isinstance(path, RemotePath):
            refuse_pipe(path.parent / name)


def _check_planes(path: AnyPath, described: Sequence[ET.Element]) -> None:
    """Refuse images of more planes than lists of them should take memory for."""
    spoken_of = 0
    for pixels in described:
        most = 0
        for data in _children(pixels, "TiffData"):
            for name in ("PlaneCount", "NumPlanes", "IFD"):
                number = data.get(name, "0").strip()
                if not number.isdecimal() or len(number) > len(str(MOST_PLANES)):
                    raise ImageError(
                        f"{path}: its OME-XML says {name}={number!r:.30} of a TiffData, which is no number of planes; "
                        "write the file anew, or take the description out of it"
                    )
                most = max(most, int(number))
        spoken_of += most + prod(int(pixels.get(f"Size{axis}", "1")) for axis in "ZCT")
    if spoken_of > MOST_PLANES:
        raise ImageError(
            f"{path}: its OME-XML speaks of {spoken_of} planes (SizeZ, SizeC, SizeT, PlaneCount), and no image has "
            f"more than {MOST_PLANES}; write the file anew, or take the description out of it"
        )


def check_agreement(path: AnyPath, file: tifffile.TiffFile, number: int) -> list[str]:
    """Refuse an OME-TIFF whose pages are other ones than it says: tifffile would leave out what does not fit.

    Returns
    -------
    list of str
        Where they disagree, but can be read.
    """
    images = images_described(file)
    if file.series[0].kind == "mmstack":
        for image in images[number : number + 1]:
            check_files(path, image)
        return note_what_is_missing(path, file)
    if not file.is_ome:
        return []
    described = [pixels for image in images for pixels in _children(image, "Pixels")[:1]]
    if not described:
        return []  # a file of a set, whose description lies in another one
    series = file.series
    if any(found.kind == "ome" for found in series):
        if len(series) < len(described) == len(images) and all(_own(pixels, file.filename) for pixels in described):
            raise ImageError(
                f"{path}: its OME-XML describes {len(described)} images and the pages fit {len(series)} of them; "
                "write the file anew"
            )
        notes = []
        if number < len(described) == len(series):
            said, found = described[number].get("Type", ""), series[number].dtype.name
            if _TYPES.get(said, said) not in ("", found):
                notes.append(f"{path}: its OME-XML says pixels of {said}; they are read as {found}, as its pages say")
        if len(described) == 1 and (pages := len(file.pages)) > len(series[0].pages):
            notes.append(
                f"{path}: the file has {pages} pages and its OME-XML describes {len(series[0].pages)}; the others are "
                "left out"
            )
        return notes
    for image in images:
        check_files(path, image)
    sizes = ", ".join(f"{axis} {described[0].get(f'Size{axis}', '?')}" for axis in "XYZCT")
    page = file.pages.first
    raise ImageError(
        f"{path}: its OME-XML disagrees with the pixels: it says {sizes}, and there are {len(file.pages)} page(s) of "
        f"{page.imagewidth} x {page.imagelength} pixels (X, Y) and {page.samplesperpixel} sample(s); write the file "
        "anew, or take the description out of it"
    )


_TYPES = {"float": "float32", "double": "float64", "bit": "bool"}
"""What OME-XML calls types that have other names in NumPy."""


def check_files(path: AnyPath, image: ET.Element) -> None:
    """Refuse an image of which a file is missing."""
    for name in sorted(set(names_of_files(image))):
        if name != path.name and not (path.parent / name).exists():
            raise ImageError(f"{path}: {name} belongs to this image and is missing; put it beside this file")


def _own(pixels: ET.Element, name: str) -> bool:
    """Say whether all planes are said to lie in the file of a name."""
    return all(
        identity.get("FileName", name) == name
        for data in _children(pixels, "TiffData")
        for identity in _children(data, "UUID")
    )


def lost_planes(file: tifffile.TiffFile, other: tifffile.TiffFile, number: int) -> str | None:
    """Say which planes an OME-TIFF places into a file that ends before them; None where there are none.

    Parameters
    ----------
    file : tifffile.TiffFile
        Has the description.
    other : tifffile.TiffFile
        A file of the image, such as `file` itself.
    number : int
        Of the image.
    """
    for image in images_described(file)[number : number + 1]:
        for pixels in _children(image, "Pixels"):
            said = prod(int(_number(pixels.get(f"Size{axis}", "1"))) for axis in "ZCT")
            for data in _children(pixels, "TiffData"):
                if any(one.get("FileName", other.filename) != other.filename for one in _children(data, "UUID")):
                    continue
                first = int(data.get("IFD", 0))
                count = int(data.get("PlaneCount", data.get("NumPlanes", 1 if "IFD" in data.attrib else 0)))
                # Without a number, all planes of the image are meant; colours may lie on one page.
                needed = first + count if count else said // max(1, int(other.pages.first.samplesperpixel))
                if needed > len(other.pages):
                    return f"its OME-XML places {needed} planes into it and it has {len(other.pages)} page(s)"
    return None


def images_described(file: tifffile.TiffFile) -> list[ET.Element]:
    """Give the images that an OME-TIFF describes."""
    return _children(ET.fromstring(file.ome_metadata), "Image") if file.ome_metadata else []


def describes_images(path: Path) -> bool:
    """Say whether a TIFF tells of images: of a set of OME-TIFFs, some files may only name the one that does."""
    import tifffile

    file, _ = with_companion(path, tifffile.TiffFile(path))
    with file:
        return not file.is_ome or bool(images_described(file))


def _children(element: ET.Element, name: str) -> list[ET.Element]:
    """Give the children of a name, whatever the version of the namespace."""
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def names_of_files(image: ET.Element) -> Iterator[str]:
    """Give the files that an OME-XML image says its planes lie in."""
    for pixels in _children(image, "Pixels"):
        for data in _children(pixels, "TiffData"):
            for identity in _children(data, "UUID"):
                if name := identity.get("FileName"):
                    yield name


def _number(value: object) -> float:
    """Give a finite number, or 0 for anything else."""
    try:
        found = float(str(value))
    except ValueError:
        return 0.0
    return found if isfinite(found) else 0.0


def _unit(written: object) -> str:
    """Name a unit as OME-Zarr does; a unit that it has no name for stays as it is."""
    # ImageJ escapes what is not ASCII, and there are two letters that look like the sign for a millionth.
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), str(written)).strip()
    text = text.replace("\u03bc", "\u00b5").replace("\u212b", "\u00c5")
    return _UNITS.get(text, text)
