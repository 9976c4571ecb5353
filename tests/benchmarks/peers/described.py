"""A network as bioimageio.core takes it: described by bioimageio.spec, as TorchScript."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bioimageio.spec import ValidationContext
from bioimageio.spec.model import v0_5
from torch import Tensor, nn

from tests.benchmarks.peers.cases import Case

__all__ = ["describe"]


class _Cast(nn.Module):
    """A network of another precision and order of memory than what goes in and comes out."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, layout: torch.memory_format) -> None:
        super().__init__()
        self.network = network.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
        self.dtype, self.layout = dtype, layout

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.network(image.to(self.dtype).contiguous(memory_format=self.layout))
        return scores.float()


def describe(folder: Path, case: Case, dtype: torch.dtype) -> Any:  # noqa: ANN401 (bioimageio.spec has no types)
    """Write the network into a folder, and describe it."""
    architecture, footprint = case.architecture, case.footprint
    dims, halo, step = architecture.dims, footprint.context[0], footprint.stride[0]
    shape = (1, 1, *(footprint.window_shape((step,) * dims)))
    network = _Cast(case.network(), dtype, torch.channels_last if dims == 2 else torch.channels_last_3d)
    given = torch.rand(shape)
    with torch.inference_mode(mode=False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, given), str(folder / "weights.pt"))  # type: ignore[no-untyped-call]
    np.save(folder / "input.npy", given.numpy())
    np.save(folder / "output.npy", network(given).numpy())
    (folder / "README.md").write_text("# A network\n\n## Validation\n\nNone.\n")
    size = {"min": shape[-1], "step": step}
    before = [{"type": "space", "id": axis, "size": size} for axis in "zyx"[-dims:]]
    after = [
        {"type": "space", "id": axis, "size": {"tensor_id": "raw", "axis_id": axis}, "halo": halo}
        for axis in "zyx"[-dims:]
    ]
    names = [f"class{at}" for at in range(architecture.classes)]
    with ValidationContext(root=folder, log_warnings=False):
        return v0_5.ModelDescr.model_validate(
            {
                "type": "model", "format_version": "0.5.12", "name": "a network", "description": "to be timed",
                "license": "BSD-3-Clause", "authors": [{"name": "Someone"}],
                "cite": [{"text": "nothing", "doi": "10.1234/something"}], "documentation": {"source": "README.md"},
                "inputs": [{"id": "raw", "test_tensor": {"source": "input.npy"}, "data": {"type": "float32"},
                            "pad": {"mode": "reflect"},
                            "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["raw"]}, *before]}],
                "outputs": [{"id": "scores", "test_tensor": {"source": "output.npy"}, "data": {"type": "float32"},
                             "axes": [{"type": "batch"}, {"type": "channel", "channel_names": names}, *after]}],
                "weights": {"torchscript": {"source": "weights.pt", "pytorch_version": "2.6"}},
            }
        )  # fmt: skip
