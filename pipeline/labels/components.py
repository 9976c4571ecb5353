"""Connected components of one core, and the little that it leaves for uniting it with its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Self

import cc3d
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GeometryError
from pipeline.geometry.box import Box
from pipeline.labels.runs import Runs

__all__ = [
    "CoreComponents",
    "CoreSummary",
    "edge_ids",
    "label_core",
    "linked_axes",
    "of_classes",
    "open_components",
    "raster_index",
]

AXES = "tzyx"


def linked_axes(spatial_ndim: Literal[2, 3]) -> tuple[int, ...]:
    """Give the axes of a TZYX array along which pixels may belong to one object.

    Parameters
    ----------
    spatial_ndim : {2, 3}
        2: each T and Z plane stands by itself. 3: each time point does.
    """
    return (2, 3) if spatial_ndim == 2 else (1, 2, 3)


@dataclass(frozen=True, eq=False)
class CoreSummary:
    """What one core leaves for the union: numbers per component and the labels on its faces.

    Parameters
    ----------
    first : ndarray of int64, shape (n,)
        Raster index, in the whole TZYX array, of the first pixel that local component 1, 2, ... has in this core.
    area : ndarray of int64, shape (n,)
        Number of its pixels in this core.
    low, high : mapping of int to ndarray of uint32
        For each linked axis, local ids on the first and on the last slice of the core along it; the arrays lack
        that axis.
    at_edge : ndarray of int64
        Local ids at the image's edge.
    """

    first: NDArray[np.int64]
    area: NDArray[np.int64]
    low: Mapping[int, NDArray[np.uint32]]
    high: Mapping[int, NDArray[np.uint32]]
    at_edge: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of components that have pixels in this core."""
        return int(self.first.size)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give everything as named arrays, for ``numpy.savez_compressed``."""
        arrays: dict[str, NDArray[Any]] = {"first": self.first, "area": self.area, "at_edge": self.at_edge}
        for side, faces in (("low", self.low), ("high", self.high)):
            arrays.update({f"{side}_{AXES[axis]}": face for axis, face in faces.items()})
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild a summary from what `to_arrays` gave; takes an open ``npz`` file, too."""

        def faces(side: str) -> dict[int, NDArray[np.uint32]]:
            return {
                axis: np.asarray(arrays[f"{side}_{letter}"], dtype=np.uint32)
                for axis, letter in enumerate(AXES)
                if f"{side}_{letter}" in arrays
            }

        return cls(
            first=np.asarray(arrays["first"], dtype=np.int64),
            area=np.asarray(arrays["area"], dtype=np.int64),
            low=faces("low"),
            high=faces("high"),
            at_edge=np.asarray(arrays["at_edge"], dtype=np.int64),
        )


@dataclass(frozen=True, eq=False)
class CoreComponents:
    """The components of one core.

    Parameters
    ----------
    labels : ndarray of uint32, TZYX
        Local ids 1 to n, 0 for background; the shape of the core.
    runs : Runs
        The same as runs.
    summary : CoreSummary
        What the union needs of it.
    """

    labels: NDArray[np.uint32]
    runs: Runs
    summary: CoreSummary


def of_classes(labels: NDArray[np.uint8], classes: Sequence[int]) -> NDArray[np.bool_]:
    """Give the pixels that are of any of a few classes; faster than ``numpy.isin`` by an order of magnitude."""
    found = np.zeros(labels.shape, dtype=np.bool_)
    for number in classes:
        found |= labels == number
    return found


def label_core(
    mask: NDArray[np.bool_], owned: Box, image_shape: Sequence[int], spatial_ndim: Literal[2, 3]
) -> CoreComponents:
    """Label what touches by faces inside one core.

    Parameters
    ----------
    mask : ndarray of bool, TZYX
        The pixels of objects in the core; its shape is that of `owned`.
    owned : Box
        Where the core lies in the image, TZYX.
    image_shape : sequence of int
        Shape of the whole label image, TZYX.
    spatial_ndim : {2, 3}
        2: pixels are connected in Y and X. 3: in Z, too. Never in T.

    Returns
    -------
    CoreComponents

    Raises
    ------
    GeometryError
        If the mask does not have the core's shape, or the core is not inside the image.

    Notes
    -----
    The labelling is that of cc3d, connectivity 4 or 6: https://github.com/seung-lab/connected-components-3d
    """
    if mask.shape != owned.shape:
        raise GeometryError(f"a mask of shape {mask.shape} cannot fill a core of shape {owned.shape}")
    if not Box.whole(image_shape).contains(owned):
        raise GeometryError(
            f"the core from {owned.start} to {owned.stop} is not inside an image of {tuple(image_shape)}"
        )
    free = 4 - spatial_ndim
    planes: list[NDArray[np.uint32]] = []
    total = 0
    for index in np.ndindex(*mask.shape[:free]):
        local, count = cc3d.connected_components(
            np.ascontiguousarray(mask[index], dtype=np.bool_),
            connectivity=4 if spatial_ndim == 2 else 6,
            return_N=True,
            out_dtype=np.uint32,
        )
        if total:
            local[local > 0] += np.uint32(total)
        planes.append(local.astype(np.uint32, copy=False))
        total += int(count)
    labels: NDArray[np.uint32] = (planes[0] if len(planes) == 1 else np.stack(planes)).reshape(mask.shape)
    runs = Runs.of(labels)
    faces = linked_axes(spatial_ndim)
    summary = CoreSummary(
        first=raster_index(runs.first(total), owned, image_shape),
        area=runs.area(total),
        low={axis: np.take(labels, 0, axis=axis) for axis in faces},
        high={axis: np.take(labels, -1, axis=axis) for axis in faces},
        at_edge=edge_ids(labels, owned, image_shape, spatial_ndim),
    )
    return CoreComponents(labels, runs, summary)


def open_components(summary: CoreSummary, box: Box, image_shape: Sequence[int]) -> NDArray[np.bool_]:
    """Tell which components of a box may reach beyond it: those on its faces, but for the faces of the image.

    Parameters
    ----------
    summary : CoreSummary
        Of the box.
    box : Box
        Where it lies in the image, TZYX.
    image_shape : sequence of int
        TZYX.

    Returns
    -------
    ndarray of bool
        By local id; that of 0, which is none, is False.
    """
    is_open = np.zeros(summary.count + 1, dtype=np.bool_)
    for axis in summary.low:
        if box.start[axis] > 0:
            is_open[summary.low[axis]] = True
        if box.stop[axis] < image_shape[axis]:
            is_open[summary.high[axis]] = True
    is_open[0] = False
    return is_open


def edge_ids(
    labels: NDArray[np.uint32], owned: Box, image_shape: Sequence[int], spatial_ndim: Literal[2, 3]
) -> NDArray[np.int64]:
    """Give the ids that lie at the image's edge, along the axes by which pixels are connected.

    Parameters
    ----------
    labels : ndarray of uint32, TZYX
        Ids in a region, 0 for none.
    owned : Box
        Where the region lies in the image, TZYX.
    image_shape : sequence of int
        TZYX.
    spatial_ndim : {2, 3}
        As for `label_core`.

    Returns
    -------
    ndarray of int64
        Ascending, without 0.
    """
    faces = [np.zeros(0, dtype=np.uint32)]
    for axis in linked_axes(spatial_ndim):
        if owned.start[axis] == 0:
            faces.append(np.take(labels, 0, axis=axis).ravel())
        if owned.stop[axis] == image_shape[axis]:
            faces.append(np.take(labels, -1, axis=axis).ravel())
    ids = np.unique(np.concatenate(faces)).astype(np.int64)
    return ids[ids > 0]


def raster_index(inside: NDArray[np.int64], owned: Box, image_shape: Sequence[int]) -> NDArray[np.int64]:
    """Turn flat indices inside a core into flat indices of the whole image."""
    positions = np.unravel_index(inside, owned.shape)
    index = np.zeros(inside.shape, dtype=np.int64)
    for axis, (position, start) in enumerate(zip(positions, owned.start, strict=True)):
        index += (position + start) * prod(image_shape[axis + 1 :])
    return index
