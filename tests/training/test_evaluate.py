"""Matching of objects, against brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.training.evaluate import Agreement, match_objects

# Runs of equal labels, so that objects overlap enough to match.
label_pairs = st.tuples(st.integers(1, 5), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(
        *(hnp.arrays(np.int32, shape, elements=st.sampled_from([0, 1, 2, 900]), fill=st.just(1)) for _ in range(2))
    )
)


def brute_force(found: NDArray[np.int32], annotated: NDArray[np.int32], threshold: float) -> Agreement:
    ours = [found == number for number in np.unique(found) if number]
    theirs = [annotated == number for number in np.unique(annotated) if number]
    matched = 0
    for one in ours:
        matched += sum((one & other).sum() > threshold * (one | other).sum() for other in theirs)
    return Agreement(int(matched), len(ours), len(theirs))


def squares(*places: tuple[int, int, int, int]) -> NDArray[np.int32]:
    labels = np.zeros((30, 30), dtype=np.int32)
    for number, (top, bottom, left, right) in enumerate(places, 1):
        labels[top:bottom, left:right] = number
    return labels


ONE = squares((5, 15, 5, 15))
TWO = squares((5, 15, 5, 15), (5, 15, 15, 25))


@settings(max_examples=200, deadline=None)
@given(label_pairs, st.sampled_from([0.5, 0.6, 0.75, 0.9]))
def test_counts_are_those_of_brute_force(pair: tuple[NDArray[np.int32], NDArray[np.int32]], threshold: float) -> None:
    agreement = match_objects(*pair, threshold)
    assert agreement == brute_force(*pair, threshold)
    assert agreement.matched <= min(agreement.found, agreement.annotated)
    assert 0 <= agreement.f1 <= 1


@settings(max_examples=50, deadline=None)
@given(label_pairs)
def test_found_and_annotated_are_treated_alike(pair: tuple[NDArray[np.int32], NDArray[np.int32]]) -> None:
    one, other = match_objects(*pair), match_objects(*pair[::-1])
    assert (one.matched, one.found, one.annotated) == (other.matched, other.annotated, other.found)
    assert one.f1 == other.f1


@pytest.mark.parametrize(
    ("found", "annotated", "expected"),
    [
        (TWO, TWO, Agreement(2, 2, 2)),
        (TWO * 300, TWO, Agreement(2, 2, 2)),
        (squares((5, 15, 5, 10), (5, 15, 10, 15)), ONE, Agreement(0, 2, 1)),
        (squares((5, 15, 5, 12), (5, 15, 12, 15)), ONE, Agreement(1, 2, 1)),
        (squares((5, 15, 5, 25)), TWO, Agreement(0, 1, 2)),
        (squares((5, 15, 5, 21)), squares((5, 15, 5, 17), (5, 15, 17, 21)), Agreement(1, 1, 2)),
        (ONE, TWO, Agreement(1, 1, 2)),
        (TWO, ONE, Agreement(1, 2, 1)),
        (squares((5, 15, 9, 19)), ONE, Agreement(0, 1, 1)),
        (squares((5, 15, 7, 17)), ONE, Agreement(1, 1, 1)),
        (squares(), ONE, Agreement(0, 0, 1)),
        (ONE, squares(), Agreement(0, 1, 0)),
        (squares(), squares(), Agreement(0, 0, 0)),
    ],
    ids=[
        "the same", "other numbers", "split in halves", "split unevenly", "merged", "merged with a small one", "missed",
        "invented", "moved far", "moved a little", "nothing found", "nothing there", "nothing at all",
    ],
)  # fmt: skip
def test_counts_by_hand(found: NDArray[np.int32], annotated: NDArray[np.int32], expected: Agreement) -> None:
    assert match_objects(found, annotated) == expected


def test_an_overlap_of_exactly_the_threshold_is_no_match() -> None:
    assert match_objects(squares((5, 15, 5, 10)), ONE).matched == 0
    assert match_objects(squares((5, 15, 5, 11)), ONE).matched == 1
    assert match_objects(squares((5, 15, 5, 11)), ONE, threshold=0.6).matched == 0


def test_scores_follow_from_the_counts() -> None:
    total = Agreement(3, 4, 5) + Agreement(1, 2, 3)
    assert total == Agreement(4, 6, 8)
    assert (total.precision, total.recall) == (4 / 6, 4 / 8)
    assert total.f1 == pytest.approx(2 * total.precision * total.recall / (total.precision + total.recall))
    assert (Agreement().f1, Agreement(0, 0, 3).f1, Agreement(0, 3, 0).f1) == (1, 0, 0)


def test_thresholds_at_which_an_object_matches_several_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.4"):
        match_objects(ONE, TWO, threshold=0.4)
