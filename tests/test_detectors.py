"""Adapters for detectors of others: the mathematics with a network of our own, the real ones where installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import ndimage

from pipeline.detect_objects import find_objects
from pipeline.detectors.cellpose_model import cellpose
from pipeline.detectors.mask_rcnn import detect, mask_rcnn, paste
from pipeline.errors import ModelError
from tests.detectors import SmallDetector, small_detector


def test_masks_are_brought_to_their_boxes() -> None:
    start, mask = paste(torch.ones(28, 28), torch.tensor([10.0, 20.0, 38.0, 48.0]), 0.5)
    whole = np.zeros((60, 60), dtype=bool)
    whole[start[0] : start[0] + mask.shape[0], start[1] : start[1] + mask.shape[1]] = mask
    rows, columns = np.nonzero(whole)
    # As in torchvision, whose masks may be a pixel larger than their boxes.
    edges = np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1])
    assert (np.abs(edges - [20, 48, 10, 38]) <= 1).all()
    half = torch.zeros(28, 28)
    half[:, :14] = 1
    _, left = paste(half, torch.tensor([10.0, 20.0, 66.0, 48.0]), 0.5)
    assert abs(np.count_nonzero(left) / (28 * 28) - 1) < 0.05
    start, _ = paste(torch.ones(14, 14), torch.tensor([-9.0, -9.0, 5.0, 5.0]), 0.5)
    assert min(start) < 0


def test_classes_and_thresholds_choose() -> None:
    image = np.zeros((1, 64, 80), dtype=np.float32)
    image[0, 10:24, 12:30] = 0.9
    image[0, 40:52, 40:64] = 0.6
    labels, scores = find_objects(lambda window: detect(SmallDetector(), window, score=0.0), image)
    assert (labels > 0)[image[0] > 0].all()
    assert ndimage.binary_dilation(image[0] > 0, np.ones((3, 3)))[labels > 0].all()
    np.testing.assert_allclose(scores, [0.9, 0.6], atol=1e-6)
    assert len(detect(SmallDetector(), image, score=0.7)[0]) == 1
    assert not detect(SmallDetector(), image, object_class=2)[0]
    with pytest.raises(ModelError, match="1 or 3 channels"):
        detect(SmallDetector(), np.zeros((2, 8, 8), dtype=np.float32))


def test_nothing_is_fetched_and_what_is_missing_is_named(tmp_path: Path) -> None:
    image = np.zeros((1, 8, 8), dtype=np.float32)
    for function in (mask_rcnn, cellpose):
        with pytest.raises(ModelError, match="there are no such weights"):
            function(image, weights=str(tmp_path / "none"))


@pytest.mark.parametrize(("library", "function"), [("torchvision", mask_rcnn), ("cellpose", cellpose)])
def test_a_missing_library_is_named_with_what_to_install(tmp_path: Path, library: str, function: object) -> None:
    if importlib.util.find_spec(library):
        pytest.skip(f"{library} is installed")
    (tmp_path / "weights").write_bytes(b"")
    assert callable(function)
    with pytest.raises(ModelError, match="pip install"):
        function(np.zeros((1, 8, 8), dtype=np.float32), weights=str(tmp_path / "weights"))


def test_torchvisions_mask_rcnn_runs(tmp_path: Path) -> None:
    detection = pytest.importorskip("torchvision.models.detection", reason="torchvision cannot be imported here")
    torch.manual_seed(0)
    network = detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=2)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    image = np.random.default_rng(0).random((1, 96, 120), dtype=np.float32)
    labels, scores = find_objects(mask_rcnn, image, weights=str(tmp_path / "weights.safetensors"), score=0.0)
    assert labels.shape == (96, 120)
    assert scores.size == labels.max()


def save_blocks(path: Path) -> None:
    """Save weights for Cellpose with which each block of 8 x 8 pixels is an object, whatever the image."""
    edge = 8
    inward = (edge - 1) / 2 - torch.arange(edge, dtype=torch.float32)
    down, right = inward[:, None].expand(edge, edge), inward[None].expand(edge, edge)
    flows_and_score = torch.stack([down, right, torch.full((edge, edge), 2.0)])
    state = {
        "W2": torch.eye(3 * edge**2).reshape(3 * edge**2, 3, edge, edge),
        "out.weight": torch.zeros(3 * edge**2, 256, 1, 1),
        "out.bias": flows_and_score.ravel(),
    }
    torch.save(state, path)


@pytest.mark.slow
def test_cellpose_runs(tmp_path: Path) -> None:
    pytest.importorskip("cellpose.models", reason="cellpose is not installed: pip install cellpose")
    save_blocks(tmp_path / "blocks")
    image = np.random.default_rng(0).random((1, 48, 64), dtype=np.float32)
    labels, _ = find_objects(cellpose, image, weights=str(tmp_path / "blocks"), flow_threshold=0.0, min_size=10)
    rows, columns = np.mgrid[:48, :64] // 8
    np.testing.assert_array_equal(labels, rows * 8 + columns + 1)


def test_a_detector_of_boxes_finds_the_same_in_windows_as_at_once() -> None:
    from tests.labels.overlapping import assemble, grid_of

    random = np.random.default_rng(2)
    image = np.zeros((1, 1, 200, 220), dtype=np.float32)
    for row in range(8, 180, 24):
        for column in range(8, 200, 24):
            height, width = random.integers(6, 18, 2)
            image[0, 0, row : row + height, column : column + width] = random.uniform(0.6, 1)
    found, choice = assemble(
        image, lambda block: find_objects(small_detector, block[None]), grid_of(image.shape, (1, 1, 48, 64), (20, 20)),
        (20, 20), 2,
    )  # fmt: skip
    whole, _ = find_objects(small_detector, image[0])
    assert found.max() == whole.max() == ndimage.label(image[0, 0])[1]
    np.testing.assert_array_equal(found[0, 0] > 0, whole > 0)
    assert choice.merged > 10
    assert choice.ambiguous == 0
