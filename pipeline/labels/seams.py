"""What tells whether objects know where a core ended: pure functions of label images around the faces of cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from pipeline.geometry import Box
from pipeline.labels.components import label_core, open_components

__all__ = [
    "FaceCounts",
    "broken_objects",
    "chance_of",
    "chance_of_broken",
    "complete_components",
    "count_face",
    "least_broken",
    "longest_ends",
    "odd_neighbours",
    "odd_pixels",
    "profile_face",
]

LEAST_SECTION = 4
"""Pixels that an object must have on a face to count as ending there: rounded tips have fewer."""

Labels = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class FaceCounts:
    """What lies on the two sides of planes between pixels, summed up over planes.

    Parameters
    ----------
    pixels : int
        Pairs of pixels that face each other.
    covered : int
        Pixels of objects, both sides together.
    sections : int
        Objects met on a side, summed over the sides. A section is what a plane cuts out of an object, so
        ``sections / pixels`` is a density and ``covered / sections`` a size, whether or not objects end here.
    ends : int
        Sections of at least four pixels whose object is not continued on the other side.
    facing : int
        Pairs with an object on one side at least.
    boundary : int
        Those of them whose labels differ: the plane is the boundary of an object.
    touching : int
        Those of them with two different objects.
    """

    pixels: int = 0
    covered: int = 0
    sections: int = 0
    ends: int = 0
    facing: int = 0
    boundary: int = 0
    touching: int = 0

    def __add__(self, other: FaceCounts) -> Self:
        return type(self)(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def _sections(side: Labels, continued: NDArray[np.uint32]) -> tuple[int, NDArray[np.uint32], NDArray[np.intp]]:
    """Give the number of objects on one side, and which of them end there, with their pixels."""
    labels, sizes = np.unique(side[side > 0], return_counts=True)
    ending = (sizes >= LEAST_SECTION) & ~np.isin(labels, continued)
    return labels.size, labels[ending], sizes[ending]


def count_face(before: Labels, after: Labels) -> FaceCounts:
    """Count what faces each other across one plane.

    Parameters
    ----------
    before, after : ndarray of uint32
        Object numbers on either side, of the same shape; 0 for background.
    """
    continued = np.unique(before[before == after])
    (ones, ending, _), (others, ending_too, _) = _sections(before, continued), _sections(after, continued)
    differ = before != after
    return FaceCounts(
        pixels=before.size,
        covered=int(np.count_nonzero(before)) + int(np.count_nonzero(after)),
        sections=ones + others,
        ends=ending.size + ending_too.size,
        facing=int(np.count_nonzero(before | after)),
        boundary=int(np.count_nonzero(differ)),
        touching=int(np.count_nonzero(differ & (before > 0) & (after > 0))),
    )


def longest_ends(before: Labels, after: Labels, most: int) -> list[tuple[int, tuple[int, ...]]]:
    """Find the objects that end at a plane with the largest sections.

    Parameters
    ----------
    before, after : ndarray of uint32
        As for `count_face`.
    most : int
        How many to give.

    Returns
    -------
    list of (int, tuple of int)
        Pixels of the section, and the position of one of them in the plane; the largest section first.
    """
    continued = np.unique(before[before == after])
    found: list[tuple[int, tuple[int, ...]]] = []
    for side in (before, after):
        _, labels, sizes = _sections(side, continued)
        for at in np.argsort(-sizes, kind="stable")[:most].tolist():
            where = np.argwhere(side == labels[at])
            found.append((int(sizes[at]), tuple(where[len(where) // 2].tolist())))
    return sorted(found, key=lambda end: (-end[0], end[1]))[:most]


def profile_face(slab: Labels, axis: int) -> tuple[list[int], list[int]]:
    """Count, for each plane between two slices of a slab, the pairs with an object, and those whose labels differ.

    Parameters
    ----------
    slab : ndarray of uint32
        What lies around a face.
    axis : int
        Across the face.

    Returns
    -------
    facing, boundary : list of int
        One entry less than the slab has slices.
    """
    slices = np.moveaxis(slab, axis, 0).reshape(slab.shape[axis], -1)
    before, after = slices[:-1], slices[1:]
    facing = np.count_nonzero(before | after, axis=1)
    boundary = np.count_nonzero(before != after, axis=1)
    return facing.tolist(), boundary.tolist()


def chance_of(at_seams: FaceCounts, elsewhere: FaceCounts) -> float | None:
    """Give how likely it is that so many objects, or more, end at seams by chance.

    Parameters
    ----------
    at_seams, elsewhere : FaceCounts
        On the faces of cores, and on planes that are none.

    Returns
    -------
    float or None
        Of a one-sided binomial test with the number of ends given: each falls to the seams with the share that the
        sections there have in all. None where there is nothing to compare with.
    """
    ends, sections = at_seams.ends + elsewhere.ends, at_seams.sections + elsewhere.sections
    if not elsewhere.sections or not at_seams.sections or not ends:
        return None
    if not at_seams.ends:
        return 1.0
    return float(betainc(at_seams.ends, ends - at_seams.ends + 1, at_seams.sections / sections))


def chance_of_broken(broken: int, objects: int, share: float) -> float:
    """Give how likely it is that so many objects, or more, are broken where each is with a chance of `share`."""
    return 1.0 if not broken or share >= 1 else float(betainc(broken, objects - broken + 1, share))


def least_broken(objects: int, share: float, unlikely: float) -> int | None:
    """Give how many broken objects, among so many, have a chance below `unlikely`; None if not even all of them have.

    Parameters
    ----------
    objects : int
        How many there are.
    share : float
        As for `chance_of_broken`.
    unlikely : float
        The limit.
    """
    low, high = 1, objects + 1
    while low < high:
        middle = (low + high) // 2
        if middle > objects or chance_of_broken(middle, objects, share) < unlikely:
            high = middle
        else:
            low = middle + 1
    return low if low <= objects else None


def broken_objects(
    objects: NDArray[np.int64], labels: NDArray[np.integer[Any]], wanted: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find objects that another label image holds in pieces, or not at all.

    Parameters
    ----------
    objects, labels : ndarray of int
        Objects 1 to n and those of the other image, of the same shape; 0 for background.
    wanted : ndarray of int64
        The objects that are looked for.

    Returns
    -------
    ndarray of int64
        Those of them of which less than half is in any one object of the other image, or in which a second one lies
        with most of its pixels, four at least.
    """
    sizes = np.bincount(labels.ravel())
    broken = []
    whole = np.bincount(objects.ravel())
    looked = np.isin(objects, wanted) & (labels > 0)
    packed = objects[looked].astype(np.uint64) << np.uint64(32) | labels[looked].astype(np.uint64)
    pairs, common = np.unique(packed, return_counts=True)
    mine, theirs = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for wish in wanted.tolist():
        inside = slice(*np.searchsorted(mine, [wish, wish + 1]).tolist())
        others, shared = theirs[inside], common[inside]
        pieces = np.count_nonzero((2 * shared > sizes[others]) & (shared >= LEAST_SECTION))
        if pieces > 1 or 2 * int(shared.max(initial=0)) < whole[wish]:
            broken.append(wish)
    return np.array(broken, dtype=np.int64)


def complete_components(
    mask: NDArray[np.bool_], region: Box, image_shape: Sequence[int], spatial_ndim: Literal[2, 3], minimum_size: int
) -> tuple[Labels, Labels]:
    """Label a region of an image, and tell the components that lie inside it from those that may reach beyond.

    Parameters
    ----------
    mask : ndarray of bool, TZYX
        The pixels of objects in the region.
    region : Box
        Where it lies in the image, TZYX.
    image_shape : sequence of int
        Of the whole image, TZYX.
    spatial_ndim : {2, 3}
        As for `label_core`.
    minimum_size : int
        Complete components with fewer pixels are none.

    Returns
    -------
    complete, open : ndarray of uint32, TZYX
        Ids of either, 0 elsewhere.
    """
    found = label_core(mask, region, image_shape, spatial_ndim)
    is_open = open_components(found.summary, region, image_shape)
    ids = np.arange(is_open.size, dtype=np.uint32)
    large = np.concatenate([[False], found.summary.area >= minimum_size])
    return np.where(~is_open & large, ids, 0)[found.labels], np.where(is_open, ids, 0)[found.labels]


def odd_pixels(complete: Labels, opened: Labels, labels: Labels) -> NDArray[np.int64]:
    """Compare the objects of a region with what they should be, as partitions: the numbers do not matter.

    Parameters
    ----------
    complete : ndarray of uint32
        Ids of the objects that the region holds wholly, 0 elsewhere.
    opened : ndarray of uint32
        Ids of what may be part of other objects, which reach beyond the region; 0 elsewhere.
    labels : ndarray of uint32
        The objects that are to be checked.

    Returns
    -------
    ndarray of int64, shape (faults, ndim)
        A pixel of each object that is not one: split, fused with another one, missing, or of nothing.
    """
    beyond = opened > 0
    elsewhere = np.unique(labels[beyond])
    where = np.flatnonzero(~beyond & ((complete > 0) | (labels > 0)))
    expected, found, first = _pairs(complete, labels, where)
    wrong = (expected == 0) | (found == 0) | _repeated(expected) | _repeated(found) | np.isin(found, elsewhere)
    return np.stack(np.unravel_index(first[wrong], labels.shape), axis=1).astype(np.int64)


def odd_neighbours(mask: NDArray[np.bool_], values: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """Find pixels that face each other and cannot both be right, whatever else there is in the image.

    All pixels of a component are alike, and so are all of a region of background, for it is a hole or none. What is
    alike is for the caller to say. A region that is not left empty is a hole of all components that it touches, so
    these are one, and it is as they are.

    Parameters
    ----------
    mask : ndarray of bool
        The pixels of components.
    values : ndarray
        What must be alike: numbers of objects, or whether there is one; 0 where there is none.
    axis : int
        Along which pixels face each other.

    Returns
    -------
    ndarray of bool
        One entry less than there are pixels along the axis: of each two, the first one's.
    """
    low = (slice(None),) * axis + (slice(None, -1),)
    high = (slice(None),) * axis + (slice(1, None),)
    filled = ~mask & (values != 0)
    odd: NDArray[np.bool_] = (values[low] != values[high]) & ((mask[low] == mask[high]) | filled[low] | filled[high])
    return odd


def _pairs(one: Labels, other: Labels, where: NDArray[np.intp]) -> tuple[Labels, Labels, NDArray[np.int64]]:
    """Give the different pairs of labels at flat positions, and the first position of each."""
    packed = one.ravel()[where].astype(np.uint64) << np.uint64(32) | other.ravel()[where]
    pairs, first = np.unique(packed, return_index=True)
    low = pairs & np.uint64(0xFFFFFFFF)
    return (pairs >> np.uint64(32)).astype(np.uint32), low.astype(np.uint32), where[first].astype(np.int64)


def _repeated(values: Labels) -> NDArray[np.bool_]:
    """Tell which entries occur more than once."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[inverse] > 1
