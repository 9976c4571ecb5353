"""`seamfree verify` and what the parts of a result say of one another, also where every checksum is right."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline import open_result, segment
from pipeline.cli import app
from pipeline.config import make_config
from pipeline.stores.publish import checksum
from pipeline.verify import Check, verify
from tests.random_models import save_threshold_model

INSTANCES, TABLE = "labels/instances/0", "tables/instances/table.parquet"
NUMBERS, ROWS, PYRAMIDS = "numbers of objects", "table of objects", "pyramids"


def squares(dtype: str) -> NDArray[Any]:
    """Give objects of many sizes: the farther to the right and down, the smaller."""
    at_y, at_x = np.indices((300, 340))
    bright = (at_y % 17 < 3 + at_y // 60) & (at_x % 19 < 3 + at_x // 50)
    return np.where(bright, 40000 + 3 * at_x + at_y, 100 + at_y).astype(dtype)


def segment_squares(folder: Path, *more: dict[str, Any], dtype: str = "uint16") -> Path:
    tifffile.imwrite(folder / "a.tif", squares(dtype))
    settings: dict[str, Any] = {"model": save_threshold_model(folder / "model", 2), "tile": 128}
    settings |= {"execution": {"scheduler": "serial"}, "instances": {"method": "components"}}
    for each in more:
        settings |= each
    (report,) = segment(folder / "a.tif", folder, make_config(settings))
    assert report.status == "done", report.reason
    return Path(str(report.result))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = segment_squares(tmp_path_factory.mktemp("made"))
    assert open_result(result).objects == 324
    return result


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def note(result: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the provenance."""
    facts = json.loads((result / "seamfree.json").read_text())
    change(facts)
    (result / "seamfree.json").write_text(json.dumps(facts))


def sign(result: Path) -> None:
    """Make all checksums right."""
    note(result, lambda facts: facts.update(checksums={path: checksum(result / path) for path in facts["checksums"]}))


def repaint(result: Path, array: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    held = zarr.open_array(result / array, mode="r+")
    held[...] = change(np.asarray(held[...]))


def rewrite(result: Path, change: Callable[[Any], Any]) -> None:
    """Change the table, as a data frame."""
    table = pq.read_table(result / TABLE)
    changed = pa.Table.from_pandas(change(table.to_pandas()), preserve_index=False)
    pq.write_table(changed.cast(table.schema), result / TABLE)


def failed(result: Path) -> dict[str, Check]:
    return {check.what: check for check in verify(result, audit=False) if not check.passed and check.what != "repair"}


def called(result: Path) -> tuple[int, list[str]]:
    ended = CliRunner().invoke(app, ["verify", str(result), "--no-audit"])
    return ended.exit_code, ended.stdout.splitlines()


def test_what_is_held_against_one_another_is_told(made: Path) -> None:
    code, lines = called(made)
    assert code == 0
    assert "ok     numbers of objects: 1 to 324, in order" in lines
    assert "ok     table of objects: 324 rows, 32 objects measured again" in lines
    assert any(re.fullmatch(r"ok     pyramids: (\d+) of \1 blocks made again", line) for line in lines)


def permuted(labels: NDArray[Any]) -> NDArray[Any]:
    order = np.random.default_rng(0).permutation(int(labels.max())) + 1
    renumbered: NDArray[Any] = np.concatenate([[0], order]).astype(labels.dtype)[labels]
    return renumbered


def swapped(labels: NDArray[Any]) -> NDArray[Any]:
    return np.where(labels == 40, 5, np.where(labels == 5, 40, labels)).astype(labels.dtype)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swapped, "object 40 begins at t 0, z 0, y 0, x 76, where the next number is 5"),
        (permuted, "where the next number is 1"),
        (lambda labels: np.where(labels == 7, 0, labels), "where the next number is 7"),
        (lambda labels: np.where(labels == 324, 0, labels), "says 324 objects, and the highest number is 323"),
        (np.zeros_like, "says 324 objects, and the highest number is 0"),
    ],
)
def test_numbers_are_followed(copy: Path, change: Callable[[NDArray[Any]], NDArray[Any]], told: str) -> None:
    repaint(copy, INSTANCES, change)
    sign(copy)
    assert failed(copy)[NUMBERS].detail.endswith(told)
    assert called(copy)[0] == 1


def larger(table: Any) -> Any:  # noqa: ANN401 (a data frame)
    table.loc[5, "area"] += 1
    return table


def brighter(table: Any) -> Any:  # noqa: ANN401
    table["intensity_mean-0"] *= 2
    return table


def moved(table: Any) -> Any:  # noqa: ANN401
    for edge in ("bbox-0", "bbox-2"):
        table[edge] += 400
    return table


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (larger, "areas of "),
        (brighter, "intensity_mean-0 is "),
        (moved, "its box does not lie in the image"),
        (lambda table: table.drop(index=[3]), "row 4 is of object 5; rows are in the order of the labels"),
        (lambda table: table[:-1], "323 rows, and the provenance says 324 objects"),
        (lambda table: table.sample(frac=1, random_state=0), "rows are in the order of the labels"),
        (lambda table: table[:0], "0 rows, and the provenance says 324 objects"),
    ],
)
def test_the_table_is_that_of_the_labels(copy: Path, change: Callable[[Any], Any], told: str) -> None:
    rewrite(copy, change)
    sign(copy)
    found = failed(copy)
    assert list(found) == [ROWS]
    assert told in found[ROWS].detail


def test_columns_of_the_table_are_those_that_were_measured(copy: Path) -> None:
    pq.write_table(pq.read_table(copy / TABLE).drop_columns(["solidity"]), copy / TABLE)
    sign(copy)
    assert failed(copy)[ROWS].detail == "not the columns that were measured: solidity"


@pytest.mark.parametrize("how", ["two bytes", "cut", "gone"])
def test_a_table_that_cannot_be_read_is_a_failure_in_one_line(copy: Path, how: str) -> None:
    table = copy / TABLE
    match how:
        case "two bytes":
            table.write_bytes(b"xx")
        case "cut":
            # What stands at the end says where all is.
            whole = table.read_bytes()
            table.write_bytes(b"PAR1" + bytes(len(whole) // 2 - 4) + whole[len(whole) // 2 :])
        case "gone":
            table.unlink()
    sign(copy)
    found = failed(copy)
    assert list(found) == [ROWS]
    assert "\n" not in found[ROWS].detail
    code, lines = called(copy)
    assert code == 1
    assert any(line.startswith("FAILED table of objects: ") for line in lines)


@pytest.mark.parametrize("array", ["1", "labels/semantic/1", "labels/instances/1"])
@pytest.mark.parametrize("change", [np.zeros_like, lambda level: level[::-1]])
def test_coarser_levels_are_made_of_the_finer_ones(
    copy: Path, array: str, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    repaint(copy, array, change)
    sign(copy)
    found = failed(copy)
    assert list(found) == [PYRAMIDS]
    assert found[PYRAMIDS].detail.startswith(f"{array} differs at ")


@pytest.mark.parametrize("gone", [None, INSTANCES, "tables/instances", "labels/semantic/1"])
def test_checksums_are_there_for_all_that_the_plan_wants(copy: Path, gone: str | None) -> None:
    if gone == INSTANCES:
        repaint(copy, INSTANCES, swapped)
    note(copy, lambda facts: facts["checksums"].pop(gone) if gone else facts.update(checksums={}))
    found = failed(copy)
    assert list(found) == ["checksums"]
    assert found["checksums"].detail.startswith(f"no checksum for {gone or '0, 1, labels/instances/0, '}")
    assert called(copy)[0] == 1
    # Also where the plan is of a version that is not understood.
    note(copy, lambda facts: facts["plan"].update(unheard_of=1))
    assert bool(failed(copy)) == (gone != "labels/semantic/1")


def test_what_the_plan_does_not_know_has_no_checksum(copy: Path) -> None:
    note(copy, lambda facts: facts["plan"].update(instances="none", table=False))
    assert "which the plan does not know" in failed(copy)["checksums"].detail


@pytest.mark.parametrize("count", [3, 325, -1, None, True, "324", 324.0])
def test_the_number_of_objects_is_that_of_the_labels_and_the_table(copy: Path, count: object) -> None:
    note(copy, lambda facts: facts.update(objects=count))
    found = failed(copy)
    assert set(found) >= {NUMBERS}
    assert found[NUMBERS].detail == f"the provenance says {count!r} objects, and the highest number is 324"
    assert (ROWS in found) == (count != 324)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("audit_windows", -5, "plan.audit_windows is -5: "),
        ("core", [1, 1, 7, 0], "plan.core.3 is 0: "),
        ("core", [1, 1, 7, 128], "core [1, 1, 7, 128], "),
        ("minimum_size", -1, "plan.minimum_size is -1: "),
        ("label_chunk", [1, 1, 0, 64], "plan.label_chunk.2 is 0: "),
        ("object_classes", [9], "plan.object_classes is [9]: there are 2"),
        ("levels", 0, "plan.levels is 0: "),
    ],
)
def test_numbers_that_no_plan_has_are_told_with_their_field(copy: Path, field: str, value: object, told: str) -> None:
    note(copy, lambda facts: facts["plan"].update({field: value}))
    found = {check.what: check for check in verify(copy)}
    assert not found["plan"].passed
    assert told in found["plan"].detail
    assert not found["seams"].made
    code, lines = called(copy)
    assert code == 1
    assert f"FAILED plan: {found['plan'].detail}" in lines


def test_where_the_image_is_not_at_hand_the_rest_is_measured(tmp_path: Path) -> None:
    result = segment_squares(tmp_path, {"output": {"image": "none"}}, dtype="float32")
    found = {check.what: check for check in verify(result)}
    assert found[ROWS].detail == "324 rows, 32 objects measured again"
    assert all(check.passed and check.made for check in found.values())
    # Without an audit the input is left alone.
    found = {check.what: check for check in verify(result, audit=False)}
    assert found[ROWS].detail.endswith(", without intensities: they are of the input")
    (tmp_path / "a.tif").unlink()
    found = {check.what: check for check in verify(result)}
    assert ", without intensities: " in found[ROWS].detail
    assert found[ROWS].passed
    rewrite(result, larger)
    sign(result)
    assert list(failed(result)) == [ROWS]


def test_results_without_objects_or_table_have_less_to_check(tmp_path: Path) -> None:
    for name, more in (("none", {"instances": {"method": "none"}}), ("table", {"output": {"table": False}})):
        (tmp_path / name).mkdir()
        result = segment_squares(tmp_path / name, more)
        found = [check.what for check in verify(result, audit=False)]
        assert found[-1] == PYRAMIDS
        assert (NUMBERS in found, ROWS in found) == (name == "table", False)
    note(tmp_path / "none" / "a.ome.zarr", lambda facts: facts.update(objects=3))
    assert failed(tmp_path / "none" / "a.ome.zarr")[NUMBERS].detail == "the plan wants none, 3 are noted"


def test_volumes_are_checked(tmp_path: Path) -> None:
    at = np.indices((24, 60, 70))
    volume = np.where((at % [[[[5]]], [[[7]]], [[[6]]]] < 3).all(axis=0), 200 + at[2], 3).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", volume, metadata={"axes": "ZYX"}, ome=True, photometric="minisblack")
    settings = {"model": save_threshold_model(tmp_path / "model", 3), "tile": 32,
                "execution": {"scheduler": "serial"}, "instances": {"method": "components"}}  # fmt: skip
    (report,) = segment(tmp_path / "a.ome.tif", tmp_path, make_config(settings))
    result = Path(str(report.result))
    found = {check.what: check for check in verify(result, audit=False)}
    assert found[ROWS].detail == f"{report.objects} rows, 32 objects measured again"
    assert all(check.passed for check in found.values())
    repaint(result, INSTANCES, swapped)
    sign(result)
    assert NUMBERS in failed(result)
