"""The network and nothing else: passes over windows in memory, in as many processes as are fastest.

It gets its best form: normalisation folded, ReLUs a part of convolutions, the order of channels that is the fastest,
and the memory settings that seamfree gives its workers.
What counts are the pixels of the cores, as in a run.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from pipeline.engine.workers import WORKER_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["bare_network"]

CORES = {2: (384, 512, 768, 1024, 1536, 2048), 3: (44, 64, 96, 128, 160, 192)}
"""Edges of cores that are tried, by number of axes. In 3-D the first is the paper's."""

LARGEST = 2e12
"""Operations of the largest window that is tried on a CPU: some seconds."""

PATIENCE = 900
"""Seconds after which a process that says nothing has died."""

SECONDS = 1.0
"""Passes go on for so long, and there is one at least."""


def bare_network(
    folder: Path, padding: str, precision: str, device: str, image: Sequence[int], settings: dict[str, Any] | None
) -> dict[str, Any]:
    """Measure useful pixels per second.

    Parameters
    ----------
    folder : Path
        Of a case.
    padding, precision, device : str
        As for `Case` and `Task`.
    image : sequence of int
        The image's shape: no core is larger.
    settings : dict, optional
        What was found best before: processes, threads and core; without, all are tried.

    Returns
    -------
    dict
        ``pixels_per_second``, ``pixels_per_core_second``, ``settings``, and ``tried``, all that was tried.
    """
    from tests.benchmarks.peers.cases import Case

    case = Case(folder, padding)
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    edges = [edge for edge in CORES[len(image)] if edge <= min(image)]
    edges = [edge for edge in edges if device != "cpu" or _work(case, edge) <= LARGEST] or edges[:1]
    ways = [{"processes": 1, "threads": cores}] + ([{"processes": cores, "threads": 1}] if cores > 1 else [])
    if settings is not None:
        edges, ways = [settings["core"]], [{name: settings[name] for name in ("processes", "threads")}]
    tried = []
    for way in ways:
        rates = _rates(folder, padding, precision, device, edges, **way)
        tried += [
            {**way, "core": edge, "rate": round(rate), "core_rate": round(core_rate)}
            for edge, (rate, core_rate) in zip(edges, rates, strict=True)
        ]
    best = max(tried, key=lambda each: each["rate"])
    return {
        "pixels_per_second": best["rate"],
        "pixels_per_core_second": max(each["core_rate"] for each in tried),
        "settings": {name: best[name] for name in ("processes", "threads", "core")},
        "tried": tried,
    }


def _work(case: Any, edge: int) -> float:  # noqa: ANN401 (a Case, which imports torch)
    architecture = case.architecture
    return float(architecture.flops(architecture.footprint.window_shape((edge,) * architecture.dims)))


@contextmanager
def _kept_memory() -> Iterator[None]:
    """Start processes with the memory settings of seamfree's workers; how many threads there are is said to torch."""
    before = dict(os.environ)
    os.environ.update({name: str(each) for name, each in WORKER_ENVIRONMENT.items() if not name.endswith("_THREADS")})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _rates(
    folder: Path, padding: str, precision: str, device: str, edges: list[int], processes: int, threads: int
) -> list[tuple[float, float]]:
    """Give pixels per second, and per second of a core, for each core of a tile, all processes at it at once."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(processes), context.Queue()
    arguments = (folder, padding, precision, device, edges, threads, barrier, found)
    with _kept_memory():
        workers = [context.Process(target=_pass, args=arguments) for _ in range(processes)]
        for worker in workers:
            worker.start()
    several = [found.get(timeout=PATIENCE) for _ in workers]
    for worker in workers:
        worker.join()
    return [
        (sum(rate for rate, _ in rates), max(core_rate for _, core_rate in rates))
        for rates in zip(*several, strict=True)
    ]


def _pass(
    folder: Path,
    padding: str,
    precision: str,
    device: str,
    edges: list[int],
    threads: int,
    barrier: Any,  # noqa: ANN401 (of multiprocessing, which hides its types)
    found: Any,  # noqa: ANN401
) -> None:
    """Run passes, begun together with the other processes, and give useful pixels per second for each core."""
    import torch

    from tests.benchmarks.peers.arithmetic import synchronise
    from tests.benchmarks.peers.cases import Case
    from tests.benchmarks.peers.contenders import Task

    torch.set_num_threads(threads)
    task = Task(Case(folder, padding), precision, device, None)
    network, rates = task.best_network(), []
    with torch.inference_mode():
        for edge in edges:
            window = task.case.footprint.window_shape((edge,) * task.case.architecture.dims)
            image = torch.rand(1, 1, *window, device=device).to(next(network.parameters()).dtype)
            began = perf_counter()
            network(image)
            synchronise(device)
            passes = max(1, ceil(SECONDS / (perf_counter() - began)))
            barrier.wait()
            began, busy = perf_counter(), process_time()
            for _ in range(passes):
                network(image)
            synchronise(device)
            useful = passes * edge**task.case.architecture.dims
            rates.append((useful / (perf_counter() - began), useful / (process_time() - busy)))
    found.put(rates)
