"""One command under faults: who it is made of, who is killed and when, and what it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

__all__ = ["LINGERING", "POINTS", "Run", "attempts", "contents", "reached", "together"]

BIN = Path(sys.executable).parent
INJECT = Path(__file__).with_name("inject")
ROOT = Path(__file__).parents[2]
MARK = "SEAMFREE_FAULT_RUN"

_TRACKER = re.compile(
    r"(Traceback \(most recent call last\):|  File .*/resource_tracker\.py.*|    cache\[rtype\].*|KeyError: '/mp-.*)\n"
)

LINGERING = 15.0
"""Seconds that processes may outlive the command."""

POINTS = {
    "worker": ("chunk half written", "chunk written", "note written", "job done"),
    "driver": ("before mark", "marked", "between stages", "publishing", "driver's note written"),
}
"""Named points, by who reaches them."""


@dataclass
class Run:
    """A running command and all processes that came of it.

    Parameters
    ----------
    arguments : list of str or Path
        Of ``seamfree run``.
    notes : Path
        Folder in which points and attempts are counted, over all runs of a trial.
    point : str
        A named point and the time it is reached, such as ``"marked:7"``; empty for none.
    victim : str
        Who dies there: ``"self"``, ``"driver"`` or ``"all"``.
    environment : dict
        What else is set.
    """

    arguments: list[str | Path]
    notes: Path
    point: str = ""
    victim: str = "self"
    environment: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.notes.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        self.log = self.notes / f"{self.mark}.log"
        self.began = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [BIN / "seamfree", "run", *self.arguments], stdout=log, stderr=log, start_new_session=True,
                env={**inherited, **injected(self.notes, self.point, self.victim), MARK: self.mark, **self.environment},
            )  # fmt: skip

    def family(self) -> list[psutil.Process]:
        """Find all living processes of this run by a mark in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """Find the worker processes: children of the server of forks, a child of the command."""
        return [
            worker for child in _children(self.process.pid) if _is_forkserver(child) for worker in _children(child.pid)
        ]

    def forkserver(self) -> list[psutil.Process]:
        """Find the process that workers are forked from."""
        return [child for child in _children(self.process.pid) if _is_forkserver(child)]

    def wait(self, limit: float = 400) -> int:
        """Wait for the end, kill whoever is left after it, and give the exit code."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            code = -999
        self.clear()
        return code

    def clear(self) -> None:
        """Kill whoever is left; a killed command's processes notice it when they have ended an import."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        deadline = time.monotonic() + LINGERING
        while (left := self.family()) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.orphans = len(left)
        for process in left:
            process.kill()

    def said(self) -> str:
        """Give all that the command has said so far.

        But for what Python's own tracker of semaphores says: where it is killed, Python starts another one, and that
        complains of each semaphore that it never knew. Nothing of the command's depends on it.
        """
        said = self.log.read_text(errors="replace")
        # Several may speak at once, line by line; a traceback of anybody else's is one more.
        others = said.count("Traceback (most recent") - said.count("/multiprocessing/resource_tracker.py")
        return said if others else _TRACKER.sub("", said)


def injected(notes: Path, point: str = "", victim: str = "self") -> dict[str, str]:
    """Give the environment in which named points are counted, and one of them kills."""
    path = os.pathsep.join([str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        "PYTHONPATH": path,
        "SEAMFREE_FAULTS": str(notes),
        "SEAMFREE_FAULT_POINT": point,
        "SEAMFREE_FAULT_VICTIM": victim,
    }


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children())
    except psutil.Error:
        return []


def _is_forkserver(process: psutil.Process) -> bool:
    try:
        return "forkserver" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def kill(process: psutil.Process) -> None:
    """Kill a process as a machine that runs out of memory does."""
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def reached(notes: Path, point: str) -> int:
    """Say how often a named point has been reached."""
    path = notes / f"point-{point}"
    return path.stat().st_size // 48 if path.exists() else 0


def attempts(notes: Path) -> Counter[str]:
    """Count the attempts at each job."""
    path = notes / "attempts"
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


def together(notes: Path) -> int:
    """Give the most jobs that were sent to a worker together: short ones are."""
    path = notes / "together"
    return max(map(int, path.read_text().split())) if path.exists() else 1


def contents(out: Path) -> dict[str, bytes]:
    """Give every file under an output folder, but for what tells when a run took place, and what is drawn of that."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and not path.name.endswith(".report.html"):
            content = path.read_bytes()
            if path.name == "seamfree.json":
                facts = json.loads(content)
                facts.pop("timings", None)
                content = json.dumps(facts, indent=2).encode()
            if path.name == "run-summary.json":
                facts = json.loads(content)
                content = json.dumps([{**image, "status": "", "seconds": 0, "result": "", "reason": None, "objects": 0}
                                      for image in facts["images"]]).encode()  # fmt: skip
            found[path.relative_to(out).as_posix()] = content
    return found
