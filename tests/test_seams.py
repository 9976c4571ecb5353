"""P1: the tiled scores are the scores of one pass over the whole image, through real stores and real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.engine.cluster import ClusterSpec, open_cluster
from pipeline.geometry import Footprint, mirror_indices, round_up
from pipeline.models.architecture import Precision, UNetConfig
from pipeline.models.facts import learn_facts
from pipeline.models.library import load_model
from pipeline.models.predictor import Predictor
from tests.random_models import save_random_model

TOLERANCE: dict[Precision, float] = {"float32": 1e-6, "float64": 1e-12}

CASES = {
    "2-D valid": (UNetConfig(base_channels=2, classes=3), (1, 1, 151, 131)),
    "2-D same": (UNetConfig(base_channels=2, classes=2, padding="same", norm="batch"), (1, 1, 151, 131)),
    "2-D valid, batch norm, planes": (UNetConfig(depth=2, base_channels=2, norm="batch"), (2, 3, 67, 101)),
    "3-D valid": (UNetConfig(dims=3, depth=2, base_channels=2), (1, 17, 29, 31)),
    "3-D same": (UNetConfig(dims=3, depth=2, base_channels=2, padding="same"), (2, 13, 22, 19)),
    "smaller than a tile": (UNetConfig(base_channels=2), (1, 1, 5, 3)),
    "one row": (UNetConfig(base_channels=2), (1, 1, 1, 37)),
}


def real_looking(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint16]:
    random = np.random.default_rng(seed)
    return random.gamma(2.0, 200.0, shape).astype(np.uint16)


def whole_pass(
    image: NDArray[np.generic], model: str, precision: Precision, factory: str | None = None
) -> NDArray[np.floating]:
    """Segment a TZYX image in one pass for each plane or volume: mirrored around, scaled by the whole's percentiles."""
    predictor = Predictor(load_model(model, factory=factory), "cpu", precision)
    facts = learn_facts(model, factory=factory)
    footprint, ndim = facts.context.footprint, facts.card.dims
    assert footprint is not None
    result = np.zeros((len(facts.card.classes), *image.shape), dtype=np.float64)
    for time in range(image.shape[0]):
        low, high = np.percentile(image[time], [1, 99])
        dtype = np.float64 if precision == "float64" else np.float32
        scaled = (image[time].astype(dtype) - dtype(low)) / dtype(high - low if high > low else 1)
        volumes = scaled[None] if ndim == 3 else scaled[:, None]
        for number, volume in enumerate(volumes):
            plane = volume if ndim == 3 else volume[0]
            window = footprint.window_shape(tuple(map(round_up, plane.shape, footprint.stride)))
            indices = [
                mirror_indices(-context, edge - context, length)
                for context, edge, length in zip(footprint.context, window, plane.shape, strict=True)
            ]
            _, scores, *_ = predictor.predict(plane[np.ix_(*indices)][None], scores=True)
            assert scores is not None
            inner = tuple(
                slice(context - margin, context - margin + length)
                for context, margin, length in zip(footprint.context, footprint.margin, plane.shape, strict=True)
            )
            place = (time, slice(None)) if ndim == 3 else (time, number)
            result[(slice(None), *place)] = scores[(slice(None), *inner)]
    return result


def tiled(
    image: NDArray[np.generic],
    model: str,
    folder: Path,
    tile: int,
    precision: Precision,
    factory: str | None = None,
    **execution: int | str,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Segment a TZYX image through the pipeline; give scores (classes first) and labels."""
    folder.mkdir()
    tifffile.imwrite(
        folder / "image.ome.tif", image, metadata={"axes": "TZYX"}, ome=True, rowsperstrip=7, photometric="minisblack"
    )
    config = make_config(
        {
            "model": model, "factory": factory, "tile": tile, "precision": precision, "execution": execution,
            "output": {"probabilities": precision, "chunk": 32},
        }
    )  # fmt: skip
    (report,) = segment(folder / "image.ome.tif", folder / "out", config)
    assert report.status == "done", report.reason
    result = open_result(folder / "out" / "image.ome.zarr")
    scores, labels = np.asarray(result.probabilities[0]), np.asarray(result.semantic[0])
    time, depth = image.shape[:2]
    axes = result.semantic[0].metadata.dimension_names  # type: ignore[union-attr]
    assert axes is not None
    scores = scores.reshape(time if "t" in axes else 1, scores.shape[-3 if "z" not in axes else -4], *image.shape[1:])
    return scores.swapaxes(0, 1), labels.reshape(time, depth, *image.shape[2:])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Give the address of a scheduler with two worker processes."""
    with open_cluster(ClusterSpec(workers=2)) as address:
        yield address


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_tiled_scores_equal_one_pass_over_the_whole(
    tmp_path: Path, cluster: str, case: str, precision: Precision
) -> None:
    architecture, shape = CASES[case]
    model = save_random_model(tmp_path / "model", architecture)
    image = real_looking(shape)
    expected = whole_pass(image, model, precision)
    for tile in (32, 80) if architecture.dims == 2 else (12, 20):
        scores, labels = tiled(image, model, tmp_path / str(tile), tile, precision, scheduler=cluster)
        difference = np.abs(scores - expected)
        assert difference.max() <= TOLERANCE[precision], tile
        # A label may differ only where the two best scores tie within the tolerance.
        best = np.sort(expected, axis=0)
        ties = best[-1] - best[-2] <= 2 * TOLERANCE[precision]
        assert ((labels == expected.argmax(axis=0)) | ties).all()
        assert expected.size <= 10 or expected.std() > 0.01  # scores that vary: the comparison says something


@pytest.mark.slow
@pytest.mark.parametrize("case", ["2-D valid", "3-D same"])
def test_the_number_of_workers_changes_no_score(tmp_path: Path, case: str) -> None:
    architecture, shape = CASES[case]
    model = save_random_model(tmp_path / "model", architecture)
    image = real_looking(shape)
    scores, _ = tiled(image, model, tmp_path / "run", 48 if architecture.dims == 2 else 12, "float32", workers=2)
    again, _ = tiled(image, model, tmp_path / "again", 48 if architecture.dims == 2 else 12, "float32", workers=1)
    np.testing.assert_array_equal(scores, again)


def seams_at(stride: int) -> float:
    """Give the largest difference to one pass of tiles that start at multiples of `stride`, whatever is legal."""
    footprint: Footprint = UNetConfig().footprint
    network = _network()
    edge = 2 * stride
    image = np.random.default_rng(0).normal(size=(edge, edge))

    def run(rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        window = footprint.window_shape((rows[1] - rows[0], columns[1] - columns[0]))
        indices = [
            mirror_indices(start - footprint.margin[0], start - footprint.margin[0] + size, edge)
            for start, size in zip((rows[0], columns[0]), window, strict=True)
        ]
        with torch.inference_mode():
            scores = network(torch.from_numpy(image[np.ix_(*indices)][None, None]))[0].numpy()
        return np.asarray(scores[:, : rows[1] - rows[0], : columns[1] - columns[0]])

    whole = run((0, edge), (0, edge))
    pieces = [(0, stride), (stride, edge)]
    return max(
        float(np.abs(run(rows, columns) - whole[:, slice(*rows), slice(*columns)]).max())
        for rows in pieces
        for columns in pieces
    )


def _network() -> torch.nn.Module:
    from tests.random_models import random_network

    return random_network(UNetConfig(base_channels=2)).double()


@pytest.mark.parametrize(("stride", "legal"), [(384, True), (388, False), (376, False)])
def test_the_papers_stride_of_388_would_show(stride: Literal[384, 388, 376], legal: bool) -> None:
    difference = seams_at(stride)
    assert difference <= 1e-12 if legal else difference > 1e-3
