"""Python imports this at its start, in the command and in whatever it starts: it kills processes at named points.

Nothing in seamfree knows of it. Functions are wrapped when their module has been imported, before anybody has taken a
name from it. Which point, the how manieth time, and who dies are in the environment; see
`tests.faults.run`.
"""

from __future__ import annotations

import functools
import importlib.machinery
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

NOTES = os.environ.get("SEAMFREE_FAULTS")
"""Folder in which is counted what is reached; nothing is done without."""
POINT, _, TIME = os.environ.get("SEAMFREE_FAULT_POINT", "").partition(":")
VICTIM = os.environ.get("SEAMFREE_FAULT_VICTIM", "self")
# The command itself comes first, and hands this down.
DRIVER = int(os.environ.setdefault("SEAMFREE_FAULT_DRIVER", str(os.getpid())))

_inside: set[str] = set()
"""The points whose steps in the file system are watched at the moment."""


def note(name: str, text: str = "") -> int:
    """Add a line to a file that all processes share, and give the line's number."""
    line = f"{text:<47}\n".encode()
    descriptor = os.open(f"{NOTES}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line)
        return os.lseek(descriptor, 0, os.SEEK_CUR) // len(line)
    finally:
        os.close(descriptor)


def reach(point: str) -> None:
    """Count that a point is reached, and kill if it is the one."""
    if note(f"point-{point}") != int(TIME or 0) or point != POINT:
        return
    try:
        os.close(os.open(f"{NOTES}/killed", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    if VICTIM == "all":
        os.killpg(DRIVER, signal.SIGKILL)
    os.kill(os.getpid() if VICTIM == "self" else DRIVER, signal.SIGKILL)


def around(owner: Any, name: str, before: str = "", after: str = "", within: str = "") -> None:
    """Wrap a function so that points are reached before it, after it, or at each step that it does to files."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before:
            reach(before)
        if within:
            _inside.add(within)
        try:
            result = function(*arguments, **named)
        finally:
            _inside.discard(within)
        if after:
            reach(after)
        return result

    setattr(owner, name, wrapped)


def count_jobs(module: ModuleType) -> None:
    """Note each attempt at a job, and how many were sent together."""
    attempt: Callable[..., Any] = module._attempt

    @functools.wraps(attempt)
    def counted(stage: str, job: Any, plan: Any, index: int) -> Any:
        note("attempts", f"{plan.name} {stage} {index}")
        result = attempt(stage, job, plan, index)
        reach("job done")
        return result

    module._attempt = counted  # type: ignore[attr-defined]
    together: Callable[..., Any] = module._attempt_on_worker

    @functools.wraps(together)
    def noted(stage: str, job: Any, plan: Any, indices: tuple[int, ...]) -> Any:
        note("together", str(len(indices)))
        return together(stage, job, plan, indices)

    module._attempt_on_worker = noted  # type: ignore[attr-defined]


def _patch_notes(module: ModuleType) -> None:
    # The command writes one itself, for the table.
    point = "driver's note written" if os.getpid() == DRIVER else "note written"
    for name in ("save_arrays", "save_array", "save_labels"):
        around(module, name, after=point)


def _patch_ledger(module: ModuleType) -> None:
    around(module.Ledger, "mark", before="before mark", after="marked")


def _patch_sending(module: ModuleType) -> None:
    around(module, "_put", after="sent")
    around(module, "finish_sending", before="finished sending")


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "pipeline.stores.arrays": lambda module: around(
        module.ResultArray, "write", after="chunk written", within="chunk half written"
    ),
    "pipeline.notes": _patch_notes,
    "pipeline.stores.tables": lambda module: around(module, "write_table", after="table written"),
    "pipeline.engine.executor": count_jobs,
    "pipeline.engine.ledger": _patch_ledger,
    "pipeline.stores.publish": lambda module: around(module, "publish", within="publishing"),
    "pipeline.stores.in_place": lambda module: around(module, "add_to_image", within="publishing"),
    "pipeline.stores.sending": _patch_sending,
    "pipeline.stages": lambda module: around(module, "run_stage", before="between stages"),
}
STEPS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


def watch(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in STEPS:
        for point in tuple(_inside):
            reach(point)


class Finder(MetaPathFinder):
    """Wraps functions of a module as soon as it has been imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        run: Callable[[ModuleType], None] = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            PATCHES[name](module)

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec


if NOTES:
    sys.meta_path.insert(0, Finder())
    sys.addaudithook(watch)
