"""Which tile is chosen: the arithmetic that is counted, the times that are measured, and who keeps to it."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import calibration
from pipeline.calibration import known_rates, settle_plan
from pipeline.config import RunConfig, make_config
from pipeline.engine.executor import SerialExecutor
from pipeline.errors import PlanError
from pipeline.images.discover import InputImage
from pipeline.models.architecture import UNetConfig
from pipeline.models.facts import count_work, unet_context
from pipeline.models.unet import UNet
from pipeline.planning import Intent, RunPlan
from pipeline.rates import Measured, Rates, load_rates, save_rates
from pipeline.run import prepare, prepare_anew, run_image
from pipeline.stages import run_stage
from pipeline.stores.publish import read_provenance
from pipeline.tiles import Wanted, candidates, choose_tiling
from tests.random_models import save_random_model
from tests.test_audit import noise

INTENT = Intent(device="cpu", worker_memory=2**33)


@pytest.mark.parametrize(
    "architecture",
    [
        UNetConfig(depth=2, base_channels=3, in_channels=2, classes=4),
        UNetConfig(depth=3, base_channels=2, padding="same", norm="batch"),
        UNetConfig(dims=3, depth=2, base_channels=2),
        UNetConfig(dims=3, depth=1, base_channels=2, padding="same"),
    ],
)
def test_the_work_of_any_window_follows_from_a_few_that_were_counted(architecture: UNetConfig) -> None:
    context = unet_context(architecture)
    work = count_work(UNet(architecture).eval(), architecture.in_channels, context)
    assert work is not None
    for core in ((8, 8, 8), (64, 8, 32), (1024, 96, 512)):
        window = architecture.footprint.window_shape(core[: architecture.dims])
        assert work.flops(window) == architecture.flops(window)


def wanted(shape: tuple[int, ...] = (20_000, 20_000), workers: int = 2, budget: int = 2**33) -> Wanted:
    architecture = UNetConfig(base_channels=16)
    return Wanted(
        shape=shape,
        planes=1,
        footprint=architecture.footprint,
        chunk=(512, 512),
        memory=lambda window: architecture.window_bytes(window, "float32"),
        flops=architecture.flops,
        budget=budget,
        workers=workers,
    )


def rates(speeds: dict[int, float]) -> Rates:
    """Give rates, in FLOP/s by the edge of a core."""
    architecture, found = UNetConfig(base_channels=16), []
    for edge, speed in speeds.items():
        window = architecture.footprint.window_shape((edge, edge))
        flops = architecture.flops(window)
        found.append(Measured(window=window, flops=flops, seconds=flops / speed))
    return Rates(measured=tuple(found))


def test_the_tile_of_least_time_is_taken_if_it_fits() -> None:
    fast_when_small = rates({256: 4e11, 512: 4e11, 768: 1e11, 2048: 1e11})
    core, tiling = choose_tiling(wanted(), None, 2**34, fast_when_small)
    assert core == (512, 512)
    assert tiling.by == "time"
    assert tiling.seconds == min(each.seconds for each in tiling.alternatives if each.seconds is not None)
    steady = rates({256: 1e11, 2048: 1e11})
    core, tiling = choose_tiling(wanted(), None, 2**34, steady)
    assert max(core) > 1024, "at a steady rate, the least context is the best"
    tight = wanted(budget=2**29)
    core, tiling = choose_tiling(tight, None, 2**34, steady)
    assert tight.memory(tight.footprint.window_shape(core)) <= 2**29
    assert {each.fits for each in tiling.alternatives} == {True, False}


def test_without_measured_times_or_where_little_is_to_do_the_tile_is_as_ever() -> None:
    small = wanted((3000, 3000))
    as_ever, tiling = choose_tiling(small, None, 2**34, None)
    assert (tiling.by, tiling.seconds) == ("memory", None)
    quick = rates({256: 1e12, 2048: 1e11})
    assert choose_tiling(small, None, 2**34, quick)[0] == as_ever
    assert choose_tiling(small, None, 2**34, quick, always=True)[0] != as_ever
    core, tiling = choose_tiling(small, 300, 2**34, quick, always=True)
    assert (core, tiling.by) == ((304, 304), "wish")
    with pytest.raises(PlanError, match="even a tile of"):
        choose_tiling(wanted(budget=2**20), None, 2**34, quick)


@given(
    shape=st.tuples(*[st.integers(1, 700)] * 3),
    workers=st.integers(1, 40),
    planes=st.integers(1, 3),
    budget=st.sampled_from([2**28, 2**30, 2**33]),
)
def test_the_tile_of_a_volume_is_that_of_the_least_arithmetic(
    shape: tuple[int, int, int], workers: int, planes: int, budget: int
) -> None:
    architecture = UNetConfig(dims=3, depth=3, base_channels=16)
    volume = Wanted(
        shape=shape, planes=planes, footprint=architecture.footprint, chunk=(16, 512, 512),
        memory=lambda window: architecture.window_bytes(window, "float32", streamed=True), flops=architecture.flops,
        budget=budget, workers=workers,
    )  # fmt: skip
    try:
        core, tiling = choose_tiling(volume, None, 2**34, None)
    except PlanError:
        return
    assert tiling.by == "arithmetic"
    assert (tiling.seconds, prod(core) <= 2**22) == (None, True)
    work = {each.core: -(-each.tiles // workers) * each.window_flops for each in tiling.alternatives
            if each.fits and prod(each.core) <= 2**22}  # fmt: skip
    assert work[core] <= 1.01 * min(work.values())


def test_on_a_gpu_the_tile_of_a_plane_is_that_of_the_least_arithmetic_too() -> None:
    on_gpu = wanted((16_384, 16_384), workers=16).model_copy(update={"device": "cuda"})
    core, tiling = choose_tiling(on_gpu, None, 2**34, None)
    assert (core, tiling.by) == ((2048, 2048), "arithmetic")
    falling = rates({256: 5e10, 512: 4e10, 768: 2e10, 1024: 1e10})
    core, tiling = choose_tiling(on_gpu, None, 2**34, falling)
    assert (max(core) <= 512, tiling.by) == (True, "time"), "what was measured counts"
    few = on_gpu.model_copy(update={"shape": (4096, 4096)})
    assert max(choose_tiling(few, None, 2**34, None)[0]) <= 1024, "each of 16 workers has something to do"


def test_the_tile_of_a_volume_costs_a_third_of_that_of_the_3_d_u_nets_paper() -> None:
    architecture = UNetConfig(dims=3, depth=3, base_channels=16)
    volume = Wanted(
        shape=(192, 512, 512), planes=1, footprint=architecture.footprint, chunk=(16, 512, 512),
        memory=lambda window: architecture.window_bytes(window, "float32", streamed=True), flops=architecture.flops,
        budget=2**32, workers=2,
    )  # fmt: skip
    core, tiling = choose_tiling(volume, None, 2**34, None)
    chosen, paper = (
        next(each.tiles * each.window_flops for each in tiling.alternatives if each.core == edges)
        for edges in (core, (48, 48, 48))
    )
    assert paper > 3 * chosen


@given(st.integers(1, 30_000), st.integers(1, 30_000))
def test_every_candidate_is_legal_and_none_is_larger_than_the_image_needs(rows: int, columns: int) -> None:
    for_this = wanted((rows, columns))
    found = list(candidates(for_this))
    assert len(found) == len(set(found)) > 0
    for core in found:
        for edge, length, step in zip(core, for_this.shape, for_this.footprint.step, strict=True):
            assert edge % step == 0
            assert edge < length + max(step, 128)


@given(st.floats(0.3, 1.0))
def test_times_are_interpolated_between_those_that_were_measured_and_never_far_beyond(at: float) -> None:
    measured = Rates(
        measured=(
            Measured(window=(100, 100), flops=10**6, seconds=1.0),
            Measured(window=(200, 200), flops=10**7, seconds=2.0),
        )
    )
    assert measured.seconds((100, 100), 10**6) == pytest.approx(1.0)
    assert measured.seconds((200, 200), 10**7) == pytest.approx(2.0)
    assert measured.seconds((600, 600), 10**8) is None
    edge = round(200 * at)
    between = measured.seconds((edge, edge), 10**7)
    assert between is not None
    assert 2.0 - 1e-9 <= between <= 10.0 + 1e-9


def test_planes_larger_than_the_measured_ones_are_estimated_where_those_grew_no_slower() -> None:
    small = {256: 3.0e11, 512: 3.1e11, 768: 3.1e11}
    core, tiling = choose_tiling(wanted(), None, 2**34, rates(small))
    assert (max(core) > 1024, tiling.by) == (True, "time")
    slower = rates({**small, 1024: 2.9e11})
    seconds = {each.core: each.seconds for each in choose_tiling(wanted(), None, 2**34, slower)[1].alternatives}
    assert seconds[max(seconds)] is None
    volume = Measured(window=(64, 64, 64), flops=10**9, seconds=0.1)
    steady = Rates(measured=(volume, Measured(window=(96, 96, 96), flops=4 * 10**9, seconds=0.4)))
    assert steady.seconds((256, 256, 256), 10**11) is None, "of a volume arithmetic decides"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def image(tmp_path: Path) -> InputImage:
    return InputImage(str(noise(tmp_path / "a.ome.tif", (300, 310), "YX")), "a")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=2, classes=3))


def settled(image: InputImage, out: Path, config: RunConfig) -> RunPlan:
    remake = partial(prepare_anew, config, image, out, INTENT)
    return settle_plan(prepare(config, image, out, INTENT), config, remake, SerialExecutor())


def test_what_was_measured_is_kept_for_the_next_run(
    cache: Path, image: InputImage, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({"model": model, "planner": "measure"})
    first = settled(image, tmp_path / "out", config)
    assert first.tiling is not None
    assert first.tiling.by == "time"
    assert first.tiling.seconds is not None
    (kept,) = (cache / "seamfree" / "rates").iterdir()
    monkeypatch.setattr(calibration, "measure_windows", None)
    again = settled(image, tmp_path / "out", config)
    assert again == first
    assert known_rates(again, make_config({"model": model, "planner": "off"})) is None
    kept.write_text("{")
    assert known_rates(again, config) is None
    report = run_image(first, SerialExecutor())
    assert report.status == "done"
    network = read_provenance(Path(first.output))["timings"]["network"]
    assert network["expected"] == first.tiling.seconds
    assert network["took"] > 0


def prefer(plan: RunPlan, core: tuple[int, ...], config: RunConfig) -> None:
    """Let another machine be the one that is fast at windows of another size: note so where this one would."""
    assert plan.tiling is not None
    found = [
        Measured(
            window=each.window,
            flops=each.window_flops,
            seconds=each.window_flops / (1e12 if each.core == core else 1e6),
        )
        for each in plan.tiling.alternatives
    ]
    save_rates(calibration._key(plan), Rates(measured=tuple(found)))
    assert load_rates(calibration._key(plan)) is not None


@pytest.mark.usefixtures("cache")
def test_an_interrupted_run_keeps_its_tile_where_measuring_is_asked_for_later(
    image: InputImage, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    began = settled(image, out, make_config({"model": model, "planner": "off"}))
    run_stage("create", began, SerialExecutor())
    assert began.tiling is not None
    other = next(each for each in began.tiling.alternatives if each.core != began.core[2:])
    found = Rates(measured=(Measured(window=other.window, flops=other.window_flops, seconds=1e-6),))
    monkeypatch.setattr(calibration, "_measured", lambda *_, **__: found)
    resumed = settled(image, out, make_config({"model": model, "planner": "measure"}))
    assert (resumed.core, resumed.digest) == (began.core, began.digest)
    again = settled(image, out, make_config({"model": model, "planner": "off", "execution": {"workers": 1}}))
    assert again.digest == began.digest


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_an_interrupted_run_keeps_its_tile_whatever_is_measured_meanwhile(
    image: InputImage, tmp_path: Path, precision: str
) -> None:
    large = InputImage(str(noise(tmp_path / "large.ome.tif", (900, 310), "YX")), "a")
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=2, classes=3))
    config = make_config({"model": model, "precision": precision})
    out = tmp_path / "out"
    began = settled(large, out, config)
    for stage in ("create", "read", "statistics", "check"):
        run_stage(stage, began, SerialExecutor())
    other = next(each.core for each in began.tiling.alternatives if each.core != began.core[2:])  # type: ignore[union-attr]
    prefer(began, other, config)
    assert prepare(config, large, out, INTENT).core[2:] == other
    resumed = settled(large, out, config)
    assert (resumed.core, resumed.digest) == (began.core, began.digest)
    assert run_stage("create", resumed, SerialExecutor()) == {"resumed": True}
    assert settled(large, tmp_path / "elsewhere", config).core[2:] == other
    smaller: Any = make_config({"model": model, "precision": precision, "tile": 64})
    assert settled(large, out, smaller).core[2:] == (64, 64), "what the user says now counts"
