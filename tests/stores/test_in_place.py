"""Adding to an image, ended at each step: a reader meets nothing that is listed and not whole; the end is the same."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr

from pipeline.stores.in_place import add_to_image, recover_addition
from pipeline.stores.publish import write_provenance

STEPS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}
_left: list[int] = []
"""How many steps are still taken, while anybody counts."""


class EndedError(Exception):
    """Ends what is done, as nothing that is looked for there."""


def _watch(event: str, _arguments: tuple[object, ...]) -> None:
    if _left and event in STEPS:
        _left[0] -= 1
        if _left[0] < 0:
            raise EndedError


sys.addaudithook(_watch)


@contextmanager
def ending_after(steps: int) -> Iterator[None]:
    _left[:] = [steps]
    try:
        yield
    finally:
        _left.clear()


def fill(folder: Path, parts: tuple[str, ...], value: int, version: Literal["0.4", "0.5"]) -> None:
    """Write arrays of one value, and a provenance that names them."""
    for part in parts:
        array = zarr.create_array(
            folder / part / "0", shape=(2, 2), dtype="u1", zarr_format=2 if version == "0.4" else 3
        )
        array[:] = value
    checksums = {part if part.startswith("tables") else f"{part}/0": "" for part in parts}
    write_provenance(folder, {"checksums": checksums, "plan": {"ome_zarr": version}, "in_place": True})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listed(image: Path, version: str) -> list[str]:
    """Give the labels that a reader finds."""
    try:
        attributes: Any = zarr.open_group(image / "labels", mode="r").attrs.asdict()
    except FileNotFoundError:
        return []
    holder = attributes.get("ome", {}) if version == "0.5" else attributes
    return [str(name) for name in holder.get("labels", [])]


BEFORE = ("labels/semantic", "labels/instances", "tables/instances")


@pytest.mark.parametrize(
    ("version", "before"), [("0.4", ()), ("0.5", ()), ("0.5", BEFORE)], ids=["0.4", "0.5", "again"]
)
def test_each_step_may_be_the_last(tmp_path: Path, version: Literal["0.4", "0.5"], before: tuple[str, ...]) -> None:
    after = ("labels/semantic", "tables/instances") if before else ("labels/semantic", "labels/instances")
    zarr.create_group(tmp_path / "image", zarr_format=2 if version == "0.4" else 3)
    if before:
        fill(tmp_path / "first", before, 1, version)
        (tmp_path / "first" / ".work").mkdir()
        add_to_image(tmp_path / "first", tmp_path / "image")
    # Somebody else's, which stays.
    other = "labels/mine"
    zarr.create_array(
        tmp_path / "image" / other / "0", shape=(2, 2), dtype="u1", zarr_format=2 if version == "0.4" else 3
    )
    fill(tmp_path / "made", after, 2, version)
    (tmp_path / "made" / ".work").mkdir()
    expected: dict[str, bytes] | None = None
    for steps in [1000, *range(200)]:
        image, partial = tmp_path / f"{steps}" / "image", tmp_path / f"{steps}" / "made"
        shutil.copytree(tmp_path / "image", image)
        shutil.copytree(tmp_path / "made", partial)
        ended = True
        try:
            with ending_after(steps):
                add_to_image(partial, image)
            ended = False
        except EndedError:
            for name in listed(image, version):
                values = np.unique(np.asarray(zarr.open_array(image / "labels" / name / "0", mode="r")))
                assert len(values) == 1
                assert values[0] in (1, 2)
            # The next run goes on with it, or begins it again where it had not begun.
            if (partial / ".work").exists():
                add_to_image(partial, image)
            recover_addition(partial, image)
        if expected is None:
            expected = contents(image)
            assert sorted(listed(image, version)) == sorted(part.split("/")[1] for part in after if "labels" in part)
        assert contents(image) == expected
        assert (image / other / "0").is_dir()
        assert not partial.exists()
        assert json.loads((image / "seamfree.json").read_text())["in_place"]
        shutil.rmtree(tmp_path / f"{steps}")
        if not ended and steps < 1000:
            assert steps > 8
            return
    pytest.fail("so many steps do not end")
