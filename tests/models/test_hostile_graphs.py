"""ONNX graphs whose weights lie in other files, wherever in a graph they hide."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from pipeline.errors import ModelError
from pipeline.models.library import load_model
from tests.models.foreign import save_foreign


def test_weights_of_onnx_in_another_file_are_refused(tmp_path: Path) -> None:
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, "y", "x"]) for name in ("image", "out")
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["image", "w"], ["out"])], "graph", ends[:1], ends[1:], [outside()]
    )
    content = onnx.helper.make_model(graph).SerializeToString()
    with pytest.raises(ModelError, match=r"the weights 'w' lie in another file"):
        load_model(save_foreign(tmp_path / "model", content, "onnx"))


def outside(name: str = "w", shape: tuple[int, ...] = (1, 1, 1, 1)) -> onnx.TensorProto:
    held = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, [1.0])
    held.ClearField("float_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../secret")
    return held


@pytest.mark.parametrize("where", ["branch", "constant", "function", "sparse", "training"])
def test_weights_of_onnx_in_another_file_are_refused_wherever_they_hide(tmp_path: Path, where: str) -> None:
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, "y", "x"]) for name in ("image", "out")]
    node = helper.make_node("Conv", ["image", "w"], ["out"])
    plain = helper.make_graph([helper.make_node("Relu", ["image"], ["out"])], "graph", ends[:1], ends[1:])
    constant = helper.make_node("Constant", [], ["w"], value=outside())
    model = helper.make_model(plain)
    if where == "branch":
        inner = helper.make_graph([node], "inner", [], ends[1:], [outside()])
        yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [1]))
        choice = helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner)
        model = helper.make_model(helper.make_graph([yes, choice], "graph", ends[:1], ends[1:]))
    elif where == "constant":
        model = helper.make_model(helper.make_graph([constant, node], "graph", ends[:1], ends[1:]))
    elif where == "function":
        imports = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function("own", "f", ["image"], ["out"], [constant, node], imports))
    elif where == "sparse":
        indices = helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(outside(shape=(1,)), indices, [1]))
    else:
        model.training_info.add().algorithm.initializer.append(outside())
    with pytest.raises(ModelError, match=r"the weights 'w' lie in another file"):
        load_model(save_foreign(tmp_path / "model", model.SerializeToString(), "onnx"))
