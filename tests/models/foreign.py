"""Networks from elsewhere, saved with a card as a user would."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import onnx
import torch
import yaml
from safetensors.torch import save
from torch import nn

from pipeline.models.network import NetworkFormat

__all__ = ["FACTORY", "exported", "save_foreign"]

FACTORY = "tests.models.zoo:make"


def exported(network: nn.Module, form: NetworkFormat, dims: int = 2) -> bytes:
    """Give the bytes of a network in a format, with free sizes."""
    buffer = io.BytesIO()
    example = torch.zeros(1, 1, *(32,) * dims)
    free: Any = dict.fromkeys(range(2, 2 + dims), torch.export.Dim.AUTO)
    if form == "factory":
        return save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    if form == "torchscript":
        torch.jit.save(torch.jit.trace(network, example), buffer)  # type: ignore[no-untyped-call]
    elif form == "torch-export":
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=(free,)), buffer)
    else:
        program = torch.onnx.export(network, (example,), dynamo=True, dynamic_shapes=(free,), verbose=False)
        assert program is not None
        onnx.save(program.model_proto, buffer)
    return buffer.getvalue()


def save_foreign(
    folder: Path,
    content: bytes,
    form: NetworkFormat,
    classes: int = 2,
    dims: int = 2,
    **said: Any,  # noqa: ANN401
) -> str:
    """Write a model's folder, and give what to call it by."""
    names = [f"class {number}" for number in range(classes)]
    footprint = said.pop("footprint", {})
    channels = said.pop("channels", 1)
    activation = said.pop("activation", "softmax")
    card = {
        "name": folder.name,
        "description": "from elsewhere",
        "licence": "none",
        "network": {"format": form, **said},
        "axes": "yx" if dims == 2 else "zyx",
        "channels": [{"name": f"channel {number}"} for number in range(channels)],
        "classes": names,
        "activation": activation,
        "intensity": {"method": "percentile", "low": 1, "high": 99},
        "instances": {"method": "components", "classes": names[-1:]},
        "training": {"data": "none", "licence": "none"},
        "footprint": footprint,
        "weights": {"file": "network.bin", "sha256": hashlib.sha256(content).hexdigest()},
    }
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    (folder / "network.bin").write_bytes(content)
    return str(folder)
