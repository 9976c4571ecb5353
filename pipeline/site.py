"""Where a batch runs: device, workers and memory, of this machine or of the workers of a cluster.

Light to import, so that workers can start early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.cluster import GPU_THREADS, SERIAL, ClusterSpec, check_scheduler, open_cluster, shared_address
from pipeline.engine.workers import prepare_workers
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.planning import Intent

__all__ = [
    "Site",
    "choose_site",
    "count_gpus",
    "is_elsewhere",
    "join_cluster",
    "join_site",
    "share_of_gpu",
    "smallest_gpu",
    "start_early",
]

GPU_LIBRARIES = 2**30
"""Bytes of a GPU that a process takes before it computes anything."""

_PRELOAD = ("pipeline.jobs", "pipeline.object_jobs", "pipeline.models.predictor")
"""What workers import before their first job."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a batch runs.

    Parameters
    ----------
    cluster : ClusterSpec
        The cluster.
    intent : Intent
        The device and the memory of one worker.
    """

    cluster: ClusterSpec
    intent: Intent


def count_gpus(wish: str) -> int:
    """Count the GPUs that torch sees, without loading torch where it was built for none.

    Parameters
    ----------
    wish : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    ConfigError
        If a GPU is asked for and there is none.
    """
    from importlib.metadata import version

    if wish == "cpu" or version("torch").endswith("+cpu"):
        found = 0
    else:
        import torch

        found = torch.cuda.device_count()
    if wish == "cuda" and not found:
        raise ConfigError("--device cuda: torch sees no GPU here; install a CUDA build of torch or use --device auto")
    return found


def smallest_gpu(gpus: int) -> int:
    """Give the bytes of the smallest of so many GPUs, 0 for none."""
    if not gpus:
        return 0
    import torch

    return min(int(torch.cuda.get_device_properties(at).total_memory) for at in range(gpus))


def share_of_gpu(memory: int, sharing: int) -> int:
    """Give the bytes that each of several processes may use of a GPU, beside what libraries take there."""
    return max(0, memory // sharing - GPU_LIBRARIES)


def is_elsewhere(config: RunConfig) -> bool:
    """Say whether settings name workers that are not simply processes of this machine."""
    return _elsewhere(config) is not None


def _elsewhere(config: RunConfig) -> ClusterSpec | None:
    """Give the cluster that settings name; None for processes of this machine, or no cluster at all."""
    execution = config.execution
    # Where one starts workers with GPUs, their threads are ours to choose.
    threads = GPU_THREADS if execution.cluster.kind == "cuda" else 1
    spec = ClusterSpec(
        execution.workers, threads, execution.scheduler, _PRELOAD,
        patience=execution.patience, kind=execution.cluster.kind, options=execution.cluster.options,
    )  # fmt: skip
    return spec if spec.elsewhere else None


def choose_site(config: RunConfig) -> Site:
    """Choose device, workers and memory for this machine.

    Raises
    ------
    ConfigError
        If a GPU is asked for and there is none.
    """
    from distributed.system import MEMORY_LIMIT

    from pipeline.planning import Intent

    gpus = count_gpus(config.device)
    if gpus and not _fits_gpus(config):
        gpus = 0
    gpu_memory = smallest_gpu(gpus)
    cluster = ClusterSpec.for_machine(config.execution.workers, gpus, MEMORY_LIMIT, _PRELOAD, gpu_memory)
    if config.execution.scheduler == SERIAL:
        cluster = replace(cluster, scheduler=SERIAL)
    assert cluster.workers is not None
    assert cluster.memory is not None
    if not gpus:
        return Site(cluster, Intent(device="cpu", worker_memory=cluster.memory, workers=cluster.workers))
    sharing = 1 if cluster.scheduler == SERIAL else -(-cluster.workers // gpus)
    memory = share_of_gpu(gpu_memory, sharing)
    intent = Intent(
        device="cuda", worker_memory=memory, host_memory=cluster.memory // cluster.threads, workers=cluster.workers
    )
    return Site(cluster, intent)


@contextmanager
def join_cluster(config: RunConfig) -> Iterator[str]:
    """Join the cluster that settings, or else Dask's own configuration, name; start one where neither does.

    Yields
    ------
    str
        The cluster's address.

    Raises
    ------
    ConfigError
        If a GPU is asked for and there is none, no scheduler answers, or the cluster does not start.
    """
    address = config.execution.scheduler or shared_address()
    check_scheduler(address)
    if address is not None:
        yield address
        return
    with open_cluster(_elsewhere(config) or choose_site(config).cluster) as opened:
        yield opened


@contextmanager
def join_site(
    config: RunConfig, output: Path, inputs: Iterable[Path] = (), site: Site | None = None
) -> Iterator[tuple[Site, str]]:
    """Join or start a cluster, and find out what plans are to be made for.

    Parameters
    ----------
    config : RunConfig
        All settings.
    output : Path
        Folder under which results go; workers of other machines must see it.
    inputs : iterable of Path
        What they must be able to read.
    site : Site, optional
        This machine, where it has been chosen. Left out, settings and then Dask's own configuration decide.

    Yields
    ------
    tuple
        The site, and the cluster's address.

    Raises
    ------
    ConfigError
        If a GPU is asked for and there is none, no scheduler answers, or the cluster does not start.
    ClusterError
        If workers cannot do the work: they lack seamfree or have another version, or do not see the files.
    """
    spec = _elsewhere(config)
    undecided = spec is None and site is None and config.execution.scheduler is None
    if undecided and (shared := shared_address()) is not None:
        check_scheduler(shared)
        spec = ClusterSpec(None, scheduler=shared)
    if spec is None:
        site = site or choose_site(config)
        with open_cluster(site.cluster) as address:
            yield site, address
        return
    from pipeline.survey import survey_workers

    check_scheduler(spec.scheduler)
    # A bundled one is part of seamfree.
    models = [path] if (path := Path(config.model)).exists() else []
    with open_cluster(spec) as address:
        intent = survey_workers(
            address, config.device, graph=_is_graph(config), patience=config.execution.patience,
            paths=[*models, *inputs], output=output,
        )  # fmt: skip
        yield Site(spec, intent), address


def _is_graph(config: RunConfig) -> bool:
    """Say whether the model is an ONNX graph."""
    if config.instances.method == "overlap":
        return False
    from pipeline.models.library import describe_model

    network = describe_model(config.model, trust=config.trust_model_code).network
    return network is not None and network.format == "onnx"


def _fits_gpus(config: RunConfig) -> bool:
    """Say whether the model computes on a GPU: an ONNX graph does where onnxruntime was built for it.

    Raises
    ------
    ConfigError
        If it does not, and a GPU is asked for.
    """
    if not _is_graph(config):
        return True
    from pipeline.models.graphs import computes_on_gpus

    fits = computes_on_gpus()
    if not fits and config.device == "cuda":
        raise ConfigError(
            "--device cuda: the model is an ONNX graph, and this onnxruntime computes on the CPU only; say --device "
            "cpu, or install the one for GPUs in its place: pip uninstall onnxruntime, pip install 'seamfree[gpu]'"
        )
    return fits


def start_early(config: RunConfig) -> None:
    """Begin what workers of this machine need before they start, while the caller is still busy with the inputs."""
    if config.execution.scheduler is None and not is_elsewhere(config):
        prepare_workers(_PRELOAD)
