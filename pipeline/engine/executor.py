"""Many jobs, one contract: serially in this process, or on a Dask cluster with a bounded number in flight.

A job is a module-level function of a plan and an index. Only these two travel to a worker and only a small record
comes back; pixels go through the stores.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any, Protocol, TypeVar

from pipeline.engine.worker_logs import Line, collecting, log_again
from pipeline.errors import ClusterError, SeamfreeError, TileError, TileMemoryError, WorkersKilledError

__all__ = ["MOST_TOGETHER", "TOGETHER_SECONDS", "DaskExecutor", "Executor", "Job", "SerialExecutor", "how_many"]

Plan = TypeVar("Plan", contravariant=True)
Record = TypeVar("Record", covariant=True)


MOST_DEATHS = 3
"""So many workers a job may kill, the last of them while nothing else runs, before it is given up."""

TOGETHER_SECONDS, MOST_TOGETHER = 0.1, 64
"""Short jobs are sent together, as many as take so long, and never more than so many."""

_LOST = "the Dask scheduler is gone; what is done is kept: run again when it is back"

log = logging.getLogger(__name__)


class Job(Protocol[Plan, Record]):
    """What is done for one index of a stage: a module-level function, so that it can be sent to a worker."""

    def __call__(self, plan: Plan, index: int, /) -> Record:
        """Do the job and report on it."""
        ...


class Executor(Protocol):
    """Runs jobs somewhere."""

    def map(self, stage: str, job: Job[Any, Any], plan: Any, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:  # noqa: ANN401
        """Run `job` for each index and yield ``(index, record)`` in the order of completion.

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
            raise TileMemoryError(stage, index, _in_one_line(error.__cause__)) from error
        raise
    except Exception as error:
        kind = TileMemoryError if _is_out_of_memory(error) else TileError
        raise kind(stage, index, _in_one_line(error)) from error


def _attempt_on_worker(
    stage: str,
    job: Job[Any, Any],
    plan: Any,  # noqa: ANN401
    indices: tuple[int, ...],
) -> tuple[list[Any], float, list[Line]]:
    """Run jobs in a worker process, one after the other; give their records, the seconds they took, and their log.

    The process ends if it has lost its GPU: only another one gets it back.
    """
    began = perf_counter()
    try:
        with collecting() as lines:
            records = [_attempt(stage, job, plan, index) for index in indices]
        return records, perf_counter() - began, lines
    except TileError as error:
        if not isinstance(error, TileMemoryError) and "CUDA error" in error.cause:
            os._exit(1)
        raise


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory was short: NumPy's error, torch's for a GPU, or the plain one of its allocator for a CPU."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


class SerialExecutor:
    """Runs one job after the other in this process: the same contract without a cluster."""

    def map(self, stage: str, job: Job[Any, Any], plan: Any, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:  # noqa: ANN401
        """Run `job` for each index, in order; see `Executor.map`."""
        for index in indices:
            yield index, _attempt(stage, job, plan, index)


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

    def map(self, stage: str, job: Job[Any, Any], plan: Any, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:  # noqa: ANN401
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

        def submit(group: tuple[int, ...]) -> None:
            if group:
                future = self.client.submit(_attempt_on_worker, stage, job, plan, group, pure=False, retries=0)
                flying[future] = group
                completed.add(future)

        try:
            for _ in range(most):
                submit(tuple(islice(waiting, 1)))
            while flying:
                future = next(completed)
                group = flying.pop(future)
                outcome = _outcome(future, stage, group)
                future.release()
                if isinstance(outcome, _Trouble):
                    for index in group:
                        deaths[index] += outcome.deaths
                        if index == lonely and (deaths[index] >= MOST_DEATHS or not outcome.deaths):
                            raise _given_up(outcome, deaths[index])
                        # A worker takes with it what was queued there, too. Whoever is suspected twice runs once more
                        # while nothing else does, and so does what found too little memory.
                        is_suspect = not outcome.deaths or deaths[index] >= MOST_DEATHS - 1
                        (alone if is_suspect and len(group) == 1 else again).append(index)
                    log.warning("%s; it is done again", outcome.error)
                else:
                    log_again(outcome.lines)
                    together = how_many(len(group), outcome.seconds)
                submit((again.popleft(),) if again else tuple(islice(waiting, together)))
                if alone and not flying:
                    lonely = alone.popleft()
                    submit((lonely,))
                if not isinstance(outcome, _Trouble):
                    yield from zip(group, outcome.records, strict=True)
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
    """What jobs have reported, in their order, the seconds that they took together, and what they have logged."""

    records: list[Any]
    seconds: float
    lines: list[Line]


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
