"""Disks that fill up, cannot be written to any more, or lose the input: told in one line, and gone on with later."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from pipeline.batch import attempt
from pipeline.config import RunConfig, make_config
from pipeline.engine.executor import Executor, SerialExecutor
from pipeline.images.discover import InputImage
from pipeline.planning import Intent
from pipeline.room import disk_bytes, expected_bytes, survey_room
from pipeline.run import ImageReport, prepare
from tests.corpus.test_corpus import WITHOUT_RIGHTS
from tests.faults.run import BIN, contents
from tests.random_models import save_threshold_model

ROOT = Path(__file__).parents[2]

INTENT = Intent(device="cpu", worker_memory=2**32)


class Interfering(SerialExecutor):
    """Does something before one of the jobs of a stage."""

    def __init__(self, stage: str, number: int, act: Callable[[], object]) -> None:
        self.stage, self.number, self.act = stage, number, act

    def map(
        self,
        stage: str,
        job: Any,  # noqa: ANN401
        plan: Any,  # noqa: ANN401
        indices: Iterable[int],
        lowered: Sequence[Any] = (),
    ) -> Iterator[tuple[int, Any]]:
        def watched() -> Iterator[int]:
            for number, index in enumerate(indices):
                if (stage, number) == (self.stage, self.number):
                    self.act()
                yield index

        return super().map(stage, job, plan, watched(), lowered)


class Job:
    """An image, a model, and what comes of them undisturbed."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "a.tif"
        noise = gaussian_filter(np.random.default_rng(0).normal(size=(290, 300)), 4)
        tifffile.imwrite(self.image, ((noise + 1) * 10000).astype(np.uint16), tile=(64, 64))
        model = save_threshold_model(folder / "model", 2)
        self.config = make_config(
            {"model": model, "tile": 128, "instances": {"method": "watershed"}, "output": {"chunk": 128}}
        )
        assert self.run(folder / "out").status == "done"
        self.wanted = contents(folder / "out")

    def run(self, out: Path, executor: Executor | None = None, config: RunConfig | None = None) -> ImageReport:
        image = InputImage(str(self.image), "a")
        return attempt(config or self.config, image, out, INTENT, executor or SerialExecutor(), fresh=False)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("job"))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Give a small disk."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def failed(report: ImageReport, said: str) -> None:
    assert report.status == "failed"
    assert report.reason is not None
    assert said in report.reason
    assert "unexpected" not in report.reason
    assert "\n" not in report.reason


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_moment_is_told_and_the_run_goes_on_when_there_is_room(
    job: Job, mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.check_room", lambda *_: None)
    fillings = 0
    for kilobytes in (40, 80, 120, 200, 300, 400, 500, 600, 700, 800, 1000, 64000):
        remount(mounted, f"size={kilobytes}k")
        report = job.run(mounted)
        if report.status == "done":
            break
        failed(report, "make sure that there is room" if fillings else "")
        fillings += 1
        assert not (mounted / "a.ome.zarr").exists()
    assert fillings >= 4
    assert report.status == "done"
    assert contents(mounted) == job.wanted


def test_too_little_room_is_found_before_work_starts(job: Job, mounted: Path, tmp_path: Path) -> None:
    out = mounted / "out"
    remount(mounted, "size=100k")
    failed(job.run(out), "1 MiB are wanted and 1 MiB are free; make room, or use another -o, --no-image")
    assert list(out.rglob("*")) == []
    plan = prepare(job.config, InputImage(str(job.image), "a"), tmp_path, INTENT)
    taken = sum(len(content) for content in job.wanted.values())
    assert taken < expected_bytes(plan) < disk_bytes(plan)


def test_too_little_room_for_all_images_together_is_told_before_work_starts(
    job: Job, mounted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of results that are there, nothing is wanted."""
    images = [InputImage(str(job.image), name) for name in ("a", "b", "c")]

    def survey(*, fresh: bool = False) -> list[str]:
        caplog.clear()
        survey_room(
            images, lambda image: prepare(job.config, image, mounted, INTENT, survey=True), mounted, fresh=fresh
        )
        return [record.getMessage() for record in caplog.records if record.name == "pipeline.room"]

    assert survey() == []
    assert job.run(mounted).status == "done"
    one = expected_bytes(prepare(job.config, images[0], mounted, INTENT))
    taken = shutil.disk_usage(mounted).used
    remount(mounted, f"size={(taken + 5 * one // 2) // 1024}k")
    assert survey() == []  # the other two fit
    (told,) = survey(fresh=True)
    assert "the results of 3 images want about 1 MiB together, and 1 MiB are free; those" in told
    assert told.endswith("make room, or use another -o, --no-image")


def test_an_output_that_cannot_be_written_to_is_told(job: Job, mounted: Path) -> None:
    remount(mounted, "ro")
    failed(job.run(mounted / "out"), "ead-only file system); choose another -o")
    remount(mounted, "rw")
    assert job.run(mounted / "out").status == "done"


@pytest.mark.parametrize(("stage", "number"), [("read", 0), ("segment", 4), ("measure", 2), ("pyramids 1", 0)])
def test_a_disk_that_goes_away_is_told_and_gone_on_with_when_it_is_back(
    job: Job, mounted: Path, tmp_path: Path, stage: str, number: int
) -> None:
    """As a network's disk does."""
    server, out = mounted / "server", tmp_path / "out"
    server.mkdir()
    out.mkdir()
    subprocess.run(["mount", "--bind", server, out], check=True)
    report = job.run(out, Interfering(stage, number, lambda: subprocess.run(["umount", "-l", out], check=True)))
    failed(report, "a.ome.zarr")
    shutil.rmtree(out)
    out.mkdir()
    subprocess.run(["mount", "--bind", server, out], check=True)
    try:
        counting: list[str] = []
        report = job.run(out, Interfering("segment", 0, lambda: counting.append("segment")))
        assert report.status == "done", report.reason
        assert bool(counting) == (stage in ("read", "segment"))
        assert contents(out) == job.wanted
    finally:
        subprocess.run(["umount", "-l", out], check=True)


@pytest.mark.slow
def test_a_folder_that_loses_its_permissions_is_told_and_gone_on_with(job: Job, tmp_path: Path) -> None:
    chunks = tmp_path / "out" / "a.ome.zarr.partial" / "labels" / "semantic" / "0" / "c"
    settings = tmp_path / "config.json"
    settings.write_text(job.config.model_dump_json(exclude_defaults=True))
    # In a process of its own, for it has to be without the rights of root.
    program: list[str | Path] = [
        sys.executable,
        "-c",
        WITHOUT_RIGHTS,
        sys.executable,
        "-c",
        LOSING,
        settings,
        job.image,
        chunks,
    ]
    run = subprocess.run(program, capture_output=True, text=True, check=False, timeout=250, cwd=ROOT)
    if os.geteuid() == 0 and run.returncode == KEEPS_RIGHTS:
        pytest.skip("the rights of root cannot be dropped here")
    assert run.returncode == 0, run.stderr
    failed(ImageReport(**json.loads(run.stdout)), "ermission denied")
    chunks.chmod(0o700)
    assert job.run(tmp_path / "out").status == "done"
    assert contents(tmp_path / "out") == job.wanted


KEEPS_RIGHTS = 77

LOSING = f"""
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from pipeline.batch import attempt
from pipeline.config import load_config, make_config
from pipeline.images.discover import InputImage
from tests.faults.test_disk import INTENT, Interfering
settings, image, chunks = map(Path, sys.argv[1:])
def lose():
    chunks.chmod(0o500)
    if os.access(chunks, os.W_OK):
        os._exit({KEEPS_RIGHTS})
executor = Interfering("segment", 3, lose)
config, out = make_config(load_config(settings)), chunks.parents[4]
report = attempt(config, InputImage(str(image), "a"), out, INTENT, executor, fresh=False)
print(json.dumps(asdict(report)))
"""
"""Takes the right to write to a folder away during the run, and prints the report."""


@pytest.mark.parametrize(("stage", "number"), [("read", 0), ("segment", 4), ("audit windows", 1)])
@pytest.mark.parametrize("copied", [True, False], ids=["copied", "left where it is"])
def test_an_input_that_vanishes_is_told_and_gone_on_with_when_it_is_back(
    job: Job, tmp_path: Path, stage: str, number: int, copied: bool
) -> None:
    config = job.config
    if not copied:
        config = config.model_copy(update={"output": config.output.model_copy(update={"image": "none"})})
    hidden = job.image.with_name("hidden")
    report = job.run(tmp_path, Interfering(stage, number, lambda: job.image.rename(hidden)), config)
    failed(report, "a.tif")
    assert (tmp_path / "a.ome.zarr.partial").exists()
    hidden.rename(job.image)
    begun: list[int] = []
    report = job.run(tmp_path, Interfering("read", 0, lambda: begun.append(0)), config)
    assert report.status == "done", report.reason
    assert bool(begun) == (stage == "read")
    if copied:
        assert contents(tmp_path) == job.wanted


def test_an_input_that_changes_is_told_and_done_anew(job: Job, tmp_path: Path) -> None:
    kept = job.image.with_name("kept")
    shutil.copy2(job.image, kept)
    report = job.run(tmp_path, Interfering("segment", 2, lambda: tifffile.imwrite(job.image, np.ones((50, 50)))))
    failed(report, "the image has changed during the run; run again")
    os.replace(kept, job.image)  # noqa: PTH105 (keeps the time)
    assert job.run(tmp_path).status == "done"
    assert contents(tmp_path) == job.wanted


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of files")
def test_files_that_may_not_grow_are_told_by_the_command_and_gone_on_with(job: Job, tmp_path: Path) -> None:
    """Where no disk can be mounted, this is what comes next to a full one."""
    import resource

    settings = tmp_path / "config.yaml"
    settings.write_text(job.config.model_dump_json(exclude_defaults=True))  # JSON is YAML
    command: list[str | Path] = [BIN / "seamfree", "run", job.image, "-o", tmp_path / "out", "-c", settings]
    command += ["--direct", "--scheduler", "serial"]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    run = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert run.returncode == 1
    assert "Traceback" not in run.stdout + run.stderr
    summary = json.loads((tmp_path / "out" / "run-summary.json").read_text())
    assert "make sure that there is room" in summary["images"][0]["reason"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = contents(tmp_path / "out")
    del found["run-summary.json"]
    assert found == job.wanted
