"""What a scan asks of Prefect."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flows.acquisitions
from flows.acquisitions import PrefectRuns
from pipeline.acquisitions.ledger import AcquisitionLedger


def test_runs_of_other_folders_of_results_are_not_found_by_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys: list[str] = []

    def run_deployment(_name: str, **named: Any) -> Any:  # noqa: ANN401
        keys.append(named["idempotency_key"])
        return SimpleNamespace(id=len(keys))

    monkeypatch.setattr(flows.acquisitions, "run_deployment", run_deployment)
    with AcquisitionLedger(tmp_path / "ledger") as ledger:
        held = ledger.claim("content", "recipe", "a.tif", "a", 1.0)
    assert held is not None
    client: Any = None
    for output in ("one", "two"):
        PrefectRuns(client, "segment-image/w", tmp_path / output, timedelta()).start(held, "key")
    assert keys[0] != keys[1]
