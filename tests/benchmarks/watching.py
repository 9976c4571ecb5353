"""Looking at a command and all processes that come of it, while they run."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from time import perf_counter

import psutil

__all__ = ["Watched", "looked_at", "own_bytes", "run_watched"]

EVERY = 0.05


@contextmanager
def looked_at(process: int, look: Callable[[list[psutil.Process]], None], every: float = EVERY) -> Iterator[None]:
    """Call a function with a process and all that came of it, again and again, until the end of the block."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every):
            try:
                root = psutil.Process(process)
                family = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            look(family)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def own_bytes(process: psutil.Process) -> int:
    """Give the memory that a process holds, but for files that it has mapped, such as libraries; 0 when it has ended.

    Pages that forked processes still share count for each.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return sum(1024 * int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in lines)


@dataclass
class Watched:
    """What a command took."""

    code: int
    seconds: float
    peak_bytes: int
    """The most that all its processes held at once; see `own_bytes`."""
    core_seconds: float
    """For which cores were at it, of all its processes."""
    errors: str
    gpu: dict[str, float] = field(default_factory=dict)
    """``memory_mib``, the most; ``busy``, the mean share of time; ``busy_between``, that from when it began to be busy
    until it was for the last time. Empty where no GPU is asked about."""


def gpu_state(text: str) -> tuple[float, float]:
    """Read a line of nvidia-smi: the share of time that the GPU was busy, and MiB in use."""
    busy, memory = text.splitlines()[0].split(",")
    return float(busy) / 100, float(memory)


def gpu_summary(states: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Sum up what nvidia-smi has said, as in `Watched`."""
    if not states:
        return {}
    shares = [busy for busy, _ in states]
    at_work = [at for at, busy in enumerate(shares) if busy > 0]
    between = shares[at_work[0] : at_work[-1] + 1] if at_work else [0.0]
    return {
        "memory_mib": max(memory for _, memory in states),
        "busy": fmean(shares),
        "busy_between": fmean(between),
    }


def run_watched(
    command: Sequence[str | Path],
    *,
    gpu: bool = False,
    environment: dict[str, str] | None = None,
    where: Path | None = None,
) -> Watched:
    """Run a command to its end.

    Parameters
    ----------
    command : sequence of str or Path
        Its output is not kept.
    gpu : bool
        Whether to ask nvidia-smi about the GPU, some times a second; of all programs that use it.
    environment : dict, optional
        Of the command; as of this process where absent.
    where : Path, optional
        The folder that it runs in.
    """
    peak, states, stop = 0, list[tuple[float, float]](), threading.Event()
    busy: dict[int, float] = {}

    def look(family: list[psutil.Process]) -> None:
        nonlocal peak
        peak = max(peak, sum(map(own_bytes, family)))
        for member in family:
            with suppress(psutil.Error):
                busy[member.pid] = sum(member.cpu_times()[:2])

    def ask() -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        while not stop.wait(0.2):
            states.append(gpu_state(subprocess.run(query, check=True, capture_output=True, text=True).stdout))

    asking = threading.Thread(target=ask) if gpu and shutil.which("nvidia-smi") else None
    began = perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, cwd=where
    )
    if asking is not None:
        asking.start()
    with looked_at(process.pid, look):
        _, errors = process.communicate()
    seconds = perf_counter() - began
    if asking is not None:
        stop.set()
        asking.join()
    return Watched(process.returncode, seconds, peak, sum(busy.values()), errors, gpu_summary(states))
