"""The OME-Zarr 0.5 metadata of a result, made with ome-zarr-models."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import zarr
from ome_zarr_models.common.image_label_types import Color, Source
from ome_zarr_models.common.omero import Channel, Omero, Window
from ome_zarr_models.v05.axes import Axis
from ome_zarr_models.v05.image import ImageAttrs
from ome_zarr_models.v05.image_label import ImageLabelAttrs
from ome_zarr_models.v05.image_label_types import Label
from ome_zarr_models.v05.labels import LabelsAttrs
from ome_zarr_models.v05.multiscales import Dataset, Multiscale

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = [
    "CLASS_COLORS",
    "Space",
    "relative_source",
    "write_image_group",
    "write_label_group",
    "write_labels_as_image",
    "write_labels_list",
]

VERSION = "0.5"

CLASS_COLORS = (
    (0, 158, 115), (230, 159, 0), (86, 180, 233), (213, 94, 0), (0, 114, 178), (204, 121, 167), (240, 228, 66),
)  # fmt: skip
"""Of classes from 1 on: the palette of Okabe and Ito (2008), told apart by the colour-blind, too."""

_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}


@dataclass(frozen=True, slots=True)
class Space:
    """Where the pixels of a pyramid lie.

    Parameters
    ----------
    axes : str
        Part of TCZYX, in this order.
    scale, translation : tuple of float
        One entry per axis: the size of a pixel of the full resolution, and the centre of its first one.
    units : tuple of str or None
        One entry per axis.
    """

    axes: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]

    def without_channels(self) -> Space:
        """Give the space of labels."""
        kept = [at for at, axis in enumerate(self.axes) if axis != "C"]
        return Space(
            "".join(self.axes[at] for at in kept),
            tuple(self.scale[at] for at in kept),
            tuple(self.translation[at] for at in kept),
            tuple(self.units[at] for at in kept),
        )

    def multiscale(self, name: str, levels: int, method: Literal["mean", "nearest"], folder: str = "") -> Multiscale:
        """Describe a pyramid, each level half as fine in Y and X as the one before.

        The centre of a mean of 2 x 2 pixels lies between them; a sample lies where its pixel lay.

        Parameters
        ----------
        name : str
            Of the image.
        levels : int
            Number of levels; their arrays are called 0, 1, 2, ...
        method : {"mean", "nearest"}
            How coarser levels were made.
        folder : str, optional
            Where the arrays lie below the group, with a slash at its end; in the group itself where not given.
        """
        axes = [
            Axis(name=axis.lower(), type=_TYPES[axis], unit=unit)
            for axis, unit in zip(self.axes, self.units, strict=True)
        ]
        datasets = []
        for level in range(levels):
            factor = [2**level if axis in "YX" else 1 for axis in self.axes]
            scale = [size * by for size, by in zip(self.scale, factor, strict=True)]
            shift = [(by - 1) / 2 if method == "mean" else 0.0 for by in factor]
            translation = [
                first + size * by for first, size, by in zip(self.translation, self.scale, shift, strict=True)
            ]
            datasets.append(Dataset.build(path=f"{folder}{level}", scale=scale, translation=translation))
        return Multiscale(
            axes=axes,
            datasets=tuple(datasets),
            name=name,
            type=method,
            metadata={"description": f"Y and X halved at each level by {method}"},
        )


def relative_source(result: Path, image: Path) -> str:
    """Give the path from a label group of a result to an OME-Zarr image outside it, as `write_label_group` takes it."""
    return Path(os.path.relpath(image, result / "labels" / "any")).as_posix()


def _write(group: Path, attributes: BaseModel) -> None:
    """Make a group with these attributes, or give them to the one that is there."""
    dumped: dict[str, Any] = attributes.model_dump(mode="json", by_alias=True, exclude_none=True)
    try:
        zarr.open_group(group, mode="a", zarr_format=3).attrs.put({"ome": dumped})
    except OSError as error:
        raise StoreError(f"{group}: the metadata cannot be written ({error.strerror or error})") from error


def write_image_group(
    group: Path,
    space: Space,
    name: str,
    levels: int,
    channels: tuple[str, ...],
    contrast: tuple[tuple[float, float, float, float], ...],
) -> None:
    """Describe an image pyramid.

    Parameters
    ----------
    group : Path
        Folder of the group.
    space : Space
        With all axes of the image.
    name : str
        Of the image.
    levels : int
        Number of levels.
    channels : tuple of str
        Names.
    contrast : tuple of (float, float, float, float)
        Per channel: lowest and highest value that the type can hold, and what to show as black and as white.
    """
    colours = ["FFFFFF"] if len(channels) == 1 else ["00FFFF", "FF00FF", "FFFF00", "FF0000", "00FF00", "0000FF"]
    omero = Omero(
        channels=[
            Channel.model_validate(
                {
                    "label": label,
                    "active": True,
                    "color": colours[at % len(colours)],
                    "window": Window(min=lowest, max=highest, start=black, end=white),
                }
            )
            for at, (label, (lowest, highest, black, white)) in enumerate(zip(channels, contrast, strict=True))
        ]
    )
    attributes = ImageAttrs.model_validate(
        {
            "version": VERSION,
            "multiscales": [space.multiscale(name, levels, "mean")],
            "omero": omero.model_dump(mode="json"),
        }
    )
    _write(group, attributes)


def write_label_group(
    group: Path, space: Space, name: str, levels: int, source: str | None, classes: tuple[str, ...] = ()
) -> None:
    """Describe a pyramid of labels.

    Parameters
    ----------
    group : Path
        Folder of the group.
    space : Space
        Without channels.
    name : str
        Of the label image.
    levels : int
        Number of levels.
    source : str, optional
        Where the image lies, relative to the group: ``"../../"`` for the result's own. Left out where it is no
        OME-Zarr 0.5, for validators follow it.
    classes : tuple of str
        Names of the classes, from 0 on, where the labels are classes; they get colours.
    """
    label: dict[str, Any] = {"version": VERSION}
    # Objects get no colours: the field is optional, a table of them would grow with their number in a file that every
    # viewer reads first, and viewers colour labels that have none by their own cycle. Classes mean something, and do.
    if classes:
        colours = [(0, 0, 0, 0), *((*CLASS_COLORS[at % len(CLASS_COLORS)], 255) for at in range(len(classes) - 1))]
        label["colors"] = [
            Color.model_validate({"label-value": value, "rgba": rgba}) for value, rgba in enumerate(colours)
        ]
        label["properties"] = [{"label-value": value, "class": named} for value, named in enumerate(classes)]
    if source is not None:
        label["source"] = Source(image=source)
    attributes = ImageLabelAttrs.model_validate(
        {
            "version": VERSION,
            "image-label": Label.model_validate(label),
            "multiscales": [space.multiscale(name, levels, "nearest")],
        }
    )
    _write(group, attributes)


def write_labels_as_image(group: Path, space: Space, name: str, levels: int, labels: str = "semantic") -> None:
    """Describe a result that holds no image, by the classes of its pixels in the image's place.

    Without multiscales the result's own group would be no OME-Zarr, and no viewer would find the labels in it. The
    arrays are those of the label image; nothing is stored twice.

    Parameters
    ----------
    group : Path
        Folder of the result.
    space : Space
        Of the labels, without channels.
    name : str
        Of the image.
    levels : int
        Number of levels.
    labels : str, optional
        Name of the label image.
    """
    pyramid = space.multiscale(name, levels, "nearest", folder=f"labels/{labels}/")
    _write(group, ImageAttrs(version=VERSION, multiscales=[pyramid]))


def write_labels_list(group: Path, names: list[str]) -> None:
    """Say which label images there are."""
    _write(group, LabelsAttrs(version=VERSION, labels=names))
