"""Workers that others have started, on other hosts: asked what they are before anything is planned for them.

Scheduler and workers are processes as `dask scheduler` and `dask worker` start them, on two addresses of the loopback
interface, which stand for two machines.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import tifffile
from distributed import Client

from pipeline import segment
from pipeline.config import make_config
from pipeline.engine.cluster import connected
from pipeline.engine.slots import take_slot
from pipeline.engine.survey import check_versions, wait_for_workers
from pipeline.errors import ClusterError, ConfigError
from pipeline.identity import NUMBERS_DEPEND_ON
from pipeline.stores.publish import read_provenance
from pipeline.survey import WorkerFacts, check_paths, intent_of_workers
from tests.faults.run import contents
from tests.fields import compose, load_fields

HOSTS = ("127.0.0.1", "127.0.0.2")
WORKER = "from distributed.cli.dask_worker import main; main()"
MEMORY = 3 * 2**30


@contextmanager
def process(*command: str, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings)  # type: ignore[call-overload]
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


@contextmanager
def worker(address: str, host: str, folder: Path, *interpreter: str, **settings: object) -> Iterator[None]:
    options = ["--host", host, "--nthreads", "1", "--memory-limit", str(MEMORY), "--no-dashboard"]
    options += ["--local-directory", str(folder / "scratch"), "--no-nanny"]
    with process(*(interpreter or (sys.executable,)), "-c", WORKER, address, *options, cwd=folder, **settings):
        yield


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("scheduler")
    program = "from distributed.cli.dask_scheduler import main; main()"
    facts = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(facts)]
    with process(sys.executable, "-c", program, *options, cwd=folder):
        with Client(scheduler_file=str(facts), timeout="60s", set_as_default=False) as client:
            address = client.scheduler.address
        yield address


@pytest.fixture(scope="module")
def cluster(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("workers")
    with ExitStack() as stack:
        for host in HOSTS:
            stack.enter_context(worker(scheduler, host, folder))
        with connected(scheduler) as client:
            client.wait_for_workers(2, timeout=60)
        yield scheduler


@pytest.mark.slow
def test_a_run_on_two_hosts_is_planned_for_their_workers_and_its_bytes_are_the_same(
    cluster: str, tmp_path: Path
) -> None:
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, compose(load_fields(), (500, 480)), tile=(128, 128))
    for name, scheduler in (("there", cluster), ("here", "serial")):
        (report,) = segment(image, tmp_path / name, make_config({"tile": 256, "execution": {"scheduler": scheduler}}))
        assert report.status == "done", report.reason
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert not [path for path in (tmp_path / "there").iterdir() if path.name.startswith(".seamfree")]
    tiling = read_provenance(tmp_path / "there" / "a.ome.zarr")["timings"]["network"]["tiling"]
    assert tiling["workers"] == 2
    # What fits is what fits the workers, of which each has less than this machine.
    budget = 0.6 * MEMORY
    assert {each["fits"] == (each["window_bytes"] <= budget) for each in tiling["alternatives"]} == {True}


@pytest.mark.slow
def test_what_workers_do_not_see_is_told_before_work_starts(cluster: str, tmp_path: Path) -> None:
    with connected(cluster) as client:
        check_paths(client, [tmp_path], tmp_path)
        with pytest.raises(
            ClusterError, match=r"worker at tcp://127\.0\.0\.\d:\d+ does not see .*gone\.tif; workers read"
        ):
            check_paths(client, [tmp_path, tmp_path / "gone.tif"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def without_seamfree(folder: Path, version: str | None = None) -> dict[str, str]:
    """Make an environment of the installed packages, but for seamfree, or with another version of it."""
    for place in site.getsitepackages():
        for path in Path(place).iterdir():
            if not path.name.startswith(("seamfree", "pipeline", "flows", "_", "sitecustomize")):
                (folder / path.name).symlink_to(path)
    if version is not None:
        facts = folder / f"seamfree-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: seamfree\nVersion: {version}\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, r"the worker at tcp://127\.0\.0\.2:\d+ has no seamfree; install it there, version \d"),
        ("99.0", r"seamfree is 0\.\S+ here and 99\.0 on the worker at tcp://127\.0\.0\.2:\d+; .* the same version"),
    ],
)
def test_workers_without_seamfree_or_with_another_version_are_refused(
    cluster: str, version: str | None, message: str, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    environment = without_seamfree(packages, version)
    with (
        connected(cluster) as client,
        worker(cluster, HOSTS[1], tmp_path, sys.executable, "-S", env=environment),
    ):
        client.wait_for_workers(3, timeout=60)
        with pytest.raises(ClusterError, match=message):
            check_versions(client, NUMBERS_DEPEND_ON)
    shutil.rmtree(packages)


def test_a_cluster_without_workers_is_not_waited_for_without_end(scheduler: str) -> None:
    with (
        connected(scheduler) as client,
        pytest.raises(ClusterError, match=r"no worker has joined the scheduler at tcp://.* within 0 s; start some"),
    ):
        wait_for_workers(client, 100, 0.05)


def facts(**changed: int | str) -> WorkerFacts:
    return WorkerFacts(threads=1, memory=8 * 2**30, processor="a", gpus=0, gpu_memory=0)._replace(**changed)  # type: ignore[arg-type]


def test_plans_are_made_for_the_least_of_the_workers(caplog: pytest.LogCaptureFixture) -> None:
    intent = intent_of_workers({"tcp://a:1": facts(), "tcp://b:1": facts(memory=2**31, threads=2)}, "auto")
    assert (intent.device, intent.worker_memory, intent.workers) == ("cpu", 2**30, 3)
    assert "a worker has 2 threads, which take turns" in caplog.text
    gpus = {"tcp://a:1": facts(gpus=1, gpu_memory=2**34), "tcp://b:1": facts(gpus=4, gpu_memory=2**35)}
    intent = intent_of_workers(gpus, "auto")
    libraries = 2**30
    assert (intent.device, intent.worker_memory, intent.workers) == ("cuda", 2**34 - libraries, 2)
    assert intent.host_memory == 8 * 2**30, "of the machine, which reads"
    # Nine processes share four GPUs: three of them share one.
    several = {f"tcp://b:{port}": gpus["tcp://b:1"] for port in range(1, 10)}
    assert intent_of_workers(several, "auto").worker_memory == 2**35 // 3 - libraries
    mixed = gpus | {"tcp://c:1": facts(processor="b")}
    caplog.clear()
    assert intent_of_workers(mixed, "auto").device == "cpu"
    assert "1 of 3 workers have no GPU, so none is used" in caplog.text
    assert "the workers' processors differ (a, b)" in caplog.text
    with pytest.raises(ConfigError, match=r"--device cuda: the worker at tcp://c:1 has no GPU .* 1 of 3"):
        intent_of_workers(mixed, "cuda")


def test_processes_of_a_host_share_its_gpus_evenly_and_a_process_keeps_its_own(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from pipeline.engine.slots import take_slot\n"
        "names = sys.argv[2:]; folder = Path(sys.argv[1])\n"
        "assert take_slot(names, folder) == take_slot(names, folder)\n"
        "print(names[take_slot(names, folder)], flush=True); sys.stdin.read()"
    )
    taken, started = [], []
    # As dask-cuda lets its workers see them: each in another order.
    for names in (["x", "y"], ["y", "x"], ["x", "y"], ["y", "x"]):
        started.append(
            subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *names], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        )  # fmt: skip
        assert started[-1].stdout is not None
        taken.append(started[-1].stdout.readline().strip())
    assert sorted(taken) == ["x", "x", "y", "y"]
    started[1].communicate("")
    # What a process that has ended had is free again.
    assert ["x", "y"][take_slot(["x", "y"], tmp_path)] == taken[1]
    for process_ in started:
        process_.communicate("")
