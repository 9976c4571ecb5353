"""Files that hold a whole network, run step by step, so that one sees in which of its modules what is computed.

Torch runs a TorchScript by itself, and an exported program has no modules any more. Here the first is run in Python
down to the modules that call no others, and of the second each node tells the module that it came from.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from pipeline.models.watch import Places

__all__ = ["ExportSteps", "ScriptSteps", "UnknownStepError", "is_exported", "place_of"]


_PLAIN: dict[str, Callable[..., Any]] = {
    "aten::__getitem__": operator.getitem, "aten::len": len, "aten::Int": int, "aten::Float": float,
    "aten::Bool": bool, "aten::__not__": operator.not_, "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not, "prim::unchecked_cast": lambda value: value,
    "prim::device": lambda tensor: tensor.device, "prim::dtype": lambda tensor: tensor.dtype,
}  # fmt: skip
"""What Python does itself with numbers and lists."""


class UnknownStepError(Exception):
    """A TorchScript does something that only torch can run."""


class ScriptSteps(nn.Module):
    """A TorchScript whose modules are entered one by one.

    Parameters
    ----------
    network : ScriptModule
        The network.
    places : Places
        Where the pass is noted to be.
    """

    def __init__(self, network: torch.jit.ScriptModule, places: Places) -> None:
        super().__init__()
        self.network, self._places = network, places

    def forward(self, image: Tensor) -> Any:  # noqa: ANN401 (whatever the network gives)
        """Run the network.

        Raises
        ------
        UnknownStepError
            If a module that calls others does something else that is not known here.
        """
        return self._call(self.network, "", "forward", [image])

    def _call(self, module: Any, name: str, method: str, given: list[Any]) -> Any:  # noqa: ANN401
        graph = module._c._get_method(method).graph
        if not any(_calls(node) for node in graph.nodes()):
            return getattr(module, method)(*given)
        values: dict[str, Any] = dict(
            zip((each.debugName() for each in graph.inputs()), [(module, name), *given], strict=False)
        )
        self._run(graph, values)
        (output,) = graph.outputs()
        return values[output.debugName()]

    def _run(self, block: Any, values: dict[str, Any]) -> None:  # noqa: ANN401
        for node in block.nodes():
            outputs = [each.debugName() for each in node.outputs()]
            given = [values[each.debugName()] for each in node.inputs()]
            found = self._step(node, given, values)
            values.update({outputs[0]: found} if len(outputs) == 1 else dict(zip(outputs, found or (), strict=True)))

    def _step(self, node: Any, given: list[Any], values: dict[str, Any]) -> Any:  # noqa: ANN401
        kind = node.kind()
        if kind == "prim::Constant":
            return node.output().toIValue()
        if kind == "prim::GetAttr":
            module, name = given[0]
            found = getattr(module, node.s("name"))
            inner = f"{name}.{node.s('name')}".removeprefix(".")
            return (found, inner) if isinstance(found, nn.Module) else found
        if kind == "prim::CallMethod":
            (module, name), *rest = given
            with self._places.inside(f"{name} ({getattr(module, 'original_name', 'module')})"):
                return self._call(module, name, node.s("name"), rest)
        if kind in ("prim::ListConstruct", "prim::TupleConstruct"):
            return list(given) if kind == "prim::ListConstruct" else tuple(given)
        if kind == "prim::DictConstruct":
            return dict(zip(given[::2], given[1::2], strict=True))
        if kind in ("prim::ListUnpack", "prim::TupleUnpack"):
            return tuple(given[0])
        if kind == "prim::NumToTensor":
            return torch.tensor(given[0])
        if kind == "prim::If":
            chosen = list(node.blocks())[0 if given[0] else 1]
            self._run(chosen, values)
            found = tuple(values[each.debugName()] for each in chosen.outputs())
            return found[0] if len(found) == 1 else found
        if kind in _PLAIN:
            return _PLAIN[kind](*given)
        if kind.startswith("aten::"):
            return _operate(node, given)
        raise UnknownStepError(kind)


def _operate(node: Any, given: list[Any]) -> Any:  # noqa: ANN401
    """Run one of torch's operations, of which the node says which and the schema how it is called."""
    schema = torch._C.parse_schema(node.schema())
    try:
        packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::"))
        operation = getattr(packet, schema.overload_name or "default")
    except AttributeError as error:
        raise UnknownStepError(node.kind()) from error
    named = {each.name: value for each, value in zip(schema.arguments, given, strict=True) if each.kwarg_only}
    return operation(*given[: len(given) - len(named)], **named)


def _calls(node: Any) -> bool:  # noqa: ANN401
    """Tell whether a node calls a module, itself or in one of its branches."""
    return node.kind() == "prim::CallMethod" or any(_calls(each) for block in node.blocks() for each in block.nodes())


def is_exported(network: nn.Module) -> bool:
    """Tell whether a network is what `torch.export` makes of one."""
    return isinstance(network, fx.GraphModule) and any("nn_module_stack" in node.meta for node in network.graph.nodes)


def place_of(node: fx.Node) -> str:
    """Give the module that a node of an exported program came from, or else the node's own name."""
    if node.op == "call_module" and str(node.target) == "_guards_fn":
        return "a size that was fixed when the network was exported"
    stack = [each for each in (node.meta.get("nn_module_stack") or {}).values() if each[0]]
    if not stack or str(stack[-1][0]).startswith("_empty"):
        return node.name
    name, kind = stack[-1]
    return f"{name} ({(kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]})"


class ExportSteps(nn.Module):
    """An exported program whose nodes tell the modules that they came from.

    Parameters
    ----------
    network : fx.GraphModule
        The network.
    places : Places
        Where the pass is noted to be.
    """

    def __init__(self, network: fx.GraphModule, places: Places) -> None:
        super().__init__()
        self.network, self._places = network, places
        self.training = False

    def forward(self, image: Tensor) -> Any:  # noqa: ANN401 (whatever the network gives)
        """Run the network."""
        network, places = self.network, self._places
        flat = list(network.graph._codegen.process_inputs(image))

        class _Steps(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
                if n.op not in ("call_function", "call_module", "call_method"):
                    return super().run_node(n)
                with places.inside(place_of(n)):
                    return super().run_node(n)

        found = _Steps(network, garbage_collect_values=True).run(*flat, enable_io_processing=False)
        return network.graph._codegen.process_outputs(found)
