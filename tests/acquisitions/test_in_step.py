"""What the ledger says and what results are there are kept in step."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.outcome import note_replaced
from pipeline.acquisitions.place import ledger_of
from pipeline.acquisitions.readiness import content_of
from pipeline.acquisitions.scanning import RunState
from tests.acquisitions.folder import Place, contents


def test_each_folder_of_results_asks_for_runs_of_its_own(tmp_path: Path) -> None:
    """Whoever runs them may run those of several watchers, and finds by the key what was asked for before."""
    asked = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        place = Place(tmp_path / name)
        place.write("a.tif")
        place.settle()
        asked += place.runs.asked
    assert len({key for _, key in asked}) == 2


def test_a_path_that_gets_back_its_former_content_is_segmented_again(place: Place) -> None:
    path = place.write("a.tif")
    before = content_of(path)
    for number, seed in enumerate((0, 1, 0, 1, 0)):
        place.write("a.tif", seed=seed)
        place.settle()
        place.finish(number)
        place.scan()
        assert contents(place) == {"a": content_of(path)}
    assert contents(place) == {"a": before}
    # Runs that died are no part of this.
    place.write("a.tif", seed=1)
    place.settle()
    place.runs.states[place.runs.asked[-1][1]] = RunState("dead", "power cut")
    assert place.scan().started == ["a"]


def test_a_file_that_made_room_for_the_next_one_has_a_result_under_its_new_name(place: Place) -> None:
    path = place.write("latest.tif")
    place.settle()
    place.finish(0)
    place.scan()
    path.rename(place.folder / "latest_1.tif")
    place.write("latest.tif", seed=1)
    place.settle()
    place.finish(1)
    place.settle()
    place.finish(2)
    place.settle()
    wanted = {name: content_of(place.folder / f"{name}.tif") for name in ("latest", "latest_1")}
    assert contents(place) == wanted
    assert [name for name, _ in place.runs.asked] == ["latest", "latest", "latest_1"]


def test_another_recipe_and_the_first_one_again_are_each_segmented(place: Place) -> None:
    place.write("a.tif")
    for number, recipe in enumerate(("one", "two", "one")):
        place.recipe = recipe
        place.settle()
        place.finish(number)
        place.scan()
    with AcquisitionLedger(ledger_of(place.output)) as ledger:
        assert {held.recipe: held.state for held in ledger.acquisitions()} == {"one": "done", "two": "replaced"}


def test_what_a_person_has_had_replaced_is_told_and_left_so(place: Place) -> None:
    path = place.write("a.tif")
    place.settle()
    place.finish(0)
    place.scan()
    note_replaced(place.output, "a", str(path))  # of the same content
    assert place.held()["a"].state == "done"
    place.finish(0, content="another")
    note_replaced(place.output, "a", "/elsewhere/a.tif")
    assert place.held()["a"].state == "cancelled"
    assert "/elsewhere/a.tif" in str(place.held()["a"].reason)
    place.settle()
    assert len(place.runs.asked) == 1


def test_a_file_that_a_person_hands_over_before_it_is_seen_to_have_changed_may_change_back(place: Place) -> None:
    path = place.write("a.tif")
    place.settle()
    place.finish(0)
    place.scan()
    place.finish(0, content="another")
    note_replaced(place.output, "a", str(path))
    assert place.held()["a"].state == "replaced"
    assert place.scan().started == ["a"]


def test_a_run_that_has_left_no_result_is_started_again(place: Place) -> None:
    place.write("a.tif")
    place.settle()
    place.runs.states[place.runs.asked[0][1]] = RunState("done")
    assert place.scan().started == ["a"]
    place.finish(1, content="another")
    assert place.scan().started == ["a"]
    place.finish(2)
    place.scan()
    assert place.held()["a"].state == "done"
    assert place.held()["a"].objects == 7


def test_a_ledger_that_was_removed_with_the_results_has_all_segmented_again(place: Place) -> None:
    place.write("a.tif")
    place.settle()
    place.finish(0)
    place.scan()
    shutil.rmtree(place.output)
    assert place.settle().started == ["a"]
    assert len(place.runs.asked) == 2
    assert place.scan().running == ["a"]
