"""What a result says of itself: OME-Zarr metadata of the image and the labels, from the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.remote.paths import is_url
from pipeline.stores.metadata import (
    Space,
    group_file,
    group_files,
    relative_source,
    write_image_group,
    write_label_group,
    write_labels_as_image,
    write_labels_list,
)

if TYPE_CHECKING:
    from pipeline.planning import RunPlan

__all__ = ["describe", "own_metadata"]


def describe(plan: RunPlan, intensity: list[dict[str, Any]]) -> None:
    """Write the OME-Zarr metadata of a result that is otherwise complete.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    intensity : list of dict
        What the statistics found, by time point and channel; tells how bright to show the image.
    """
    info = plan.source
    present = [at for at, axis in enumerate("TCZYX") if axis in info.axes]
    space = Space(
        info.axes,
        tuple(info.pixel_size[at] for at in present),
        tuple(info.translation[at] for at in present),
        tuple(info.units[at] for at in present),
    )
    here = [at for at, axis in enumerate("TZYX") if axis in info.axes]
    labels = replace(
        space.without_channels(),
        scale=tuple(plan.label_spacing[at] for at in here),
        translation=tuple(plan.label_translation[at] for at in here),
    )
    source: str | None = "../../"
    if not plan.copy_image and not plan.in_place:
        # Validators follow the path, so it leads to one of this version or nowhere; the provenance names each input.
        elsewhere = None if plan.destination or is_url(info.path) else Path(info.path).absolute()
        alike = elsewhere is not None and (elsewhere / group_file(plan.ome_zarr)).is_file()
        source = relative_source(Path(plan.output), elsewhere) if elsewhere is not None and alike else None
    names = []
    for pyramid in plan.pyramids:
        group, levels = plan.partial / pyramid.path, len(pyramid.levels)
        if pyramid.path.startswith("labels/"):
            name = pyramid.path.removeprefix("labels/")
            names.append(name)
            classes = plan.classes if name == "semantic" else ()
            write_label_group(group, labels, name, levels, source, classes, plan.ome_zarr)
        elif pyramid.path == "probabilities":
            axes = "".join(axis for axis in "TCZYX" if axis in pyramid.axes)
            at = {axis: number for number, axis in enumerate(labels.axes)}
            full = Space(
                axes,
                tuple(labels.scale[at[axis]] if axis in at else 1.0 for axis in axes),
                tuple(labels.translation[at[axis]] if axis in at else 0.0 for axis in axes),
                tuple(labels.units[at[axis]] if axis in at else None for axis in axes),
            )
            write_image_group(group, full, name=pyramid.path, levels=levels, channels=plan.classes,
                              contrast=((0.0, 1.0, 0.0, 1.0),) * len(plan.classes),
                              version=plan.ome_zarr)  # fmt: skip
        else:
            write_image_group(
                group, space, Path(plan.name).name, levels, info.channel_names, _contrast(plan, intensity),
                plan.ome_zarr,
            )  # fmt: skip
    write_labels_list(plan.partial / "labels", names, plan.ome_zarr)
    if not plan.copy_image and not plan.in_place:
        levels = len(plan.pyramids[0].levels)
        write_labels_as_image(plan.partial, labels, Path(plan.name).name, levels, version=plan.ome_zarr)


def own_metadata(plan: RunPlan) -> list[str]:
    """Give the files with the metadata of the groups that are a run's own, below the result's folder.

    The lists of labels and of tables are no such: other programs put theirs onto them, and may. Nor is, in place, what
    the image says of itself.
    """
    groups = [pyramid.path for pyramid in plan.pyramids if pyramid.path]
    own = groups if plan.in_place else ["", *groups]
    return [file for group in own for file in group_files(group, plan.ome_zarr)]


def _contrast(plan: RunPlan, intensity: list[dict[str, Any]]) -> tuple[tuple[float, float, float, float], ...]:
    """Give, per channel, the limits of the type, and what to show as black and white: of the first time point."""
    dtype = np.dtype(plan.source.dtype)
    limits = (0.0, 1.0) if dtype.kind == "f" else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    shown = {entry["channel"]: tuple(entry["percentiles"].values()) for entry in reversed(intensity)}
    return tuple((*limits, *shown.get(channel, limits)) for channel in range(plan.source.shape[1]))
