"""Starting a cluster of processes on a machine that kills some of them."""

from __future__ import annotations

import gc
import logging
from pathlib import Path

import dask
import distributed  # noqa: F401 (its defaults come first, else they would go with what is laid over them)
import pytest
from distributed.broker import Topic
from distributed.spans import Span

from pipeline.engine.cluster import STARTS, ClusterSpec, connect, open_cluster
from pipeline.errors import ClusterError, WorkersKilledError
from tests.engine import jobs

SPEC = ClusterSpec(1, preload=("pipeline.jobs",))
"""As elsewhere: one server of workers is for all tests."""

DEADLY = """
import os
import signal
from pathlib import Path

for number in range({deaths}):
    try:
        Path({folder!r}, str(number)).touch(exist_ok=False)
    except FileExistsError:
        continue
    os.kill(os.getpid(), signal.SIGKILL)
"""


def deadly(folder: Path, deaths: int) -> dask.config.set:
    """Let so many workers be killed while they start."""
    folder.joinpath("deadly.py").write_text(DEADLY.format(folder=str(folder), deaths=deaths))
    return dask.config.set({"distributed.worker.preload": [str(folder / "deadly.py")]})


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_starts_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, "pipeline"),
        deadly(tmp_path, 1),
        open_cluster(SPEC) as address,
        connect(address) as executor,
    ):
        assert executor is not None
    assert [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")] == [
        "a worker process died while it started; the workers are started again"
    ]
    assert (tmp_path / "0").exists()


@pytest.mark.slow
def test_workers_that_never_start_are_told_in_a_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ClusterError, match=f"die at once, {STARTS} times in a row") as caught,
        deadly(tmp_path, 100),
        open_cluster(SPEC),
    ):
        raise AssertionError("unreachable")
    assert "\n" not in str(caught.value)
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == STARTS


@pytest.mark.slow
def test_a_worker_that_takes_more_memory_than_its_share_is_ended_and_the_job_is_named() -> None:
    spec = ClusterSpec(1, preload=SPEC.preload, memory=2**30)
    with open_cluster(spec) as address, connect(address) as executor:
        with pytest.raises(WorkersKilledError, match=r"segment, tile 2: 3 workers died of it, .* memory is too short"):
            list(executor.map("segment", jobs.take_memory, 2**30, range(4)))
        assert len(list(executor.map("segment", jobs.double, 2, range(4)))) == 4


def held(kind: type) -> int:
    """Count what Dask remembers, in this process, which is the scheduler's."""
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


@pytest.mark.slow
def test_the_scheduler_forgets_what_is_done() -> None:
    """Its spans of time would keep a group of tasks for each submission, as long as it lives."""
    before = held(Span)
    with open_cluster(SPEC) as address, connect(address) as executor:
        for _ in range(3):
            assert len(list(executor.map("segment", jobs.double, 2, range(4)))) == 4
        assert held(Span) == before


@pytest.mark.slow
def test_the_scheduler_forgets_clients_that_have_gone() -> None:
    """Each image in a watched folder has many."""
    with open_cluster(SPEC) as address:
        for _ in range(2):
            with connect(address) as executor:
                assert len(list(executor.map("segment", jobs.double, 2, range(4)))) == 4
        # By then all that it has at all has come up.
        before = held(Topic)
        for _ in range(5):
            with connect(address) as executor:
                assert len(list(executor.map("segment", jobs.double, 2, range(4)))) == 4
        # The last one may be about to go.
        assert held(Topic) <= before + 1
