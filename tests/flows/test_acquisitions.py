"""What a scan asks of Prefect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.states import Running, Scheduled

import flows.acquisitions
from flows.acquisitions import PrefectRuns
from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.place import watch_hold
from pipeline.stores.hold import hold


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


def test_a_run_that_waits_for_a_deployment_nobody_serves_any_more_is_asked_for_again(tmp_path: Path) -> None:
    ours, theirs = uuid4(), uuid4()
    marked: list[UUID] = []

    class Client:
        def read_deployment_by_name(self, _name: str) -> Any:  # noqa: ANN401
            return SimpleNamespace(id=ours)

        def read_flow_run(self, run: UUID) -> Any:  # noqa: ANN401
            return SimpleNamespace(id=run, state=Scheduled(), deployment_id=run)

        def set_flow_run_state(self, run: UUID, _state: object, **_named: object) -> None:
            marked.append(run)

    client: Any = Client()
    runs = PrefectRuns(client, "segment-image/w", tmp_path, timedelta())
    assert runs.look(str(ours)).kind == "alive"
    assert runs.look(str(theirs)).kind == "dead"
    assert marked == [theirs]


def test_a_run_that_ended_with_its_watcher_is_told_from_one_that_died_by_itself(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    began = {uuid4(): now - timedelta(minutes=1), uuid4(): now + timedelta(minutes=1)}
    marked: list[UUID] = []

    class Client:
        def read_flow_run(self, run: UUID) -> Any:  # noqa: ANN401
            return SimpleNamespace(id=run, state=Running(timestamp=began[run]))

        def set_flow_run_state(self, run: UUID, _state: object, **_named: object) -> None:
            marked.append(run)

    client: Any = Client()
    runs = PrefectRuns(client, "segment-image/w", tmp_path, timedelta(minutes=-2))
    before, after = began
    with hold(watch_hold(tmp_path)):
        assert runs.look(str(before)).kind == "interrupted"
        assert runs.look(str(after)).kind == "dead"
    # Workers of Prefect's have no watcher.
    assert runs.look(str(before)).kind == "dead"
    assert marked == [before, after, before]
