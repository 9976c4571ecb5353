"""How well objects agree with annotated ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_matrix

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Agreement", "match_objects"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Counts of objects, which add up over images.

    Parameters
    ----------
    matched : int
        Objects that match an annotated one.
    found : int
        All objects.
    annotated : int
        All annotated objects.
    """

    matched: int = 0
    found: int = 0
    annotated: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.matched + other.matched, self.found + other.found, self.annotated + other.annotated)

    @property
    def f1(self) -> float:
        """Twice the matches over all objects of both kinds; 1 where there are none at all."""
        total = self.found + self.annotated
        return 2 * self.matched / total if total else 1.0

    @property
    def precision(self) -> float:
        """Share of the objects that match."""
        return self.matched / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Share of the annotated objects that are matched."""
        return self.matched / self.annotated if self.annotated else 1.0


def match_objects(found: NDArray[np.integer], annotated: NDArray[np.integer], threshold: float = 0.5) -> Agreement:
    """Count objects whose intersection over union with an annotated one is above a threshold.

    Above 0.5 an object can match one other at most, so no assignment is needed.

    Parameters
    ----------
    found, annotated : ndarray of int
        Label images of one shape, 0 for background.
    threshold : float
        At least 0.5.

    Returns
    -------
    Agreement

    Raises
    ------
    ConfigError
        If the threshold is below 0.5, where an object could match several.
    """
    if threshold < 0.5:
        raise ConfigError(f"a threshold of {threshold} lets an object match several others; use 0.5 or more")
    ours, our_ids = np.unique(found, return_inverse=True)
    theirs, their_ids = np.unique(annotated, return_inverse=True)
    ones = np.ones(found.size, dtype=np.int64)
    table = coo_matrix((ones, (our_ids.ravel(), their_ids.ravel())), shape=(ours.size, theirs.size)).tocsr()
    our_area = np.asarray(table.sum(axis=1)).ravel()
    their_area = np.asarray(table.sum(axis=0)).ravel()
    pairs = table.tocoo()
    union = our_area[pairs.row] + their_area[pairs.col] - pairs.data
    real = (ours[pairs.row] != 0) & (theirs[pairs.col] != 0)
    return Agreement(
        matched=int((real & (pairs.data > threshold * union)).sum()),
        found=int((ours != 0).sum()),
        annotated=int((theirs != 0).sum()),
    )
