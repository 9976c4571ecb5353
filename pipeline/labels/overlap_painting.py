"""From chosen candidates to label images: each core is painted with what its and the neighbouring windows saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.labels.components import raster_index
from pipeline.labels.parting import number_parts
from pipeline.labels.runs import Runs
from pipeline.labels.union import Numbering

__all__ = ["Painted", "PaintedSummary", "View", "number_painted", "paint_core"]


@dataclass(frozen=True, eq=False)
class View:
    """The part of a window's candidates that lies in a core.

    Parameters
    ----------
    labels : ndarray of uint32, TZYX
        Their ids 1 to n, 0 elsewhere.
    place : Box
        Where that is, inside the core, TZYX.
    identity, rank : ndarray of int64, shape (n,)
        Of each candidate, as `pipeline.labels.overlap_choice.Choice` has it; -1 for what is not painted here.
    """

    labels: NDArray[np.uint32]
    place: Box
    identity: NDArray[np.int64]
    rank: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PaintedSummary:
    """The objects in one core, in the order of their local ids 1 to n.

    Parameters
    ----------
    identity : ndarray of int64, shape (n,)
        Which object each is part of.
    first : ndarray of int64, shape (n,)
        Raster index, in the whole TZYX array, of its first pixel in the core.
    area : ndarray of int64, shape (n,)
        Its pixels in the core.
    """

    identity: NDArray[np.int64]
    first: NDArray[np.int64]
    area: NDArray[np.int64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Give everything as named arrays, for ``numpy.savez``."""
        return {"identity": self.identity, "first": self.first, "area": self.area}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild a summary from what `to_arrays` gave."""
        return cls(arrays["identity"], arrays["first"], arrays["area"])


@dataclass(frozen=True, eq=False)
class Painted:
    """A painted core.

    Parameters
    ----------
    labels : ndarray of uint32, TZYX
        Local ids 1 to n, 0 for background; the shape of the core.
    summary : PaintedSummary
        Which objects they are.
    """

    labels: NDArray[np.uint32]
    summary: PaintedSummary


def paint_core(views: Iterable[View], owned: Box, image_shape: Sequence[int]) -> Painted:
    """Paint what all windows saw of a core. Of a pixel that several claim, the lowest rank has it.

    Parameters
    ----------
    views : iterable of View
        In any order.
    owned : Box
        The core, TZYX.
    image_shape : sequence of int
        Shape of the whole label image, TZYX.
    """
    last = np.iinfo(np.int64).max
    identity = np.full(owned.shape, -1, dtype=np.int64)
    best = np.full(owned.shape, last, dtype=np.int64)
    for view in views:
        ids = np.concatenate([np.full(1, -1), view.identity])
        ranks = np.where(ids < 0, last, np.concatenate([np.full(1, last), view.rank]))
        place = view.place.relative_to(owned.start).slices
        claims = ranks[view.labels]
        wins = claims < best[place]
        best[place][wins] = claims[wins]
        identity[place][wins] = ids[view.labels[wins]]
    painted = identity >= 0
    found, inverse, area = np.unique(identity[painted], return_inverse=True, return_counts=True)
    labels = np.zeros(owned.shape, dtype=np.uint32)
    labels[painted] = inverse + 1
    first = raster_index(Runs.of(labels).first(found.size), owned, image_shape)
    return Painted(labels, PaintedSummary(found, first, area.astype(np.int64)))


def number_painted(summaries: Iterable[PaintedSummary], minimum_size: int = 0) -> Numbering:
    """Give the objects of all cores their numbers, by the raster position of their first pixel.

    Parameters
    ----------
    summaries : iterable of PaintedSummary
        Of the cores, in order.
    minimum_size : int, optional
        Objects with fewer pixels, in all cores together, are left out and get no number.

    Raises
    ------
    StoreError
        If there are more objects than a uint32 label image can number.
    """
    nothing = np.zeros(0, dtype=np.int64)
    parts = list(summaries)
    offsets = np.cumsum([0, *(part.identity.size for part in parts)]).astype(np.int64)
    identity, first, area = (
        np.concatenate([nothing, *(getattr(part, name) for part in parts)]) for name in ("identity", "first", "area")
    )
    objects, member = np.unique(identity, return_inverse=True)
    firsts = np.full(objects.size, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(firsts, member, first)
    sizes = np.zeros(objects.size, dtype=np.int64)
    np.add.at(sizes, member, area)
    large = sizes >= minimum_size
    numbers = np.zeros(objects.size, dtype=np.uint32)
    numbers[large] = number_parts(firsts[large])
    count = int(np.count_nonzero(large))
    return Numbering(table=numbers[member], offsets=offsets, count=count, dropped=objects.size - count)
