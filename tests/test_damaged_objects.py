"""Wrong objects in a finished result whose checksums are right: `seamfree verify` finds them, whatever the policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from pipeline import object_jobs, segment
from pipeline.config import make_config
from pipeline.labels.holes import HoleTable, find_holes
from pipeline.stores.publish import checksum, read_provenance
from pipeline.verify import Check, verify
from tests.labels.test_holes import whole as whole_holes
from tests.random_models import save_threshold_model

EDGE = 32
"""Of a tile."""

POLICIES: dict[str, dict[str, Any]] = {
    "holes": {"fill_holes": True},
    "border": {"border": "drop"},
    "both": {"fill_holes": True, "border": "drop"},
}


def result(image: Path, into: Path, model: str, **rule: Any) -> Path:  # noqa: ANN401 (as YAML gives them)
    wishes = {"model": model, "tile": EDGE, "instances": rule, "execution": {"scheduler": "serial"}}
    (report,) = segment(image, into, make_config({**wishes, "output": {"report": False, "chunk": EDGE}}))
    assert report.status == "done", report.reason
    return Path(str(report.result))


def seams(folder: Path) -> Check:
    *others, last = verify(folder)
    assert all(check.passed and check.made for check in others)
    return last


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result for each method and policy, of blobs of which some have holes."""
    folder = tmp_path_factory.mktemp("made")
    blobs = ndimage.gaussian_filter(np.random.default_rng(0).random((150, 160)), 2.5) > 0.5
    assert whole_holes(blobs[None, None], 2).any()
    tifffile.imwrite(folder / "a.tif", np.where(blobs, 900, 100).astype(np.uint16))
    model = save_threshold_model(folder / "model", 2)
    for method, parting in (("components", {}), ("watershed", {"depth": 0.5})):
        for name, policy in POLICIES.items():
            honest = result(folder / "a.tif", folder / method / name, model, method=method, **parting, **policy)
            found = seams(honest)
            assert (found.passed, found.made) == (True, True), found
    return folder


def without_the_largest(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    largest = np.bincount(labels[labels > 0]).argmax()
    return np.where(labels == largest, np.uint32(0), labels)


def cut_at_seams(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    rows, columns = np.indices(labels.shape) // EDGE
    return np.where(labels > 0, (labels * 100 + rows * 10 + columns), 0).astype(np.uint32)


def with_a_hole_open(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Take a pixel out of the middle of the largest object."""
    largest = labels == np.bincount(labels[labels > 0]).argmax()
    deepest = np.unravel_index(ndimage.distance_transform_edt(largest).argmax(), labels.shape)
    changed = labels.copy()
    changed[deepest] = 0
    return changed


DAMAGE: dict[str, Callable[[NDArray[np.uint32]], NDArray[np.uint32]]] = {
    "nothing left": np.zeros_like,
    "the largest erased": without_the_largest,
    "all cut at seams": cut_at_seams,
    "one number for all": lambda labels: (labels > 0).astype(np.uint32),
    "a hole": with_a_hole_open,
}


@pytest.mark.parametrize("method", ["components", "watershed"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_wrong_objects_are_found_whatever_the_policy(
    made: Path, tmp_path: Path, method: str, policy: str, damage: str
) -> None:
    copy = Path(shutil.copytree(made / method / policy / "a.ome.zarr", tmp_path / "a.ome.zarr"))
    array = zarr.open_array(copy / "labels" / "instances" / "0", mode="r+")
    labels = np.asarray(array[...])
    wrong = DAMAGE[damage](labels)
    assert (wrong != labels).any()
    array[...] = wrong
    facts = read_provenance(copy)
    facts["checksums"]["labels/instances/0"] = checksum(copy / "labels/instances/0")
    (copy / "seamfree.json").write_text(json.dumps(facts))
    # Whatever else is found: numbers and pyramids may be wrong, too.
    found = verify(copy)[-1]
    assert (found.passed, found.made) == (False, True)
    assert "an object that differs at " in found.detail


@pytest.mark.parametrize("method", ["components", "watershed"])
@pytest.mark.parametrize("policy", POLICIES)
def test_contact_that_an_object_encloses_is_no_fault(tmp_path: Path, method: str, policy: str) -> None:
    image = np.full((70, 80), 100, dtype=np.uint16)
    image[5:30, :30] = image[20:60, 25:60] = 900
    image[10:15, 10:20] = image[28:40, 30:45] = image[30:34, 58:] = 500
    image[45:50, 30:35] = 100
    tifffile.imwrite(tmp_path / "a.tif", image)
    model = save_threshold_model(tmp_path / "model", 2, contact=True)
    folder = result(tmp_path / "a.tif", tmp_path, model, method=method, **POLICIES[policy])
    semantic, instances = (
        np.asarray(zarr.open_array(folder / "labels" / name / "0", mode="r")[...]) for name in ("semantic", "instances")
    )
    np.testing.assert_array_equal(semantic, np.searchsorted([300, 700], image))
    if method == "components" and policy == "holes":
        # By components it is enclosed as background is.
        assert (instances[semantic == 1] > 0).any()
    found = seams(folder)
    assert (found.passed, found.made) == (True, True), found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["components", "watershed"])
def test_holes_that_a_run_does_not_find_are_caught_before_the_result_has_its_name(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def find_none(*given: Any) -> HoleTable:  # noqa: ANN401 (as for `find_holes`)
        table = find_holes(*given)
        return HoleTable(np.zeros_like(table.is_hole), table.offsets)

    monkeypatch.setattr(object_jobs, "find_holes", find_none)
    wishes = {"model": str(made / "model"), "tile": EDGE, "instances": {"method": method, "fill_holes": True}}
    (report,) = segment(made / "a.tif", tmp_path, make_config({**wishes, "execution": {"scheduler": "serial"}}))
    assert report.status == "failed"
    assert "an object that differs at " in (report.reason or "")
