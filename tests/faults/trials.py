"""Trials: a job is killed, the same command is given again until it is done, and nothing may show it.

``python -m tests.faults`` runs many and prints a table; pytest runs some.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults.jobs import WORKERS, Job
from tests.faults.run import LINGERING, POINTS, Run, attempts, contents, injected, kill, reached, together

__all__ = ["KINDS", "MORE", "Outcome", "draw_kinds", "job_of", "run_trial", "tabulate"]

KINDS = {
    "driver, at a point": 5,
    "driver, any moment": 4,
    "worker, at a point": 5,
    "worker, any moment": 3,
    "all, at a point": 3,
    "forkserver, any moment": 1,
    "nanny, any moment": 1,
    "scheduler, any moment": 1,
    "prefect server, any moment": 1,
    "driver and worker, twice": 1,
}
"""Who is killed and when, and how many of 25 trials are such."""

MORE = {
    "driver, at a point, holes": 2,
    "worker, at a point, holes": 2,
    "driver, at a point, volume": 2,
    "worker, at a point, volume": 2,
    "all, any moment, volume": 1,
    "driver, at a point, overlap": 2,
    "worker, at a point, overlap": 2,
    "all, any moment, overlap": 1,
    "driver, at a point, plate in place": 2,
    "worker, at a point, plate in place": 2,
    "all, at a point, plate in place": 2,
    "prefect driver, any moment": 3,
    "prefect driver, any moment, plate in place": 1,
    "prefect driver, any moment, holes": 1,
}
"""Likewise of 25 others: of other jobs, and of the command when Prefect records it."""

AHEAD = 2
MOST_RUNS = 8
STARTING = 0.4
"""The share of an undisturbed run in which nothing is done yet."""


@dataclass
class Outcome:
    """What became of a trial."""

    kind: str
    number: int
    jobs: int
    kills: int = 0
    runs: int = 0
    repeated: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def draw_kinds(trials: int) -> list[str]:
    """Give so many kinds in their shares, the rare ones, too; after the first 25, also those of other jobs."""
    pattern = [kind for kinds in (KINDS, MORE) for kind, share in kinds.items() for _ in range(share)]
    return (pattern * -(-trials // len(pattern)))[:trials]


def job_of(kind: str) -> str:
    """Give the name of the job of a kind of trial."""
    return (*kind.split(", "), "nuclei")[2]


def run_trial(job: Job, kind: str, number: int, seed: int, folder: Path) -> Outcome:
    """Kill, run again until it is done, and compare.

    Parameters
    ----------
    job : Job
        What is run.
    kind : str
        One of `KINDS`.
    number, seed : int
        What is drawn depends on these two alone.
    folder : Path
        For the output and what is counted.
    """
    outcome = Outcome(kind, number, job.jobs)
    draw = random.Random(f"{seed}-{number}-{kind}")
    out, notes = folder / "out", folder / "notes"
    began = time.monotonic()
    who, when = kind.split(", ")[:2]
    job.restore()
    with _place(who, folder) as place:
        while True:
            outcome.runs += 1
            again = outcome.runs > (2 if when == "twice" else 1)
            point, victim = ("", "self") if again else _draw_point(draw, job, who, when, outcome.runs)
            run = Run(job.arguments(out, *place.way()), notes, point, victim, place.environment)
            if not again and not point:
                _kill_at_any_moment(run, who, place, job, draw.uniform(-STARTING, 0.95))
            code = run.wait()
            killed = _count_kills(notes, place)
            expected = killed > outcome.kills
            outcome.kills = killed
            _judge(outcome, run, code, expected, who)
            if job.pristine is None:
                outcome.faults += [f"under a final name, but not whole: {name}" for name in _half_results(job, out)]
            if code == 0 or outcome.runs == MOST_RUNS:
                break
            place.mend()
        if code != 0:
            outcome.faults.append(f"not done after {outcome.runs} runs; the last one said: {run.said()[-2000:]}")
    found = job.found(out)
    outcome.faults += [f"differs: {name}" for name in sorted(job.wanted.keys() | found.keys())
                       if found.get(name) != job.wanted.get(name)]  # fmt: skip
    counted = attempts(notes)
    outcome.repeated = sum(counted.values()) - len(counted)
    if outcome.repeated > max(outcome.kills, outcome.runs - 1) * WORKERS * AHEAD * together(notes):
        outcome.faults.append(f"{outcome.repeated} jobs were done again, more than were in flight")
    outcome.seconds = time.monotonic() - began
    return outcome


def _draw_point(draw: random.Random, job: Job, who: str, when: str, runs: int) -> tuple[str, str]:
    """Give a named point, and who dies there."""
    if when == "any moment":
        return "", "self"
    group = {"driver": "driver", "worker": "worker"}.get(who, draw.choice(["driver", "worker"]))
    point = draw.choice(POINTS[group])
    return f"{point}:{draw.randint(1, max(1, job.points[point] // runs))}", "all" if who == "all" else "self"


def _judge(outcome: Outcome, run: Run, code: int, expected: bool, who: str) -> None:
    """Note what a run should not have done or said."""
    said = run.said()
    if code == -999:
        outcome.faults.append("a run did not come to its end")
    if "Traceback" in said or "unexpected" in said:
        outcome.faults.append(f"a run ended in a traceback: {said[-3000:]}")
    if run.orphans:
        outcome.faults.append(f"{run.orphans} processes outlived the command by {LINGERING:.0f} s")
    if code not in (0, -9, -999) and not expected:
        outcome.faults.append(f"a run that nobody disturbed failed: {said[-2000:]}")
    if code not in (0, -999) and who in ("worker",):
        outcome.faults.append(f"a run did not survive the death of a worker: {said[-2000:]}")


def _half_results(job: Job, out: Path) -> list[str]:
    """Find results that have their final name and are not what they should be."""
    names = {name.split("/")[0] for name in job.wanted if "/" in name}
    return [
        name
        for name in sorted(names)
        if (out / name).exists()
        and contents(out / name)
        != {
            path.removeprefix(f"{name}/"): content
            for path, content in job.wanted.items()
            if path.startswith(f"{name}/")
        }
    ]


def _count_kills(notes: Path, place: Place) -> int:
    token = notes / "killed"
    if token.exists():
        # One more may be killed in the next run.
        token.rename(notes / f"killed-{len(list(notes.glob('killed-*')))}")
    return len(list(notes.glob("killed-*"))) + place.kills


class Place:
    """Where runs take place: on their own."""

    def __init__(self) -> None:
        self.kills = 0
        self.environment: dict[str, str] = {}

    def way(self) -> tuple[str, ...]:
        """Give what is added to the command."""
        return ()

    def victims(self, run: Run, who: str) -> list[psutil.Process]:
        """Give who may be killed now."""
        if who == "driver":
            return [psutil.Process(run.process.pid)]
        if who == "all":
            return run.family()
        return run.forkserver() if who == "forkserver" else run.workers()

    def mend(self) -> None:
        """Start again what was killed."""


class Cluster(Place):
    """A Dask cluster that was there before the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.mend()

    def mend(self) -> None:
        if "scheduler" not in self.processes or self.processes["scheduler"].poll() is not None:
            self.close()
            self.processes = {}
            (self.folder / "scheduler.json").unlink(missing_ok=True)
            self._start("scheduler", "scheduler", "--port", "0", "--no-dashboard",
                        "--scheduler-file", str(self.folder / "scheduler.json"))  # fmt: skip
            _wait_for(lambda: (self.folder / "scheduler.json").exists())
        for number in range(WORKERS):
            name = f"nanny {number}"
            if name not in self.processes or self.processes[name].poll() is not None:
                self._start(name, "worker", "--scheduler-file", str(self.folder / "scheduler.json"), "--nthreads", "1",
                            "--no-dashboard", "--local-directory", str(self.folder / "dask"))  # fmt: skip
        _wait_for(lambda: len(self._workers()) == WORKERS)

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1"], stdout=log, stderr=log,
                env={**_plain_environment(), **injected(self.folder / "notes"), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def _workers(self) -> dict[str, object]:
        from distributed import Client

        with Client(scheduler_file=str(self.folder / "scheduler.json"), set_as_default=False) as client:
            found: dict[str, object] = client.scheduler_info(n_workers=-1)["workers"]
            return found

    def way(self) -> tuple[str, ...]:
        import json

        address = json.loads((self.folder / "scheduler.json").read_text())["address"]
        return ("--direct", "--scheduler", address)

    def victims(self, _run: Run, who: str) -> list[psutil.Process]:
        return [psutil.Process(process.pid) for name, process in self.processes.items()
                if name.startswith(who) and process.poll() is None]  # fmt: skip

    def close(self) -> None:
        for process in reversed(self.processes.values()):
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                kill(child)
            process.kill()
            process.wait()


class Recorded(Place):
    """With Prefect, on a server of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.environment = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

    def way(self) -> tuple[str, ...]:
        return ("--workers", str(WORKERS))

    def victims(self, run: Run, who: str) -> list[psutil.Process]:
        if who == "prefect driver":
            return [psutil.Process(run.process.pid)]
        found = []
        for process in run.family():
            try:
                if "prefect.server" in " ".join(process.cmdline()) or "uvicorn" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def _plain_environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}


def _wait_for(condition: Callable[[], bool], limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def _place(who: str, folder: Path) -> Iterator[Place]:
    folder.mkdir(parents=True, exist_ok=True)
    if who in ("nanny", "scheduler"):
        cluster = Cluster(folder)
        try:
            yield cluster
        finally:
            cluster.close()
    else:
        yield Recorded(folder) if who.startswith("prefect") else Place()


def _kill_at_any_moment(run: Run, who: str, place: Place, job: Job, moment: float) -> None:
    """Kill one of those in question when the run has come so far.

    By the share of points that were reached, which comes whatever else the machine has to do; below zero while the run
    is still starting, a while after its first moment, or at the first point if that comes before.
    """
    whole = sum(job.points.values())
    while run.process.poll() is None:
        far = sum(reached(run.notes, point) for point in job.points) / whole
        lived = (time.monotonic() - run.began) / job.seconds
        due = far >= moment if moment > 0 else far > 0 or lived >= STARTING + moment
        if due and (victims := place.victims(run, who)):
            kill(victims[int(abs(moment) * 1000) % len(victims)])
            place.kills += 1
            return
        time.sleep(0.005)


def tabulate(outcomes: list[Outcome]) -> str:
    """Give the table of what became of all trials."""
    columns = ("trials", "kills", "runs", "jobs", "repeated", "mismatches")
    rows: list[tuple[str, ...]] = [("killed", *columns)]
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.kind, []).append(outcome)
    for kind, group in [*groups.items(), ("together", outcomes)]:
        counts: Counter[str] = Counter()
        for outcome in group:
            counts.update(trials=1, kills=outcome.kills, runs=outcome.runs, jobs=outcome.jobs,
                          repeated=outcome.repeated, mismatches=len(outcome.faults))  # fmt: skip
        rows.append((kind, *(str(counts[name]) for name in columns)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
