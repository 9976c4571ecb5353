"""Going on with an unfinished result: nothing damaged is trusted, nothing sound is done again, and it is told why."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from pipeline.config import make_config
from pipeline.engine.executor import SerialExecutor
from pipeline.errors import StoreError, WorkersKilledError
from pipeline.images.discover import InputImage
from pipeline.planning import Intent, RunPlan
from pipeline.run import claim, prepare, run_image
from pipeline.stages import run_stage, stage_names
from pipeline.verify import verify
from tests.faults.run import contents
from tests.random_models import save_threshold_model

Made = tuple[Callable[[Path], RunPlan], dict[str, bytes], dict[str, int]]

INTENT = Intent(device="cpu", worker_memory=2**32)


class Counting(SerialExecutor):
    """Counts the jobs that are done, by stage."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def map(
        self,
        stage: str,
        job: Any,  # noqa: ANN401
        plan: Any,  # noqa: ANN401
        indices: Iterable[int],
        lowered: Sequence[Any] = (),
    ) -> Iterator[tuple[int, Any]]:
        for found in super().map(stage, job, plan, indices, lowered):
            self.done[stage] = self.done.get(stage, 0) + 1
            yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for the image, the model, and the result of an undisturbed run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def made(home: Path) -> Made:
    """Give what makes a plan for an output folder, what an undisturbed run leaves, and how many jobs it does."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(290, 300)), 4)
    tifffile.imwrite(home / "a.tif", ((noise + 1) * 10000).astype(np.uint16), tile=(64, 64))
    model = save_threshold_model(home / "model", 2)
    config = make_config({"model": model, "tile": 128, "instances": {"method": "watershed"}, "output": {"chunk": 128}})

    def plan(output: Path) -> RunPlan:
        return prepare(config, InputImage(str(home / "a.tif"), "a"), output, INTENT)

    counting = Counting()
    run_image(plan(home / "out"), counting)
    return plan, contents(home / "out"), counting.done


@pytest.fixture(scope="module")
def unfinished(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a result of which the audit and the publication are missing."""
    folder = tmp_path_factory.mktemp("unfinished")
    run_until(made[0](folder), "pyramids")
    return folder


def run_until(plan: RunPlan, last: str) -> None:
    for stage in stage_names(plan):
        run_stage(stage, plan, SerialExecutor())
        if stage == last:
            return


def damage(path: Path, how: str) -> None:
    if how == "removed":
        path.unlink()
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


STAGES = (
    "read",
    "statistics",
    "check",
    "segment",
    "cross",
    "part",
    "number",
    "relabel",
    "measure",
    "pyramids",
    "audit",
)


def later(stage: str, jobs: dict[str, int]) -> dict[str, int]:
    """Give the jobs of the stages after one."""
    after = STAGES[STAGES.index(stage) + 1 :]
    return {name: number for name, number in jobs.items() if name.split()[0] in after}


@pytest.mark.parametrize(
    ("file", "stage", "first", "how"),
    [
        ("0/c/0/0", "read", "read", "flipped"),
        (".work/counts/0/0.npz", "read", "read", "removed"),
        ("labels/semantic/0/c/1/1", "segment", "segment", "emptied"),
        (".work/parts/3.blosc", "segment", "segment", "flipped"),
        (".work/components/2.npz", "segment", "segment", "removed"),
        (".work/crossing.npz", "cross", "cross", "emptied"),
        (".work/table.npy", "number", "number", "flipped"),
        ("labels/instances/0/c/1/0", "relabel", "relabel", "removed"),
        (".work/sums/4.partials.npy", "measure", "measure", "emptied"),
        ("tables/instances/table.parquet", "measure", "measure table", "flipped"),
        ("labels/instances/1/c/0/0", "pyramids", "pyramids 1", "removed"),
    ],
)
def test_a_damaged_file_of_an_unfinished_result_is_found_and_made_again(
    made: Made,
    unfinished: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    stage: str,
    first: str,
    how: str,
) -> None:
    make_plan, wanted, jobs = made
    plan = make_plan(tmp_path)
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    damage(plan.partial / file, how)
    counting = Counting()
    with caplog.at_level(logging.WARNING):
        run_image(make_plan(tmp_path), counting)
    assert contents(tmp_path) == wanted
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        f"a: {first}: 1 of {jobs[first]} done jobs are damaged, first {file}; "
        "they and what followed from them are done again"
    )
    after = later(stage, jobs)
    if first == "measure":
        after |= {"measure ranges": jobs["measure ranges"], "measure table": 1}
    assert counting.done == {first: 1, **after}


def test_a_chunk_that_changes_before_publication_is_found_and_the_next_run_makes_it_again(
    made: Made, unfinished: Path, tmp_path: Path
) -> None:
    make_plan, wanted, _ = made
    plan = make_plan(tmp_path)
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    run_stage("audit", plan, SerialExecutor())
    damage(plan.partial / "labels/instances/0/c/1/0", "flipped")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"labels/instances/0/c/1/0 has changed since it was written; run again"):
            run_stage("publish", plan, SerialExecutor())
    assert not Path(plan.output).exists()
    run_image(make_plan(tmp_path), counting := Counting())
    assert counting.done["relabel"] == 1
    assert contents(tmp_path) == wanted


def test_a_file_where_there_should_be_none_is_found(tmp_path: Path) -> None:
    """A shard of zeros is no file."""
    tifffile.imwrite(tmp_path / "dark.tif", np.zeros((130, 130), np.uint8))
    config = make_config({"tile": 64, "output": {"chunk": 64}, "instances": {"method": "components"}})
    plan = prepare(
        config,
        InputImage(str(tmp_path / "dark.tif"), "dark"),
        tmp_path / "out",
        Intent(device="cpu", worker_memory=2**32),
    )
    run_until(plan, "relabel")
    shard = plan.partial / "labels/instances/0/c/0/0"
    assert not shard.exists()
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(b"junk")
    run_image(plan, counting := Counting())
    assert counting.done["relabel"] == 1
    assert all(check.passed for check in verify(plan.output))


@pytest.mark.parametrize("how", ["truncated", "emptied", "removed", "of another plan", "plan truncated", "metadata"])
def test_what_cannot_be_trusted_is_told_in_one_line_and_done_anew(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    make_plan, wanted, jobs = made
    plan = make_plan(tmp_path)
    run_until(plan, "segment")
    ledger, noted = plan.work / "ledger.sqlite", plan.work / "plan.json"
    match how:
        case "truncated":
            ledger.write_bytes(ledger.read_bytes()[:5000])
        case "emptied":
            ledger.write_bytes(b"")
        case "removed":
            ledger.unlink()
        case "of another plan":
            other = make_plan(tmp_path / "other").model_copy(update={"minimum_size": 5})
            run_until(other, "create")
            ledger.write_bytes((other.work / "ledger.sqlite").read_bytes())
        case "plan truncated":
            noted.write_bytes(noted.read_bytes()[:100])
        case "metadata":
            damage(plan.partial / "labels/semantic/0/zarr.json", "emptied")
    with caplog.at_level(logging.WARNING):
        run_image(make_plan(tmp_path), counting := Counting())
    (message,) = [record.getMessage() for record in caplog.records]
    told = {
        "truncated": r"its ledger of done work (is damaged|cannot be read) \(.+\)",
        "emptied": r"its ledger of done work cannot be read \(.+\)",
        "removed": "its ledger of done work is missing",
        "of another plan": "its ledger of done work belongs to another plan",
        "plan truncated": "its plan is damaged",
        "metadata": "labels/semantic/0/zarr.json is damaged",
    }[how]
    assert message.startswith("a: an unfinished result is not gone on with, all is done anew: ")
    assert re.search(f": {told}$", message), message
    assert counting.done == jobs
    found = contents(tmp_path)
    assert {path: content for path, content in found.items() if not path.startswith("other/")} == wanted


def test_a_mark_that_was_changed_is_no_mark(made: Made, tmp_path: Path) -> None:
    """A number of objects, say, that is not the one that was found."""
    make_plan, wanted, _ = made
    plan = make_plan(tmp_path)
    run_until(plan, "number")
    with closing(sqlite3.connect(plan.work / "ledger.sqlite")) as connection, connection:
        (record,) = connection.execute("SELECT record FROM done WHERE stage = 'number'").fetchone()
        facts = json.loads(record)
        facts["objects"] += 1
        connection.execute("UPDATE done SET record = ? WHERE stage = 'number'", (json.dumps(facts, sort_keys=True),))
    run_image(make_plan(tmp_path), counting := Counting())
    assert counting.done["number"] == 1
    assert contents(tmp_path) == wanted


@pytest.mark.parametrize("file", ["labels/semantic/0/c/1/1", "tables/instances/table.parquet", "labels/zarr.json"])
def test_a_damaged_result_is_found_by_verify_and_repaired_by_the_next_run(
    made: Made, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    make_plan, wanted, jobs = made
    plan = make_plan(tmp_path)
    shutil.copytree(home / "out", tmp_path, dirs_exist_ok=True)
    result = Path(plan.output)
    assert all(check.passed for check in verify(result))
    damage(result / file, "removed" if file.endswith("json") else "flipped")
    found = [check.what for check in verify(result, audit=False) if not check.passed]
    assert len(found) == 1
    with caplog.at_level(logging.WARNING), claim(plan, fresh=False) as reason:
        assert reason is None
        run_image(plan, counting := Counting())
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"a: the finished result is damaged and made again: {found[0]}"
    assert counting.done == jobs
    assert contents(tmp_path) == wanted


def test_what_was_put_right_otherwise_is_left_alone(made: Made, home: Path, tmp_path: Path) -> None:
    make_plan, wanted, _ = made
    plan = make_plan(tmp_path)
    shutil.copytree(home / "out", tmp_path, dirs_exist_ok=True)
    chunk = Path(plan.output) / "labels/semantic/0/c/1/1"
    before = chunk.read_bytes()
    damage(chunk, "flipped")
    assert not all(check.passed for check in verify(plan.output, audit=False))
    chunk.write_bytes(before)
    assert all(check.passed for check in verify(plan.output, audit=False))
    with claim(plan, fresh=False) as reason:
        assert reason == "there is a finished result; use --fresh to make it again"
    assert contents(tmp_path) == wanted


class Failing(SerialExecutor):
    """Fails at one job of a stage, as a cluster does of which the workers have died."""

    def __init__(self, stage: str, index: int) -> None:
        self.stage, self.index = stage, index

    def map(
        self,
        stage: str,
        job: Any,  # noqa: ANN401
        plan: Any,  # noqa: ANN401
        indices: Iterable[int],
        lowered: Sequence[Any] = (),
    ) -> Iterator[tuple[int, Any]]:
        for index in indices:
            if (stage, index) == (self.stage, self.index):
                raise WorkersKilledError(stage, index, "3 workers died of it")
            yield from super().map(stage, job, plan, [index], lowered)


@pytest.mark.parametrize(
    ("stage", "index", "where"),
    [
        ("read", 0, "t 0 to 1, c 0 to 1, z 0 to 1, y 0 to 290, x 0 to 300): "),
        ("segment", 4, "t 0 to 1, z 0 to 1, y 128 to 256, x 128 to 256): "),
        ("relabel", 8, "t 0 to 1, z 0 to 1, y 256 to 290, x 256 to 300): "),
        ("number", 0, "a.tif): "),
    ],
)
def test_a_tile_that_cannot_be_done_is_named_with_its_pixels(
    made: Made, tmp_path: Path, stage: str, index: int, where: str
) -> None:
    plan = made[0](tmp_path)
    with pytest.raises(WorkersKilledError) as caught:
        run_image(plan, Failing(stage, index))
    assert str(caught.value).startswith(f"{stage}, tile {index} ({plan.source.path}")
    advice = "use a smaller --tile" if stage != "number" else "one job looks at all objects: use fewer --workers"
    assert f"{where}3 workers died of it; {advice}" in str(caught.value)
    run_image(plan, SerialExecutor())
    assert contents(tmp_path) == made[1]
