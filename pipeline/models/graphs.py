"""ONNX graphs at work: in float32, on the CPU or, where onnxruntime was built for it, on a GPU."""

from __future__ import annotations

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
            raise RuntimeError(str(error)) from error
        return {name: torch.from_numpy(each).to(image) for name, each in zip(self._outputs, found, strict=True)}

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
                "onnxruntime-gpu and its libraries in its place"
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
