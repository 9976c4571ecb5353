"""The metadata of a Zarr's groups and arrays, as they stand in its files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pipeline.errors import ImageError
from pipeline.images.pipes import refuse_pipe
from pipeline.images.told import AGAIN
from pipeline.remote.paths import RemotePath

if TYPE_CHECKING:
    import zarr

    from pipeline.remote.paths import AnyPath

__all__ = ["attributes_of", "described_by", "metadata_in", "refuse_many_levels"]

MOST_LEVELS = 100
"""Of a pyramid: the widest image that numbers can count has 64."""


def metadata_in(path: AnyPath) -> list[str]:
    """Give the names of the files by which a folder is a Zarr; refuse one that has none."""
    if isinstance(path, RemotePath):
        held = [name for name in ("zarr.json", ".zgroup", ".zarray") if (path / name).is_file()]
        if not held:
            raise ImageError(f"{path}: there is no Zarr (no zarr.json, .zgroup or .zarray in it)")
        return held
    held = [name for name in ("zarr.json", ".zgroup", ".zarray") if os.path.lexists(path / name)]
    if not held and (os.access(path, os.X_OK) or not os.path.lexists(path)):
        raise ImageError(f"{path}: this folder is not a Zarr (no zarr.json, .zgroup or .zarray in it)")
    for name in (*held, ".zattrs"):
        refuse_pipe(path / name)
    return held


def attributes_of(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any]:
    """Give the attributes of a group or array; zarr takes whatever JSON stands there.

    Raises
    ------
    ImageError
        If they are no mapping.
    """
    held: object = node.metadata.attributes
    if not isinstance(held, dict):
        raise ImageError(
            f"{str(node.store_path).removeprefix('file://')}: the Zarr metadata are damaged: its attributes are not a "
            f"mapping but {held!r:.50}; {AGAIN}"
        )
    return held


def described_by(group: zarr.Group) -> object:
    """Give what OME-Zarr says of a group: since 0.5 in a mapping of its own."""
    attributes = attributes_of(group)
    return attributes.get("ome", attributes)


def refuse_many_levels(path: AnyPath, described: dict[str, Any]) -> None:
    """Refuse an image of absurdly many resolutions: to compare each with each other takes hours.

    Parameters
    ----------
    path : Path or RemotePath
        The image.
    described : dict
        What OME-Zarr says of it.

    Raises
    ------
    ImageError
        If there are more than any image has.
    """
    multiscales = described.get("multiscales")
    for each in multiscales if isinstance(multiscales, list) else []:
        levels = each.get("datasets") if isinstance(each, dict) else None
        if isinstance(levels, list) and len(levels) > MOST_LEVELS:
            raise ImageError(
                f"{path}: invalid OME-Zarr metadata: {len(levels)} resolutions (datasets), and no image has more than "
                f"{MOST_LEVELS}; correct it, or write it anew"
            )
