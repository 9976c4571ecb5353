"""What the driver keeps of the jobs of a stage: next to nothing, however many there are."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.engine.executor import SerialExecutor
from pipeline.engine.ledger import Ledger
from pipeline.errors import StoreError
from pipeline.planning import RunPlan
from pipeline.resume import ledger_path
from pipeline.stages import _map, _records


def seconds(plan: RunPlan, index: int) -> dict[str, Any]:
    return {"pixels": 1, "read": index * 0.1, "compute": index * 0.2, "write": index * 0.3, "objects": index * 0.4}


def plan_in(folder: Path) -> RunPlan:
    """Give what the bookkeeping of a stage takes from a plan."""
    folder.mkdir()
    return cast("RunPlan", SimpleNamespace(digest="0", work=folder, partial=folder, name="a"))


def peak(plan: RunPlan, total: int) -> int:
    """Give the most bytes that a stage takes, from its jobs to the sum of what they report."""
    tracemalloc.start()
    _map(plan, "stage", seconds, total, SerialExecutor())
    assert sum(record["pixels"] for record in _records(plan, "stage", total)) == total
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return taken


def test_memory_does_not_grow_with_the_records_of_tiles(tmp_path: Path) -> None:
    few, many = plan_in(tmp_path / "few"), plan_in(tmp_path / "many")
    peak(plan_in(tmp_path / "first"), 10)
    for _ in ("new", "resumed"):
        assert (peak(many, 8000) - peak(few, 1000)) / 7000 < 10


def test_records_come_in_order_and_none_is_left_out(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "work")
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        for index in (2, 0, 3):
            ledger.mark("stage", index, {"index": index})
        with pytest.raises(StoreError, match="the mark of job 1 of the stage 'stage' is damaged; run again"):
            list(ledger.records("stage", 4))
        ledger.mark("stage", 1, {"index": 1})
        assert [record["index"] for record in ledger.records("stage", 4)] == [0, 1, 2, 3]
        with pytest.raises(StoreError, match="job 4"):
            list(ledger.records("stage", 5))
