"""The OME-Zarr metadata of a result, 0.5 or 0.4, made with ome-zarr-models."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import zarr
from ome_zarr_models.common.image_label_types import Color, Source
from ome_zarr_models.common.omero import Channel, Omero, Window
from ome_zarr_models.v04 import image as image04
from ome_zarr_models.v04 import image_label as image_label04
from ome_zarr_models.v04 import labels as labels04
from ome_zarr_models.v05 import image as image05
from ome_zarr_models.v05 import image_label as image_label05
from ome_zarr_models.v05 import labels as labels05

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = [
    "CLASS_COLORS",
    "Space",
    "Version",
    "group_file",
    "group_files",
    "group_of",
    "ome_of",
    "relative_source",
    "write_group",
    "write_image_group",
    "write_label_group",
    "write_labels_as_image",
    "write_labels_list",
]

Version = Literal["0.4", "0.5"]
"""Of OME-Zarr: 0.4 is Zarr v2 and 0.5 Zarr v3."""

CLASS_COLORS = (
    (0, 158, 115), (230, 159, 0), (86, 180, 233), (213, 94, 0), (0, 114, 178), (204, 121, 167), (240, 228, 66),
)  # fmt: skip
"""Of classes from 1 on: the palette of Okabe and Ito (2008), told apart by the colour-blind, too."""

_IMAGE: dict[Version, type[BaseModel]] = {"0.4": image04.ImageAttrs, "0.5": image05.ImageAttrs}
_LABEL: dict[Version, type[BaseModel]] = {"0.4": image_label04.ImageLabelAttrs, "0.5": image_label05.ImageLabelAttrs}
_LABELS: dict[Version, type[BaseModel]] = {"0.4": labels04.LabelsAttrs, "0.5": labels05.LabelsAttrs}

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

    def multiscale(
        self, name: str, levels: int, method: Literal["mean", "nearest"], folder: str = "", version: Version = "0.5"
    ) -> dict[str, Any]:
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
        version : {"0.5", "0.4"}
            Of OME-Zarr.
        """
        axes = [
            {"name": axis.lower(), "type": _TYPES[axis], **({"unit": unit} if unit else {})}
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
            moves = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
            datasets.append({"path": f"{folder}{level}", "coordinateTransformations": moves})
        return {
            "axes": axes,
            "datasets": datasets,
            "name": name,
            "type": method,
            "metadata": {"description": f"Y and X halved at each level by {method}"},
            # 0.5 says its version once for the whole group.
            **({"version": version} if version == "0.4" else {}),
        }


def relative_source(result: Path, image: Path) -> str:
    """Give the path from a label group of a result to an OME-Zarr image outside it, as `write_label_group` takes it."""
    return Path(os.path.relpath(image, result / "labels" / "any")).as_posix()


def group_file(version: Version) -> str:
    """Give the name of the file by which a folder is a group."""
    return ".zgroup" if version == "0.4" else "zarr.json"


def group_files(group: str, version: Version) -> list[str]:
    """Give the paths of all files that describe a group of this path, below the same folder."""
    names = (".zgroup", ".zattrs") if version == "0.4" else ("zarr.json",)
    return [f"{group}/{name}" if group else name for name in names]


def group_of(folder: Path, version: Version) -> zarr.Group:
    """Open a group, and make it where there is none.

    Parameters
    ----------
    folder : Path
        Of the group.
    version : {"0.5", "0.4"}
        Of OME-Zarr, which tells that of Zarr.
    """
    return zarr.open_group(folder, mode="a", zarr_format=2 if version == "0.4" else 3)


def ome_of(group: zarr.Group) -> Any:  # noqa: ANN401 (whatever stands there)
    """Give what OME-Zarr says of a group: since 0.5 in a mapping of its own."""
    attributes = group.attrs.asdict()
    return attributes.get("ome", attributes)


def write_group(group: Path, version: Version, models: dict[Version, type[BaseModel]], values: dict[str, Any]) -> None:
    """Make a group with these attributes, or give them to the one that is there.

    Parameters
    ----------
    group : Path
        Folder of the group.
    version : {"0.5", "0.4"}
        Of OME-Zarr.
    models : dict of str to type
        What validates the attributes of each version.
    values : dict
        The attributes, but for the version that 0.5 says once.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    given = {"version": version} if version == "0.5" else {}
    attributes = models[version].model_validate(given | values)
    dumped: dict[str, Any] = attributes.model_dump(mode="json", by_alias=True, exclude_none=True)
    try:
        group_of(group, version).attrs.put(dumped if version == "0.4" else {"ome": dumped})
    except OSError as error:
        raise StoreError(f"{group}: the metadata cannot be written ({error.strerror or error})") from error


def write_image_group(
    group: Path,
    space: Space,
    name: str,
    levels: int,
    channels: tuple[str, ...],
    contrast: tuple[tuple[float, float, float, float], ...],
    version: Version = "0.5",
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
    version : {"0.5", "0.4"}
        Of OME-Zarr.
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
    pyramid = space.multiscale(name, levels, "mean", version=version)
    write_group(group, version, _IMAGE, {"multiscales": [pyramid], "omero": omero.model_dump(mode="json")})


def write_label_group(
    group: Path,
    space: Space,
    name: str,
    levels: int,
    source: str | None,
    classes: tuple[str, ...] = (),
    version: Version = "0.5",
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
        OME-Zarr of the same version, for validators follow it.
    classes : tuple of str
        Names of the classes, from 0 on, where the labels are classes; they get colours.
    version : {"0.5", "0.4"}
        Of OME-Zarr.
    """
    label: dict[str, Any] = {"version": version}
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
    pyramid = space.multiscale(name, levels, "nearest", version=version)
    write_group(group, version, _LABEL, {"image-label": label, "multiscales": [pyramid]})


def write_labels_as_image(
    group: Path, space: Space, name: str, levels: int, labels: str = "semantic", version: Version = "0.5"
) -> None:
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
    version : {"0.5", "0.4"}
        Of OME-Zarr.
    """
    pyramid = space.multiscale(name, levels, "nearest", folder=f"labels/{labels}/", version=version)
    write_group(group, version, _IMAGE, {"multiscales": [pyramid]})


def write_labels_list(group: Path, names: list[str], version: Version = "0.5") -> None:
    """Say which label images there are."""
    write_group(group, version, _LABELS, {"labels": names})
