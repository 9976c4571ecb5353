"""Too little memory for a tile: its window is computed piece by piece, and nothing of the result shows it."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from pipeline import object_jobs
from pipeline.bench import bench_for
from pipeline.config import make_config
from pipeline.engine.cluster import ClusterSpec, connect, open_cluster
from pipeline.engine.executor import Executor, SerialExecutor
from pipeline.errors import TileMemoryError
from pipeline.geometry import ways_to_cut
from pipeline.images.discover import InputImage
from pipeline.jobs import read_scaled
from pipeline.labels.parting import Piece, part_crossing
from pipeline.models.architecture import UNetConfig
from pipeline.piecewise import predict_pieces
from pipeline.planning import Intent, RunPlan
from pipeline.run import prepare, run_image
from pipeline.site import _PRELOAD
from pipeline.stages import _with_less_memory, run_stage
from pipeline.stores.publish import read_provenance
from tests.faults.run import contents
from tests.random_models import save_random_model

ROOMS = tuple(room << 20 for room in range(120, 78, -6))
"""Bytes beside those of a worker that has nothing to do: less than a pass takes, more than one on a piece.

What a pass takes depends on what the process has left from its start. So less is tried until it is too little; in small
steps, for what comes after the network must find room in it, too.
"""

INTENT = Intent(device="cpu", worker_memory=2**33)

NETWORKS = {
    "valid": UNetConfig(depth=2, base_channels=4, classes=3, norm="batch"),
    "same": UNetConfig(depth=2, base_channels=4, classes=3, padding="same"),
    "wide": UNetConfig(depth=2, base_channels=12, classes=3),
    "volume": UNetConfig(dims=3, depth=1, base_channels=2, classes=3),
}


def image_of(path: Path, shape: tuple[int, ...]) -> str:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), 3)
    tifffile.imwrite(path, ((noise / noise.std() + 4) * 6000).clip(0, 65535).astype(np.uint16), tile=(128, 128),
                     metadata={"axes": "ZYX"[-len(shape):]}, ome=True)  # fmt: skip
    return str(path)


def plan_of(folder: Path, out: str, network: str, shape: tuple[int, ...], tile: int, **settings: Any) -> RunPlan:  # noqa: ANN401
    image = folder / "a.ome.tif"
    if not image.exists():
        image_of(image, shape)
        save_random_model(folder / "model", NETWORKS[network])
    config = make_config({"model": str(folder / "model"), "tile": tile, "precision": "float32", **settings})
    return prepare(config, InputImage(str(image), "a"), folder / out, INTENT)


@pytest.mark.parametrize(
    ("network", "shape", "tile"),
    [("valid", (500, 420), 384), ("same", (500, 420), 384), ("volume", (70, 150, 130), 64)],
)
def test_a_network_says_the_same_of_a_window_and_of_its_pieces(
    network: str, shape: tuple[int, ...], tile: int, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path, "out", network, shape, tile)
    for stage in ("create", "read", "statistics"):
        run_stage(stage, plan, SerialExecutor())
    bench, free = bench_for(plan), 4 - plan.spatial_ndim
    window = read_scaled(bench, plan.tiles[0].window)
    crop = tuple(slice(start, start + edge)
                 for start, edge in zip(plan.footprint.inset[free:], plan.core[free:], strict=True))  # fmt: skip
    # One sample lies in the middle, where cuts go through it.
    middle = tuple(slice(part.start + (part.stop - part.start) // 2 - 3, part.stop - 2) for part in crop)
    whole = bench.predictor.predict(window, scores=True, samples=[middle])
    assert whole.scores is not None
    ways = ways_to_cut(plan.core, plan.footprint)
    assert len(ways) >= 2
    for pieces in ways:
        found = predict_pieces(bench.predictor, plan, window, pieces, scores=True, samples=[middle])
        assert found.scores is not None
        assert found.classes.shape == whole.classes.shape
        np.testing.assert_array_equal(found.classes[crop], whole.classes[crop])
        np.testing.assert_allclose(found.scores[(slice(None), *crop)], whole.scores[(slice(None), *crop)], atol=1e-6)
        np.testing.assert_allclose(found.samples[0], whole.samples[0], atol=1e-6)
    assert whole.scores.std() > 0.01  # or it would say little


def children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(process.children())
    return []


def workers() -> list[psutil.Process]:
    """Find the processes that compute: children of the one that forks them."""
    return [worker for server in psutil.Process().children() for worker in children(server)]


@contextmanager
def limits(room: int) -> Iterator[None]:
    """Let no worker take more bytes than so many beside those that it has."""
    for worker in workers():
        resource.prlimit(worker.pid, resource.RLIMIT_DATA, (worker.memory_info().data + room, resource.RLIM_INFINITY))
    yield
    for worker in workers():
        resource.prlimit(worker.pid, resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def lowered_tiles(plan: RunPlan) -> int:
    return int(read_provenance(Path(plan.output))["timings"]["tiles_in_pieces"])


linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are set on Linux only")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an image of two large tiles, and what comes of it undisturbed, under `whole`."""
    folder = tmp_path_factory.mktemp("large")
    run_image(large_plan(folder, "whole"), SerialExecutor())
    return folder


def large_plan(folder: Path, out: str) -> RunPlan:
    return plan_of(folder, out, "wide", (500, 1000), 512, instances={"method": "watershed"})


def run_and_compare(folder: Path, out: str, executor: Executor) -> int:
    """Run it elsewhere, compare every byte, and give how many tiles were computed in pieces."""
    plan = large_plan(folder, out)
    run_image(plan, executor)
    assert lowered_tiles(large_plan(folder, "whole")) == 0
    found, wanted = (
        {
            # Of scores, which no file holds here, the audit notes how far two windows were apart.
            name: re.sub(rb'"largest_difference_of_scores": [0-9.e-]+', b"", content)
            for name, content in contents(folder / each).items()
        }
        for each in (out, "whole")
    )
    assert [name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name)] == []
    return lowered_tiles(plan)


def test_what_depends_on_its_window_is_not_cut(large: Path) -> None:
    """A network that is not local, on which the user insists, and a function."""
    plan = large_plan(large, "whole")
    assert len(_with_less_memory(plan)) == 4
    for changed in ({"seams": "a layer sees all"}, {"instances": "overlap"}):
        assert _with_less_memory(plan.model_copy(update=changed)) == []


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("own_forkserver")
def test_a_worker_with_too_little_memory_computes_piece_by_piece_and_every_byte_is_the_same(
    large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both workers get memory for less than a window's pass."""
    lowered = 0
    for room in ROOMS:
        out = f"limited to {room}"
        plan = large_plan(large, out)
        # Others each time: what a pass has taken, a worker keeps.
        with open_cluster(ClusterSpec(workers=2, preload=_PRELOAD)) as address, connect(address) as executor:
            for stage in ("create", "read", "statistics"):
                run_stage(stage, plan, executor)
            with limits(room):
                run_stage("segment", plan, executor)
            lowered = run_and_compare(large, out, executor)
        if lowered:
            break
    assert lowered >= 1
    told = [record.getMessage() for record in caplog.records if record.name == "pipeline.engine.executor"]
    assert any("it is done again with less memory, and so is the rest of the stage (way 1 of" in line for line in told)


def test_where_memory_is_too_short_to_part_objects_the_place_and_the_setting_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing lowers this but a setting, for what is one object depends on it."""
    noise = gaussian_filter(np.random.default_rng(1).normal(size=(400, 400)), 8)
    tifffile.imwrite(tmp_path / "a.tif", ((noise / noise.std() + 4) * 6000).clip(0, 65535).astype(np.uint16))
    config = make_config({"tile": 128, "planner": "off", "audit": {"windows": 0}})
    plan = prepare(config, InputImage(str(tmp_path / "a.tif"), "a"), tmp_path / "out", INTENT)
    real = part_crossing

    def short(pieces: list[Piece], *rest: Any) -> Any:  # noqa: ANN401
        real(pieces, *rest)
        raise MemoryError(f"{len(pieces)} pieces")

    monkeypatch.setattr(object_jobs, "part_crossing", short)
    place = r"t 0 to 1, z 0 to 1, y \d+ to \d+, x \d+ to \d+"
    advice = r"use fewer --workers, or a smaller instances\.largest"
    with pytest.raises(
        TileMemoryError, match=rf"part, tile 0 \(.*a\.tif, {place}\): MemoryError: \d+ pieces; {advice}"
    ):
        run_image(plan, SerialExecutor())
    monkeypatch.undo()
    assert run_image(plan, SerialExecutor()).status == "done"
