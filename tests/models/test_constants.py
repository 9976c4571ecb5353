"""Windows of one value: known by their bits, computed once, and given to the bit as computed anew."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.architecture import Precision
from pipeline.models.constants import KEPT, Constants, ground_of, value_of
from pipeline.models.library import load_model
from pipeline.models.passes import symmetries
from pipeline.models.predictor import Prediction, Predictor
from tests.models.test_predictor import FLAT
from tests.random_models import save_random_model

SHAPE = FLAT.footprint.window_shape((24, 24))
PARTS = [(slice(3, 9), slice(0, 5)), (slice(None), slice(20, None))]


def flat_window(*values: float, dtype: type[np.floating] = np.float32) -> np.ndarray:
    return np.broadcast_to(np.array(values, dtype=dtype)[:, None, None], (len(values), *SHAPE)).copy()


def same(one: Prediction, other: Prediction) -> None:
    assert one.scores is not None
    assert other.scores is not None
    assert one.scores.tobytes() == other.scores.tobytes()
    assert one.classes.tobytes() == other.classes.tobytes()
    assert [part.tobytes() for part in one.samples] == [part.tobytes() for part in other.samples]


@pytest.mark.parametrize(("averaged", "precision"), [(False, "float32"), (True, "float64"), (False, "bfloat16")])
def test_a_window_of_one_value_is_computed_once_and_to_the_bit(
    averaged: bool, precision: Precision, tmp_path: Path
) -> None:
    model = save_random_model(tmp_path / "model", FLAT)
    turned = symmetries(2, exchange=True) if averaged else ()
    once = Predictor(load_model(model), "cpu", precision, None, turned)
    anew = Predictor(load_model(model), "cpu", precision, None, turned)
    kind: type[np.floating] = np.float64 if precision == "float64" else np.float32
    for number, values in enumerate([(0.0, 0.0), (1.0, 0.25), (0.0, 0.0), (0.25, 1.0), (1.0, 0.25), (0.0, 0.0)]):
        window = flat_window(*values, dtype=kind)
        found = once.predict(window, scores=True, samples=PARTS, reuse=True)
        wanted = anew.predict(window, scores=True, samples=PARTS)
        same(found, wanted)
        assert not wanted.reused
        # Two are kept, so that the third made the second one, which was wanted the longest ago, be forgotten.
        assert found.reused == (number == 2 or (number == 5 and KEPT > 2)), number
        # Whoever writes into what was given, writes into nothing that is kept.
        found.classes[:] = 7
        assert found.scores is not None
        found.scores[:] = 7


def test_windows_of_another_shape_or_value_are_others(tmp_path: Path) -> None:
    predictor = Predictor(load_model(save_random_model(tmp_path / "model", FLAT)), "cpu", "float32")
    assert not predictor.predict(flat_window(0.5, 0.5), reuse=True).reused
    larger = FLAT.footprint.window_shape((32, 24))
    found = predictor.predict(np.full((2, *larger), 0.5, dtype=np.float32), reuse=True)
    assert not found.reused
    assert found.classes.shape == (32, 24)
    odd = flat_window(0.5, 0.5)
    odd[1, 7, 11] = np.nextafter(np.float32(0.5), np.float32(1))
    assert not predictor.predict(odd, reuse=True).reused
    assert predictor.predict(flat_window(0.5, 0.5), reuse=True).reused


def test_values_are_known_by_their_bits_in_any_layout() -> None:
    window = flat_window(0.0, 3.5)
    assert value_of(window) == np.array([0.0, 3.5], dtype=np.float32).tobytes()
    assert value_of(np.asfortranarray(window)) == value_of(window)
    assert value_of(np.repeat(window, 2, axis=2)[..., ::2]) == value_of(window)
    signed = window.copy()
    signed[0, 5, 5] = -0.0
    assert value_of(signed) is None
    assert value_of(flat_window(-0.0, 3.5)) != value_of(window)
    for place in ((0, 0), (0, 1), (SHAPE[0] // 2, 3), (-1, -1)):
        other = window.copy()
        other[(1, *place)] = 3.25
        assert value_of(other) is None


def test_what_was_not_wanted_for_longest_is_forgotten() -> None:
    kept: Constants[int] = Constants()
    for number in range(KEPT):
        kept.keep((bytes([number]), ()), number)
    assert kept.find((b"\0", ())) == 0
    kept.keep((b"x", ()), 99)
    assert kept.find((b"\1", ())) is None
    assert (kept.find((b"\0", ())), kept.find((b"x", ()))) == (0, 99)


@given(
    shape=st.lists(st.integers(2, 7), min_size=2, max_size=3),
    channels=st.integers(1, 2),
    start=st.lists(st.integers(0, 6), min_size=3, max_size=3),
    edges=st.lists(st.integers(0, 7), min_size=3, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_ground_is_what_one_value_fills_beside_a_box(
    shape: list[int], channels: int, start: list[int], edges: list[int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    window = np.empty((channels, *shape), dtype=np.float32)
    window[:] = np.array([0.5, -0.0][:channels], dtype=np.float32).reshape(-1, *[1] * len(shape))
    varying = tuple(slice(low, low + edge) for low, edge in zip(start, edges, strict=False))[: len(shape)]
    window[(slice(None), *varying)] = random.integers(1, 3, window[(slice(None), *varying)].shape)
    ground = ground_of(window)
    if ground is None:
        corners = [
            np.array([channel[corner] for channel in window]).tobytes()
            for corner in product((0, -1), repeat=len(shape))
        ]
        assert value_of(window) is not None or max(map(corners.count, corners)) < len(corners) / 2
        return
    beside = np.ones(shape, dtype=bool)
    beside[tuple(slice(low, high) for low, high in zip(ground.start, ground.stop, strict=True))] = False
    bits, value = window.view(np.uint32), ground.value.view(np.uint32)
    assert (bits[:, beside] == value[:, None]).all()
    differs = (bits != value.reshape(-1, *[1] * len(shape))).any(axis=0)
    # No smaller box would do.
    for axis, (low, high) in enumerate(zip(ground.start, ground.stop, strict=True)):
        assert differs.take(low, axis=axis).any()
        assert differs.take(high - 1, axis=axis).any()
