"""The same promises where a GPU computes; left out where there is none."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from pipeline import open_result, segment
from pipeline.config import make_config
from pipeline.errors import ModelError
from pipeline.models.architecture import Precision, UNetConfig
from pipeline.models.library import load_model
from pipeline.models.predictor import Predictor
from pipeline.site import choose_site
from tests.fields import compose, load_fields
from tests.models.test_predictor import DEEP, FLAT, plain_scores, window_of
from tests.random_models import random_network, save_network, save_random_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

TOLERANCE: dict[Precision, float] = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 0.2, "float16": 0.03}


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    tifffile.imwrite(path, compose(load_fields(), (1500, 1700)), tile=(256, 256), compression="zlib")
    return path


def on_gpu(config: UNetConfig, folder: Path, precision: Precision) -> Predictor:
    return Predictor(load_model(save_random_model(folder / "model", config)), "cuda", precision)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("config", [FLAT, DEEP], ids=["2-D", "3-D"])
def test_scores_are_the_plain_networks_probabilities(config: UNetConfig, precision: Precision, tmp_path: Path) -> None:
    window = window_of(config)
    classes, scores, *_ = on_gpu(config, tmp_path, precision).predict(window, scores=True)
    assert scores is not None
    assert np.abs(scores - plain_scores(config, window)).max() < TOLERANCE[precision]
    assert (classes == scores.argmax(axis=0)).mean() > 0.999


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_threads_that_share_a_gpu_get_what_is_theirs(precision: Precision, tmp_path: Path) -> None:
    predictor = on_gpu(FLAT, tmp_path, precision)
    windows = [window_of(FLAT, seed, np.float32) for seed in range(8)]
    alone = [predictor.predict(window).classes for window in windows]
    assert len({each.tobytes() for each in alone}) == len(windows)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            together = list(threads.map(lambda window: predictor.predict(window).classes, windows))
            for each, wanted in zip(together, alone, strict=True):
                np.testing.assert_array_equal(each, wanted)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_what_leaves_the_range_of_numbers_is_told(
    dims: int, value: float, precision: Precision, tmp_path: Path
) -> None:
    config = UNetConfig.model_validate({"dims": dims, "depth": 1, "base_channels": 8})
    network = random_network(config)
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(1 if precision == "float16" else 8)
    save_network(tmp_path, config, network)
    predictor, window = Predictor(load_model(tmp_path), "cuda", precision), window_of(config).astype(np.float32)
    predictor.predict(window)
    window[(0, *[edge // 2 for edge in window.shape[1:]])] = value
    with pytest.raises(ModelError, match="not finite"):
        predictor.predict(window)
    window[:] = value
    for _ in range(2):
        with pytest.raises(ModelError, match="not finite"):
            predictor.predict(window, reuse=True)


def test_where_the_faster_way_may_not_be_trusted_the_plain_one_is_taken(tmp_path: Path) -> None:
    window = window_of(FLAT).astype(np.float32)
    plain = Predictor(load_model(save_random_model(tmp_path / "model", FLAT)), "cuda", "float32")
    assert plain._guard is not None
    raw = copy.copy(plain._guard.faster)
    plain._guard.faster = torch.nn.Identity()  # what it gives has another shape, and other numbers
    plain._guard._slope = 1e39
    doubted = plain.predict(window, scores=True)
    plain._guard.faster, plain._guard._slope = raw, 1.0
    trusted = plain.predict(window, scores=True)
    assert doubted.scores is not None
    assert trusted.scores is not None
    assert np.abs(doubted.scores - trusted.scores).max() < 1e-5


def labels(image: Path, output: Path, **changes: object) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    (report,) = segment(image, output, make_config(changes))
    assert report.status == "done", report.reason
    result = open_result(output / f"{report.name}.ome.zarr")
    assert result.provenance["plan"]["device"] == changes.get("device", "cuda")
    assert result.provenance["audit"]["passed"]
    return np.asarray(result.semantic[0]), np.asarray(result.instances[0])


def test_neither_tiles_nor_workers_show_and_a_processor_says_the_same(mosaic: Path, tmp_path: Path) -> None:
    semantic, instances = labels(mosaic, tmp_path / "a", tile=512)
    assert instances.max() > 100
    several = labels(mosaic, tmp_path / "b", tile=512, execution={"workers": 3})
    np.testing.assert_array_equal(several[0], semantic)
    np.testing.assert_array_equal(several[1], instances)
    # A GPU's library takes other kernels for other windows: of two classes that are equal but for that, either may win.
    for changes in ({"tile": 288}, {"tile": 2048}, {"device": "cpu"}):
        other, _ = labels(mosaic, tmp_path / str(changes), **changes)
        assert np.mean(other != semantic) < 1e-5, changes


def test_processes_share_the_memory_of_a_gpu() -> None:
    alone, shared = (choose_site(make_config({"execution": {"workers": workers}})) for workers in (1, 4))
    assert (alone.intent.device, alone.cluster.threads) == ("cuda", 4)
    assert shared.cluster.threads == 2
    assert 4 * shared.intent.worker_memory < alone.intent.worker_memory
    assert (choose_site(make_config({})).cluster.workers or 0) >= torch.cuda.device_count()
