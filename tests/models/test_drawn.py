"""Some networks drawn by chance, against the truth; `make networks` tries hundreds."""

from __future__ import annotations

import pytest

from tests.models.drawn_trials import try_network


@pytest.mark.parametrize("number", range(8))
def test_what_is_derived_of_a_network_drawn_by_chance_is_true(number: int) -> None:
    assert try_network(1, number).faults == []
