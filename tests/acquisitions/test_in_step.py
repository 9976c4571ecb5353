"""What the ledger says and what results are there are kept in step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.outcome import note_by_hand
from pipeline.acquisitions.place import ledger_of
from pipeline.acquisitions.readiness import content_of
from pipeline.acquisitions.recipe import recipe_of
from pipeline.acquisitions.scanning import RunState
from pipeline.batch import segment
from pipeline.config import RunConfig, make_config
from pipeline.run import ImageReport
from tests.acquisitions.folder import Place, contents
from tests.random_models import save_threshold_model


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


def by_hand(place: Place, path: Path | str, content: str | None = None) -> None:
    """Have a result there that a person has asked for, of a content, or of the one that the file has."""
    result = place.output / "a.ome.zarr"
    result.mkdir(exist_ok=True)
    (result / "seamfree.json").write_text(json.dumps({"plan": {"content_sha256": content}, "objects": 5}))
    note_by_hand(place.output, RunConfig(), ImageReport("a", str(path), "done", str(result), objects=5))


def test_what_a_person_has_had_replaced_is_told_and_left_so(place: Place) -> None:
    path = place.write("a.tif")
    place.settle()
    place.finish(0)
    place.scan()
    by_hand(place, path)
    assert place.held()["a"].state == "done"
    by_hand(place, "/elsewhere/a.tif", "another")
    assert place.held()["a"].state == "cancelled"
    assert "/elsewhere/a.tif" in str(place.held()["a"].reason)
    place.settle()
    assert len(place.runs.asked) == 1


def test_a_file_that_a_person_hands_over_before_it_is_seen_to_have_changed_may_change_back(place: Place) -> None:
    path = place.write("a.tif")
    place.settle()
    place.finish(0)
    place.scan()
    by_hand(place, path, "another")
    assert place.held()["a"].state == "replaced"
    assert place.scan().started == ["a"]


def test_what_had_failed_and_a_person_has_had_segmented_is_done(place: Place) -> None:
    place.recipe = recipe_of(RunConfig())
    path = place.write("a.tif")
    place.settle()
    place.runs.states[place.runs.asked[0][1]] = RunState("failed", "no model")
    place.scan()
    by_hand(place, path)
    held = place.held()["a"]
    assert (held.state, held.reason, held.objects) == ("done", None, 5)
    assert held.result == str(place.output / "a.ome.zarr")
    place.scan()
    assert len(place.runs.asked) == 1


def test_a_run_by_hand_into_the_folder_of_a_watcher_is_told(tmp_path: Path) -> None:
    """Also where it knows its images by size and time, and has not read what they are of."""
    model = save_threshold_model(tmp_path / "model", 2)
    place = Place(tmp_path)
    place.write("a.tif")
    place.settle()
    place.finish(0)
    place.scan()
    (tmp_path / "elsewhere").mkdir()
    other = place.write("b.tif", seed=1).rename(tmp_path / "elsewhere" / "a.tif")
    config = make_config({"model": model, "execution": {"scheduler": "serial"}})
    (report,) = segment(other, place.output, config, fresh=True)
    assert report.status == "done", report
    assert place.held()["a"].state == "cancelled"


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


def test_a_recipe_is_another_one_when_what_labels_depend_on_has_changed_in_the_card(tmp_path: Path) -> None:
    model = save_threshold_model(tmp_path / "model", 2)
    card = tmp_path / "model" / "card.yaml"
    recipes = [recipe_of(RunConfig(model=model))]
    for before, after in (("made for a test", "told better"), ("low: 1.0", "low: 2.0")):
        text = card.read_text()
        assert before in text
        card.write_text(text.replace(before, after))
        recipes.append(recipe_of(RunConfig(model=model)))
    assert recipes[0] == recipes[1] != recipes[2]
