"""Results as OME-TIFF, for QuPath, ImageJ and whatever reads Bio-Formats: image and labels, with their pyramids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from pipeline.errors import ImageError, StoreError
from pipeline.images.source import AXES
from pipeline.images.zarrs import ZarrSource
from pipeline.inputs import Segmented, open_input
from pipeline.printing import printable
from pipeline.remote.zarr_stores import readable
from pipeline.stores.metadata import Space, ome_of
from pipeline.stores.ome_tiff import TiffImage, write_ome_tiff

if TYPE_CHECKING:
    from pipeline.remote.paths import AnyPath
    from pipeline.results import Result

__all__ = ["write_result_as_tiff"]

_COLOURS = ("red", "green", "blue")


def write_result_as_tiff(result: Result, path: str | Path) -> list[str]:
    """Write a result's image and labels into one OME-TIFF.

    The image comes first, with the names of its channels; then the classes and the objects as images of their own, for
    all pixels of an OME image have one type. Numbers of objects are of 16 bits where these suffice, which more programs
    read. Tiles are read and written one after the other.

    Parameters
    ----------
    result : Result
        Of one image.
    path : str or Path
        The file, such as ``a.ome.tif``; replaced once the new one is complete.

    Returns
    -------
    list of str
        What was written. The image is missing where the result has no copy and the input is no OME-Zarr that is still
        there as it was.

    Raises
    ------
    StoreError
        If the pixels have a type that OME-TIFF does not know, or the file cannot be written.
    """
    # XML holds neither what is no UTF-8 in the name of a file, nor what a terminal obeys.
    channels = tuple(printable(str(name)) for name in result.provenance["plan"]["source"]["channel_names"])
    name = printable(result.path.name.removesuffix(".ome.zarr"))
    images = []
    found = _image_of(result)
    if found is not None:
        group, levels = found
        space = _space_of(group)
        if group != result.path:
            space = _as_taken(space, result.provenance["plan"]["source"])
        colours = channels == _COLOURS and levels[0].dtype == "uint8" and "C" in space.axes
        images.append(TiffImage(name, space, _flat_levels(levels), channels, colours=colours))
    for label in ("semantic", "instances"):
        levels = getattr(result, label)
        if levels:
            small = label == "instances" and (result.objects or 0) < 2**16
            space = _space_of(result.path / "labels" / label)
            images.append(TiffImage(label, space, levels, (label,), "uint16" if small else ""))
    write_ome_tiff(Path(path), images, result.provenance["digest"])
    return ["image", *(image.name for image in images[1:])] if found else [image.name for image in images]


def _image_of(result: Result) -> tuple[AnyPath, list[zarr.Array[Any]]] | None:
    """Find the image's pyramid: the result's own, or that of an OME-Zarr that it was made of."""
    if result.image:
        return result.path, result.image
    plan = result.provenance["plan"]
    if plan["source"]["kind"] != "ome-zarr":
        return None
    try:
        first, *coarser = open_input(Segmented.noted(plan))
    except ImageError:
        return None
    try:
        assert isinstance(first, ZarrSource)
        group = first.group
        if group is None:
            return None
        return group, [zarr.open_array(readable(group / level), mode="r") for level in first.levels]
    finally:
        for source in (first, *coarser):
            source.close()


def _flat_levels(levels: list[zarr.Array[Any]]) -> list[zarr.Array[Any]]:
    """Give the levels that differ in Y and X alone, each smaller than the one before: a TIFF holds no others."""
    kept = levels[:1]
    for level in levels[1:]:
        alike = level.shape[:-2] == kept[0].shape[:-2]
        if alike and all(new <= old for new, old in zip(level.shape, kept[-1].shape, strict=True)):
            kept.append(level)
    return kept


def _as_taken(space: Space, source: dict[str, Any]) -> Space:
    """Give an input the sizes and places that the run took for its own, where a user has stated them."""
    at = [AXES.index(axis) for axis in space.axes]
    scale, translation, units = (
        tuple(source[name][number] for number in at) for name in ("pixel_size", "translation", "units")
    )
    return replace(space, scale=scale, translation=translation, units=units)


def _space_of(group: AnyPath) -> Space:
    """Read where the pixels of a pyramid's finest level lie.

    Raises
    ------
    StoreError
        If the metadata do not say so.
    """
    try:
        multiscale = ome_of(zarr.open_group(readable(group), mode="r"))["multiscales"][0]
        axes = multiscale["axes"]
        scale, translation = [1.0] * len(axes), [0.0] * len(axes)
        finest, whole = multiscale["datasets"][0], multiscale.get("coordinateTransformations") or []
        moves = [*finest["coordinateTransformations"], *whole]
        for move in moves:
            if move["type"] == "scale":
                scale = [old * new for old, new in zip(scale, move["scale"], strict=True)]
                translation = [old * new for old, new in zip(translation, move["scale"], strict=True)]
            elif move["type"] == "translation":
                translation = [old + new for old, new in zip(translation, move["translation"], strict=True)]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise StoreError(f"{group}: the metadata do not describe an image ({type(error).__name__}: {error})") from error
    names = "".join(str(axis["name"]).upper() for axis in axes)
    return Space(names, tuple(scale), tuple(translation), tuple(axis.get("unit") for axis in axes))
