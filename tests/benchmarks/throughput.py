"""End to end against the bare network: `seamfree run --direct` on a large image, and forward passes on windows of
the same size, in one run.

The bare network gets its best form: batch normalisation folded, channels last, windows in memory, nothing else to do;
once in as many processes of one thread as there are cores, once in one process of as many threads, whichever is faster.
It runs twice: as anyone's process runs it, and with the memory allocation settings that seamfree gives its workers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline import RunConfig, plan
from pipeline.engine.workers import WORKER_ENVIRONMENT
from pipeline.models.library import DEFAULT_MODEL
from tests.fields import compose, load_fields, write_tiled


def forward(window: tuple[int, int], precision: str, threads: int, passes: int, barrier: Any, seconds: Any) -> None:  # noqa: ANN401
    """Time forward passes in a process of its own, begun together with the others."""
    from pipeline.models.library import load_model
    from pipeline.models.predictor import Predictor, limit_threads

    limit_threads(threads)
    predictor = Predictor(load_model(DEFAULT_MODEL), "cpu", precision)  # type: ignore[arg-type]
    image = np.random.default_rng(0).normal(0.3, 0.3, (1, *window)).astype(np.float32)
    predictor.predict(image)
    barrier.wait()
    began = perf_counter()
    for _ in range(passes):
        predictor.predict(image)
    seconds.put(perf_counter() - began)


def bare_rate(
    window: tuple[int, ...], core: tuple[int, ...], precision: str, cores: int, passes: int, environment: dict[str, str]
) -> float:
    """Give useful pixels per second of the bare network."""
    context = multiprocessing.get_context("spawn")
    best = 0.0
    for processes, threads in ((cores, 1), (1, cores)):
        barrier, seconds = context.Barrier(processes), context.Queue()
        workers = [
            context.Process(target=forward, args=(window, precision, threads, passes, barrier, seconds))
            for _ in range(processes)
        ]
        before = dict(os.environ)
        os.environ.update(environment)
        for worker in workers:
            worker.start()
        os.environ.clear()
        os.environ.update(before)
        slowest = max(seconds.get() for _ in workers)
        for worker in workers:
            worker.join()
        best = max(best, processes * passes * core[0] * core[1] / slowest)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=8192)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    work = Path(tempfile.mkdtemp(prefix="seamfree-throughput-"))
    try:
        image = work / "large.ome.tif"
        write_tiled(image, compose(load_fields(), (given.edge, given.edge)))
        config = RunConfig(precision=given.precision)
        decided = plan(image, config)[0].plan
        assert decided is not None
        window, core = decided.tiles.window_shape[2:], decided.core[2:]
        kept = {name: str(value) for name, value in WORKER_ENVIRONMENT.items() if not name.endswith("_THREADS")}
        environments: dict[str, dict[str, str]] = {"plain": {}, "kept memory": kept}
        rows: list[dict[str, Any]] = []
        for repeat in range(given.repeats):
            # Bare passes before and after each run: the machine's speed drifts.
            bare: dict[str, list[float]] = {name: [] for name in environments}
            for name, environment in environments.items():
                bare[name].append(bare_rate(window, core, given.precision, cores, 6, environment))
            out = work / f"out-{repeat}"
            command: list[str | Path] = [Path(sys.executable).parent / "seamfree", "run", image, "-o", out, "--direct"]
            began = perf_counter()
            subprocess.run([*command, "--precision", given.precision], check=True, capture_output=True)
            wall = perf_counter() - began
            for name, environment in environments.items():
                bare[name].append(bare_rate(window, core, given.precision, cores, 6, environment))
            timings = json.loads((out / "large.ome.zarr" / "seamfree.json").read_text())["timings"]
            shutil.rmtree(out)
            rate = given.edge**2 / wall
            rates = {name: median(found) for name, found in bare.items()}
            ratios = {name: rate / found for name, found in rates.items()}
            rows.append({"bare": rates, "end_to_end": rate, "ratio": ratios, "wall": wall, **timings})
            told = ", ".join(f"bare ({name}) {rates[name] / 1e6:.3f}, ratio {ratios[name]:.3f}" for name in rates)
            print(f"end to end {rate / 1e6:.3f} Mpx/s in {wall:.1f} s; {told}", flush=True)
        facts = {
            "machine": f"{platform.machine()}, {cores} cores",
            "edge": given.edge,
            "precision": given.precision,
            "core": core,
            "window": window,
            "median_ratio": {name: round(median(row["ratio"][name] for row in rows), 3) for name in environments},
            "runs": rows,
        }
        print(json.dumps(facts, indent=2))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
