"""What becomes of a network's outputs: a head of several, activations, and means over symmetries, against torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn
from typer.testing import CliRunner

from pipeline import open_result
from pipeline.cli import app
from pipeline.models.derive import derive_context
from pipeline.models.probe import named_outputs
from tests.models.foreign import FACTORY, exported, save_foreign
from tests.models.zoo import ZOO
from tests.test_seams import TOLERANCE, real_looking

Turn = Callable[[NDArray[Any]], NDArray[Any]]

AROUND = {2: 48, 3: 16}
"""Pixels of mirrored image around the whole: more than any of these networks sees, and a multiple of their strides."""


def scaled(image: NDArray[Any]) -> NDArray[np.float64]:
    """Scale by percentiles, as the card says."""
    low, high = np.percentile(image, [1, 99])
    return np.asarray((image - low) / (high - low))


def network_of(name: str) -> nn.Module:
    """Make a network whose scores vary around 0, so that each class wins somewhere."""
    torch.manual_seed(5)
    network = ZOO[name].make().eval()
    lasts = {"edges": network.far, "scores": network.head, "0": network.head}
    image = torch.from_numpy(scaled(real_looking((1, 1, *(48,) * ZOO[name].dims), 1))).float()
    with torch.no_grad():
        for key, weights in network.named_parameters():
            if not key.startswith(("head", "far")):
                weights.abs_() if weights.ndim > 1 else weights.zero_()
        for key, given in named_outputs(network(image)).items():
            last = lasts[key]
            assert isinstance(last, nn.Conv2d | nn.Conv3d)
            assert last.bias is not None
            spread, mean = torch.std_mean(given.transpose(0, 1).flatten(1), dim=1)
            last.weight.div_(spread.reshape(-1, *[1] * (given.ndim - 1)))
            last.bias.sub_(mean).div_(spread)
    return network


def saved(folder: Path, name: str, network: nn.Module, classes: int, **said: Any) -> str:  # noqa: ANN401
    content = exported(network, "factory")
    return save_foreign(folder, content, "factory", classes, ZOO[name].dims, arguments={"name": name}, **said)


def tiled(image: NDArray[Any], model: str, work: Path, *options: str, tile: int = 32) -> Any:  # noqa: ANN401
    """Segment an image as a user would, and open the result."""
    axes = "ZYX"[-image.ndim :]
    tifffile.imwrite(work / "a.ome.tif", image, ome=True, metadata={"axes": axes}, photometric="minisblack")
    (work / "config.yaml").write_text("output: {probabilities: float64, chunk: 16}\nexecution: {scheduler: serial}\n")
    command = ["run", str(work / "a.ome.tif"), "-o", str(work / "out"), "-m", model, "--factory", FACTORY, "--direct",
               "--fresh", "--tile", str(tile), "--precision", "float64", "-c", str(work / "config.yaml"),
               *options]  # fmt: skip
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    return open_result(work / "out" / "a.ome.zarr")


def whole(
    network: nn.Module,
    image: NDArray[Any],
    finish: Callable[[NDArray[Any]], NDArray[Any]],
    head: str | None = None,
    turns: tuple[tuple[Turn, Turn], ...] = ((np.asarray, np.asarray),),
) -> NDArray[Any]:
    """Give the mean of the finished outputs of the turned image, each in one pass over all of it, classes first."""
    around = AROUND[image.ndim]
    context = derive_context(network.float(), 1, 2 if image.ndim == 2 else 3, head)
    wide = [
        (around + margin, around + margin + (phase - 2 * margin - length) % stride)
        for length, margin, phase, stride in zip(
            image.shape, context.margin, context.phase, context.stride, strict=True
        )
    ]
    padded = np.pad(scaled(image), wide, mode="reflect")
    inner = (slice(None), *(slice(around, around + length) for length in image.shape))
    found = []
    for turn, back in turns:
        given = torch.from_numpy(np.ascontiguousarray(turn(padded[None])))[None]
        with torch.inference_mode():
            outputs = network.double()(given)
        raw = (outputs[head] if head is not None else outputs)[0].numpy()
        found.append(back(finish(raw))[inner])
    return np.asarray(np.mean(found, axis=0))


def softmax(raw: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(scipy.special.softmax(raw, axis=0))


def several(raw: NDArray[Any]) -> NDArray[Any]:
    """Classes that may overlap, and what is left beside the likeliest of them."""
    each = scipy.special.expit(raw)
    return np.concatenate([1 - each.max(axis=0, keepdims=True), each])


def turned(dims: int, exchange: bool) -> tuple[tuple[Turn, Turn], ...]:
    """Give the turns of a square, by quarters and a mirroring, or the mirrorings of a rectangle; each with its undoing.

    In three dimensions with Z to and fro.
    """

    def pair(quarters: int, mirrored: bool, swapped: bool) -> tuple[Turn, Turn]:
        def turn(image: NDArray[Any]) -> NDArray[Any]:
            image = np.rot90(image, quarters, (-2, -1))
            image = image[..., ::-1] if mirrored else image
            return image[:, ::-1] if swapped else image

        def back(image: NDArray[Any]) -> NDArray[Any]:
            image = image[:, ::-1] if swapped else image
            image = image[..., ::-1] if mirrored else image
            return np.rot90(image, -quarters, (-2, -1))

        return turn, back

    quarters = range(4) if exchange else (0, 2)
    return tuple(pair(*each) for each in product(quarters, (False, True), (False, True) if dims == 3 else (False,)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("classic U-Net, same", 8),
        ("classic U-Net, valid", 8),
        ("poolings of 2 by 4", 4),
        pytest.param("3-D U-Net, anisotropic", 16, marks=pytest.mark.slow),
    ],
)
def test_averaged_over_symmetries_tiles_still_equal_one_pass(tmp_path: Path, name: str, passes: int) -> None:
    network, dims = network_of(name), ZOO[name].dims
    image = real_looking((61, 54) if dims == 2 else (9, 18, 15))
    model = saved(tmp_path / "model", name, network, 2)
    turns = turned(dims, exchange=passes > 4)
    assert len(turns) == passes
    expected = whole(network, image, softmax, turns=turns)
    for tile in (16, 32):
        result = tiled(image, model, tmp_path, "--tta", tile=tile)
        assert np.abs(np.asarray(result.probabilities[0]) - expected).max() <= TOLERANCE["float64"]
        np.testing.assert_array_equal(np.asarray(result.semantic[0]), expected.argmax(axis=0))
        assert result.provenance["audit"]["passed"]
    # One pass alone gives something else.
    assert np.abs(whole(network, image, softmax) - expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("head", "classes", "finish"), [("scores", 2, softmax), ("edges", 2, several)])
def test_a_head_is_chosen_by_name(tmp_path: Path, head: str, classes: int, finish: Any) -> None:  # noqa: ANN401
    name = "two heads, the second"
    network, image = network_of(name), real_looking((61, 54))
    other = "edges" if head == "scores" else "scores"
    activation = "softmax" if finish is softmax else "sigmoid"
    model = saved(tmp_path / "model", name, network, classes, activation=activation, output=other)
    found = np.asarray(tiled(image, model, tmp_path, "--head", head).probabilities[0])
    assert np.abs(found - whole(network, image, finish, head)).max() <= TOLERANCE["float64"]
    assert found.std() > 1e-3
    told = CliRunner().invoke(app, ["inspect", model, "--factory", FACTORY, "--head", "mask"])
    assert "no output 'mask'; it has scores, edges" in str(told.exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "classes", "finish"), [("softmax", 2, softmax), ("sigmoid", 3, several), ("none", 2, np.asarray)]
)
def test_scores_are_what_the_card_says_of_them(tmp_path: Path, activation: str, classes: int, finish: Any) -> None:  # noqa: ANN401
    name = "bilinear upsampling"
    network, image = network_of(name), real_looking((61, 54))
    with torch.no_grad():
        network.get_parameter("head.bias").add_(3.0 if activation == "sigmoid" else 0)  # so that classes overlap
    model = saved(tmp_path / "model", name, network, classes, activation=activation)
    result = tiled(image, model, tmp_path)
    found, expected = np.asarray(result.probabilities[0]), whole(network, image, finish)
    assert np.abs(found - expected).max() <= TOLERANCE["float64"]
    labels = np.asarray(result.semantic[0])
    np.testing.assert_array_equal(labels, expected.argmax(axis=0))
    assert len(np.unique(labels)) > 1
    if activation == "sigmoid":
        # A class of its own is a label where it is likelier than not, and both may be.
        np.testing.assert_array_equal(labels > 0, (expected[1:] > 0.5).any(axis=0))
        assert ((expected[1:] > 0.5).all(axis=0)).any()
