"""ONNX graphs: the arithmetic and the device that are told are those that computed, and trials are quiet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
import torch

from pipeline import open_result, segment, site
from pipeline.config import make_config
from pipeline.errors import ConfigError, ModelError
from pipeline.models.facts import learn_facts
from pipeline.models.graphs import OnnxNetwork
from tests.models.foreign import save_foreign
from tests.test_seams import real_looking


def graph_of_two_levels() -> bytes:
    """Give a U-Net of two levels by hand; at sizes that are odd, its levels cannot be joined."""
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)

    def held(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "a"], ["fine"], pads=[1] * 4),
        helper.make_node("MaxPool", ["fine"], ["coarse"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["coarse", "b"], ["back"], strides=[2, 2]),
        helper.make_node("Concat", ["fine", "back"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "c"], ["out"]),
    ]
    ends = [
        helper.make_tensor_value_info("image", single, [1, 1, "y", "x"]),
        helper.make_tensor_value_info("out", single, [1, 2, "y", "x"]),
    ]
    weights = [held("a", 3, 1, 3, 3), held("b", 3, 3, 2, 2), held("c", 2, 6, 1, 1)]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_foreign(tmp_path / "model", graph_of_two_levels(), "onnx")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "a.tif", real_looking((50, 60)), photometric="minisblack")
    return tmp_path / "a.tif"


def test_sizes_that_do_not_fit_are_tried_without_a_word(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    context = learn_facts(model).context
    assert context.local
    assert context.stride == (2, 2)
    told = capfd.readouterr()
    assert told.err + told.out == ""


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float64"])
def test_an_arithmetic_that_would_not_be_the_graphs_is_refused(
    tmp_path: Path, model: str, image: Path, precision: str
) -> None:
    config = make_config({"model": model, "precision": precision, "execution": {"scheduler": "serial"}})
    with pytest.raises(ConfigError, match="an ONNX graph, whose arithmetic is in its file and stays float32"):
        segment(image, tmp_path / "out", config)
    assert not (tmp_path / "out" / "a.ome.zarr").exists()


def test_what_computed_is_told(tmp_path: Path, model: str, image: Path) -> None:
    config = make_config({"model": model, "precision": "auto", "tile": 16, "execution": {"scheduler": "serial"}})
    (report,) = segment(image, tmp_path / "out", config)
    assert report.status == "done", report.reason
    assert open_result(tmp_path / "out" / "a.ome.zarr") is not None
    plan = json.loads((tmp_path / "out" / "a.ome.zarr" / "seamfree.json").read_text())["plan"]
    assert (plan["precision"], plan["precision_measured"]) == ("float32", None)
    assert plan["versions"]["onnxruntime"] == onnxruntime.__version__


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not torch.cuda.is_available(),
    reason="there is no GPU here, or none for onnxruntime",
)
def test_a_graph_computes_on_a_gpu_what_it_does_on_the_cpu(tmp_path: Path, model: str, image: Path) -> None:
    found = {}
    for device, tile in (("cpu", 16), ("cuda", 16), ("cuda", 32)):
        config = make_config({"model": model, "device": device, "tile": tile, "execution": {"workers": 2}})
        (report,) = segment(image, tmp_path / f"{device}{tile}", config)
        assert report.status == "done", report.reason
        result = open_result(tmp_path / f"{device}{tile}" / "a.ome.zarr")
        assert result.provenance["plan"]["device"] == device
        found[device, tile] = np.asarray(result.semantic[0])
    for labels in found.values():
        np.testing.assert_array_equal(labels, found["cpu", 16])


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="it computes on GPUs")
def test_a_graph_stays_on_the_cpu_where_onnxruntime_knows_no_gpu(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "count_gpus", lambda wish: int(wish != "cpu"))
    assert site.choose_site(make_config({"model": model})).intent.device == "cpu"
    with pytest.raises(ConfigError, match="--device cuda: the model is an ONNX graph"):
        site.choose_site(make_config({"model": model, "device": "cuda"}))
    with pytest.raises(ModelError, match="cannot compute on meta"):
        OnnxNetwork(graph_of_two_levels())(torch.zeros(1, 1, 8, 8, device="meta"))
