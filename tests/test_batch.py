"""The summary of a folder of results: of all runs that write there, also of those at work at the same moment."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline.models.architecture import UNetConfig
from pipeline.run import ImageReport
from pipeline.summary import keeping_summary, write_summary
from tests.random_models import save_random_model


def summary(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "run-summary.json").read_text())
    return held


def report(folder: Path, name: str, status: Any = "done", result: str | None = None) -> ImageReport:  # noqa: ANN401
    (folder / name).touch()
    return ImageReport(name, str(folder / name), status, result or str(folder / f"{name}.ome.zarr"))


def test_what_other_runs_have_noted_of_other_inputs_stays(tmp_path: Path) -> None:
    write_summary(tmp_path, [report(tmp_path, "a", "failed"), report(tmp_path, "b")])
    write_summary(tmp_path, [report(tmp_path, "a")])
    write_summary(tmp_path, [report(tmp_path, "c", "skipped")])
    held = summary(tmp_path)
    assert {entry["name"]: entry["status"] for entry in held["images"]} == {"a": "done", "b": "done", "c": "skipped"}
    assert held["counts"] == {"done": 2, "skipped": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "run-summary.json"]


def test_what_does_not_hold_any_more_goes(tmp_path: Path) -> None:
    write_summary(tmp_path, [report(tmp_path, "a"), report(tmp_path, "gone", "failed")])
    (tmp_path / "gone").unlink()
    # Another image has taken the place of the first.
    write_summary(tmp_path, [report(tmp_path, "b", result=str(tmp_path / "a.ome.zarr"))])
    assert [entry["name"] for entry in summary(tmp_path)["images"]] == ["b"]


@pytest.mark.parametrize("damage", ["", "[1", "[]", "null", '{"images": null}', '{"images": [1]}', "\N{SNOWMAN}"])
def test_a_damaged_summary_is_made_anew(tmp_path: Path, damage: str) -> None:
    (tmp_path / "run-summary.json").write_text(damage, encoding="utf-8")
    write_summary(tmp_path, [report(tmp_path, "a")])
    assert summary(tmp_path)["counts"] == {"done": 1}


def test_a_summary_is_whole_at_the_end_however_many_images_and_whatever_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def write(output: Path, reports: list[ImageReport]) -> Path:
        written.append(len(reports))
        return write_summary(output, reports)

    monkeypatch.setattr("pipeline.summary.write_summary", write)
    reports: list[ImageReport] = []

    def run() -> None:
        with keeping_summary(tmp_path, reports) as note:
            for number in range(300):
                reports.append(report(tmp_path, f"{number:03}"))
                note()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(summary(tmp_path)["images"]) == 300
    assert written[0] == 1
    assert written[-1] == 300
    # Images that take no time at all: writing each time would be all that is done.
    assert len(written) < 30


def test_runs_that_write_at_the_same_moment_lose_nothing(tmp_path: Path) -> None:
    reports = [[report(tmp_path, f"{run}-{image}") for image in range(8)] for run in range(4)]
    failures: list[BaseException] = []

    def run(mine: list[ImageReport]) -> None:
        try:
            for number in range(len(mine)):
                write_summary(tmp_path, mine[: number + 1])
        except BaseException as error:  # noqa: BLE001 (told below)
            failures.append(error)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in reports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert summary(tmp_path)["counts"] == {"done": 32}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_two_runs_at_the_same_time_share_a_folder(tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=2), seed=3)
    runs = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(6):
            tifffile.imwrite(tmp_path / folder / f"{folder}-{number}.tif", np.eye(60, 70, number, dtype=np.uint8))
        command: list[str | Path] = [Path(sys.executable).parent / "seamfree", "run", tmp_path / folder]
        command += ["-o", tmp_path / "out", "-m", model, "--direct", "--scheduler", "serial"]
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for run in runs:
        _, said = run.communicate(timeout=250)
        assert run.returncode == 0, said
    assert summary(tmp_path / "out")["counts"] == {"done": 12}
    # Nothing but the results, a report of each, and the summary.
    assert len(list((tmp_path / "out").iterdir())) == 25
