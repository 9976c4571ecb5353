"""Many jobs, one contract: serially in this process, or on a Dask cluster with a bounded number in flight.

A job is a module-level function of a plan and an index. Only these two travel to a worker and only a small record
comes back; pixels go through the stores.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from traceback import clear_frames
from typing import Any, Protocol, TypeVar

from pipeline.errors import ClusterError, SeamfreeError, TileError, TileMemoryError, WorkersKilledError

__all__ = ["MOST_TOGETHER", "TOGETHER_SECONDS", "DaskExecutor", "Executor", "Job", "SerialExecutor", "how_many"]

Plan = TypeVar("Plan", contravariant=True)
Record = TypeVar("Record", covariant=True)


MOST_DEATHS = 3
"""So many workers a job may kill, the last of them while nothing else runs, before it is given up."""

TOGETHER_SECONDS, MOST_TOGETHER = 0.1, 64
"""Short jobs are sent together, as many as take so long, and never more than so many."""

_LOWERED = "%s; it is done again with less memory, and so is the rest of the stage (way %d of %d)"

_LOST = "the Dask scheduler is gone; what is done is kept: run again when it is back"

log = logging.getLogger(__name__)


class Job(Protocol[Plan, Record]):
    """What is done for one index of a stage: a module-level function, so that it can be sent to a worker."""

    def __call__(self, plan: Plan, index: int, /) -> Record:
        """Do the job and report on it."""
        ...


class Executor(Protocol):
    """Runs jobs somewhere."""

    def map(
        self,
        stage: str,
        job: Job[Any, Any],
        plan: Any,  # noqa: ANN401
        indices: Iterable[int],
        lowered: Sequence[Job[Any, Any]] = (),
    ) -> Iterator[tuple[int, Any]]:
        """Run `job` for each index and yield ``(index, record)`` in the order of completion.

        Parameters
        ----------
        stage : str
            What to call it in messages.
        job : Job
            What is done for each index.
        plan : object
            What it is done by.
        indices : iterable of int
            Taken as they are needed.
        lowered : sequence of Job
            Jobs that do the same with less memory, each with less than the one before. Where memory is too short for a
            job while nothing else runs, the next one takes its place, and keeps it until the end of the stage.

        Raises
        ------
        TileError
            If a job fails with anything but an error of seamfree's own; those come through as they are.
        """
        ...


def _attempt(stage: str, job: Job[Any, Any], plan: Any, index: int) -> Any:  # noqa: ANN401
    """Run one job; whatever goes wrong carries the stage and the index."""
    try:
        return job(plan, index)
    except SeamfreeError as error:
        # What reads and decodes takes anything for the file's fault.
        if error.__cause__ is not None and _is_out_of_memory(error.__cause__):
            raise _too_little_memory(stage, index, error.__cause__) from None
        raise
    except Exception as error:
        if _is_out_of_memory(error):
            raise _too_little_memory(stage, index, error) from None
        raise TileError(stage, index, _in_one_line(error)) from error


def _too_little_memory(stage: str, index: int, error: BaseException) -> TileMemoryError:
    """Tell of it, and let go of what the calls that it came through still hold: the next try needs the room.

    Workers keep what they have freed, see `pipeline.engine.workers`; here it goes back to the system.
    """
    clear_frames(error.__traceback__)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    return TileMemoryError(stage, index, _in_one_line(error))


def _attempt_on_worker(stage: str, job: Job[Any, Any], plan: Any, indices: tuple[int, ...]) -> tuple[list[Any], float]:  # noqa: ANN401
    """Run jobs in a worker process, one after the other, and give their records and the seconds that they took.

    The process ends if it has lost its GPU: only another one gets it back.
    """
    began = perf_counter()
    try:
        return [_attempt(stage, job, plan, index) for index in indices], perf_counter() - began
    except TileError as error:
        if not isinstance(error, TileMemoryError) and "CUDA error" in error.cause:
            os._exit(1)
        raise


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "Failed to allocate memory",
    # oneDNN, of the scratchpad that a convolution needs.
    "could not create a primitive",
    "could not create a memory object",
    # A thread's stack is memory, too.
    "can't start new thread",
)
"""What libraries say that have no error of its own for it: torch for a CPU, C++, onnxruntime, oneDNN."""


def _is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory was short: NumPy's error, torch's for a GPU, or a plain one that says so."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or any(words in text for words in _OUT_OF_MEMORY)


class SerialExecutor:
    """Runs one job after the other in this process: the same contract without a cluster."""

    def map(
        self,
        stage: str,
        job: Job[Any, Any],
        plan: Any,  # noqa: ANN401
        indices: Iterable[int],
        lowered: Sequence[Job[Any, Any]] = (),
    ) -> Iterator[tuple[int, Any]]:
        """Run `job` for each index, in order; see `Executor.map`."""
        ways, way = (job, *lowered), 0
        for index in indices:
            while True:
                try:
                    record = _attempt(stage, ways[way], plan, index)
                    break
                except TileMemoryError as error:
                    if way + 1 == len(ways):
                        raise
                    way += 1
                    log.warning(_LOWERED, error, way, len(lowered))
            yield index, record


class DaskExecutor:
    """Runs jobs on the workers of a Dask cluster.

    What a cluster does for each task takes milliseconds of the driver's machine, whatever the task. Short jobs are
    therefore sent several at a time, as many as take a tenth of a second.

    Parameters
    ----------
    client : distributed.Client
        A connected client.
    ahead : int, optional
        Tasks in flight per worker thread. Two keep a worker busy while its next one is on the way; a bounded
        number keeps the scheduler small however many tiles an image has.
    """

    def __init__(self, client: Any, ahead: int = 2) -> None:  # noqa: ANN401 (distributed is untyped)
        self.client = client
        self.ahead = ahead

    def map(
        self,
        stage: str,
        job: Job[Any, Any],
        plan: Any,  # noqa: ANN401
        indices: Iterable[int],
        lowered: Sequence[Job[Any, Any]] = (),
    ) -> Iterator[tuple[int, Any]]:
        """Run `job` for each index on the cluster; see `Executor.map`."""
        from distributed import as_completed

        try:
            most = max(1, sum(self.client.nthreads().values()) * self.ahead)
        except (OSError, TimeoutError) as error:
            raise ClusterError(_LOST) from error
        # What has to be done again goes by itself, so that it is known what it does.
        waiting, again, alone, lonely = iter(indices), deque[int](), deque[int](), -1
        together = 1
        flying: dict[Any, tuple[int, ...]] = {}
        deaths = Counter[int]()
        completed = as_completed(loop=self.client.loop)
        ways, way, tried, spread = (job, *lowered), 0, 0, 0
        failed: TileError | None = None

        def submit(group: tuple[int, ...], by: int) -> None:
            if group:
                future = self.client.submit(_attempt_on_worker, stage, ways[by], plan, group, pure=False, retries=0)
                flying[future] = group
                completed.add(future)

        try:
            for _ in range(most):
                submit(tuple(islice(waiting, 1)), way)
            while flying:
                future = next(completed)
                group = flying.pop(future)
                outcome = _outcome(future, stage, group)
                future.release()
                if isinstance(outcome, _Trouble):
                    before = way
                    for index in group:
                        deaths[index] += outcome.deaths
                        if index == lonely and not outcome.deaths and tried < len(lowered):
                            way = tried + 1
                        elif index == lonely and (deaths[index] >= MOST_DEATHS or not outcome.deaths):
                            given_up = _given_up(outcome, deaths[index])
                            if failed is not None or not outcome.deaths:
                                raise failed or given_up
                            # Others that were with it when workers died have their turn yet.
                            failed = given_up
                            continue
                        # A worker takes with it what was queued there, too. Whoever is suspected twice runs once more
                        # while nothing else does, and so does what found too little memory.
                        is_suspect = not outcome.deaths or deaths[index] >= MOST_DEATHS - 1
                        (alone if is_suspect and len(group) == 1 else again).append(index)
                    if way > before:
                        log.warning(_LOWERED, outcome.error, way, len(lowered))
                    elif failed is None:
                        log.warning("%s; it is done again", outcome.error)
                else:
                    together = how_many(len(group), outcome.seconds)
                    if group == (lonely,) and spread < way:
                        # With less memory each, the others may fit beside one another again.
                        spread = way
                        again.extend(index for index in alone if not deaths[index])
                        alone = deque(index for index in alone if deaths[index])
                submit((again.popleft(),) if again else tuple(islice(waiting, together)), way)
                if alone and not flying:
                    lonely = alone.popleft()
                    # Workers that die are mostly killed for the memory they take: the last try is the smallest.
                    tried = len(lowered) if deaths[lonely] else way
                    submit((lonely,), tried)
                if not isinstance(outcome, _Trouble):
                    yield from zip(group, outcome.records, strict=True)
            if failed is not None:
                raise failed
        finally:
            if flying:
                self.client.cancel(list(flying))


def how_many(count: int, seconds: float) -> int:
    """Give how many jobs to send together next, when so many took so long. At most twice as many: the next may differ.

    Times decide only who does what together, never what is done.
    """
    return max(1, min(2 * count, int(TOGETHER_SECONDS * count / max(seconds, 1e-6)), MOST_TOGETHER))


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What kept a job from being done that may be done yet: the death of workers, or none but too little memory."""

    error: TileError
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class _Done:
    """What jobs have reported, in their order, and the seconds that they took together."""

    records: list[Any]
    seconds: float


def _outcome(future: Any, stage: str, group: tuple[int, ...]) -> _Done | _Trouble:  # noqa: ANN401 (untyped)
    """Give what jobs reported, or what kept them from being done; raise what cannot be helped."""
    from distributed import CancelledError
    from distributed.scheduler import KilledWorker

    try:
        return _Done(*future.result())
    except KilledWorker as error:
        # A cluster of others may have tried it several times already.
        return _Trouble(TileError(stage, group[0], "a worker died that had it"), int(error.allowed_failures) + 1)
    except TileMemoryError as error:
        return _Trouble(error)
    except CancelledError as error:
        raise ClusterError(_LOST) from error


def _given_up(trouble: _Trouble, deaths: int) -> TileError:
    """Give the error of a job that has been tried often enough."""
    error = trouble.error
    if not trouble.deaths:
        return error
    return WorkersKilledError(
        error.stage, error.index, f"{deaths} workers died of it, the last while nothing else ran; most often memory is "
        "too short: use a smaller --tile or fewer --workers"
    )  # fmt: skip
