"""The audit of what a function has found: asks the function again, sees enough objects, and catches planted faults."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline import overlap_jobs, segment
from pipeline.audit import audit_result, describe_report
from pipeline.cli import app
from pipeline.config import RunConfig
from pipeline.engine.executor import SerialExecutor
from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.images.discover import discover
from pipeline.labels.overlap import Pairs
from pipeline.labels.seams import broken_objects, chance_of_broken, least_broken
from pipeline.notes import save_arrays
from pipeline.overlap_audit import ENOUGH
from pipeline.planning import Intent, RunPlan
from pipeline.run import prepare
from pipeline.seam_stretches import Seams
from pipeline.stages import run_stage, stage_names
from pipeline.stores.publish import checksum, read_provenance
from pipeline.verify import audit_again, verify
from tests.fields import compose, load_fields
from tests.test_overlap import run, settings

FUNCTION = "tests.detectors:patches"


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    tifffile.imwrite(path, compose(load_fields(), (611, 733), seed=3), tile=(128, 128), compression="zlib")
    return path


def compare_nothing(plan: RunPlan, index: int) -> dict[str, int]:
    """What stands in place of the comparison of windows where the merge is switched off."""
    save_arrays(plan.work / "pairs" / f"{index}.npz", Pairs.join([]).to_arrays())
    return {"pixels": 0}


def called(*arguments: object) -> tuple[int, str]:
    """Call ``seamfree verify``, and give its exit code and what it says last."""
    answer = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return answer.exit_code, answer.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_merge_switched_off_fails_the_run_and_verify_and_an_honest_run_passes_both(
    mosaic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(FUNCTION, 200, 60)
    _, honest = run(mosaic, tmp_path / "honest", config)
    audit = honest.provenance["audit"]
    assert audit["passed"] is True
    windows = audit["windows"]
    assert windows["all_objects_at_seams"]
    assert windows["seams_looked_at"] > 0.9
    assert windows["objects"] > 20
    assert windows["odd_objects"] == windows["ambivalent"] == 0
    assert f"only {windows['fails_from']} or more in pieces would have failed" in describe_report(audit)
    code, said = called(honest.path, "--function", FUNCTION)
    assert (code, said) == (0, f"ok     seams: {describe_report(audit)}")
    # Without leave to call the function, objects are counted only.
    code, said = called(honest.path)
    assert code == 0
    assert said.startswith("not made seams: ")
    with pytest.raises(ConfigError, match=r"'tests\.detectors:patches' has found its objects, not 'mask-rcnn'"):
        verify(honest.path, function="mask-rcnn")

    monkeypatch.setattr(overlap_jobs, "compare_tile", compare_nothing)
    (report,) = segment(mosaic, tmp_path / "off", config)
    assert report.status == "failed"
    assert re.search(
        r"depends on the tiles.* an object that differs .* nearest to the seam at [xy] ", report.reason or ""
    )
    noted = json.loads((tmp_path / "off" / "mosaic.ome.zarr.partial" / ".work" / "audit.json").read_text())
    assert noted["windows"]["objects"] == windows["objects"]
    assert noted["windows"]["odd_objects"] > 10 > noted["windows"]["fails_from"]
    assert noted["windows"]["ambivalent"] == 0
    unaudited = config.model_copy(update={"audit": config.audit.model_copy(update={"windows": 0})})
    (report,) = segment(mosaic, tmp_path / "unaudited", unaudited)
    for arguments in ((report.result,), (report.result, "--function", FUNCTION)):
        code, said = called(*arguments)
        assert code == 1
        assert re.match(r"FAILED seams: \d+ faults, such as an object that differs at .* the seam at [xy] ", said)


@pytest.mark.slow
def test_places_depend_on_the_seed_and_on_shapes_alone(mosaic: Path, tmp_path: Path) -> None:
    config = settings("tests.detectors:nuclei", 200, 40)
    _, first = run(mosaic, tmp_path / "first", config)
    elsewhere = Path(shutil.copy(mosaic, tmp_path / "another name.tif"))
    os.utime(elsewhere, (1, 1))
    _, second = run(elsewhere, tmp_path / "second", config)
    assert first.provenance["plan"]["source"] != second.provenance["plan"]["source"]
    assert first.provenance["audit"]["windows"] == second.provenance["audit"]["windows"]
    assert audit_again(first.path, function="tests.detectors:nuclei")["windows"] == first.provenance["audit"]["windows"]


def dots(path: Path, shape: tuple[int, int], places: list[tuple[int, int]], edge: int = 6) -> Path:
    """An image of bright squares."""
    image = np.zeros(shape, dtype=np.uint8)
    for row, column in places:
        image[row : row + edge, column : column + edge] = 200
    tifffile.imwrite(path, image)
    return path


def small(tile: int = 64, diameter: int = 8) -> RunConfig:
    return settings("tests.detectors:blobs", tile, diameter, intensity="none")


@pytest.mark.slow
def test_as_many_objects_are_looked_at_as_it_takes_and_no_more(tmp_path: Path) -> None:
    every = [(row, column) for row in range(1, 500, 9) for column in range(2, 700, 9)]
    _, result = run(dots(tmp_path / "a.tif", (512, 704), every), tmp_path / "out", small())
    windows = result.provenance["audit"]["windows"]
    assert result.provenance["audit"]["passed"] is True
    assert ENOUGH <= windows["objects"] <= 1.5 * ENOUGH
    assert not windows["all_objects_at_seams"]
    assert 0.05 < windows["seams_looked_at"] < 0.5
    assert windows["fails_from"] == 7
    more = audit_again(result.path, function="tests.detectors:blobs", seed=5)["windows"]
    assert more["objects"] >= ENOUGH
    assert more != windows | {"seed": 5}


def test_an_audit_that_sees_too_few_objects_says_so(tmp_path: Path) -> None:
    image = dots(tmp_path / "a.tif", (256, 256), [(20, 20), (61, 30), (150, 125), (200, 200)])
    _, result = run(image, tmp_path / "out", small())
    audit = result.provenance["audit"]
    assert audit["passed"] is None
    assert audit["windows"]["objects"] == 2
    assert audit["windows"]["fails_from"] is None
    assert describe_report(audit).endswith("these are too few to tell whether seams show; there are no more at seams")
    code, said = called(result.path, "--function", "tests.detectors:blobs")
    assert code == 0
    assert said == f"not made seams: {describe_report(audit)}"
    _, single = run(image, tmp_path / "single", small(tile=512))
    assert single.provenance["audit"]["passed"] is True
    assert describe_report(single.provenance["audit"]) == "the image is a single tile and has no seams"


def test_objects_that_are_missing_at_seams_are_found_where_the_result_has_nothing(tmp_path: Path) -> None:
    every = [(row, column) for row in range(1, 240, 9) for column in range(2, 240, 9)]
    _, result = run(dots(tmp_path / "a.tif", (256, 256), every), tmp_path / "out", small())
    array = zarr.open_array(result.path / "labels" / "instances" / "0", mode="r+")
    labels = np.asarray(array[...])
    meeting = [labels[at - 1 : at + 1] for at in (64, 128, 192)] + [labels[:, at - 1 : at + 1] for at in (64, 128, 192)]
    gone = np.unique(np.concatenate([part.ravel() for part in meeting]))
    array[...] = np.where(np.isin(labels, gone), 0, labels)
    facts = read_provenance(result.path)
    facts["checksums"]["labels/instances/0"] = checksum(result.path / "labels/instances/0")
    (result.path / "seamfree.json").write_text(json.dumps(facts))
    report = audit_again(result.path, function="tests.detectors:blobs")
    assert report["passed"] is False
    assert report["windows"]["odd_objects"] == report["windows"]["objects"] > 5


@pytest.mark.slow
def test_volumes_are_audited(tmp_path: Path) -> None:
    at_z, at_y, at_x = np.indices((14, 60, 66))
    volume = ((at_z % 4 < 3) & (at_y % 5 < 4) & (at_x % 5 < 4)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", volume, metadata={"axes": "ZYX"}, ome=True, photometric="minisblack")
    config = settings("tests.detectors:blobs", 14, (4, 5, 5), dimensions=3, intensity="none")
    _, result = run(tmp_path / "a.ome.tif", tmp_path / "out", config)
    windows = result.provenance["audit"]["windows"]
    assert result.provenance["audit"]["passed"] is True
    assert windows["objects"] > 50
    (image,) = discover([str(tmp_path / "a.ome.tif")])
    plan = prepare(config, image, tmp_path / "off", Intent(device="cpu", worker_memory=2**32))
    names = stage_names(plan)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(overlap_jobs, "compare_tile", compare_nothing)
        # Objects this small are whole in all windows; here each core shows its own window's part of them.
        patched.setattr(overlap_jobs, "neighbours", lambda *_: [])
        for name in names[: names.index("audit")]:
            run_stage(name, plan, SerialExecutor())

    def serial(stage: str, job: Any, total: int, /) -> list[dict[str, Any]]:  # noqa: ANN401 (as the executor takes it)
        return [record for _, record in SerialExecutor().map(stage, job, plan, range(total))]

    report = audit_result(plan, serial, finished=False)
    assert report["passed"] is False
    assert report["windows"]["odd_objects"] > 10


@st.composite
def seams(draw: st.DrawFn) -> Seams:
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, edge)) for edge in (3, 5, 9, 9))
    free = (1,) * (4 - ndim)
    core = free + tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    cell = free + tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    return Seams(shape, core, cell, tuple(range(4 - ndim, 4)))


@effort(deadline=None, max_examples=60)
@given(seams())
def test_each_pixel_behind_a_seam_is_in_one_stretch(seams: Seams) -> None:
    held = {axis: np.full(seams.shape, -1) for axis in seams.axes}
    for number in range(len(seams)):
        stretch = seams[number]
        assert stretch.plane.size
        assert Box.whole(seams.shape).contains(stretch.plane)
        assert stretch.seam % seams.core[stretch.axis] == 0 < stretch.seam
        assert (held[stretch.axis][stretch.plane.slices] == -1).all()
        held[stretch.axis][stretch.plane.slices] = number
        points = [at.ravel() for at in np.indices(stretch.plane.shape)]
        found = seams.numbers(stretch.axis, stretch.seam, [
            at + start for at, start in zip(points, stretch.plane.start, strict=True)
        ])  # fmt: skip
        assert set(found.tolist()) == {number}
    assert sum(int((numbers >= 0).sum()) for numbers in held.values()) == seams.pixels
    for axis, numbers in held.items():
        at = np.arange(seams.shape[axis])
        behind = (at > 0) & (at % seams.core[axis] == 0)
        assert ((numbers >= 0).any(axis=tuple(other for other in range(4) if other != axis)) == behind).all()
    for pixel in np.ndindex(*seams.shape):
        if crossed := [axis for axis in seams.axes if pixel[axis] and pixel[axis] % seams.core[axis] == 0]:
            assert seams.number_at(pixel) == held[crossed[0]][pixel]


def test_an_audit_fails_from_the_least_number_of_broken_objects_that_chance_does_not_explain() -> None:
    for objects in (0, 1, 2, 3, 17, 100, 5000):
        for share in (0.005, 0.3, 1.0):
            least = least_broken(objects, share, 1e-6)
            unlikely = [
                many for many in range(1, min(objects, 2000) + 1) if chance_of_broken(many, objects, share) < 1e-6
            ]
            assert least == (unlikely[0] if unlikely else None)


@effort(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_broken_objects_are_those_in_pieces_or_missing(seed: int) -> None:
    random = np.random.default_rng(seed)
    objects, labels = (np.repeat(random.integers(0, 4, (6, 4)), 3, axis=1) for _ in range(2))
    wanted = np.flatnonzero(np.bincount(objects.ravel(), minlength=4))[1 if (objects == 0).any() else 0 :]
    expected = []
    for wish in wanted.tolist():
        mine = objects == wish
        shared = {other: int((mine & (labels == other)).sum()) for other in np.unique(labels[mine]).tolist() if other}
        pieces = [other for other, many in shared.items() if many >= 4 and 2 * many > int((labels == other).sum())]
        if len(pieces) > 1 or 2 * max(shared.values(), default=0) < int(mine.sum()):
            expected.append(wish)
    assert broken_objects(objects, labels, wanted).tolist() == expected
