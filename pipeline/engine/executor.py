"""Many jobs, one contract: serially in this process, or on a Dask cluster with a bounded number in flight.

A job is a module-level function of a plan and an index. Only these two travel to a worker and only a small record
comes back; pixels go through the stores.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from time import perf_counter
from traceback import clear_frames
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

RECOUNT_SECONDS = 2.0
"""How often, at most, the workers are counted: some may have joined, and some gone."""

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


def _attempt_on_worker(
    stage: str, job: Job[Any, Any], packed: bytes, indices: tuple[int, ...]
) -> tuple[list[Any], float, list[Line]]:
    """Run jobs in a worker process, one after the other; give their records, the seconds they took, and their log.

    The process ends if it has lost its GPU: only another one gets it back.
    """
    began = perf_counter()
    plan = _unpacked(packed)
    try:
        with collecting() as lines:
            records = [_attempt(stage, job, plan, index) for index in indices]
        return records, perf_counter() - began, lines
    except TileError as error:
        if not isinstance(error, TileMemoryError) and "CUDA error" in error.cause:
            os._exit(1)
        raise


@lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> Any:  # noqa: ANN401 (a plan)
    """Give a plan that this process may have unpacked before."""
    return pickle.loads(packed)


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
    # cuBLAS and cuDNN, of their workspaces; the last two say so where it left no algorithm to choose.
    "_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "find a valid cuDNN algorithm",
    "find an engine to execute this computation",
    # A thread's stack is memory, too.
    "can't start new thread",
)
"""What libraries say that have no error of its own for it: torch, C++, onnxruntime, oneDNN, cuDNN."""


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
    """Runs jobs on the workers of a Dask cluster, those that join it on the way, too.

    What a cluster does for each task takes milliseconds of the driver's machine, whatever the task. Short jobs are
    therefore sent several at a time, as many as take a tenth of a second; what is sent and what has come back is
    handled in batches, for each asks the scheduler and waits for its answer; and the plan is packed once for all.

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

    def _most(self) -> int:
        """Give how many tasks may be in flight, with as many workers as there are by now."""
        scheduler = self.client.scheduler
        if scheduler is None:
            # The client has given up to connect to it again, be it in a job before.
            raise ClusterError(_LOST)
        try:
            threads: dict[str, int] = self.client.sync(scheduler.ncores)
        except (OSError, TimeoutError) as error:
            raise ClusterError(_LOST) from error
        return max(1, sum(threads.values()) * self.ahead)

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
        from distributed.client import ClosedClientError

        most, counted = self._most(), perf_counter()
        # What has to be done again goes by itself, so that it is known what it does.
        waiting, again, alone, lonely = iter(indices), deque[int](), deque[int](), -1
        together = 1
        flying: dict[Any, tuple[int, ...]] = {}
        deaths = Counter[int]()
        completed = as_completed(loop=self.client.loop)
        packed = pickle.dumps(plan)
        ways, way, tried, spread = (job, *lowered), 0, 0, 0
        given_up: TileError | None = None

        def submit(groups: list[tuple[int, ...]], by: int) -> None:
            try:
                futures = self.client.map(_attempt_on_worker, [stage] * len(groups), [ways[by]] * len(groups),
                                          [packed] * len(groups), groups, pure=False, retries=0)  # fmt: skip
            except ClosedClientError as error:
                raise ClusterError(_LOST) from error
            flying.update(zip(futures, groups, strict=True))
            completed.update(futures)

        def fill() -> None:
            groups: list[tuple[int, ...]] = []
            while len(flying) + len(groups) < most:
                group = (again.popleft(),) if again else tuple(islice(waiting, together))
                if not group:
                    break
                groups.append(group)
            if groups:
                submit(groups, way)

        try:
            fill()
            while flying:
                finished = [(future, flying.pop(future)) for future in completed.next_batch()]
                outcomes = self._outcomes(stage, finished)
                for (future, group), outcome in zip(finished, outcomes, strict=True):
                    future.release()
                    if isinstance(outcome, _Trouble):
                        before = way
                        for index in group:
                            deaths[index] += outcome.deaths
                            if index == lonely and not outcome.deaths and tried < len(lowered):
                                way = tried + 1
                            elif index == lonely and (deaths[index] >= MOST_DEATHS or not outcome.deaths):
                                error = _given_up(outcome, deaths[index])
                                if given_up is not None or not outcome.deaths:
                                    raise given_up or error
                                # Others that were with it when workers died have their turn yet.
                                given_up = error
                                continue
                            # A worker takes with it what was queued there, too. Whoever is suspected twice runs once
                            # more while nothing else does, and so does what found too little memory.
                            is_suspect = not outcome.deaths or deaths[index] >= MOST_DEATHS - 1
                            (alone if is_suspect and len(group) == 1 else again).append(index)
                        if way > before:
                            log.warning(_LOWERED, outcome.error, way, len(lowered))
                        elif given_up is None:
                            log.warning("%s; it is done again", outcome.error)
                    elif isinstance(outcome, _Done):
                        log_again(outcome.lines)
                        together = how_many(len(group), outcome.seconds)
                        if group == (lonely,) and spread < way:
                            # With less memory each, the others may fit beside one another again.
                            spread = way
                            again.extend(index for index in alone if not deaths[index])
                            alone = deque(index for index in alone if deaths[index])
                failed = next((outcome for outcome in outcomes if isinstance(outcome, Exception)), None)
                if failed is None:
                    if perf_counter() - counted > RECOUNT_SECONDS:
                        most, counted = self._most(), perf_counter()
                    fill()
                    if alone and not flying:
                        lonely = alone.popleft()
                        # Workers that die are mostly killed for the memory they take: the last try is the smallest.
                        tried = len(lowered) if deaths[lonely] else way
                        submit([(lonely,)], tried)
                for (_, group), outcome in zip(finished, outcomes, strict=True):
                    if isinstance(outcome, _Done):
                        yield from zip(group, outcome.records, strict=True)
                if failed is not None:
                    raise failed
            if given_up is not None:
                raise given_up
        finally:
            if flying:
                self.client.cancel(list(flying))

    def _outcomes(self, stage: str, finished: list[tuple[Any, tuple[int, ...]]]) -> list[_Done | _Trouble | Exception]:
        """Give what became of jobs: of all that went well at once, for each question takes its time."""
        done = [future for future, _ in finished if future.status == "finished"]
        try:
            results = dict(zip(done, self.client.gather(done), strict=True)) if len(done) > 1 else {}
        except Exception:  # noqa: BLE001 (whatever one of them has is found again, and told, when it is asked for)
            results = {}
        return [
            _Done(*results[future]) if future in results else _outcome(future, stage, group)
            for future, group in finished
        ]


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


def _outcome(future: Any, stage: str, group: tuple[int, ...]) -> _Done | _Trouble | Exception:  # noqa: ANN401 (untyped)
    """Give what jobs reported, or what kept them from being done, or the error that cannot be helped."""
    from distributed import CancelledError
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker, NoWorkerError

    try:
        return _Done(*future.result())
    except KilledWorker as error:
        # A cluster of others may have tried it several times already.
        return _Trouble(TileError(stage, group[0], "a worker died that had it"), int(error.allowed_failures) + 1)
    except TileMemoryError as error:
        return _Trouble(error)
    except (CancelledError, CommClosedError):
        return ClusterError(_LOST)
    except NoWorkerError as error:
        return ClusterError(
            f"all workers of the cluster have gone, and none has come within {error.timeout:.0f} s (execution.patience)"
            "; what is done is kept: run again"
        )
    except Exception as error:  # noqa: BLE001 (raised by who asked, when what has been done is told)
        return error


def _given_up(trouble: _Trouble, deaths: int) -> TileError:
    """Give the error of a job that has been tried often enough."""
    error = trouble.error
    if not trouble.deaths:
        return error
    return WorkersKilledError(
        error.stage, error.index, f"{deaths} workers died of it, the last while nothing else ran; most often memory is "
        "too short"
    )  # fmt: skip
