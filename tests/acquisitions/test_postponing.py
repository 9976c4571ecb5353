"""What is wrong with the place of results, and not with an image, is waited for."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pipeline.acquisitions.postponing import why_not_writable, why_postponed
from pipeline.acquisitions.scanning import RunState
from pipeline.errors import ImageError, ModelError, StoreError, TileError
from pipeline.stores.hold import TakenError, hold
from tests.acquisitions.folder import Place


@pytest.mark.slow
def test_a_run_that_was_postponed_is_started_again_after_longer_and_longer_and_costs_no_attempt(place: Place) -> None:
    place.write("a.tif")
    place.settle()
    waited = []
    for number in range(12):
        place.runs.states[place.runs.asked[number][1]] = RunState("postponed", "another run is at work on it")
        assert "another run" in place.scan(after=1).waiting[str(place.folder / "a.tif")]
        began = place.now
        while not place.scan(after=10).started:
            assert place.held()["a"].state == "claimed"
        waited.append(place.now - began)
    assert waited[:4] == [30, 60, 120, 240]
    assert waited[-1] == 3600
    place.finish(12)
    place.scan()
    assert place.held()["a"].state == "done"
    assert place.held()["a"].died == 0


def test_while_results_have_no_place_no_run_is_started_and_all_at_once_when_they_have(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("a.tif")
    place.settle()
    place.runs.states[place.runs.asked[0][1]] = RunState("postponed", "cannot be written to")
    monkeypatch.setattr("pipeline.acquisitions.scanning.why_not_writable", lambda _: "cannot be written to (full)")
    place.write("b.tif", seed=1)
    place.settle()
    found = place.scan(after=7200)
    assert set(found.waiting.values()) == {"cannot be written to (full)"}
    assert not found.notable  # told once
    assert {held.state for held in place.held().values()} == {"claimed"}
    monkeypatch.undo()
    assert sorted(place.scan(after=1).started) == ["a", "b"]


def test_what_is_wrong_with_the_place_of_a_result_is_told_apart_from_a_bad_image(tmp_path: Path) -> None:
    """By what a run ended with."""
    assert why_not_writable(tmp_path / "out") is None
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").touch()
    away = tmp_path / "file" / "out"
    assert "Not a directory" in str(why_not_writable(away))
    bad = (ImageError("a.tif: truncated"), ModelError("no weights"), RuntimeError("of a library"))
    for wrong in bad:
        assert why_postponed(wrong, tmp_path / "out") is None
    for error in (
        TakenError("another run"),
        StoreError("about 3 GiB are wanted and 1 GiB are free"),
        PermissionError(errno.EPERM, "Operation not permitted", "out/.x"),
        TileError("segment", 3, "out/a: cannot be written (No space left on device)"),
    ):
        reason = why_postponed(error, tmp_path / "out")
        assert reason is not None
        assert "unexpected" not in reason
    assert "cannot be written to" in str(why_postponed(bad[1], away))
    assert why_postponed(bad[0], away) is None


def test_a_result_that_another_run_is_at_work_on_is_waited_for(place: Place) -> None:
    path = place.write("a.tif")
    place.scan()
    with hold(place.output / "a.ome.zarr"):
        for _ in range(5):
            assert "another run" in place.scan().waiting[str(path)]
    assert place.scan().started == ["a"]
    assert len(place.runs.asked) == 1
