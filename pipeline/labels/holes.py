"""Holes in objects, wherever a core may have ended.

A hole is a region of background, connected by faces, that touches a single component and not the image's edge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.labels.components import CoreSummary, label_core, linked_axes, open_components
from pipeline.labels.union import unite

__all__ = ["HoleSummary", "HoleTable", "fill_core", "find_holes", "holes_in_region", "note_holes"]


@dataclass(frozen=True, eq=False)
class HoleSummary:
    """What one core leaves of its background, to find out which of it are holes.

    Parameters
    ----------
    background, components : CoreSummary
        Of the regions of background and of the components, each from 1 on.
    touching : ndarray of int64, shape (k, 2)
        Local ids of background and component that touch inside the core.
    """

    background: CoreSummary
    components: CoreSummary
    touching: NDArray[np.int64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give everything as named arrays, for ``numpy.savez``."""
        named: dict[str, NDArray[Any]] = {"touching": self.touching}
        for kind, summary in (("background", self.background), ("components", self.components)):
            named.update({f"{kind}.{name}": array for name, array in summary.to_arrays().items()})
        return named

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild a summary from what `to_arrays` gave."""

        def summary(kind: str) -> CoreSummary:
            return CoreSummary.from_arrays(
                {name.split(".", 1)[1]: array for name, array in arrays.items() if name.startswith(f"{kind}.")}
            )

        return cls(summary("background"), summary("components"), arrays["touching"])


@dataclass(frozen=True, eq=False)
class HoleTable:
    """Which regions of background are holes.

    Parameters
    ----------
    is_hole : ndarray of bool
        Whether background ``k`` of core ``i`` is part of a hole, at ``offsets[i] + k - 1``.
    offsets : ndarray of int64, one more than there are cores
        Where the regions of each core start in the table.
    """

    is_hole: NDArray[np.bool_]
    offsets: NDArray[np.int64]


def note_holes(
    mask: NDArray[np.bool_], owned: Box, image_shape: Sequence[int], spatial_ndim: Literal[2, 3]
) -> HoleSummary:
    """Find the regions of background of one core, and what they touch.

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
    HoleSummary
    """
    background = label_core(~mask, owned, image_shape, spatial_ndim)
    components = label_core(mask, owned, image_shape, spatial_ndim)
    touching = _touching(background.labels, components.labels, spatial_ndim)
    return HoleSummary(background.summary, components.summary, touching)


def holes_in_region(
    mask: NDArray[np.bool_], region: Box, image_shape: Sequence[int], spatial_ndim: Literal[2, 3]
) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
    """Find the holes in a region by what can be seen in it alone.

    Parameters
    ----------
    mask, image_shape, spatial_ndim
        As for `note_holes`, with the region in the place of a core.
    region : Box
        Where it lies in the image, TZYX.

    Returns
    -------
    holes : ndarray of bool, TZYX
        The pixels of holes.
    undecided : ndarray of uint32, TZYX
        Ids, from 1 on, of the regions of background that are holes or not, as what lies beyond has it; 0 elsewhere.

    Notes
    -----
    A hole lies in the bounding box of what encloses it. So those of components that lie wholly in the region are all
    found, and background that touches one of these and something else, or reaches beyond the region, is no hole.
    """
    background = label_core(~mask, region, image_shape, spatial_ndim)
    components = label_core(mask, region, image_shape, spatial_ndim)
    touching = _touching(background.labels, components.labels, spatial_ndim)
    # As many components as each region touches, and as many that are wholly known.
    count = background.summary.count + 1
    touched = np.bincount(touching[:, 0], minlength=count)
    is_whole = ~open_components(components.summary, region, image_shape)
    whole = np.bincount(touching[is_whole[touching[:, 1]], 0], minlength=count)
    may_be = np.ones(count, dtype=np.bool_)
    may_be[0] = False
    may_be[background.summary.at_edge] = False
    is_hole = may_be & ~open_components(background.summary, region, image_shape) & (touched == 1)
    may_be &= ~is_hole & (whole == 0)
    ids = np.where(may_be, np.arange(count), 0).astype(np.uint32)
    return is_hole[background.labels], ids[background.labels]


def fill_core(
    mask: NDArray[np.bool_],
    owned: Box,
    image_shape: Sequence[int],
    spatial_ndim: Literal[2, 3],
    is_hole: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Give the pixels of one core that lie in holes.

    Parameters
    ----------
    mask, owned, image_shape, spatial_ndim
        As for `note_holes`.
    is_hole : ndarray of bool
        The core's part of a `HoleTable`.

    Returns
    -------
    ndarray of bool, TZYX
        Of the core's shape.
    """
    background = label_core(~mask, owned, image_shape, spatial_ndim).labels
    found: NDArray[np.bool_] = np.concatenate([np.zeros(1, dtype=np.bool_), is_hole])[background]
    return found


def find_holes(
    summary_of: Callable[[int], HoleSummary], counts: Sequence[int], spatial_ndim: Literal[2, 3]
) -> HoleTable:
    """Find out which regions of background are holes.

    Parameters
    ----------
    summary_of : callable
        Gives the summary of the core with a flat index.
    counts : sequence of int
        Number of cores along T, Z, Y and X.
    spatial_ndim : {2, 3}
        As for `note_holes`.

    Returns
    -------
    HoleTable
    """
    regions = unite(lambda index: summary_of(index).background, counts, spatial_ndim)
    components = unite(lambda index: summary_of(index).components, counts, spatial_ndim)
    open_ended = np.zeros(regions.count + 1, dtype=np.bool_)
    # The lowest and the highest component that a region touches: the same, if it is only one.
    lowest = np.full(regions.count + 1, np.iinfo(np.uint32).max, dtype=np.uint32)
    highest = np.zeros(regions.count + 1, dtype=np.uint32)
    waiting: dict[tuple[int, int], HoleSummary] = {}
    steps = {axis: int(np.prod(counts[axis + 1 :])) for axis in linked_axes(spatial_ndim)}

    def touch(region_core: int, component_core: int, pairs: NDArray[np.int64]) -> None:
        region = regions.table[regions.offsets[region_core] + pairs[:, 0] - 1]
        component = components.table[components.offsets[component_core] + pairs[:, 1] - 1]
        np.minimum.at(lowest, region, component)
        np.maximum.at(highest, region, component)

    for index in range(int(np.prod(counts))):
        summary = summary_of(index)
        open_ended[regions.table[regions.offsets[index] + summary.background.at_edge - 1]] = True
        touch(index, index, summary.touching)
        for axis, step in steps.items():
            position = index // step % counts[axis]
            if position > 0:
                before = waiting.pop((axis, index - step))
                touch(index - step, index, _facing(before.background.high[axis], summary.components.low[axis]))
                touch(index, index - step, _facing(summary.background.low[axis], before.components.high[axis]))
            if position + 1 < counts[axis]:
                waiting[axis, index] = summary
    is_hole = ~open_ended & (lowest == highest)
    return HoleTable(is_hole[regions.table], regions.offsets)


def _touching(
    background: NDArray[np.uint32], components: NDArray[np.uint32], spatial_ndim: Literal[2, 3]
) -> NDArray[np.int64]:
    """Give the unique pairs of ids that face each other anywhere, shape (pairs, 2)."""
    touching = []
    for axis in linked_axes(spatial_ndim):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        touching.append(_facing(background[low], components[high]))
        touching.append(_facing(background[high], components[low]))
    return np.unique(np.concatenate(touching), axis=0)


def _facing(background: NDArray[np.uint32], components: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Give the unique pairs of ids that face each other, shape (pairs, 2)."""
    both = (background > 0) & (components > 0)
    packed = np.unique(background[both].astype(np.uint64) << np.uint64(32) | components[both])
    return np.stack([packed >> np.uint64(32), packed & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)
