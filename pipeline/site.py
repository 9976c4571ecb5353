"""Where a batch runs: device, workers and memory of this machine. Light to import, so that workers can start early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.engine.cluster import ClusterSpec, check_scheduler, open_cluster, shared_address
from pipeline.engine.workers import prepare_workers
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.planning import Intent

__all__ = ["Site", "choose_site", "count_gpus", "join_site", "start_early"]

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
    cluster = ClusterSpec.for_machine(config.execution.workers, config.execution.scheduler, gpus, _PRELOAD)
    memory = int(MEMORY_LIMIT / max(cluster.workers, 1))
    if gpus:
        import torch

        memory = int(torch.cuda.get_device_properties(0).total_memory)
    return Site(cluster, Intent(device="cuda" if gpus else "cpu", worker_memory=memory, workers=cluster.workers))


@contextmanager
def join_site(config: RunConfig) -> Iterator[tuple[Site, str]]:
    """Join the cluster that settings, or else Dask's own configuration, name; start one here where neither does.

    Yields
    ------
    tuple
        The site, and the cluster's address.

    Raises
    ------
    ConfigError
        If a GPU is asked for and there is none, or no scheduler answers.
    """
    site = choose_site(config)
    address = config.execution.scheduler or shared_address()
    check_scheduler(address)
    if address is not None:
        yield site, address
        return
    with open_cluster(site.cluster) as opened:
        yield site, opened


def _fits_gpus(config: RunConfig) -> bool:
    """Say whether the model computes on a GPU: an ONNX graph does where onnxruntime was built for it.

    Raises
    ------
    ConfigError
        If it does not, and a GPU is asked for.
    """
    if config.instances.method == "overlap":
        return True
    from pipeline.models.library import describe_model

    network = describe_model(config.model, trust=config.trust_model_code).network
    if network is None or network.format != "onnx":
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
    if config.execution.scheduler is None:
        prepare_workers(_PRELOAD)
