"""ONNX graphs at work: in float32, on the CPU or, where onnxruntime was built for it, on a GPU."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError

__all__ = ["OnnxNetwork", "computes_on_gpus", "runtime_version"]

_GPU = "CUDAExecutionProvider"


def _runtime() -> Any:  # noqa: ANN401 (a module without types)
    """Give onnxruntime.

    Raises
    ------
    ModelError
        If it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("ONNX files need onnxruntime: pip install 'seamfree[onnx]'") from error
    return onnxruntime


def runtime_version() -> str:
    """Give the version of onnxruntime, whose numbers are those of ONNX graphs."""
    return str(_runtime().__version__)


def computes_on_gpus() -> bool:
    """Tell whether this onnxruntime was built for GPUs."""
    return _GPU in _runtime().get_available_providers()


_COMPARING = {
    "And", "ArgMax", "ArgMin", "Cast", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf",
    "IsNaN", "Less", "LessOrEqual", "Mod", "Not", "Or", "QuantizeLinear", "Round", "Sign", "TopK", "Where", "Xor",
}  # fmt: skip
"""Operations that a change of a pixel may pass unseen, unless it is tried in several ways."""


_SAMPLING = {"GridSample": 1, "DeformConv": 2}
"""Operations that read between pixels, by the number of the input that says where."""


class _RefusalError(RuntimeError):
    """A graph does not take an image; says where."""

    def __init__(self, error: Exception) -> None:
        text = " ".join(str(error).split())
        super().__init__(text)
        node = re.search(r"running (\w+) node\. Name:'([^']*)'", text)
        fixed = re.search(r"invalid dimensions for input: (\S+)", text)
        self.place = ""
        if node is not None:
            self.place = f"{node[2] or 'a node without a name'} ({node[1]})"
        elif fixed is not None:
            self.place = f"the input {fixed[1]!r}, whose size is fixed in the file,"


class OnnxNetwork(nn.Module):
    """An ONNX graph, run by onnxruntime in float32, on the device of what it is given.

    Parameters
    ----------
    content : bytes
        The file.

    Raises
    ------
    ModelError
        If onnxruntime is not installed.
    """

    opaque = True

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content
        self._sessions = {torch.device("cpu"): _open_session(content, ["CPUExecutionProvider"])}
        session = self._sessions[torch.device("cpu")]
        self._watched: Any = None
        self._input = session.get_inputs()[0].name
        self._outputs = [each.name for each in session.get_outputs()]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Give the outputs by name.

        Raises
        ------
        ModelError
            If the image is on a GPU, and onnxruntime computes on none.
        """
        session = self._session_on(image.device)
        try:
            found = session.run(None, {self._input: image.float().cpu().numpy()})
        except Exception as error:
            raise _RefusalError(error) from error
        return {name: torch.from_numpy(each).to(image) for name, each in zip(self._outputs, found, strict=True)}

    @property
    def compares(self) -> bool:
        """Whether it holds operations that a change of a pixel may pass unseen."""
        return any(node.op_type in _COMPARING for node in _nodes(self._content))

    def results(self, image: Tensor) -> list[tuple[str, Tensor]]:
        """Give what each node gives, in the order of the file: its name and type, and its first result.

        Raises
        ------
        RuntimeError
            If the graph does not take the image.
        """
        return self._fetch(
            [(_told(node), node.output[0]) for node in _nodes(self._content) if any(node.output[:1])], image
        )

    def places(self, image: Tensor) -> list[tuple[str, Tensor]]:
        """Give, by the name and type of nodes that read between pixels, where they do, as far as the graph makes it.

        Raises
        ------
        RuntimeError
            If the graph does not take the image.
        """
        nodes = _nodes(self._content)
        made = {name for node in nodes for name in node.output}
        found = [(_told(node), node.input[_SAMPLING[node.op_type]]) for node in nodes if node.op_type in _SAMPLING]
        return self._fetch([(told, name) for told, name in found if name in made], image)

    def _fetch(self, names: list[tuple[str, str]], image: Tensor) -> list[tuple[str, Tensor]]:
        if not names:
            return []
        if self._watched is None:
            self._watched = _open_watched(self._content)
        try:
            found = self._watched.run([name for _, name in names], {self._input: image.float().cpu().numpy()})
        except Exception as error:
            raise _RefusalError(error) from error
        return [
            (told, torch.from_numpy(each.copy()))
            for (told, _), each in zip(names, found, strict=True)
            if getattr(each, "dtype", None) is not None and each.dtype.kind in "bfiu"
        ]

    def _session_on(self, device: torch.device) -> Any:  # noqa: ANN401 (onnxruntime has no types)
        if device in self._sessions:
            return self._sessions[device]
        session = None
        if device.type == "cuda" and computes_on_gpus():
            # TensorFloat-32 rounds to 10 bits: not what float32 promises.
            options = {"device_id": str(device.index or 0), "use_tf32": "0"}
            session = _open_session(self._content, [(_GPU, options), "CPUExecutionProvider"])
        # Where its libraries are missing, onnxruntime takes the CPU and goes on.
        if session is None or _GPU not in session.get_providers():
            raise ModelError(
                f"this onnxruntime ({runtime_version()}) cannot compute on {device}; say --device cpu, or install "
                "the one for GPUs in its place: pip uninstall onnxruntime, pip install 'seamfree[gpu]'"
            )
        self._sessions[device] = session
        return session


def _open_session(content: bytes, providers: list[Any]) -> Any:  # noqa: ANN401
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    # Whatever is wrong is raised, and a size that a graph does not take is no error where sizes are tried.
    options.log_severity_level = 4
    return runtime.InferenceSession(content, options, providers=providers)


def _nodes(content: bytes) -> list[Any]:
    import onnx

    return list(onnx.load_model_from_string(content).graph.node)


def _open_watched(content: bytes) -> Any:  # noqa: ANN401
    """Open a graph all of whose results are outputs."""
    import onnx

    model = onnx.load_model_from_string(content)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return _open_session(model.SerializeToString(), ["CPUExecutionProvider"])


def _told(node: Any) -> str:  # noqa: ANN401
    return f"{node.name or node.output[0]} ({node.op_type}){_scope(node)}"


def _scope(node: Any) -> str:  # noqa: ANN401
    """Give the module that a node was made of, as torch notes it."""
    noted = {each.key: each.value for each in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
    scopes = [each for each in re.findall(r"'([^']*)'", noted) if each]
    return f" of {scopes[-2]}" if len(scopes) > 1 else ""
