"""Jobs for worker processes: they must be importable there."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from time import perf_counter

from pipeline.errors import ImageError


def double(plan: int, index: int) -> dict[str, int]:
    return {"value": plan * index}


def log_something(plan: str, index: int) -> dict[str, int]:
    logging.getLogger("pipeline.images").info("%s %d", plan, index)
    logging.getLogger("elsewhere").info("not of interest")
    logging.getLogger("elsewhere").warning("of %s %d", plan, index)
    return {}


def fail_at_three(_plan: object, index: int) -> dict[str, int]:
    if index == 3:
        raise ValueError("three is too many")
    return {}


def refuse(plan: str, _index: int) -> dict[str, int]:
    raise ImageError(f"{plan}: a message of one line")


def kill_once(plan: str, index: int) -> dict[str, int]:
    """Kill the worker, the first time that job 2 is tried."""
    mark = Path(plan) / "killed"
    if index == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"pid": os.getpid()}


def kill_and_tell(plan: str, index: int) -> dict[str, int]:
    """Kill the worker whenever job 2 is tried, and count how often."""
    if index == 2:
        with (Path(plan) / "killed").open("ab") as file:
            file.write(b"x")
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def tell_name(plan: str, _index: int) -> dict[str, str]:
    return {"name": Path(plan).name}


def want_memory_alone(plan: str, index: int) -> dict[str, int]:
    """Find too little memory for job 2, the first time."""
    mark = Path(plan) / "wanted"
    if index == 2 and not mark.exists():
        mark.touch()
        want_too_much_memory(None, index)
    return {}


def _is_first_try(plan: str) -> bool:
    """Count the tries of a job in a file."""
    tries = Path(plan) / "tried"
    count = int(tries.read_text()) if tries.exists() else 0
    tries.write_text(str(count + 1))
    return count == 0


def kill_late(plan: str, index: int) -> dict[str, int]:
    """Kill the worker, the first time that job 250 is tried."""
    if index == 250 and _is_first_try(plan):
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def want_memory_late(plan: str, index: int) -> dict[str, int]:
    """Find too little memory for job 250, the first time."""
    if index == 250 and _is_first_try(plan):
        want_too_much_memory(None, 2)
    return {}


def take_a_while(_plan: object, _index: int) -> dict[str, int]:
    """Work for longer than short jobs take."""
    until = perf_counter() + 0.12
    while perf_counter() < until:
        pass
    return {}


def take_memory(plan: int, index: int) -> dict[str, int]:
    """Take so many bytes for job 2, and be busy with them for longer than it takes to be noticed."""
    if index == 2:
        held = bytearray(b"1") * plan
        until = perf_counter() + 20
        while perf_counter() < until:
            held[0] = 1
    return {}


def want_too_much_memory(_plan: object, index: int) -> dict[str, int]:
    import numpy as np

    if index == 2:
        np.empty(2**60, dtype=np.uint8)
    return {}


def fail_saying(plan: str, index: int) -> dict[str, int]:
    """Fail at job 1, with the words of a library."""
    if index == 1:
        raise RuntimeError(plan)
    return {}


def lose_gpu_once(plan: str, index: int) -> dict[str, int]:
    """Fail as torch does when a GPU has gone, the first time that job 2 is tried."""
    mark = Path(plan) / "lost"
    if index == 2 and not mark.exists():
        mark.write_text(str(os.getpid()))
        raise RuntimeError("CUDA error: unspecified launch failure")
    return {"pid": os.getpid()}


def surroundings(_plan: object, _index: int) -> dict[str, object]:
    """Tell what a worker finds itself in."""
    import resource
    import sys
    import threading

    import numpy as np

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**27, dtype=np.uint8)
    return {
        "environment": dict(os.environ),
        "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before,
        "main thread": threading.current_thread() is threading.main_thread(),
        "modules": sorted(sys.modules),
    }


def mark_many(path: str, total: int) -> None:
    """Mark jobs in a ledger, and say so after each; to be killed on the way."""
    from pipeline.engine.ledger import Ledger

    with Ledger(Path(path), "digest") as ledger:
        for index in range(total):
            ledger.mark("stage", index, {"index": index})
            os.write(1, f"{index}\n".encode())
