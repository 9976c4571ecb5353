"""Ground of one value at a window's side is not computed, and nothing shows that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.bench import Bench
from pipeline.engine.executor import SerialExecutor
from pipeline.ground import WORTH, find_varying, predict_varying
from pipeline.jobs import crop_of
from pipeline.models.architecture import Precision
from pipeline.planning import RunPlan
from pipeline.stages import run_stage
from tests.test_lowering import plan_of

SHAPES = {"valid": (500, 420), "same": (500, 420), "volume": (70, 150, 130)}
DIGITS = 1e-6
"""What the last digits of a score may differ by, as between two tile sizes."""

TILES = {"valid": 384, "same": 384, "volume": 64}


@pytest.fixture(scope="module", params=SHAPES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    network = request.param
    plan = plan_of(tmp_path_factory.mktemp(network), "out", network, SHAPES[network], TILES[network])
    for stage in ("create", "read", "statistics"):
        run_stage(stage, plan, SerialExecutor())
    return Bench(plan)


def in_precision(plan: RunPlan, precision: Precision) -> RunPlan:
    return plan.model_copy(update={"precision": precision})


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.6)), min_size=3, max_size=3),
    ground=st.sampled_from([0.0, -1.5, 0.37]),
    precision=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_part_of_a_window_gives_what_the_whole_does(
    bench: Bench, places: list[tuple[float, float]], ground: float, precision: Precision, seed: int
) -> None:
    plan = in_precision(bench.plan, precision)
    predictor = Bench(plan).predictor
    tile = plan.tiles[0]
    shape = plan.footprint.window_shape(plan.core)[4 - plan.spatial_ndim :]
    window = np.full((1, *shape), ground, dtype=np.float32)
    varying = tuple(
        slice(int(start * edge), int(start * edge) + max(1, int(length * edge)))
        for (start, length), edge in zip(places, shape, strict=False)
    )
    window[(slice(None), *varying)] = np.random.default_rng(seed).normal(size=window[(slice(None), *varying)].shape)
    found = find_varying(window, plan)
    assume(found is not None)
    assert found is not None
    assert 1 - found.spared <= WORTH
    crops = [crop_of(plan, tile, tile.owned), tuple(slice(40, 60) for _ in shape)]
    whole = predictor.predict(window, scores=True, samples=crops)
    part = predict_varying(predictor, plan, window, found, scores=True, samples=crops)
    core = (slice(None), *crop_of(plan, tile, tile.core))
    assert whole.scores is not None
    assert part.scores is not None
    assert np.abs(part.scores[core] - whole.scores[core]).max() <= DIGITS
    ranked = np.sort(whole.scores[core], axis=0)
    clear = ranked[-1] - ranked[-2] > 2 * DIGITS
    np.testing.assert_array_equal(part.classes[core[1:]][clear], whole.classes[core[1:]][clear])
    for one, other in zip(part.samples, whole.samples, strict=True):
        assert one.shape == other.shape
    assert np.abs(part.samples[0] - whole.samples[0]).max() <= DIGITS


def test_what_has_no_ground_or_hardly_any_is_computed_whole(bench: Bench, tmp_path: Path) -> None:
    plan = bench.plan
    shape = plan.footprint.window_shape(plan.core)[4 - plan.spatial_ndim :]
    noise = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    assert find_varying(noise, plan) is None
    nearly = noise.copy()
    nearly[..., :4] = 0
    assert find_varying(nearly, plan) is None
    half = noise.copy()
    half[..., shape[-1] // 2 :] = 0
    assert find_varying(half, plan) is not None
    # Only there do parts give the bits of the whole.
    for changes in ({"device": "cuda"}, {"precision": "float64"}, {"classes": tuple(map(str, range(200)))}):
        assert find_varying(half, plan.model_copy(update=changes)) is None
