"""What a run needs to know of workers on other machines, and what these must see, found out before work starts."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from uuid import uuid4

from pipeline.engine.survey import ask_workers, check_versions, host_of, wait_for_workers
from pipeline.errors import ClusterError, ConfigError, StoreError
from pipeline.identity import NUMBERS_DEPEND_ON
from pipeline.intent import Intent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

__all__ = ["WorkerFacts", "check_paths", "intent_of_workers", "survey_workers"]

MOST_PATHS = 200
"""So many inputs are looked for on the workers, spread evenly over all."""

log = logging.getLogger(__name__)


class WorkerFacts(NamedTuple):
    """What a worker is."""

    threads: int
    memory: int
    """Bytes that it may use."""
    processor: str
    gpus: int
    """That torch sees there, and the model can use."""
    gpu_memory: int
    """Of the smallest, in bytes; 0 where there is none."""


def describe_worker(
    wish: Literal["auto", "cpu", "cuda"],
    graph: bool,
    dask_worker: Any,  # noqa: ANN401 (untyped)
) -> WorkerFacts:
    """Say what this worker is. Runs there.

    Parameters
    ----------
    wish : str
        The device that the user wants.
    graph : bool
        Whether the model is an ONNX graph, which computes on a GPU where onnxruntime was built for it.
    dask_worker : distributed.Worker
        It; given by Dask, to whatever has an argument of this name.
    """
    from distributed.system import MEMORY_LIMIT

    from pipeline.rates import device_name
    from pipeline.site import count_gpus, smallest_gpu

    limit = dask_worker.memory_manager.memory_limit or MEMORY_LIMIT
    gpus = 0 if wish == "cpu" else count_gpus("auto")
    if gpus and graph:
        from pipeline.models.graphs import computes_on_gpus

        gpus = gpus if computes_on_gpus() else 0
    processor = device_name("cpu").rpartition(",")[0]
    return WorkerFacts(dask_worker.state.nthreads, int(limit), processor, gpus, smallest_gpu(gpus))


def intent_of_workers(facts: Mapping[str, WorkerFacts], wish: Literal["auto", "cpu", "cuda"]) -> Intent:
    """Decide what plans are made for, so that the least of the workers can carry them out.

    Parameters
    ----------
    facts : mapping of str to WorkerFacts
        By the workers' addresses.
    wish : str
        The device that the user wants.

    Raises
    ------
    ConfigError
        If a GPU is wanted and a worker has none.
    """
    without = [address for address, each in facts.items() if not each.gpus]
    if wish == "cuda" and without:
        raise ConfigError(
            f"--device cuda: the worker at {without[0]} has no GPU that can be used, like {len(without)} of "
            f"{len(facts)}; start workers where there is one, or use --device auto"
        )
    if without and len(without) < len(facts):
        log.warning("%d of %d workers have no GPU, so none is used: one result is computed by one kind of device",
                    len(without), len(facts))  # fmt: skip
    if not without:
        from pipeline.site import share_of_gpu

        of_host = Counter(map(host_of, facts))
        memory = min(
            share_of_gpu(each.gpu_memory, -(-of_host[host_of(address)] // each.gpus)) for address, each in facts.items()
        )
        host_memory = min(each.memory // each.threads for each in facts.values())
        return Intent(device="cuda", worker_memory=memory, host_memory=host_memory, workers=len(facts))
    kinds = sorted({each.processor for each in facts.values()})
    if len(kinds) > 1:
        log.warning("the workers' processors differ (%s): scores may differ in their last digits by who computed them",
                    ", ".join(kinds))  # fmt: skip
    if most := max(each.threads for each in facts.values()) - 1:
        log.warning("a worker has %d threads, which take turns at the network; processes of one thread each are faster "
                    "(dask worker --nworkers N --nthreads 1)", most + 1)  # fmt: skip
    memory = min(each.memory // each.threads for each in facts.values())
    return Intent(device="cpu", worker_memory=memory, workers=sum(each.threads for each in facts.values()))


def survey_workers(
    address: str,
    wish: Literal["auto", "cpu", "cuda"],
    *,
    graph: bool,
    patience: float,
    paths: Iterable[Path],
    output: Path,
) -> Intent:
    """Ask the workers of a cluster what they are, and make sure that they can do a run's work.

    Parameters
    ----------
    address : str
        Of the scheduler.
    wish : str
        The device that the user wants.
    graph : bool
        As for `describe_worker`.
    patience : float
        Seconds to wait for a first worker.
    paths : iterable of Path
        What the workers must be able to read.
    output : Path
        A folder that they must be able to write to.

    Returns
    -------
    Intent
        What plans are made for.

    Raises
    ------
    ClusterError
        If there is no worker, one lacks seamfree or has another version, or does not see a path.
    ConfigError
        If no scheduler answers, or a GPU is wanted and a worker has none.
    """
    from pipeline.engine.cluster import connected

    with connected(address) as client:
        wait_for_workers(client, 1, patience)
        check_versions(client, NUMBERS_DEPEND_ON)
        facts = ask_workers(client, describe_worker, wish, graph)
        check_paths(client, paths, output)
    log.info("%d workers on %d hosts", len(facts), len(set(map(host_of, facts))))
    return intent_of_workers(facts, wish)


def check_paths(client: Any, paths: Iterable[Path], output: Path) -> None:  # noqa: ANN401 (untyped)
    """Make sure that a worker of each host sees inputs and output as this process does.

    Raises
    ------
    ClusterError
        If one does not: names its host and the path.
    StoreError
        If the output cannot be written to.
    """
    named = [str(path.absolute()) for path in paths]
    named = named[:: -(-len(named) // MOST_PATHS) or 1]
    token = uuid4().hex
    probe = output.absolute() / f".seamfree-{token}"
    try:
        probe.write_text(token, encoding="ascii")
    except OSError as error:
        raise StoreError(f"{output}: cannot be written to ({error.strerror or error}); choose another -o") from error
    try:
        for address, wrong in ask_workers(client, what_is_missing, named, str(probe), one_per_host=True).items():
            if wrong is not None:
                raise ClusterError(
                    f"the worker at {address} {wrong}; workers read images and write results themselves: put both "
                    "where all machines see them under one path"
                )
    finally:
        probe.unlink(missing_ok=True)


def what_is_missing(paths: list[str], probe: str) -> str | None:
    """Say what this worker cannot do with paths, None if nothing. Runs there."""
    for path in paths:
        if not Path(path).exists():
            return f"does not see {path}"
    held, own = Path(probe), Path(f"{probe}-{uuid4().hex}")
    try:
        if held.read_text(encoding="ascii") != held.name.rpartition("-")[2]:
            return f"sees another folder at {held.parent}"
    except OSError:
        return f"does not see the folder of results, {held.parent}"
    try:
        own.touch()
        own.unlink()
    except OSError as error:
        return f"cannot write to the folder of results, {held.parent} ({error.strerror or error})"
    return None
