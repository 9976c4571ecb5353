"""Clusters that other libraries start for a run: of a batch system, of this machine's GPUs, of Kubernetes."""

from __future__ import annotations

import logging
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.engine.secrecy import private_folder
from pipeline.engine.workers import worker_variables
from pipeline.errors import ConfigError

__all__ = ["QUEUES", "hosted_settings", "is_encrypted", "start_hosted"]

QUEUES = {
    "slurm": "SLURM",
    "pbs": "PBS",
    "sge": "SGE",
    "lsf": "LSF",
    "htcondor": "HTCondor",
    "oar": "OAR",
    "moab": "Moab",
}
"""Batch systems that dask-jobqueue knows, and how its classes are called before ``Cluster``."""

_CLASSES = {kind: ("dask_jobqueue", f"{name}Cluster", "jobqueue") for kind, name in QUEUES.items()} | {
    "cuda": ("dask_cuda", "LocalCUDACluster", "cuda"),
    "kubernetes": ("dask_kubernetes.operator", "KubeCluster", "kubernetes"),
}
"""Of each kind the module, its class, and the extra of seamfree that installs it."""


def is_encrypted(kind: str, options: Mapping[str, Any]) -> bool:
    """Say whether a cluster takes the certificates of the run: Kubernetes has means of its own."""
    return kind != "kubernetes" and str(options.get("protocol", "tls")).startswith("tls")


def hosted_settings(kind: str, options: Mapping[str, Any], workers: int | None, threads: int) -> dict[str, Any]:
    """Give what a cluster's class is called with: the user's options, and seamfree's where they say nothing.

    Parameters
    ----------
    kind : str
        As in the settings, ``execution.cluster.kind``; what it needs has been imported.
    options : mapping
        The user's, as the class takes them.
    workers : int, optional
        Worker processes; for GPUs, None is one for each.
    threads : int
        Threads of each, where the kind leaves that to us.

    Returns
    -------
    dict
    """
    variables = {name: str(value) for name, value in worker_variables().items()}
    if kind == "kubernetes":
        given = options.get("env") or {}
        env = ([{"name": name, "value": value} for name, value in variables.items()] + list(given)
               if isinstance(given, list) else variables | given)  # fmt: skip
        return {"n_workers": workers, "quiet": True, **options, "env": env}
    secured: dict[str, Any] = {}
    if is_encrypted(kind, options):
        from distributed.security import Security

        secured = {"protocol": "tls://", "security": Security()}
    if kind == "cuda":
        return {
            "n_workers": workers, "threads_per_worker": threads, "local_directory": private_folder(),
            "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL,
            **secured, **options,
        }  # fmt: skip
    import dask

    def given_for(name: str) -> Any:  # noqa: ANN401 (whatever the option is)
        """Give an option of the user's, or what Dask's own configuration says of the batch system."""
        return options.get(name, dask.config.get(f"jobqueue.{kind}.{name.replace('_', '-')}", None))

    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # One process for each core: a forward pass has one thread, and several in one process take turns.
    processes = given_for("processes") or given_for("cores")
    return {
        **({"processes": processes} if processes else {}),
        "shared_temp_directory": given_for("shared_temp_directory") or str(Path.cwd()),
        "silence_logs": logging.CRITICAL,
        **secured,
        **options,
        "job_script_prologue": [*exports, *(given_for("job_script_prologue") or ())],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0", **(given_for("scheduler_options") or {})},
    }


def _class_of(kind: str) -> Any:  # noqa: ANN401 (untyped)
    """Import the class of a cluster.

    Raises
    ------
    ConfigError
        If it is not installed, or the machine lacks the command by which jobs are submitted.
    """
    module, name, extra = _CLASSES[kind]
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"execution.cluster: the kind {kind} needs what is not installed here ({error}); "
            f"pip install 'seamfree[{extra}]'"
        ) from error
    if kind in QUEUES:
        command = shlex.split(found.job_cls.submit_command)[0]
        if shutil.which(command) is None:
            raise ConfigError(
                f"execution.cluster: the kind {kind} submits jobs by {command}, and there is no such command here; run "
                "where jobs are submitted, or choose another kind"
            )
    return found


@contextmanager
def start_hosted(kind: str, options: Mapping[str, Any], workers: int | None, threads: int) -> Iterator[str]:
    """Start a cluster, ask it for workers, give its address, and close it in the end.

    Parameters
    ----------
    kind, options, workers, threads
        As for `hosted_settings`.

    Raises
    ------
    ConfigError
        If it is not installed, does not know an option, or cannot start.
    """
    found = _class_of(kind)
    try:
        cluster = found(**hosted_settings(kind, options, workers, threads))
    except Exception as error:
        raise _not_started(kind, error) from error
    try:
        if kind in QUEUES:
            _submit(kind, cluster, workers)
        yield cluster.scheduler_address
    finally:
        cluster.close()
        for name in ("ca_file", "cert", "key"):
            # The certificate for the jobs, which dask-jobqueue leaves to the collector of garbage.
            if (file := getattr(cluster, f"_job_{name}", None)) is not None:
                file.close()


def _submit(kind: str, cluster: Any, workers: int | None) -> None:  # noqa: ANN401 (untyped)
    """Submit jobs for so many workers.

    Raises
    ------
    ConfigError
        If the batch system takes none.
    """
    from distributed import Status

    async def submit() -> None:
        cluster.scale(workers)
        # In the background, where this is done else, it would fail without a word.
        await cluster._correct_state()

    try:
        cluster.sync(submit)
    except Exception as error:
        for job in cluster._created:
            if job.status == Status.created:
                # Else closing insists that what was never submitted ends.
                job.status = Status.failed
        raise _not_started(kind, error) from error


def _not_started(kind: str, error: Exception) -> ConfigError:
    told = " ".join(str(error).split()) or type(error).__name__
    return ConfigError(f"execution.cluster: the {kind} cluster does not start: {told}; check execution.cluster.options")
