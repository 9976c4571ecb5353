"""Some networks drawn by chance, against the truth; `make networks` tries hundreds."""

from __future__ import annotations

import pytest

from tests.models.drawn_trials import try_network

# The last one is refused by a trace of it at sizes that a wrong stride would make legal.
DRAWN = (*((1, number) for number in (1, 2, 3, 4, 5, 20)), (2, 104))


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "number"), DRAWN)
def test_what_is_derived_of_a_network_drawn_by_chance_is_true(seed: int, number: int) -> None:
    assert try_network(seed, number).faults == []
