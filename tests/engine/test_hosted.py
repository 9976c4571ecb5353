"""Clusters that other libraries start: as far as they go without theirs. SLURM's two commands are played by scripts."""

from __future__ import annotations

import gc
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.cluster import ClusterSpec, connect, open_cluster
from pipeline.engine.executor import DaskExecutor
from pipeline.engine.workers import worker_variables
from pipeline.errors import ClusterError, ConfigError
from tests.engine import jobs

HERE = Path(__file__).parents[2]
"""For jobs to find the tests."""

SBATCH = """#!/bin/sh
cp "$1" {folder}/script
setsid sh {folder}/script > {folder}/log 2>&1 &
echo $! >> {folder}/jobs
echo "Submitted batch job $!"
"""

SCANCEL = """#!/bin/sh
echo "$1" >> {folder}/cancelled
kill -- "-$1"
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with the commands of a batch system that runs each job at once."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        command = tmp_path / name
        command.write_text(text.format(folder=tmp_path))
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def slurm(workers: int, **options: Any) -> ClusterSpec:  # noqa: ANN401 (whatever the class takes)
    return ClusterSpec(
        workers, patience=1, kind="slurm", options={"cores": 2, "memory": "2GiB", "interface": "lo", **options}
    )


@pytest.mark.slow
def test_jobs_of_a_batch_system_are_workers_with_our_settings_and_are_cancelled(queue: Path) -> None:
    spec = slurm(
        2, queue="short", walltime="00:10:00", job_script_prologue=["export MINE=1", f"export PYTHONPATH={HERE}"]
    )
    with open_cluster(spec) as address, connect(address) as executor:
        assert address.startswith("tls://127.0.0.1:")
        assert isinstance(executor, DaskExecutor)
        executor.client.wait_for_workers(1, timeout=60)
        (first, *others) = [record for _, record in executor.map("look", jobs.surroundings, None, range(4))]
        assert len(others) == 3
        script = (queue / "script").read_text()
        # As when their time is over: the queue ends the jobs, and no other ones start.
        (queue / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 0\n")
        (job,) = (queue / "jobs").read_text().split()
        subprocess.run([queue / "scancel", job], check=True)
        with pytest.raises(ClusterError, match=r"all workers of the cluster have gone, and none has come within 1 s"):
            list(executor.map("look", jobs.take_a_while, None, range(4)))
        keys = [path for path in queue.iterdir() if path.name.startswith(".dask-jobqueue.worker.key")]
        assert [path.stat().st_mode & 0o077 for path in keys] == [0]
    assert "#SBATCH -p short" in script
    assert "#SBATCH -t 00:10:00" in script
    # A process for each core, with its share of the memory.
    assert "--nthreads 1 --memory-limit 1.00GiB --nworkers 2 --nanny" in script
    wanted = {name: str(value) for name, value in worker_variables().items()} | {"MINE": "1"}
    assert wanted.items() <= first["environment"].items()
    assert (queue / "cancelled").exists()
    assert not [path for path in queue.iterdir() if path.name.startswith(".dask-jobqueue")]


# What dask-jobqueue had begun when it refused an option is left to the collector of garbage.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (slurm(2, coers=3), "the slurm cluster does not start: .*unexpected keyword argument 'coers'"),
        (slurm(2, cores=None), "the slurm cluster does not start: You must specify how much cores and memory"),
        (ClusterSpec(2, kind="kubernetes"), r"not installed here .*; pip install 'seamfree\[kubernetes\]'"),
        (ClusterSpec(None, kind="cuda"), r"not installed here .*; pip install 'seamfree\[cuda\]'"),
        (ClusterSpec(2, kind="pbs"), "submits jobs by qsub, and there is no such command here"),
    ],
)
def test_a_cluster_that_cannot_start_is_told_in_a_line(queue: Path, spec: ClusterSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught, open_cluster(spec):
        raise AssertionError("unreachable")
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith("execution.cluster: ")
    del caught
    gc.collect()


@pytest.mark.slow
def test_a_queue_that_takes_no_job_is_told(queue: Path) -> None:
    (queue / "sbatch").write_text("#!/bin/sh\necho 'Invalid partition' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match=r"does not start: .*Invalid partition"), open_cluster(slurm(2)):
        raise AssertionError("unreachable")
