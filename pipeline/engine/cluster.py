"""Where jobs run: a local Dask cluster, an existing one, or this process."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.engine.executor import DaskExecutor, Executor, SerialExecutor
from pipeline.engine.workers import START_METHOD, WORKER_ENVIRONMENT, WORKER_SETTINGS, prepare_workers
from pipeline.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from distributed import LocalCluster

__all__ = [
    "ClusterSpec",
    "check_scheduler",
    "client_environment",
    "connect",
    "connected",
    "open_cluster",
    "shared_address",
]

SERIAL = "serial"
"""The address that means: no cluster, one job after the other in this process."""

GPU_THREADS = 4
"""Threads around a GPU that a process has for itself: they read and write while one of them has the network."""

SHARED_THREADS = 2
"""Threads of a process that shares a GPU with others."""

LEAST_GPU_MEMORY, LEAST_MEMORY = 6 * 2**30, 4 * 2**30
"""Bytes of a GPU, and of the machine, for each of the processes around it; libraries alone take one of the first."""

STARTS = 3
"""How often workers are started of which one dies before it has begun."""

_ADDRESS = re.compile(r"(?:(?P<protocol>[a-z][a-z0-9+.-]*)://)?(?P<host>\[[^\[\]]+\]|[^\s/:\[\]]+):(?P<port>\d+)/?")
"""How the address of a scheduler is written."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The cluster that a run wants.

    Parameters
    ----------
    workers : int, optional
        Worker processes; None is one for each GPU, for the kind ``cuda``.
    threads : int
        Threads per worker process: 1 on a CPU, several where a GPU computes.
    scheduler : str, optional
        Address of an existing Dask scheduler, or ``"serial"`` for none at all. A cluster of its own where absent.
    preload : tuple of str
        Modules that the jobs need; see `prepare_workers`.
    memory : int, optional
        Bytes that each worker process of a local cluster may use: one that takes more is ended, and its job tried
        again. Dask's own choice where absent.
    patience : float, optional
        Seconds that jobs wait for a worker where all have gone, of a cluster that others start; without end where
        absent.
    kind : str
        Who starts it: ``"local"``, or what `pipeline.engine.hosted` knows.
    options : mapping
        For another kind than local: what its class is called with.
    """

    workers: int | None
    threads: int = 1
    scheduler: str | None = None
    preload: tuple[str, ...] = ()
    memory: int | None = None
    patience: float | None = None
    kind: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def elsewhere(self) -> bool:
        """Whether the workers are others than processes of this machine that seamfree starts."""
        return self.kind != "local" or self.scheduler not in (None, SERIAL)

    @classmethod
    def for_machine(
        cls, workers: int | None, gpus: int, memory: int, preload: tuple[str, ...] = (), gpu_memory: int = 0
    ) -> ClusterSpec:
        """Choose for this machine: one process per core, where there are GPUs as many as these have memory for.

        What is done around the network, in Python above all, keeps a process busy for longer than a GPU needs for its
        tile; so several share one. On a CPU each process has one thread, and one thread inside torch, so that the
        result does not depend on the machine's load.

        Parameters
        ----------
        workers : int, optional
            How many the user wants.
        gpus : int
            That are used.
        memory, gpu_memory : int
            Bytes of the machine, and of the smallest of its GPUs.
        preload : tuple of str
            As in `ClusterSpec`.

        Raises
        ------
        ConfigError
            If that are none.
        """
        if workers is not None and workers < 1:
            raise ConfigError(f"{workers} workers cannot do anything; give 1 or more")
        cores = len(os.sched_getaffinity(0))
        if not gpus:
            number, threads = workers or cores, 1
        else:
            each = min(cores // gpus, memory // (gpus * LEAST_MEMORY), gpu_memory // LEAST_GPU_MEMORY)
            number = workers or gpus * max(1, each)
            threads = SHARED_THREADS if number > gpus else GPU_THREADS
        return cls(workers=number, threads=threads, preload=preload, memory=memory // number)


@contextmanager
def open_cluster(spec: ClusterSpec) -> Iterator[str]:
    """Start the cluster, or find the existing one, and give its address. What was started is closed in the end.

    A local cluster listens on the loopback interface only, and takes encrypted connections from those alone that have
    the certificate of this run, which is made for it and lies in no file.
    """
    if spec.scheduler is not None:
        yield spec.scheduler
        return
    import dask

    from pipeline.engine.hosted import is_encrypted, start_hosted
    from pipeline.engine.secrecy import certificates, private_folder

    settings: dict[str, object] = {
        "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
        **WORKER_SETTINGS,
        # The executor counts the deaths that a job may have caused, and tells them.
        "distributed.scheduler.allowed-failures": 0,
        "distributed.admin.large-graph-warning-threshold": "1GB",
        # Who asks a worker for a record that is killed meanwhile may go on asking for so long, 30 s by default.
        "distributed.comm.timeouts.connect": "5s",
        # Each entry keeps a plan alive: a thousand of them cost the scheduler 35 MiB.
        "distributed.admin.low-level-log-length": 50,
        # What is remembered of clients that have gone, and of what they did: a watcher has 30 for each image.
        "distributed.scheduler.events-cleanup-delay": "30 s",
        "distributed.admin.log-length": 100,
    }
    if spec.kind != "local":
        encrypted = certificates() if is_encrypted(spec.kind, spec.options) else {}
        settings["distributed.scheduler.no-workers-timeout"] = None if spec.patience is None else f"{spec.patience} s"
        with (
            dask.config.set(settings | encrypted),
            start_hosted(spec.kind, spec.options, spec.workers, spec.threads) as address,
        ):
            yield address
        return
    prepare_workers(spec.preload)
    settings |= {"distributed.worker.multiprocessing-method": START_METHOD, **certificates()}
    with dask.config.set(settings), _start_cluster(spec, private_folder()) as cluster:
        log.info(
            "%d workers, scheduler at %s, its status at %s: all listen on the loopback interface of this machine only",
            spec.workers, cluster.scheduler_address, cluster.dashboard_link,
        )  # fmt: skip
        yield cluster.scheduler_address


def _without_spans(extensions: Mapping[str, type]) -> dict[str, type]:
    """Leave out what remembers, for as long as the scheduler lives, each span of time in which there were tasks.

    There are nine for an image, and 85 KiB: a watcher, or a folder of many images, would never stop growing.
    """
    return {name: kind for name, kind in extensions.items() if name != "spans"}


def _start_cluster(spec: ClusterSpec, folder: str) -> LocalCluster:
    """Start scheduler and workers, again if a worker dies while it starts: a machine short of memory kills any process.

    Raises
    ------
    ClusterError
        If that was not enough.
    """
    from distributed import LocalCluster, scheduler, worker

    from pipeline.engine.forgetting import ForgetsClients
    from pipeline.engine.nanny import SteadyNanny

    for attempt in range(1, STARTS + 1):
        try:
            return LocalCluster(
                n_workers=spec.workers,
                threads_per_worker=spec.threads,
                memory_limit=spec.memory if spec.memory is not None else "auto",
                worker_class=SteadyNanny,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                protocol="tls://",
                local_directory=folder,
                # What goes wrong in a job reaches the driver with the job; the rest is noise of closing connections.
                silence_logs=logging.CRITICAL,
                scheduler_kwargs={
                    "extensions": _without_spans(scheduler.DEFAULT_EXTENSIONS),
                    "plugins": [ForgetsClients()],
                },
                extensions=_without_spans(worker.DEFAULT_EXTENSIONS),
            )
        except RuntimeError as error:
            if attempt == STARTS:
                raise ClusterError(
                    f"the worker processes do not start, or die at once, {STARTS} times in a row ({error}); is there "
                    "memory for them? --workers 1 takes the least, and --scheduler serial does without"
                ) from error
            log.warning("a worker process died while it started; the workers are started again")
    raise AssertionError


def shared_address() -> str | None:
    """Give the address of the cluster that Dask's own configuration names for clients, if any."""
    import dask

    address: str | None = dask.config.get("scheduler-address", None)
    return address


def client_environment(address: str) -> dict[str, str]:
    """Give the variables, as Dask defines them, by which other processes of this user join an open cluster.

    Parameters
    ----------
    address : str
        Of the scheduler that `open_cluster` has given, while it is open.
    """
    import dask

    names = ("require-encryption", "tls.ca-file", "tls.client.cert", "tls.client.key")
    settings = {f"distributed.comm.{name}": dask.config.get(f"distributed.comm.{name}", None) for name in names}
    variables = {f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": str(value)
                 for name, value in settings.items() if value is not None}  # fmt: skip
    return variables | {"DASK_SCHEDULER_ADDRESS": address}


def _no_scheduler(address: str, why: str) -> ConfigError:
    return ConfigError(f"no Dask scheduler answers at {address!r} ({why}); check --scheduler")


def check_scheduler(address: str | None) -> None:
    """Refuse an address where nothing can answer. Dask's client takes a minute for that, and does not end well.

    Parameters
    ----------
    address : str, optional
        As in `ClusterSpec`.

    Raises
    ------
    ConfigError
        If it is no address, or nothing listens there.
    """
    if address is None or address == SERIAL:
        return
    parts = _ADDRESS.fullmatch(address)
    if parts is None or int(parts["port"]) > 65535:
        raise _no_scheduler(address, "not of the form HOST:PORT or PROTOCOL://HOST:PORT")
    if parts["protocol"] not in (None, "tcp", "tls", "ws", "wss"):
        return
    context = _client_context(address) if parts["protocol"] in ("tls", "wss") else None
    try:
        with socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), timeout=5) as plain:
            if context is not None:
                with context.wrap_socket(plain) as encrypted:
                    # Whether our certificate is taken shows when the other side speaks, as a scheduler does at once.
                    encrypted.recv(1)
    except (OSError, OverflowError) as error:
        raise _no_scheduler(address, getattr(error, "strerror", None) or str(error)) from error


def _client_context(address: str) -> ssl.SSLContext:
    """Give what Dask's own configuration says of certificates, for a client.

    Raises
    ------
    ConfigError
        If it says nothing, or a file cannot be read.
    """
    from distributed.security import Security

    where = "distributed.comm.tls.ca-file, client.cert and client.key in Dask's configuration"
    try:
        context: ssl.SSLContext | None = Security().get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{address}: the certificates cannot be used ({error}); check {where}") from error
    if context is None:
        raise ConfigError(f"{address}: needs certificates; name their files under {where}")
    return context


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give a client of the scheduler at `address`.

    Raises
    ------
    ConfigError
        If no scheduler answers there.
    """
    check_scheduler(address)
    from distributed import Client

    try:
        client = Client(address, timeout="30s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise _no_scheduler(address, getattr(error, "strerror", None) or str(error)) from error
    with client:
        yield client


@contextmanager
def connect(address: str) -> Iterator[Executor]:
    """Give an executor on the cluster at `address`.

    Raises
    ------
    ConfigError
        If no scheduler answers there.
    """
    if address == SERIAL:
        yield SerialExecutor()
        return
    with connected(address) as client:
        yield DaskExecutor(client)
