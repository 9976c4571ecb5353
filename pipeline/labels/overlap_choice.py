"""Which candidates of overlapping windows become objects, from the evidence of pairs: no pixels, arrays of ids only.

Two candidates are one object if more than half of what they cover together, where both windows look, is covered by
both; or if one that is cut by its window's edge lies within the other, as far as both windows look; or if both are cut
and agree where they meet. Of one object the view is kept that lies farthest from its window's edges, so one seen whole
goes before one that is cut. Other pairs are different objects that claim some of the same pixels. One seen whole has
them before one that is cut; else the higher score, the larger one, the one that comes first in the image. What is left
with less than half of its pixels is dropped.

An object that every window cuts is larger than the stated diameter. Its pieces, each from the core of its own window,
are united where they agree in the overlap. Such pairs, and those for which the evidence is between, are ambiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.labels.overlap import WITHIN, CandidateTable, Pairs

__all__ = ["Choice", "Doubt", "choose"]

SAME = 0.5
"""Above this intersection over union, two views are of one object: no object has two such partners in one window."""

APART = 0.25
"""Two that share no more than this part of the smaller one touch in passing."""

_DECISIONS = ("merged", "apart", "dropped")


@dataclass(frozen=True, slots=True)
class Doubt:
    """A pair for which the evidence is ambiguous.

    Parameters
    ----------
    first : int
        Raster index of the first pixel that both cover.
    union, within : float
        Intersection over union, and the part of the smaller one that the other covers, where both windows look.
    cut : bool
        Whether both are cut by the edges of their windows.
    decision : str
        ``"merged"`` into one object, kept ``"apart"``, or the weaker one ``"dropped"``.
    """

    first: int
    union: float
    within: float
    cut: bool
    decision: str


@dataclass(frozen=True, eq=False)
class Choice:
    """What became of all candidates. Candidate ``k`` of tile ``i`` stands at ``offsets[i] + k - 1``.

    Parameters
    ----------
    identity : ndarray of int64
        Which object it is (part of): the position of one of its candidates; -1 for what was dropped.
    rank : ndarray of int64
        Who gets a pixel that two claim: the lower one. 0 for candidates that nobody else overlaps.
    offsets : ndarray of int64, one more than there are tiles
        Where the candidates of each tile start.
    merged, apart, ambiguous : int
        Pairs of candidates, by what the evidence says.
    cut : int
        Objects that every window cuts.
    doubts : tuple of Doubt
        The first ambiguous pairs in the order of the image.
    """

    identity: NDArray[np.int64]
    rank: NDArray[np.int64]
    offsets: NDArray[np.int64]
    merged: int
    apart: int
    ambiguous: int
    cut: int
    doubts: tuple[Doubt, ...]


@dataclass(frozen=True, eq=False)
class _Links:
    """Pairs between candidates, by their places among those that are in any pair, and what the pairs say."""

    one: NDArray[np.intp]
    two: NDArray[np.intp]
    pairs: Pairs
    both_cut: NDArray[np.bool_]
    union: NDArray[np.float64]
    within: NDArray[np.float64]
    same: NDArray[np.bool_]

    @classmethod
    def of(cls, one: NDArray[np.intp], two: NDArray[np.intp], pairs: Pairs, cut: NDArray[np.bool_]) -> Self:
        union = pairs.common / (pairs.seen_one + pairs.seen_two - pairs.common)
        smaller = np.minimum(pairs.seen_one, pairs.seen_two)
        within = pairs.common / smaller
        piece = (cut[one] & (pairs.seen_one == smaller)) | (cut[two] & (pairs.seen_two == smaller))
        same = (union > SAME) | (piece & (within >= WITHIN)) | (pairs.agreed > pairs.common / 2)
        return cls(one, two, pairs, cut[one] & cut[two], union, within, same)


def choose(
    table_of: Callable[[int], CandidateTable], pairs_of: Callable[[int], Pairs], tiles: int, listed: int = 1000
) -> Choice:
    """Choose the objects among the candidates of all windows.

    Parameters
    ----------
    table_of : callable
        Gives the candidates of a tile; called once for each, in order.
    pairs_of : callable
        Gives the pairs of a tile with later ones; called once for each, in order.
    tiles : int
        Number of tiles.
    listed : int, optional
        How many ambiguous pairs are told one by one, at most.

    Returns
    -------
    Choice
        The same whoever found the pairs in whatever order.

    Notes
    -----
    Memory: some 60 bytes for each candidate, and some hundred more for each one that is in a pair.
    """
    columns: list[tuple[NDArray[Any], ...]] = []
    counts = [0]
    found: list[Pairs] = []
    for index in range(tiles):
        table, pairs = table_of(index), pairs_of(index)
        counts.append(table.count)
        columns.append((table.clearance, table.score, table.size, table.core_size, table.first))
        found.append(pairs)
    offsets = np.cumsum(np.asarray(counts, dtype=np.int64))
    origin = np.repeat(np.arange(tiles), [pairs.one.size for pairs in found])
    pairs = Pairs.join(found)
    clearance, score, size, core_size, first = (
        np.concatenate([np.zeros(0, dtype=dtype), *parts])
        for dtype, parts in zip(("f8", "f8", "i8", "i8", "i8"), zip(*columns, strict=True), strict=True)
    )
    ends = np.stack([offsets[origin] + pairs.one - 1, offsets[pairs.other] + pairs.two - 1])
    members, places = np.unique(ends, return_inverse=True)
    one, two = places.reshape(ends.shape)
    cut = clearance[members] <= 0
    links = _Links.of(one, two, pairs, cut)
    merits = (members, first[members], -size[members], -score[members])
    rank = _ranks((*merits, cut))
    master = _best_views(links, _ranks((*merits, -clearance[members])))
    kept = master == np.arange(members.size)
    _settle(links, rank, cut, np.where(cut, core_size[members], size[members]), kept)
    master[~kept & (master == np.arange(members.size))] = -1
    _unite_cut(links, kept & cut, rank, master)
    identity = np.arange(first.size, dtype=np.int64)
    identity[members] = np.where(master >= 0, members[master], -1)
    identity[members[~kept]] = -1
    ranks = np.zeros(first.size, dtype=np.int64)
    ranks[members] = rank
    ambiguous = links.both_cut | (~links.same & (links.within > APART))
    alone = clearance <= 0
    alone[members] &= kept & (master == np.arange(members.size))
    return Choice(
        identity=identity,
        rank=ranks,
        offsets=offsets,
        merged=int(np.count_nonzero(links.same & ~ambiguous)),
        apart=int(np.count_nonzero(~links.same & ~ambiguous)),
        ambiguous=int(np.count_nonzero(ambiguous)),
        cut=int(np.count_nonzero(alone)),
        doubts=_doubts(links, ambiguous, kept, master, listed),
    )


def _ranks(keys: tuple[NDArray[Any], ...]) -> NDArray[np.int64]:
    """Rank by several keys, from 1 on, the last one first, as for ``numpy.lexsort``."""
    order = np.lexsort(keys)
    ranks = np.empty(order.size, dtype=np.int64)
    ranks[order] = np.arange(1, order.size + 1)
    return ranks


def _betters(
    links: _Links, rank: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> tuple[list[int], list[int], list[int]]:
    """Give the chosen links by their weaker end: where each candidate's begin, the better ends, the links' places."""
    first_better = rank[links.one] < rank[links.two]
    weaker, better = np.where(first_better, (links.two, links.one), (links.one, links.two))[:, chosen]
    order = np.lexsort((rank[better], weaker))
    begins = np.searchsorted(weaker[order], np.arange(rank.size + 1))
    return begins.tolist(), better[order].tolist(), np.flatnonzero(chosen)[order].tolist()


def _best_views(links: _Links, sight: NDArray[np.int64]) -> NDArray[np.intp]:
    """Say of each candidate which one shows the same object best: itself, or one with a lower rank by sight."""
    begins, better, _ = _betters(links, sight, links.same & ~links.both_cut)
    master = list(range(sight.size))
    for at in np.argsort(sight).tolist():
        for view in better[begins[at] : begins[at + 1]]:
            if master[view] == view:
                master[at] = view
                break
    return np.asarray(master, dtype=np.intp)


def _settle(
    links: _Links,
    rank: NDArray[np.int64],
    cut: NDArray[np.bool_],
    claimed: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> None:
    """Go from the best object to the weakest, and drop what better ones leave less than half of. Changes `kept`."""
    # A piece claims the pixels of its own core only, and two pieces never the same.
    common = np.where(cut[links.one], links.pairs.common_core_one, links.pairs.common)
    common = np.where(cut[links.two], np.minimum(common, links.pairs.common_core_two), common)
    begins, better, places = _betters(links, rank, kept[links.one] & kept[links.two] & ~links.both_cut)
    lost, halves = common.tolist(), (claimed / 2).tolist()
    for at in np.argsort(rank).tolist():
        here = range(begins[at], begins[at + 1])
        if here and sum(lost[places[link]] for link in here if kept[better[link]]) > halves[at]:
            kept[at] = False


def _unite_cut(links: _Links, pieces: NDArray[np.bool_], rank: NDArray[np.int64], master: NDArray[np.intp]) -> None:
    """Unite the pieces that agree; the best of each object stands for it. Changes `master`."""
    agree = links.same & pieces[links.one] & pieces[links.two]
    one, two = links.one[agree], links.two[agree]
    graph = coo_array((np.ones(one.size, dtype=np.bool_), (one, two)), shape=(rank.size, rank.size))
    _, group = connected_components(graph, directed=False)
    chosen = np.flatnonzero(pieces)
    chosen = chosen[np.argsort(rank[chosen])]
    groups, head = np.unique(group[chosen], return_index=True)
    master[chosen] = chosen[head][np.searchsorted(groups, group[chosen])]


def _doubts(
    links: _Links, ambiguous: NDArray[np.bool_], kept: NDArray[np.bool_], master: NDArray[np.intp], listed: int
) -> tuple[Doubt, ...]:
    """Tell the first ambiguous pairs, in the order of the image."""
    at = np.flatnonzero(ambiguous)
    at = at[np.lexsort((links.two[at], links.one[at], links.pairs.first[at]))][:listed]
    one, two = links.one[at], links.two[at]
    merged = (master[one] == master[two]) & (master[one] >= 0)
    decision = np.where(merged, 0, np.where(kept[one] & kept[two], 1, 2))
    return tuple(
        Doubt(
            int(links.pairs.first[link]),
            round(float(links.union[link]), 4),
            round(float(links.within[link]), 4),
            bool(links.both_cut[link]),
            _DECISIONS[made],
        )
        for link, made in zip(at.tolist(), decision.tolist(), strict=True)
    )
