"""Files that hold a whole network: the layer that is in the way is named as in a network of plain modules."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.derive import derive_context
from pipeline.models.graphs import OnnxNetwork
from pipeline.models.probe import Probe, load_script, named_outputs
from pipeline.models.steps import ExportSteps, ScriptSteps
from pipeline.models.watch import Places
from tests.models.foreign import exported
from tests.models.zoo import ZOO


def loaded(name: str, form: Any, edge: int | None = None) -> nn.Module:  # noqa: ANN401 (a literal)
    """Give an exhibit as a file of a format holds it; for one size, if that is said."""
    network = ZOO[name].make().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if edge is None:
            content = exported(network, form)
        elif form == "torchscript":
            torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, edge, edge)), buffer := io.BytesIO())  # type: ignore[no-untyped-call]
            content = buffer.getvalue()
        else:
            torch.export.save(torch.export.export(network, (torch.zeros(1, 1, edge, edge),)), buffer := io.BytesIO())
            content = buffer.getvalue()
    if form == "torchscript":
        return load_script(content, "cpu").eval()
    made = torch.export.load(io.BytesIO(content)).module()
    made.training = False
    return made


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", "torch-export"])
@pytest.mark.parametrize("name", ["group norm", "squeeze and excitation", "flattening"])
def test_the_module_in_the_way_is_named(form: str, name: str) -> None:
    torch.manual_seed(0)
    context = derive_context(loaded(name, form, 16 if name == "flattening" else None), 1, 2)
    assert not context.local
    assert str(ZOO[name].refused) in context.reason


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", "torch-export"])
def test_step_by_step_a_network_gives_the_same(form: str) -> None:
    image = torch.rand(1, 1, 64, 48)
    for name in ("attention gates", "upsampling to the skip's size", "coordinates"):
        network, places = loaded(name, form), Places()
        steps: Any = ScriptSteps if form == "torchscript" else ExportSteps
        with torch.no_grad():
            assert torch.equal(named_outputs(steps(network, places)(image))["0"], named_outputs(network(image))["0"])
        assert places.stack == []


class _Loop(nn.Module):
    """What no step-by-step run knows: a loop in a module that calls others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for _ in range(int(image.shape[1]) + 1):
            image = self.layer(image)
        return image


class _Doubled(nn.Module):
    """Goes to twice the size of the image, as a trace computes it: with a constant, 2."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(image, size=[image.shape[2] * 2, image.shape[3] * 2])


class _Weighed(nn.Module):
    """Weighs channels by what a trace keeps as a constant, too, and only an image can be multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = [torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.weights[0]


@pytest.mark.parametrize(("layer", "times"), [(_Doubled(), 2), (_Weighed(), 1)])
def test_sizes_of_a_script_are_asked_without_numbers(layer: nn.Module, times: int) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = exported(network.eval(), "torchscript")
    probe = Probe(load_script(content, "cpu").eval(), 1, 2)
    # Nobody has the memory to compute that.
    assert probe.sizes((2**18, 2**18)) == {"0": (1, 2, 2**17 * times, 2**17 * times)}


def test_a_script_that_cannot_be_followed_is_examined_as_a_whole() -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = derive_context(torch.jit.script(_Loop().eval()), 1, 2)
    assert context.local
    assert context.halo == (2, 2)


def graph(*nodes: onnx.NodeProto, size: Any = ("y", "x")) -> OnnxNetwork:  # noqa: ANN401
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)
    ends = [helper.make_tensor_value_info(each, single, [1, 1, *size]) for each in ("image", "out")]
    held = {
        "w": random.normal(size=(1, 1, 3, 3)), "one": np.ones(1), "zero": np.zeros(1),
        "sizes": np.array([0, -1]), "flow": random.normal(size=(2, 1, 3, 3)),
    }  # fmt: skip
    weights = [
        onnx.numpy_helper.from_array(value.astype(np.int64 if name == "sizes" else np.float32), name)
        for name, value in held.items()
        if any(name in node.input for node in nodes)
    ]
    made = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return OnnxNetwork(model.SerializeToString()).eval()


def node(kind: str, given: list[str], made: str, **how: Any) -> onnx.NodeProto:  # noqa: ANN401
    return onnx.helper.make_node(kind, given, [made], name=f"the {made} one", **how)


FIRST = node("Conv", ["image", "w"], "first", pads=[1] * 4)


def test_the_node_of_a_graph_in_the_way_is_named() -> None:
    norm = graph(FIRST, node("InstanceNormalization", ["first", "one", "zero"], "out"))
    pool = graph(FIRST, node("GlobalAveragePool", ["first"], "mean"), node("Mul", ["first", "mean"], "out"))
    flat = graph(FIRST, node("Reshape", ["first", "sizes"], "out"), size=(12, 12))
    for network, told in ((norm, "the out one (InstanceNormalization)"), (pool, "the mean one (GlobalAveragePool)"),
                          (flat, "the out one (Reshape)")):  # fmt: skip
        context = derive_context(network, 1, 2, first=(12, 12))
        assert not context.local
        assert told in context.reason, context.reason


def test_what_a_graph_refuses_is_placed() -> None:
    fixed = graph(FIRST, node("Relu", ["first"], "out"), size=(16, 16))
    context = derive_context(fixed, 1, 2, first=(16, 16))
    told = "the input 'image', whose size is fixed in the file, takes only what comes of inputs of 16 pixels along Y: "
    assert told in context.reason
    with pytest.raises(ModelError, match=r"channel\(s\).*complaint in the input 'image'"):
        derive_context(fixed, 3, 2)


def test_a_graph_that_reads_where_the_image_says_is_refused() -> None:
    flow = node("Conv", ["image", "flow"], "offsets", pads=[1] * 4)
    grid = node("Transpose", ["offsets"], "grid", perm=[0, 2, 3, 1])
    network = graph(flow, grid, node("GridSample", ["image", "grid"], "out"))
    assert Probe(network, 1, 2).sizes((40, 40)) == {"out": (1, 1, 40, 40)}
    assert "the out one (GridSample), reads its input where the image says" in derive_context(network, 1, 2).reason


def test_comparisons_in_a_graph_hide_nothing() -> None:
    largest = node("MaxPool", ["first"], "largest", kernel_shape=[11, 11], pads=[5] * 4)
    equal = [node("Equal", ["first", "largest"], "same"), node("Cast", ["same"], "kept", to=1)]
    context = derive_context(graph(FIRST, largest, *equal, node("Mul", ["first", "kept"], "out")), 1, 2)
    assert context.local, context.reason
    assert all(halo >= 5 for halo in context.halo)
