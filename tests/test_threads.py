"""The threads of one worker share a bench: one network, and the labels of a single thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from pipeline.bench import Bench, bench_for
from pipeline.config import make_config
from pipeline.engine.cluster import ClusterSpec, connect, open_cluster
from pipeline.engine.executor import SerialExecutor
from pipeline.geometry import Box
from pipeline.images.discover import InputImage
from pipeline.planning import Intent, RunPlan
from pipeline.run import prepare, run_image
from pipeline.stages import run_stage, stage_names
from tests.faults.run import contents
from tests.random_models import save_threshold_model

THREADS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], RunPlan]:
    folder = tmp_path_factory.mktemp("made")
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(290, 300)), 4)
    tifffile.imwrite(folder / "a.tif", ((noise + 1) * 10000).astype(np.uint16), tile=(64, 64))
    model = save_threshold_model(folder / "model", 2)
    config = make_config({"model": model, "tile": 64, "instances": {"method": "watershed"}, "output": {"chunk": 64}})
    intent = Intent(device="cpu", worker_memory=2**32)
    return lambda output: prepare(config, InputImage(str(folder / "a.tif"), "a"), output, intent)


@pytest.fixture
def eager() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(act: Callable[[int], Any]) -> list[Any]:
    """Do something in several threads that start together."""
    barrier = Barrier(THREADS)

    def begin(number: int) -> Any:  # noqa: ANN401
        barrier.wait(60)
        return act(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_threads_get_one_bench_and_one_network_and_the_classes_of_one_thread(
    made: Callable[[Path], RunPlan], tmp_path: Path
) -> None:
    plan = made(tmp_path)
    for stage in stage_names(plan)[: stage_names(plan).index("segment") + 1]:
        run_stage(stage, plan, SerialExecutor())
    for name in ("predictor", "source", "scalings", "samples"):
        bench = Bench(plan)

        def ask(_: int, bench: Bench = bench, name: str = name) -> object:
            return getattr(bench, name)

        assert len({id(found) for found in at_once(ask)}) == 1
    # Of a plan that no bench was made for yet, and with a network that has not been loaded yet.
    other = plan.model_copy(update={"digest": "0" * 64, "precision": "float64"})
    assert len({id(found) for found in at_once(lambda _: bench_for(other))}) == 1
    assert len({id(found) for found in at_once(lambda _: Bench(other).predictor)}) == 1

    whole = bench.array("labels/semantic/0").read(Box((0, 0, 0, 0), plan.label_shape))
    assert len(plan.tiles) > 16

    def look(number: int) -> int:
        draw = np.random.default_rng(number)
        for _ in range(200):
            y, x = (int(draw.integers(0, length - 70)) for length in plan.label_shape[2:])
            box = Box((0, 0, y, x), (1, 1, y + 70, x + 70))
            np.testing.assert_array_equal(bench.classes_in(box), whole[box.slices])
        return 200

    assert at_once(look) == [200] * THREADS


@pytest.mark.slow
def test_a_worker_of_several_threads_makes_the_result_of_one_thread(
    made: Callable[[Path], RunPlan], tmp_path: Path
) -> None:
    run_image(made(tmp_path / "serial"), SerialExecutor())
    with open_cluster(ClusterSpec(workers=1, threads=THREADS)) as address, connect(address) as executor:
        run_image(made(tmp_path / "threads"), executor)
    assert contents(tmp_path / "threads") == contents(tmp_path / "serial")
