"""The seam audit: honest results pass it, and faults that are planted do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from pipeline import segment
from pipeline.audit import describe_report
from pipeline.audit_face_jobs import count_faces, face_jobs
from pipeline.audit_windows import choose_core, choose_count, draw_points, nearest_seam, place_around
from pipeline.config import make_config
from pipeline.engine.executor import SerialExecutor
from pipeline.errors import AuditError
from pipeline.geometry import Footprint
from pipeline.images.discover import InputImage
from pipeline.labels import union
from pipeline.models.architecture import UNetConfig
from pipeline.overview import Overview
from pipeline.planning import Intent, RunPlan
from pipeline.run import prepare, run_image
from pipeline.stages import run_stage, stage_names
from pipeline.stores.publish import read_provenance
from pipeline.verify import audit_again
from tests.fields import compose, load_fields
from tests.random_models import save_random_model, save_threshold_model


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    tifffile.imwrite(path, compose(load_fields(), (611, 733)), tile=(128, 128), compression="zlib")
    return path


def noise(path: Path, shape: tuple[int, ...], axes: str) -> Path:
    image = np.random.default_rng(0).gamma(2.0, 200.0, shape).astype(np.uint16)
    tifffile.imwrite(path, image, metadata={"axes": axes}, ome=True)
    return path


def planned(image: Path, into: Path, /, **settings: Any) -> RunPlan:  # noqa: ANN401 (as YAML gives them)
    intent = Intent(device="cpu", worker_memory=2**33)
    return prepare(make_config(settings), InputImage(str(image), "a"), into, intent)


def changed(plan: RunPlan, **facts: Any) -> RunPlan:  # noqa: ANN401 (what a plan holds)
    """Give a plan with other decisions, which nobody has checked against the model."""
    return RunPlan.model_validate({name: getattr(plan, name) for name in RunPlan.model_fields} | facts)


def audited(plan: RunPlan) -> Any:  # noqa: ANN401 (JSON)
    assert run_image(plan, SerialExecutor()).status == "done"
    return read_provenance(Path(plan.output))["audit"]


def caught(plan: RunPlan) -> Any:  # noqa: ANN401 (JSON)
    """Run a plan that the audit must not let through, and give what it found."""
    # The self-check before the run would catch some of these before there is anything to audit.
    stages = [stage for stage in stage_names(plan) if stage not in ("check", "audit", "publish")]
    for stage in stages:
        run_stage(stage, plan, SerialExecutor())
    with pytest.raises(AuditError, match=r"depends on the tiles.* [tzyx] \d+, nearest to the seam at [zyx] \d+"):
        run_stage("audit", plan, SerialExecutor())
    assert not Path(plan.output).exists()
    report = json.loads((plan.work / "audit.json").read_text())
    assert not report["passed"]
    return report


@pytest.mark.slow
@pytest.mark.parametrize(("tile", "method"), [(128, "watershed"), (256, "components"), (1000, "watershed")])
def test_honest_results_of_the_bundled_model_pass(mosaic: Path, tmp_path: Path, tile: int, method: str) -> None:
    report = audited(planned(mosaic, tmp_path, tile=tile, instances={"method": method}))
    assert report["passed"]
    assert report["windows"]["number"] == (4 if tile < 1000 else 1)
    assert report["windows"]["differing"] == report["faults"]["total"] == 0
    assert report["windows"]["objects"] > 10
    assert report["windows"]["scores"] > 200
    assert report["windows"]["largest_difference_of_scores"] <= 1e-6
    seams = [row for row in report["seams"]["table"] if row["where"] == "seams"]
    assert [row["pixels"] > 0 for row in seams] == [tile < 1000] * 2
    assert report["seams"]["breaks"] == 0
    assert report["ambiguous"] == report["too_large_to_part"] == {"total": 0, "listed": []}


HONEST = {
    "same": (UNetConfig(depth=2, base_channels=2, classes=3, padding="same", norm="batch"), 0, (131, 167), "YX", 48),
    "planes": (UNetConfig(depth=2, base_channels=2), 2, (3, 67, 101), "ZYX", 32),
    "3-D valid": (UNetConfig(dims=3, depth=2, base_channels=2), 3, (2, 17, 29, 31), "TZYX", 12),
    "3-D same": (UNetConfig(dims=3, depth=1, base_channels=2, padding="same"), 2, (13, 42, 39), "ZYX", 12),
    "no poolings": (UNetConfig(depth=0, base_channels=2), 6, (40, 50), "YX", 16),
    "smaller than a window": (UNetConfig(base_channels=2), 0, (5, 3), "YX", 32),
}
"""Architecture, seed with which no class has nearly all pixels, image, and edge of a tile."""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["components", "watershed"])
@pytest.mark.parametrize("case", HONEST)
def test_honest_results_of_any_model_pass(tmp_path: Path, case: str, method: str) -> None:
    architecture, seed, shape, axes, tile = HONEST[case]
    model = save_random_model(tmp_path / "model", architecture, seed)
    image = noise(tmp_path / "a.ome.tif", shape, axes)
    report = audited(
        planned(
            image, tmp_path / "out", model=model, tile=tile, instances={"method": method, "minimum_size": 3},
            output={"chunk": 32, "probabilities": "float16"}, audit={"windows": 6},
        )
    )  # fmt: skip
    assert report["passed"]
    assert report["windows"]["number"] == 6
    assert report["windows"]["ties"] == 0
    assert report["windows"]["objects"] > 5
    assert report["windows"]["largest_difference_of_scores"] <= 2**-12 + 1e-6  # half precision rounds


@pytest.mark.parametrize("method", ["components", "watershed"])
@pytest.mark.parametrize("policy", [{"fill_holes": True}, {"border": "drop"}, {"fill_holes": True, "border": "drop"}])
def test_honest_results_with_holes_filled_or_without_the_border_pass(
    tmp_path: Path, policy: dict[str, Any], method: str
) -> None:
    architecture, seed, shape, axes, tile = HONEST["same"]
    model = save_random_model(tmp_path / "model", architecture, seed)
    image = noise(tmp_path / "a.ome.tif", shape, axes)
    report = audited(planned(image, tmp_path / "out", model=model, tile=tile, instances={"method": method, **policy}))
    assert report["passed"]
    assert report["windows"]["objects"] > 10


@pytest.mark.parametrize("probabilities", ["none", "float16"])
def test_a_halo_cut_by_half_is_caught(tmp_path: Path, probabilities: str) -> None:
    model = save_random_model(tmp_path / "model", UNetConfig(depth=2, base_channels=2, padding="same", norm="batch"))
    image = noise(tmp_path / "a.ome.tif", (300, 340), "YX")
    plan = planned(image, tmp_path / "out", model=model, tile=96, output={"probabilities": probabilities})
    whole = plan.footprint
    half = Footprint(whole.margin, tuple(edge // 2 for edge in whole.halo), whole.stride, whole.phase, whole.smallest)
    assert half.context[3] == whole.context[3] // 2 == 12
    report = caught(changed(plan, footprint=half))
    assert report["windows"]["differing"] > 10
    assert report["faults"]["listed"][0]["what"] in ("class", "score")
    # What the network itself pads with reaches no farther than the halo.
    assert all(fault["seam"][0] < 24 for fault in report["faults"]["listed"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["components", "none"])
def test_the_papers_stride_of_388_is_caught(mosaic: Path, tmp_path: Path, method: str) -> None:
    plan = planned(mosaic, tmp_path, tile=384, instances={"method": method}, audit={"windows": 8})
    # A network of two poolings has the same windows and margins, and takes any multiple of 4.
    stride_4 = Footprint((0, 0, 92, 92), (0, 0, 0, 0), (1, 1, 4, 4), (0, 0, 0, 0), (1, 1, 188, 188))
    report = caught(changed(plan, core=(1, 1, 388, 388), label_chunk=(1, 1, 194, 194), footprint=stride_4))
    # Four pixels off the stride change few classes, for the network is sure of most; they change all scores.
    assert report["windows"]["odd_scores"] > 10
    assert report["windows"]["largest_difference_of_scores"] > 1e-5
    assert {fault["what"] for fault in report["faults"]["listed"]} <= {"class", "score"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["components", "watershed"])
def test_a_merge_switched_off_is_caught(
    mosaic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(union, "_touching", lambda *_: np.zeros((0, 2), dtype=np.int64))
    report = caught(planned(mosaic, tmp_path, tile=128, instances={"method": method}))
    assert report["windows"]["differing"] == 0
    assert {fault["what"] for fault in report["faults"]["listed"]} == {"object"}
    assert report["faults"]["listed"][0]["seam"][0] == 0
    seams = report["seams"]
    assert seams["suspicious"]
    straight = {where: max(row["straight"] for row in seams["table"] if row["where"] == where)
                for where in ("seams", "halfway")}  # fmt: skip
    assert straight["seams"] == 1.0
    assert straight["halfway"] < 0.1
    if method == "components":
        assert seams["breaks"] > 100
    else:
        assert seams["spots"]["odd_objects"] > 10
        assert seams["spots"]["undecided"] == 0


@pytest.mark.slow
def test_what_ends_at_seams_in_the_image_itself_is_looked_at_and_passes(tmp_path: Path) -> None:
    """A mosaic of fields as large as the tiles: objects end at seams, rightly."""
    field = compose(load_fields(), (520, 1392))
    starts = [(row, column) for row in range(0, 392, 32) for column in range(0, 1264, 32)]
    crops = [field[row : row + 128, column : column + 128] for row, column in starts]
    dense = max(crops, key=lambda crop: int(np.count_nonzero(crop > 1500)))
    dark = np.full_like(dense, 200)
    rows = [np.concatenate([dense if (row + column) % 2 else dark for column in range(5)], axis=1) for row in range(5)]
    tifffile.imwrite(tmp_path / "a.tif", np.concatenate(rows))
    report = audited(planned(tmp_path / "a.tif", tmp_path / "out", tile=128))
    assert report["passed"]
    assert report["seams"]["suspicious"]
    spots = report["seams"]["spots"]
    assert (spots["number"], spots["differing"], spots["odd_objects"], spots["undecided"]) == (16, 0, 0, 0)
    assert "the image has edges there" in describe_report(report)


def test_wrong_classes_are_found_and_named_without_any_seam(mosaic: Path, tmp_path: Path) -> None:
    plan = planned(mosaic, tmp_path, tile=1000, instances={"method": "none"})
    *stages, audit, _ = stage_names(plan)
    for stage in stages:
        run_stage(stage, plan, SerialExecutor())
    array = zarr.open_array(plan.partial / "labels" / "semantic" / "0", mode="r+")
    array[...] = 2 - np.asarray(array[...])
    with pytest.raises(AuditError, match=r"mosaic\.tif: .* a class that differs at t 0, z 0, y \d+, x \d+; "):
        run_stage(audit, plan, SerialExecutor())


@pytest.mark.slow
def test_an_image_that_fails_its_audit_fails_again_until_it_is_made_again(
    mosaic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({"tile": 256, "execution": {"scheduler": "serial"}})
    with monkeypatch.context() as patched:
        patched.setattr(union, "_touching", lambda *_: np.zeros((0, 2), dtype=np.int64))
        (report,) = segment(mosaic, tmp_path, config)
    (again,) = segment(mosaic, tmp_path, config)
    assert (report.status, again.status) == ("failed", "failed")
    assert report.reason == again.reason
    assert str(mosaic) in (report.reason or "")
    assert (tmp_path / "mosaic.ome.zarr.partial" / "labels" / "instances" / "0").exists()
    (fresh,) = segment(mosaic, tmp_path, config, fresh=True)
    assert fresh.status == "done"


@pytest.mark.slow
def test_without_an_audit_the_provenance_says_so_and_no_array_differs(mosaic: Path, tmp_path: Path) -> None:
    checksums = []
    for windows in (0, 2):
        plan = planned(mosaic, tmp_path / str(windows), tile=256, audit={"windows": windows})
        assert ("audit" in stage_names(plan)) == (windows > 0)
        assert audited(plan)["passed"] is (True if windows else None)
        checksums.append(read_provenance(Path(plan.output))["checksums"])
    assert checksums[0] == checksums[1]


def test_windows_straddle_seams_and_start_on_the_stride(mosaic: Path, tmp_path: Path) -> None:
    plan = planned(mosaic, tmp_path, tile=208)
    edges = (1, 1, *choose_core(plan.label_shape[2:], UNetConfig().footprint))
    assert edges == (1, 1, 96, 96)
    for index in range(20):
        for point in draw_points(plan, index, seed=1):
            core = place_around(point, edges, plan.label_shape, (1, 1, 16, 16))
            assert core.start[2] % 16 == core.start[3] % 16 == 0
            straddled = [axis for axis in (2, 3) if any(
                core.start[axis] < seam < min(core.stop[axis], plan.label_shape[axis])
                for seam in range(208, plan.label_shape[axis], 208)
            )]  # fmt: skip
            assert straddled == [2, 3] if index % 2 == 0 else 2 + index // 2 % 2 in straddled
    assert draw_points(plan, 3, seed=1) == draw_points(plan, 3, seed=1) != draw_points(plan, 3, seed=2)


def test_the_number_of_windows_follows_from_the_work(mosaic: Path, tmp_path: Path) -> None:
    spatial = UNetConfig().footprint
    assert choose_count((1, 1, 900, 900), (1, 1, 1024, 1024), spatial) == 1
    assert choose_count((1, 1, 2048, 2048), (1, 1, 1024, 1024), spatial) == 4
    large = choose_count((1, 1, 20480, 20480), (1, 1, 1024, 1024), spatial)
    share = large * 284**2 / (400 * 1212**2)
    assert share == pytest.approx(0.02, rel=0.02)
    assert choose_count((1000, 1, 20480, 20480), (1, 1, 1024, 1024), spatial) == 1000
    assert planned(mosaic, tmp_path, audit={"windows": 7}).audit_windows == 7


def test_seams_are_the_nearest_ones(mosaic: Path, tmp_path: Path) -> None:
    plan = planned(mosaic, tmp_path, tile=256)
    assert nearest_seam(plan, (0, 0, 255, 100)) == (0, "y", 256)
    assert nearest_seam(plan, (0, 0, 256, 100)) == (0, "y", 256)
    assert nearest_seam(plan, (0, 0, 10, 730)) == (218, "x", 512)
    assert nearest_seam(planned(mosaic, tmp_path, tile=1000), (0, 0, 5, 5)) is None


def test_holes_of_objects_too_small_to_keep_are_no_fault(tmp_path: Path) -> None:
    """Filled, two rings are two small objects; with their holes open they would be one that is large enough."""
    mask = np.zeros((40, 80), dtype=bool)
    for left in (10, 16):
        mask[10:15, left : left + 5] = True
        mask[12, left + 2] = False
    mask[12, 15] = True
    mask[20:38, 50:75] = True
    model = save_threshold_model(tmp_path / "model", 2)
    tifffile.imwrite(tmp_path / "a.ome.tif", np.where(mask, 900, 100).astype(np.uint16))
    for border in ("keep", "drop"):
        rule = {"method": "watershed", "depth": 1.5, "minimum_size": 30, "fill_holes": True, "border": border}
        plan = planned(tmp_path / "a.ome.tif", tmp_path / border, model=model, tile=16, instances=rule)
        assert audited(plan)["passed"]
        assert audit_again(plan.output)["passed"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["components", "watershed"])
def test_a_merge_switched_off_is_caught_with_all_policies(
    mosaic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(union, "_touching", lambda *_: np.zeros((0, 2), dtype=np.int64))
    rule = {"method": method, "fill_holes": True, "border": "drop"}
    report = caught(planned(mosaic, tmp_path, tile=128, instances=rule))
    assert {fault["what"] for fault in report["faults"]["listed"]} == {"object"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["components", "watershed"])
def test_a_tile_whose_objects_lie_a_pixel_off_is_caught_wherever_it_is(
    mosaic: Path, tmp_path: Path, method: str
) -> None:
    plan = planned(mosaic, tmp_path, tile=128, instances={"method": method})
    for stage in stage_names(plan)[:-2]:
        run_stage(stage, plan, SerialExecutor())
    array = zarr.open_array(plan.partial / "labels" / "instances" / "0", mode="r+")
    whole = np.asarray(array[...])
    jobs = face_jobs(plan)
    assert sum(count_faces(plan, index, finished=False)["breaks"] for index in range(jobs)) == 0
    missed = []
    for tile in plan.tiles:
        moved, place = whole.copy(), tile.owned.slices[2:]
        moved[place] = np.roll(whole[place], 1, axis=1)
        array[...] = moved
        if not sum(count_faces(plan, index, finished=False)["breaks"] for index in range(jobs)):
            missed.append(tile.index)
    # Where nothing crosses its faces, a tile's objects may lie anywhere.
    assert len(missed) <= 2, missed


def test_what_is_too_large_to_be_parted_is_told_while_the_run_goes_on(
    mosaic: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(mosaic, tmp_path, tile=256, audit={"windows": 0}, instances={"largest": 900})
    unlimited = planned(mosaic, tmp_path, tile=256, audit={"windows": 0})
    assert unlimited.digest != plan.digest
    (told_before,) = [line for line in Overview(str(mosaic), unlimited).lines() if line.startswith("  parting")]
    # The image is smaller than what is parted at all: 90 bytes for each of its pixels.
    assert f"up to {90 * 611 * 733 / 2**20:.0f} MiB" in told_before
    found = audited(plan)["too_large_to_part"]
    assert found["total"] > 0
    start, stop = (found["listed"][0][end] for end in ("start", "stop"))
    (told,) = [record.getMessage() for record in caplog.records if "too large to be parted" in record.getMessage()]
    assert str(mosaic) in told
    assert f"{found['total']} touching groups" in told
    assert f"y {start[2]} to {stop[2]}, x {start[3]} to {stop[3]}" in told
