from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.cluster import ClusterSpec, check_scheduler, connect, open_cluster
from pipeline.engine.executor import (
    MOST_TOGETHER,
    TOGETHER_SECONDS,
    DaskExecutor,
    Executor,
    SerialExecutor,
    how_many,
)
from pipeline.engine.workers import WORKER_ENVIRONMENT
from pipeline.errors import ClusterError, ConfigError, ImageError, TileError, TileMemoryError, WorkersKilledError
from tests.engine import jobs


@pytest.fixture(scope="module")
def dask_executor(own_forkserver: None) -> Iterator[Executor]:
    with open_cluster(ClusterSpec(workers=2, preload=("pipeline.jobs",))) as address, connect(address) as executor:
        yield executor


@pytest.fixture(params=["serial", "dask"])
def executor(request: pytest.FixtureRequest, dask_executor: Executor) -> Executor:
    return SerialExecutor() if request.param == "serial" else dask_executor


def test_each_index_is_done_once_and_told_with_its_record(executor: Executor) -> None:
    found = list(executor.map("stage", jobs.double, 7, range(100)))
    assert sorted(index for index, _ in found) == list(range(100))
    assert all(record == {"value": 7 * index} for index, record in found)


def test_no_jobs_are_no_work(executor: Executor) -> None:
    assert list(executor.map("stage", jobs.double, 7, [])) == []


def test_an_unexpected_error_names_stage_and_index(executor: Executor) -> None:
    with pytest.raises(TileError, match=r"segment, tile 3: ValueError: three is too many"):
        list(executor.map("segment", jobs.fail_at_three, None, range(10)))


def test_an_error_meant_for_the_user_arrives_as_it_is(executor: Executor) -> None:
    with pytest.raises(ImageError, match=r"^a\.tif: a message of one line$"):
        list(executor.map("read", jobs.refuse, "a.tif", range(3)))


def test_after_a_failure_the_executor_goes_on(executor: Executor) -> None:
    with pytest.raises(TileError):
        list(executor.map("segment", jobs.fail_at_three, None, range(50)))
    assert len(list(executor.map("segment", jobs.double, 1, range(20)))) == 20


def test_what_jobs_log_on_workers_is_logged_where_the_run_is(
    dask_executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="pipeline"):
        list(dask_executor.map("read", jobs.log_something, "tile", range(3)))
    told = sorted((record.name, record.levelname, record.getMessage()) for record in caplog.records)
    assert told == [
        *[("pipeline.images", "INFO", f"tile {index}") for index in range(3)],
        *[("pipeline.workers", "WARNING", f"elsewhere: of tile {index}") for index in range(3)],
    ]


def test_only_a_bounded_number_of_jobs_is_in_flight(dask_executor: Executor) -> None:
    assert isinstance(dask_executor, DaskExecutor)
    bound = 2 * dask_executor.ahead
    drawn, ahead, tasks = 0, 0, 0

    def indices() -> Iterator[int]:
        nonlocal drawn
        for index in range(2000):
            drawn += 1
            yield index

    for finished, _ in enumerate(dask_executor.map("stage", jobs.double, 1, indices()), start=1):
        pending = sum(future.status == "pending" for future in dask_executor.client.futures.values())
        ahead, tasks = max(ahead, drawn - finished), max(tasks, pending)
    assert drawn == 2000
    assert tasks <= bound
    # Jobs as short as these are sent together; what has come back at once has successors before it is given out.
    assert bound < ahead <= 2 * bound * MOST_TOGETHER


@pytest.mark.slow
def test_long_jobs_are_sent_one_by_one(dask_executor: Executor) -> None:
    assert isinstance(dask_executor, DaskExecutor)
    drawn, bound = iter(range(30)), 2 * dask_executor.ahead
    for finished, _ in enumerate(dask_executor.map("stage", jobs.take_a_while, None, drawn), start=1):
        pending = sum(future.status == "pending" for future in dask_executor.client.futures.values())
        left = len(list(copy(drawn)))
        # What is neither at work nor told came back together with what was: at most as many as may be in flight.
        assert 30 - left <= finished + pending + bound - 1


@given(st.integers(1, MOST_TOGETHER), st.floats(0, 1e3))
def test_how_many_are_sent_together_follows_from_how_long_they_take(count: int, seconds: float) -> None:
    number = how_many(count, seconds)
    assert 1 <= number <= min(2 * count, MOST_TOGETHER)
    assert number == 1 or number * seconds / count <= TOGETHER_SECONDS * (1 + 1e-9)


def test_workers_keep_memory_and_have_one_thread(dask_executor: Executor) -> None:
    ((_, found),) = dask_executor.map("stage", jobs.surroundings, None, [0])
    for name, value in WORKER_ENVIRONMENT.items():
        assert found["environment"][name] == str(value)
    # 10 arrays of 128 MiB, each anew from the system, would be 327,680 faults of 4 KiB pages.
    assert found["faults"] < 2 * 2**27 / 4096
    assert not found["main thread"]
    assert "pipeline.jobs" in found["modules"]
    assert "prefect" not in found["modules"]


def listening(process: psutil.Process) -> list[Any]:
    return [connection.laddr for connection in process.net_connections("inet") if connection.status == "LISTEN"]


def test_everything_listens_on_the_loopback_interface_only(dask_executor: Executor) -> None:
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    addresses = [address for member in family for address in listening(member)]
    assert len(addresses) >= 3  # the scheduler, and two workers
    assert {address.ip for address in addresses} == {"127.0.0.1"}


def test_the_job_of_a_killed_worker_is_done_by_another(tmp_path: Path) -> None:
    with open_cluster(ClusterSpec(workers=2)) as address, connect(address) as executor:
        found = dict(executor.map("segment", jobs.kill_once, str(tmp_path), range(20)))
    assert sorted(found) == list(range(20))
    assert (tmp_path / "killed").exists()


def test_a_job_that_kills_three_workers_is_named_and_takes_nobody_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All other jobs are done before, those, too, that were queued on the workers which it killed."""
    done: list[int] = []
    with open_cluster(ClusterSpec(workers=2)) as address, connect(address) as executor:
        records = executor.map("segment", jobs.kill_and_tell, str(tmp_path), range(12))
        with pytest.raises(WorkersKilledError, match=r"^segment, tile 2: 3 workers died of it, the last while nothing"):
            done.extend(index for index, _ in records)
        assert len(dict(executor.map("segment", jobs.double, 1, range(20)))) == 20
    assert sorted(done) == [index for index in range(12) if index != 2]
    assert (tmp_path / "killed").stat().st_size == 3
    told = [record.getMessage() for record in caplog.records if record.name == "pipeline.engine.executor"]
    assert told.count("segment, tile 2: a worker died that had it; it is done again") == 2


@pytest.mark.parametrize("job", [jobs.kill_late, jobs.want_memory_late])
def test_what_goes_wrong_among_jobs_sent_together_is_done_again_one_by_one(
    job: Callable[[str, int], dict[str, int]], tmp_path: Path
) -> None:
    with open_cluster(ClusterSpec(workers=2)) as address, connect(address) as executor:
        found = list(executor.map("segment", job, str(tmp_path), range(300)))
    assert sorted(index for index, _ in found) == list(range(300))
    assert int((tmp_path / "tried").read_text()) == 2


def test_a_job_that_finds_too_little_memory_is_done_again_alone(tmp_path: Path) -> None:
    with open_cluster(ClusterSpec(workers=2)) as address, connect(address) as executor:
        found = dict(executor.map("segment", jobs.want_memory_alone, str(tmp_path), range(12)))
        assert sorted(found) == list(range(12))
        assert list(found)[-1] == 2
        with pytest.raises(TileMemoryError, match=r"segment, tile 2: MemoryError: Unable to allocate"):
            list(executor.map("segment", jobs.want_too_much_memory, None, range(4)))


def test_where_memory_stays_too_short_the_way_that_takes_less_is_gone(
    dask_executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """By all that had found too little; and if that is too much, too, it is told."""
    for executor in (dask_executor, SerialExecutor()):
        caplog.clear()
        ways = [jobs.want_too_much_memory, jobs.double]
        found = dict(executor.map("segment", jobs.want_too_much_memory, 7, range(6), lowered=ways))
        assert sorted(found) == list(range(6))
        assert found[2] == {"value": 14}
        told = [record.getMessage() for record in caplog.records if record.name == "pipeline.engine.executor"]
        lowered = [line for line in told if "with less memory, and so is the rest of the stage" in line]
        assert [line[-13:] for line in lowered] == [" (way 1 of 2)", " (way 2 of 2)"]
        with pytest.raises(TileMemoryError, match=r"segment, tile 2: MemoryError: Unable to allocate"):
            list(executor.map("segment", jobs.want_too_much_memory, 7, range(6), lowered=ways[:1]))


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "GET was unable to find an engine to execute this computation",
        "std::bad_alloc",
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 9 bytes",
    ],
)
def test_whatever_libraries_call_it_too_little_memory_is_known_and_less_is_taken(said: str) -> None:
    found = dict(SerialExecutor().map("segment", jobs.fail_saying, said, range(2), lowered=[jobs.tell_name]))
    assert found == {0: {}, 1: {"name": said}}


def test_the_last_worker_that_a_job_may_kill_has_the_least_to_do(tmp_path: Path) -> None:
    """For what kills workers is mostly the memory that they take."""
    with open_cluster(ClusterSpec(workers=2)) as address, connect(address) as executor:
        ways = [jobs.want_too_much_memory, jobs.tell_name]
        found = dict(executor.map("segment", jobs.kill_and_tell, str(tmp_path), range(6), lowered=ways))
    assert (tmp_path / "killed").stat().st_size == 2
    # Another one may have been with it both times, and is suspected as well.
    least = {index: record for index, record in found.items() if record}
    assert least[2] == {"name": tmp_path.name}
    assert len(least) <= 2


def test_a_worker_that_has_lost_its_gpu_is_replaced(tmp_path: Path) -> None:
    with open_cluster(ClusterSpec(workers=2)) as address, connect(address) as executor:
        found = dict(executor.map("segment", jobs.lose_gpu_once, str(tmp_path), range(12)))
    assert sorted(found) == list(range(12))
    assert found[2]["pid"] != int((tmp_path / "lost").read_text())


def test_once_the_scheduler_is_gone_each_image_is_told_so() -> None:
    with open_cluster(ClusterSpec(workers=1)) as address, connect(address) as executor:
        assert isinstance(executor, DaskExecutor)
        # As it does by itself when it has given up to connect again.
        executor.client.close()
        for _ in range(2):
            with pytest.raises(ClusterError, match="the Dask scheduler is gone"):
                list(executor.map("stage", jobs.double, 7, range(3)))


def test_nothing_is_left_running() -> None:
    with open_cluster(ClusterSpec(workers=2)) as address, connect(address) as executor:
        records = [record for _, record in executor.map("stage", jobs.kill_once, "/nonexistent", [0, 1])]
        workers = [psutil.Process(int(record["pid"])) for record in records]
    deadline = time.monotonic() + 30
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "not of the form HOST:PORT"),
        ("http//localhost:80", "not of the form HOST:PORT"),
        ("tcp://127.0.0.1:9", "refused"),
        ("127.0.0.1:9", "refused"),
        ("127.0.0.1:99999", "not of the form HOST:PORT"),
        ("tcp://[::1]:9", ""),
    ],
)
def test_an_address_where_nothing_answers_is_a_usage_error_at_once(address: str, why: str) -> None:
    began = time.monotonic()
    wanted = rf"no Dask scheduler answers at {re.escape(repr(address))} \(.*{why}.*\); check --scheduler"
    with pytest.raises(ConfigError, match=wanted), connect(address):
        pass
    with pytest.raises(ConfigError, match=wanted):
        check_scheduler(address)
    assert time.monotonic() - began < 15


def test_no_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 workers"):
        ClusterSpec.for_machine(0, 0, 2**30)


@pytest.mark.parametrize(
    ("cores", "gpus", "memory", "gpu_memory", "workers", "threads"),
    [
        (16, 0, 64, 0, 16, 1),
        (16, 1, 128, 80, 13, 2),
        (16, 1, 128, 140, 16, 2),
        (16, 4, 128, 140, 16, 2),
        (18, 4, 128, 140, 16, 2),  # as many for each
        (16, 1, 16, 140, 4, 2),
        (16, 1, 128, 8, 1, 4),
        (2, 4, 8, 2, 4, 4),
    ],
)
def test_a_machine_gets_a_worker_per_core_as_far_as_memory_goes_and_one_per_gpu(
    cores: int, gpus: int, memory: int, gpu_memory: int, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    spec = ClusterSpec.for_machine(None, gpus, memory * 2**30, gpu_memory=gpu_memory * 2**30)
    assert (spec.workers, spec.threads) == (workers, threads)
    assert ClusterSpec.for_machine(5, gpus, memory * 2**30).workers == 5


def test_workers_share_the_memory_of_a_machine_however_many_there_are() -> None:
    assert [ClusterSpec.for_machine(number, 0, 2**30).memory for number in (1, 8)] == [2**30, 2**27]
