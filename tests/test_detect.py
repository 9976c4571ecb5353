"""Functions that find objects: how they are named and identified, and what they may give back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config import make_config
from pipeline.detect import DetectorFunction, check_detector, identify, load_detector, open_detector
from pipeline.detect_objects import find_objects, flatten
from pipeline.errors import ConfigError, ModelError
from tests import detectors

BIN = Path(sys.executable).parent / "seamfree"
IMAGE = np.zeros((1, 6, 8), dtype=np.float32)


def given_back(answer: object, **options: object) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return find_objects(lambda image, **kept: answer, IMAGE, "finder", **options)  # noqa: ARG005


def test_labels_are_numbered_without_gaps_and_keep_their_scores() -> None:
    labels = np.zeros((6, 8), dtype=np.uint16)
    labels[:2], labels[4:] = 7, 3
    found, scores = given_back(labels)
    np.testing.assert_array_equal(found, np.select([labels == 7, labels == 3], [2, 1]))
    assert scores.tolist() == [1.0, 1.0]
    found, scores = given_back((labels, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]))
    assert scores.tolist() == [0.3, 0.7]
    full, _ = given_back(np.full((6, 8), 5))
    assert (full == 1).all()
    nothing, scores = given_back(np.zeros((6, 8), dtype=np.int64))
    assert not nothing.any()
    assert scores.size == 0


def test_of_masks_that_overlap_the_higher_score_has_the_pixels_then_the_larger_then_the_first() -> None:
    masks = np.zeros((3, 6, 8), dtype=bool)
    masks[0, :, :4] = masks[1, :, 2:] = masks[2, 2, :4] = True
    for scores, expected in (([0.9, 0.5, 0.1], [24, 24]), ([0.5, 0.9, 0.95], [10, 34, 4]), ([1, 1, 1], [12, 36])):
        found, kept = given_back((masks, scores))
        assert np.bincount(found.ravel())[1:].tolist() == expected
        assert kept.size == len(expected)
    twins = np.zeros((2, 6, 8), dtype=bool)
    twins[0, 3:5, 1:3] = twins[1, 2:4, 1:3] = True
    found, _ = given_back((twins, [1, 1]))
    assert np.bincount(found.ravel()).tolist() == [42, 2, 4]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_masks_in_boxes_are_whole_masks(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    placed: list[tuple[tuple[int, ...], NDArray[np.bool_]]] = []
    whole = np.zeros((count, 6, 8), dtype=bool)
    for number in range(count):
        start = tuple(random.integers(-3, 9, 2).tolist())
        mask = random.random(random.integers(1, 6, 2)) > 0.4
        placed.append((start, mask))
        padded = np.zeros((30, 30), dtype=bool)
        padded[10 + start[0] : 10 + start[0] + mask.shape[0], 10 + start[1] : 10 + start[1] + mask.shape[1]] = mask
        whole[number] = padded[10:16, 10:18]
    scores = random.integers(0, 3, count).astype(np.float64)
    for ours, theirs in zip(flatten(placed, scores, (6, 8)), given_back((whole, scores)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            np.zeros((5, 8), dtype=int),
            r"finder gave an array of shape \(5, 8\) and type int64 for an image of \(6, 8\)",
        ),
        (np.zeros((6, 8)), "whole numbers, 0 for background"),
        (np.zeros((6, 8), dtype=bool), "type bool"),
        (None, "wanted are labels"),
        (np.full((6, 8), -1), "finder gave a label -1"),
        ((np.zeros((6, 8), dtype=int), [], 3), "a tuple of 3"),
        ((np.ones((6, 8), dtype=int), []), "labels up to 1 and 0 scores"),
        ((np.zeros((2, 6, 8), dtype=bool), [1.0]), "2 masks and 1 scores"),
        ((np.zeros((1, 6, 8)), [1.0]), "wanted are bool masks of shape"),
        ((np.zeros((1, 6, 8), dtype=bool), [np.nan]), "one finite number for each object"),
        (([((0,), np.ones((2, 2), dtype=bool))], [1.0]), r"a mask of shape \(2, 2\) at \(0,\); wanted is a bool array"),
        (([(0, 0, np.ones((2, 2), dtype=bool))], [1.0]), r"for a mask \(too many values to unpack .*\(start, mask\)"),
        (([((0.5, 0), np.ones((2, 2), dtype=bool))], [1.0]), r"for a mask \('float' object .*start is 2 whole numbers"),
        (([((np.nan, 0), np.ones((2, 2), dtype=bool))], [1.0]), "start is 2 whole numbers"),
        (([np.ones((2, 2), dtype=bool)], [1.0]), r"a mask of shape \(2, 2\); wanted is a bool array of shape \(6, 8\)"),
        (([np.ones((6, 8), dtype=np.uint8)], [1.0]), "a mask of type uint8; wanted is a bool array"),
        ((np.ones((1, 6, 8), dtype=np.uint8), [1.0]), "type uint8; wanted are bool masks of shape"),
        ((None, [1.0]), "gave NoneType for masks"),
        ((np.ones((6, 8), dtype=int), ["a"]), "gave scores that are no numbers"),
    ],
)
def test_anything_else_is_refused(answer: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        given_back(answer)


def test_a_list_of_masks_is_as_good_as_an_array() -> None:
    masks = np.zeros((2, 6, 8), dtype=bool)
    masks[0, :3], masks[1, 4:] = True, True
    for ours, theirs in zip(given_back((list(masks), [1.0, 2.0])), given_back((masks, [1.0, 2.0])), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_function_that_ends_the_process_fails_its_image_alone() -> None:
    with pytest.raises(ModelError, match=r"finder ended with SystemExit\(3\)"):
        find_objects(lambda _: sys.exit(3), np.zeros((1, 6, 8), dtype=np.float32), "finder")


@pytest.mark.parametrize("raised", ["1 / 0", "raise SystemExit('bye')", "import nothing_of_this_name", "class ="])
def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, raised: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(f"{raised}\n")
    with pytest.raises(ConfigError, match=f"the function '{file}:find' cannot be loaded"):
        check_detector(configured(f"{file}:find"))


def test_a_function_is_named_by_module_file_or_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_detector("tests.detectors:blobs") is detectors.blobs
    file = tmp_path / "mine.py"
    file.write_text("def find(image, device='?'):\n    return device\n")
    assert load_detector(f"{file}:find")(None) == "?"
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[seamfree.detectors]\nmy-finder = mine:find\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_detector("my-finder")(None) == "?"
    design = DetectorFunction(function=f"{file}:find", options={}, diameter=(5, 5))
    with pytest.raises(ModelError, match="has changed since the run was planned"):
        open_detector(design, "0" * 64, "cpu")


def test_a_parameter_named_device_is_given_the_device(tmp_path: Path) -> None:
    (tmp_path / "placed.py").write_text("def find(image, device):\n    return device\n")
    (tmp_path / "a.tif").touch()
    config = configured(f"{tmp_path}/placed.py:find")
    assert check_detector(config)
    sha256, _ = identify(f"{tmp_path}/placed.py:find", {})
    design = DetectorFunction(function=f"{tmp_path}/placed.py:find", options={}, diameter=(5, 5))
    assert open_detector(design, sha256, "cuda:1").options == {"device": "cuda:1"}
    told = design.model_copy(update={"options": {"device": "cpu"}})
    assert open_detector(told, sha256, "cuda:1").options == {"device": "cpu"}


def configured(function: str | None, method: str = "overlap", diameter: int | None = 9, **settings: Any) -> Any:  # noqa: ANN401
    return make_config({"instances": {"method": method, "function": function, "diameter": diameter}, **settings})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (configured("nothing"), "there is no function 'nothing' that finds objects; installed are: "),
        (configured("no.such.module:find"), "cannot be loaded"),
        (configured("tests.detectors:nothing"), "there is no function .nothing. in tests.detectors"),
        (configured("missing.py:find"), "cannot be loaded"),
        (configured(":find"), "':find' names no function"),
        (configured("tests.detectors:"), "names no function"),
        (configured(".detectors:blobs"), "cannot be loaded"),
        (configured("tests.detectors:__all__"), "cannot be called"),
        (configured(None), "needs instances.function"),
        (configured("tests.detectors:blobs", diameter=None), "needs instances.diameter"),
        (configured("tests.detectors:blobs", "components"), "is for the method overlap"),
        (configured("tests.detectors:blobs", model="other"), "leave out the model 'other'"),
        (configured("tests.detectors:blobs", output={"probabilities": "float16"}), "gives no probabilities"),
        (configured("tests.detectors:blobs", precision="bfloat16"), "take float32"),
        (configured("tests.detectors:blobs", skip_below=5), "skip_below: skips the network"),
    ],
)
def test_what_cannot_be_is_refused_before_work_starts(config: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=message):
        check_detector(config)


def test_without_overlap_no_function_is_looked_for() -> None:
    assert not check_detector(make_config({}))


@pytest.mark.slow
def test_the_digest_knows_the_code_and_the_files_that_options_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 50), dtype=np.uint8))
    code, weights, config = tmp_path / "mine.py", tmp_path / "weights.bin", tmp_path / "c.yaml"
    weights.write_bytes(b"1")
    config.write_text(f"instances:\n  options: {{weights: '{weights}'}}\n")
    arguments = ["plan", "a.tif", "--instances", "overlap", "--function", "mine.py:find", "--diameter", "9", "--json"]

    def digest(text: str) -> str:
        code.write_text(text)
        run = subprocess.run([BIN, *arguments, "-c", config], cwd=tmp_path, capture_output=True, text=True, check=True)
        return str(json.loads(run.stdout)[0]["plan"]["weights_sha256"])

    first = digest("def find(image, weights): return image[0].astype(int)\n")
    assert digest("def find(image, weights): return image[0].astype(int)  # other\n") != first
    weights.write_bytes(b"2")
    assert digest("def find(image, weights): return image[0].astype(int)\n") != first
    weights.write_bytes(b"1")
    assert digest("def find(image, weights): return image[0].astype(int)\n") == first
