"""The ledger of acquisitions, and scans of a folder: what is claimed, when, and that it is claimed once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline.acquisitions.ledger import Acquisition, AcquisitionLedger
from pipeline.acquisitions.place import ledger_of
from pipeline.acquisitions.readiness import Broken, Ready, content_of, examine, fingerprint, why_held_back
from pipeline.acquisitions.scanning import RunState
from pipeline.errors import ConfigError
from tests.acquisitions.folder import RULES, Place, Recorder, contents


def test_a_file_is_claimed_when_it_has_been_still(place: Place) -> None:
    path = place.write("a.tif")
    assert place.scan().growing == [str(path)]
    assert place.scan(after=9).growing == [str(path)]
    os.utime(path, ns=(1, 1))
    assert place.scan(after=9).growing == [str(path)]
    assert place.scan(after=11).started == ["a"]
    for _ in range(3):
        assert place.scan().running == ["a"]
    assert len(place.runs.asked) == 1


def test_the_same_content_is_claimed_once(place: Place) -> None:
    path = place.write("a.tif")
    place.settle()
    place.finish(0)
    path.rename(place.folder / "b.tif")
    place.write("c.tif")
    place.settle()
    assert [name for name, _ in place.runs.asked] == ["a"]
    place.write("b.tif", seed=1)
    place.settle()
    assert [name for name, _ in place.runs.asked] == ["a", "b"]
    place.finish(1)
    place.recipe = "another"
    place.settle()
    assert len(place.runs.asked) == 4


def test_a_scan_that_dies_after_its_claim_neither_loses_nor_doubles(place: Place) -> None:
    place.write("a.tif")
    place.scan()
    place.runs.dies = True
    with pytest.raises(KeyboardInterrupt):
        place.scan()
    assert place.held()["a"].state == "claimed"
    place.runs.dies = False
    assert place.scan().started == ["a"]
    assert len(place.runs.asked) == 1


def test_runs_that_die_are_started_again_and_given_up_in_the_end(place: Place) -> None:
    place.write("a.tif")
    place.settle()
    for attempt in (1, 2, 3):
        assert place.held()["a"].attempt == attempt
        place.runs.states[place.runs.asked[-1][1]] = RunState("dead", "power cut")
        place.scan()
    assert place.held()["a"].state == "failed"
    assert "power cut" in str(place.held()["a"].reason)
    assert len({key for _, key in place.runs.asked}) == 3


def test_an_image_is_not_given_up_however_often_its_watcher_is_ended(place: Place) -> None:
    place.write("a.tif")
    place.settle()
    ends = ["interrupted", "dead", "interrupted", "dead", "interrupted", "interrupted"]
    for number, kind in enumerate(ends):
        place.runs.states[place.runs.asked[number][1]] = RunState(kind, "it ended with its watcher")  # type: ignore[arg-type]
        assert place.scan().started == ["a"]
    place.finish(len(ends))
    place.scan()
    assert place.held()["a"].state == "done"


def test_a_file_that_was_replaced_before_its_run_is_segmented_as_it_is_now(place: Place) -> None:
    place.write("a.tif")
    copy = place.write("other.tif")
    place.settle()
    place.write("a.tif", seed=1)
    place.settle()
    assert place.held()["a"].attempt == 1
    assert len(place.runs.asked) == 1  # one run at a time for each result
    place.runs.states[place.runs.asked[0][1]] = RunState("replaced", "changed")
    place.settle()
    # The new content under its name, and the old one, of which a copy is there.
    assert sorted(name for name, _ in place.runs.asked[1:]) == ["a", "other"]
    assert copy.exists()


def test_what_stays_broken_is_quarantined_until_it_changes(place: Place) -> None:
    path = place.write("a.tif")
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    assert str(path) in place.settle().waiting
    found = place.scan(after=120)
    assert "truncated" in found.quarantined[str(path)]
    assert found.notable
    again = place.scan()
    assert str(path) in again.quarantined
    assert not again.notable
    path.write_bytes(whole)
    assert place.settle().started == ["a"]


@pytest.mark.parametrize("what", ["a lock", "a sentinel"])
def test_what_its_writer_holds_back_is_waited_for_however_long_that_takes(place: Place, what: str) -> None:
    path = place.write("a.tif")
    beside = path.with_name("a.tif.lock" if what == "a lock" else "a.done")
    if what == "a lock":
        beside.touch()
    else:
        place.rules = RULES.model_copy(update={"sentinel": "{stem}.done"})
    place.settle()
    found = place.scan(after=30 * 86400)
    assert beside.name in found.waiting[str(path)]
    assert not found.quarantined
    assert not found.notable  # told once
    beside.unlink() if what == "a lock" else beside.touch()
    assert place.scan().started == ["a"]


def test_no_more_runs_than_the_queue_takes(place: Place) -> None:
    place.queue = 2
    for number in range(5):
        place.write(f"{number}.tif", seed=number)
    found = place.settle()
    assert len(found.started) == 2
    assert found.queued == 3
    place.finish(0)
    assert len(place.scan().started) == 1


def test_what_lies_beside_a_file_holds_it_back(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.touch()
    assert why_held_back(path, RULES) is None
    for name in ("a.tif.part", ".a.tif.tmp", "a.lock"):
        (tmp_path / name).touch()
        assert name in str(why_held_back(path, RULES))
        (tmp_path / name).unlink()
    rules = RULES.model_copy(update={"sentinel": "{stem}.done"})
    assert "a.done" in str(why_held_back(path, rules))
    (tmp_path / "a.done").touch()
    assert why_held_back(path, rules) is None


def test_chunks_that_are_not_there_are_waited_for(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype="uint8")
    array[:4] = 1
    before = fingerprint(tmp_path / "a.zarr")
    seen = examine(tmp_path / "a.zarr", RULES)
    assert isinstance(seen, Broken)
    assert "2 of 4" in seen.reason
    assert isinstance(examine(tmp_path / "a.zarr", RULES.model_copy(update={"missing_chunks": "zeros"})), Ready)
    array[4:] = 1
    assert fingerprint(tmp_path / "a.zarr") != before
    assert isinstance(examine(tmp_path / "a.zarr", RULES), Ready)


def test_a_plate_is_an_acquisition_when_all_its_wells_and_fields_are_there(place: Place) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (8, 8), dtype=np.uint8)
    path = place.folder / "p.ome.zarr"
    plate = zarr.open_group(path, mode="w", zarr_format=3)
    wells = [{"path": f"A/{column}", "rowIndex": 0, "columnIndex": column - 1} for column in (1, 2)]
    columns = [{"name": "1"}, {"name": "2"}]
    named: Any = {"rows": [{"name": "A"}], "columns": columns, "wells": wells}
    plate.attrs["ome"] = {"version": "0.5", "plate": named}

    def begin(well: str) -> zarr.Array[Any]:
        plate.create_group(well).attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}]}}
        field = plate.create_group(f"{well}/0")
        scale = [{"type": "scale", "scale": [1.0, 1.0]}]
        multiscale: Any = {
            "axes": [{"name": axis, "type": "space"} for axis in "yx"],
            "datasets": [{"path": "0", "coordinateTransformations": scale}],
        }
        field.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
        return field.create_array("0", shape=(8, 8), chunks=(4, 4), dtype="uint8")

    begin("A/1")[:] = pixels
    assert "A/2" in place.settle().waiting[str(path)]
    last = begin("A/2")
    last[:4] = pixels[:4]
    assert "2 of 4" in place.settle().waiting[str(path)]
    last[4:] = pixels[4:]
    assert place.settle().started == ["p"]
    assert place.held()["p"].content == content_of(path)
    place.finish(0)
    os.utime(path / "A" / "1" / "0" / "0" / "c" / "0" / "0")
    place.settle()
    assert len(place.runs.asked) == 1
    last[0, 0] = 255 - pixels[0, 0] or 1
    place.settle()
    assert len(place.runs.asked) == 2


def test_a_name_that_is_not_utf8_is_quarantined_and_stops_no_other_file(place: Place) -> None:
    place.write("b.tif")
    odd = os.fsdecode(os.fsencode(place.folder) + b"/a\xe9.tif")
    os.link(place.folder / "b.tif", odd)
    assert place.settle().started == ["b"]
    assert "not UTF-8" in place.scan(after=120).quarantined[odd]
    assert place.scan().notable is False
    os.rename(odd, place.folder / "a.tif")  # noqa: PTH104
    assert place.settle().duplicates == {str(place.folder / "a.tif"): str(place.folder / "b.tif")}


def test_a_name_that_is_too_long_for_a_result_is_quarantined_until_it_is_renamed(place: Place) -> None:
    """A run would have failed, and its content, whatever it is called then, not be run again."""
    long = place.write("x" * 240 + ".tif")
    place.settle()
    assert "rename it" in place.scan(after=200).quarantined[str(long)]
    long.rename(place.folder / "short.tif")
    assert place.settle().started == ["short"]
    assert [name for name, _ in place.runs.asked] == ["short"]


def test_what_nobody_had_thought_of_stops_no_other_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("a", "b", "c")):
        place.write(f"{name}.tif", seed=number)

    def breaking(path: Path, *arguments: Any) -> Ready | Broken:  # noqa: ANN401
        if path.name == "b.tif":
            raise RuntimeError("of a library")
        return examine(path, *arguments)

    monkeypatch.setattr("pipeline.acquisitions.scanning.examine", breaking)
    assert sorted(place.settle().started) == ["a", "c"]
    assert "of a library" in place.scan(after=120).quarantined[str(place.folder / "b.tif")]


def test_a_link_that_leads_nowhere_is_quarantined(place: Place) -> None:
    """It never changes, so it is not growing, and no reason for another scan."""
    path = place.folder / "a.tif"
    path.symlink_to("/nowhere/a.tif")
    array = zarr.create_array(place.folder / "b.zarr", shape=(8, 8), chunks=(4, 4), dtype="uint8")
    array[:] = 1
    (place.folder / "b.zarr" / "thumbnail").symlink_to("/nowhere/thumbnail")
    place.settle()
    assert sorted(place.scan(after=120).quarantined) == [str(path), str(place.folder / "b.zarr")]
    path.unlink()
    (place.folder / "b.zarr" / "thumbnail").unlink()
    place.write("a.tif")
    assert sorted(place.settle().started) == ["a", "b"]


def test_a_run_that_cannot_be_asked_for_keeps_no_other_one_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a", "b", "c")):
        place.write(f"{name}.tif", seed=number)

    def start(acquisition: Acquisition, key: str) -> str:
        if acquisition.name == "b":
            raise RuntimeError("refused")
        return Recorder.start(place.runs, acquisition, key)

    monkeypatch.setattr(place.runs, "start", start)
    found = place.settle()
    assert sorted(found.started) == ["a", "c"]
    assert "refused" in found.waiting[str(place.folder / "b.tif")]
    monkeypatch.undo()
    assert place.scan().started == ["b"]


def test_a_folder_that_is_away_for_a_while_is_told_and_nothing_is_forgotten(place: Place) -> None:
    path = place.write("a.tif")
    place.settle()
    place.folder.rename(place.folder.with_name("away"))
    with pytest.raises(ConfigError, match="no such folder to watch"):
        place.scan()
    place.folder.with_name("away").rename(place.folder)
    assert place.scan().running == ["a"]
    with AcquisitionLedger(ledger_of(place.output)) as ledger:
        assert ledger.sightings()[str(path)].state == "known"


def test_a_file_whose_name_comes_free_leaves_the_quarantine(place: Place) -> None:
    first = place.write("a.tif")
    place.settle()
    place.finish(0)
    second = place.write("a.ome.tif", seed=1)
    place.settle()
    assert "rename one" in place.scan(after=600).quarantined[str(second)]
    assert "rename one" in place.scan().quarantined[str(second)]
    first.rename(place.folder / "b.tif")
    assert place.scan().started == ["a"]
    place.finish(1)
    place.settle()
    place.finish(2)
    place.settle()
    assert contents(place) == {"a": content_of(second), "b": content_of(place.folder / "b.tif")}


def test_a_clock_that_is_put_back_keeps_nothing_waiting(place: Place) -> None:
    place.now = 7200.0
    place.write("a.tif")
    place.scan()
    place.now = 0.0
    assert place.settle().started == ["a"]
