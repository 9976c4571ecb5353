"""Sizes along several axes in one unit."""

from __future__ import annotations

import pytest

from pipeline.measure.units import in_one_unit


def test_lengths_are_converted_to_the_unit_of_the_last_axis() -> None:
    sizes, positions, unit = in_one_unit((325.0, 0.65), (1000.0, 2.0), ("nanometer", "micrometer"))
    assert sizes == pytest.approx((0.325, 0.65))
    assert positions == pytest.approx((1.0, 2.0))
    assert unit == "micrometer"


@pytest.mark.parametrize("units", [(None, "micrometer"), ("micrometer", None), ("furlong", "micrometer")])
def test_units_that_cannot_be_converted_leave_numbers_without_a_unit(units: tuple[str | None, str | None]) -> None:
    assert in_one_unit((2.0, 3.0), (0.0, 1.0), units) == ((2.0, 3.0), (0.0, 1.0), None)


def test_any_unit_is_kept_where_all_axes_have_it() -> None:
    assert in_one_unit((2.0,), (0.0,), ("furlong",)) == ((2.0,), (0.0,), "furlong")
