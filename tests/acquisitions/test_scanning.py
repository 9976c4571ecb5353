"""The ledger of acquisitions, and scans of a folder: what is claimed, when, and that it is claimed once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline.acquisitions.ledger import Acquisition, AcquisitionLedger
from pipeline.acquisitions.outcome import content_of_result, note_replaced
from pipeline.acquisitions.place import ledger_of
from pipeline.acquisitions.postponing import why_not_writable, why_postponed
from pipeline.acquisitions.readiness import Broken, Ready, content_of, examine, fingerprint, why_held_back
from pipeline.acquisitions.rules import WatchRules
from pipeline.acquisitions.scanning import Found, RunState, Scan, scan
from pipeline.errors import ConfigError, ImageError, ModelError, StoreError, TileError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from pipeline.stores.hold import TakenError, hold

RULES = WatchRules(settle=10, patience=100)


@dataclass
class Recorder:
    """Runs that do nothing: a list of what was asked for, and what is said of each."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    states: dict[str, RunState] = field(default_factory=dict)
    dies: bool = False

    def start(self, acquisition: Acquisition, key: str) -> str:
        if key not in [known for _, known in self.asked]:
            self.asked.append((acquisition.name, key))
        if self.dies:
            raise KeyboardInterrupt
        return key

    def look(self, run: str) -> RunState:
        return self.states.get(run, RunState("alive"))


class Place:
    """A folder that is scanned by a clock of its own."""

    def __init__(self, path: Path) -> None:
        self.folder, self.output = path / "in", path / "out"
        self.folder.mkdir()
        self.now, self.runs, self.recipe, self.rules, self.queue = 0.0, Recorder(), "recipe", RULES, 16

    def scan(self, after: float = 11.0) -> Found:
        self.now += after
        order = Scan(self.folder, self.output, self.recipe, self.rules, queue=self.queue, clock=lambda: self.now)
        with AcquisitionLedger(ledger_of(self.output)) as ledger:
            return scan(order, ledger, self.runs)

    def settle(self) -> Found:
        self.scan()
        return self.scan()

    def finish(self, number: int, content: str | None = None) -> None:
        """Have a run that was asked for end well, and leave a result."""
        name, key = self.runs.asked[number]
        result = self.output / f"{name}.ome.zarr"
        result.mkdir(parents=True, exist_ok=True)
        plan = {"content_sha256": content or key.split(":")[1]}
        (result / "seamfree.json").write_text(json.dumps({"plan": plan, "objects": 7}))
        self.runs.states[key] = RunState("done")

    def result(self, name: str) -> str:
        """Give the content that a result is of."""
        return str(content_of_result(self.output / f"{name}.ome.zarr"))

    def held(self) -> dict[str, Acquisition]:
        with AcquisitionLedger(ledger_of(self.output)) as ledger:
            return {held.name: held for held in ledger.acquisitions()}

    def write(self, name: str, seed: int = 0) -> Path:
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 20), dtype=np.uint8)
        tifffile.imwrite(self.folder / name, pixels)
        return self.folder / name


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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


def test_a_file_that_another_one_describes_waits_for_it(place: Place) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 20), dtype=np.uint8)
    space = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    alone = f'<?xml version="1.0"?><OME {space}><BinaryOnly MetadataFile="a.ome.tif" UUID="urn:uuid:{0:032d}"/></OME>'
    tifffile.imwrite(place.folder / "b.ome.tif", pixels, description=alone, metadata=None)
    assert "describes" in place.settle().waiting[str(place.folder / "b.ome.tif")]
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{at}" PlaneCount="1"><UUID FileName="{name}.ome.tif">urn:uuid:{at:032d}</UUID>'
        "</TiffData>"
        for at, name in ((0, "b"), (1, "a"))
    )
    whole = (
        f'<?xml version="1.0"?><OME {space} UUID="urn:uuid:{1:032d}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="20" SizeY="16" SizeZ="2" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(place.folder / "a.ome.tif", pixels, description=whole, metadata=None)
    assert place.settle().started == ["a"]
    assert place.scan().waiting == {}
    assert [name for name, _ in place.runs.asked] == ["a"]


def test_a_change_by_another_process_is_not_overwritten(tmp_path: Path) -> None:
    with AcquisitionLedger(tmp_path / "ledger") as one, AcquisitionLedger(tmp_path / "ledger") as two:
        held = one.claim("content", "recipe", "a.tif", "a", 1.0)
        assert held is not None
        assert two.claim("content", "recipe", "b.tif", "b", 2.0) is None
        assert two.change(held, replace(held, state="started", run="x"))
        assert not one.change(held, replace(held, state="started", run="y"))
        found = one.find("content", "recipe")
        assert found is not None
        assert found.run == "x"


def test_a_ledger_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="ledger of acquisitions"):
        AcquisitionLedger(tmp_path / "ledger")


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


def contents(place: Place) -> dict[str, str]:
    """Give the content of each result that the ledger knows, and see that it is so."""
    with AcquisitionLedger(ledger_of(place.output)) as ledger:
        done = {held.name: held.content for held in ledger.acquisitions("done")}
    assert {name: place.result(name) for name in done} == done
    return done


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


def test_a_ledger_of_a_version_before_is_gone_on_with(tmp_path: Path) -> None:
    with AcquisitionLedger(tmp_path / "ledger") as ledger:
        ledger.claim("content", "recipe", "a.tif", "a", 1.0)
    with closing(sqlite3.connect(tmp_path / "ledger")) as connection, connection:
        for column in ("died", "delay"):
            connection.execute(f"ALTER TABLE acquisitions DROP COLUMN {column}")
        connection.execute("DROP TABLE ledger")
    with AcquisitionLedger(tmp_path / "ledger") as ledger:
        held = ledger.find("content", "recipe")
        assert held is not None
        assert held.died == 0
        assert ledger.identity


def test_a_name_that_is_not_utf8_is_quarantined_and_stops_no_other_file(place: Place) -> None:
    place.write("b.tif")
    odd = os.fsdecode(os.fsencode(place.folder) + b"/a\xe9.tif")
    os.link(place.folder / "b.tif", odd)
    assert place.settle().started == ["b"]
    assert "not UTF-8" in place.scan(after=120).quarantined[odd]
    assert place.scan().notable is False
    os.rename(odd, place.folder / "a.tif")  # noqa: PTH104
    assert place.settle().duplicates == {str(place.folder / "a.tif"): str(place.folder / "b.tif")}


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


def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE other (a)")
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(StoreError, match="no ledger of acquisitions"):
            AcquisitionLedger(path, read_only=read_only)
    assert path.read_bytes() == before


def test_a_ledger_that_is_only_looked_at_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        AcquisitionLedger(tmp_path / "ledger", read_only=True)
    (tmp_path / "ledger").touch()
    with AcquisitionLedger(tmp_path / "ledger", read_only=True) as ledger:
        assert ledger.acquisitions() == []
    assert (tmp_path / "ledger").read_bytes() == b""


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


def test_a_result_that_another_run_is_at_work_on_is_waited_for(place: Place) -> None:
    path = place.write("a.tif")
    place.scan()
    with hold(place.output / "a.ome.zarr"):
        for _ in range(5):
            assert "another run" in place.scan().waiting[str(path)]
    assert place.scan().started == ["a"]
    assert len(place.runs.asked) == 1


def write_companion_set(
    folder: Path, *, described: bool = True, planes: tuple[int, ...] = (0, 1)
) -> list[NDArray[Any]]:
    """Write files of one plane each that name the one which describes their image, ``c.companion.ome``."""
    space = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    pixels = [np.random.default_rng(at).integers(0, 255, (16, 20), dtype=np.uint8) for at in (0, 1)]
    for at in planes:
        alone = f'<BinaryOnly MetadataFile="c.companion.ome" UUID="urn:uuid:{99:032d}"/>'
        xml = f'<?xml version="1.0"?><OME {space} UUID="urn:uuid:{at:032d}">{alone}</OME>'
        tifffile.imwrite(folder / f"c_{at}.ome.tif", pixels[at], description=xml, metadata=None)
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{at}" PlaneCount="1"><UUID FileName="c_{at}.ome.tif">urn:uuid:{at:032d}</UUID>'
        "</TiffData>"
        for at in (0, 1)
    )
    if described:
        (folder / "c.companion.ome").write_text(
            f'<?xml version="1.0"?><OME {space} UUID="urn:uuid:{99:032d}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint8" SizeX="20" SizeY="16" SizeZ="2" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
    return pixels


def test_a_set_that_a_companion_describes_is_one_acquisition(place: Place) -> None:
    pixels = write_companion_set(place.folder)
    for name in ("c_0.ome.tif", "c_1.ome.tif"):
        source = open_image(place.folder / name)
        assert source.info.shape == (1, 1, 2, 16, 20)
        assert np.array_equal(source.read(Box((0,) * 5, (1, 1, 2, 16, 20)))[0, 0], pixels)
        assert [Path(str(file)).name for file in source.files()][1:] == [
            "c.companion.ome", "c_1.ome.tif" if name.startswith("c_0") else "c_0.ome.tif",
        ]  # fmt: skip
        source.close()
    assert place.settle().started == ["c_0"]
    place.settle()
    assert [name for name, _ in place.runs.asked] == ["c_0"]
    assert place.scan(after=600).quarantined == {}


@pytest.mark.parametrize("missing", ["the companion", "a part of the companion", "a plane"])
def test_all_files_of_a_set_that_a_companion_describes_are_waited_for(place: Place, missing: str) -> None:
    write_companion_set(
        place.folder, described=missing != "the companion", planes=(0,) if missing == "a plane" else (0, 1)
    )
    companion = place.folder / "c.companion.ome"
    if missing == "a part of the companion":
        companion.write_bytes(companion.read_bytes()[:300])
    place.settle()
    found = place.scan(after=600)
    assert found.quarantined == {}
    assert ("c_1.ome.tif" if missing == "a plane" else "companion") in found.waiting[str(place.folder / "c_0.ome.tif")]
    write_companion_set(place.folder, planes=(1,) if missing == "a plane" else ())
    place.settle()
    place.settle()
    assert [name for name, _ in place.runs.asked] == ["c_0"]


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
