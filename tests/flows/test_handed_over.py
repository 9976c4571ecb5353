"""What people hand over is not lost: it is started again as a watcher's own runs are, and followed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Crashed, Running

import flows.handed_over
import flows.submitting
from flows.environment import POSTPONED, SKIPPED
from flows.handed_over import GIVEN_UP, WATCH, take_up
from flows.submitting import follow
from pipeline.acquisitions.place import watch_hold
from pipeline.acquisitions.scanning import RunState
from pipeline.images.discover import InputImage
from pipeline.stores.hold import hold


class Server:
    """Runs, and what is done to them."""

    def __init__(self, output: Path) -> None:
        self.given = {"image": {"path": "/in/a.tif", "name": "a"}, "output": str(output), "fresh": True}
        self.runs: dict[UUID, Any] = {}
        self.kinds: dict[str, Any] = {}

    def add(self, state: State[Any], *tags: str, key: str | None = None) -> UUID:
        made = uuid4()
        self.runs[made] = SimpleNamespace(
            id=made, name="a", state=state, tags=list(tags), idempotency_key=key, total_run_time=timedelta(),
            parameters=self.given,
        )  # fmt: skip
        return made

    def read_deployment_by_name(self, _name: str) -> Any:  # noqa: ANN401
        return SimpleNamespace(id=uuid4())

    def read_flow_runs(self, **_named: object) -> list[Any]:
        return [run for run in self.runs.values() if not run.state.is_completed()]

    def update_flow_run(self, run: UUID, tags: list[str]) -> None:
        self.runs[run].tags = tags

    def look(self, run: str) -> RunState:
        return RunState(self.kinds.get(run, "postponed"), "why")

    def run_deployment(self, _name: str, **named: Any) -> Any:  # noqa: ANN401
        assert named["parameters"] == self.given
        key = named["idempotency_key"]
        there = [run for run in self.runs.values() if run.idempotency_key == key]
        return there[0] if there else self.runs[self.add(Running(), *named["tags"], key=key)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    server = Server(tmp_path)
    monkeypatch.setattr(flows.handed_over, "run_deployment", server.run_deployment)
    return server


def again(server: Server, output: Path) -> list[UUID]:
    client: Any = server
    return take_up(client, "segment-image/w", output, server.look, 3)


def postponed(seconds: float) -> State[Any]:
    return Crashed(name=POSTPONED, message="why", timestamp=datetime.now(UTC) - timedelta(seconds=seconds))


def test_what_was_handed_over_and_postponed_is_started_again_once_after_longer_and_longer(
    server: Server, tmp_path: Path
) -> None:
    first = server.add(postponed(25), "submit")
    server.add(postponed(1000), WATCH)  # of these, the ledger takes care
    elsewhere = server.runs[server.add(postponed(1000))]
    elsewhere.parameters = {**server.given, "output": str(tmp_path / "other")}
    assert again(server, tmp_path) == []
    server.runs[first].state = postponed(35)
    with hold(tmp_path / "a.ome.zarr"):
        assert again(server, tmp_path) == []
    (second,) = again(server, tmp_path)
    # A scan that was killed before it had noted that finds the same run.
    server.runs[first].tags = ["submit"]
    server.kinds[str(second)] = "alive"
    assert again(server, tmp_path) == [second]
    assert again(server, tmp_path) == []
    server.runs[second].state, server.kinds[str(second)] = postponed(55), "postponed"
    assert again(server, tmp_path) == []
    server.runs[second].state = postponed(65)
    assert len(again(server, tmp_path)) == 1


def test_what_was_handed_over_and_died_is_started_again_and_given_up_in_the_end(server: Server, tmp_path: Path) -> None:
    run = server.add(Running(), "submit")
    for kind in ("interrupted", "dead", "interrupted", "dead", "interrupted"):
        server.kinds[str(run)] = kind
        (run,) = again(server, tmp_path)
    server.kinds[str(run)] = "dead"
    assert again(server, tmp_path) == []
    assert GIVEN_UP in server.runs[run].tags
    assert again(server, tmp_path) == []


def test_who_waits_follows_what_was_started_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = server.add(postponed(100), "submit"), server.add(Crashed(message="killed"), "submit", GIVEN_UP)
    monkeypatch.setattr(flows.submitting, "_look", lambda runs: [server.runs[run] for run in runs])

    def next_moment(_seconds: float) -> None:
        for run in again(server, tmp_path):
            server.runs[run].state = Completed(name=SKIPPED, message="there is a finished result")

    monkeypatch.setattr(flows.submitting, "sleep", next_moment)
    images = [InputImage("/in/a.tif"), InputImage("/in/b.tif")]
    with hold(watch_hold(tmp_path)):
        reports = follow(list(zip(images, (one, two), strict=True)), tmp_path)
    assert [(report.name, report.status, report.reason) for report in reports] == [
        ("a", "skipped", "there is a finished result"),
        ("b", "failed", "killed"),
    ]
