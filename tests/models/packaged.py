"""Packages of bioimage.io, written by bioimageio.spec as their authors do."""

from __future__ import annotations

import gc
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

import imageio.v3
import numpy as np
import onnx
import torch
from bioimageio.spec import ValidationContext, save_bioimageio_package
from bioimageio.spec.model import v0_4, v0_5
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["NETWORKS", "Wish", "predict_by_default", "predict_with_core", "save_package"]

CODE = '''"""Networks of a package."""

import torch
from torch import nn


class Small(nn.Module):
    """Two levels."""

    def __init__(self, dims=2, channels=1, outputs=2, padding="same", last="none"):
        super().__init__()
        conv, pool = (nn.Conv2d, nn.MaxPool2d) if dims == 2 else (nn.Conv3d, nn.MaxPool3d)
        up = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        side = 1 if padding == "same" else 0
        self.first = nn.Sequential(conv(channels, 4, 3, padding=side), nn.ReLU())
        self.deep = nn.Sequential(pool(2), conv(4, 4, 3, padding=side), nn.ReLU(), up(4, 4, 2, 2))
        self.last = conv(4, outputs, 3 if padding == "valid" else 1)
        self.ending = {"none": nn.Identity(), "sigmoid": nn.Sigmoid(), "softmax": nn.Softmax(1)}[last]

    def forward(self, image):
        return self.ending(self.last(self.deep(self.first(image))))


class Patches(nn.Sequential):
    """A classifier of patches of 16 pixels."""

    def __init__(self, channels=1, outputs=2):
        super().__init__(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(196, outputs))
'''


def _code() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(compile(CODE, "networks.py", "exec"), found)
    return found


NETWORKS: dict[str, Any] = _code()


@dataclass(frozen=True)
class Wish:
    """What a package is to be like."""

    format: Literal["0.4", "0.5"] = "0.5"
    weights: tuple[str, ...] = ("torchscript",)
    dims: Literal[2, 3] = 2
    channels: int = 1
    outputs: int = 1
    padding: Literal["same", "valid", "odd"] = "same"
    last: Literal["none", "sigmoid", "softmax"] = "none"
    order: str | None = None
    preprocessing: tuple[tuple[str, dict[str, Any]], ...] = ()
    postprocessing: tuple[tuple[str, dict[str, Any]], ...] = ()
    halo: int | None = 8
    step: int = 2
    dtype: str = "float32"
    output_dtype: str = "float32"
    channel_names: tuple[str, ...] = ()
    kind: Literal["Small", "Patches"] = "Small"
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def spatial(self) -> str:
        return "yx" if self.dims == 2 else "zyx"

    @property
    def axes(self) -> str:
        return self.order or f"bc{self.spatial}"

    @property
    def lost(self) -> int:
        """Pixels that the output lacks on both sides together. Where that is odd on one, poolings begin elsewhere."""
        return {"same": 0, "odd": 6, "valid": 8}[self.padding]

    def network(self) -> nn.Module:
        torch.manual_seed(4)
        made: nn.Module = NETWORKS[self.kind](**self.arguments).eval()
        if self.kind == "Patches":
            return made
        with torch.no_grad():
            made.get_parameter("last.weight").mul_(20)  # scores beyond 0 and 1, as those of a trained network
        if self.order is not None:
            made = _Turned(made, self.order, self.spatial).eval()
        return made

    @property
    def arguments(self) -> dict[str, Any]:
        if self.kind == "Patches":
            return {"channels": self.channels, "outputs": self.outputs}
        return {"dims": self.dims, "channels": self.channels, "outputs": self.outputs, "padding": self.padding,
                "last": self.last}  # fmt: skip


class _Turned(nn.Module):
    """A network that takes and gives axes in another order."""

    def __init__(self, network: nn.Module, order: str, spatial: str) -> None:
        super().__init__()
        self.network = network
        usual = [axis for axis in f"bc{spatial}" if axis in order]
        self.inward = [order.index(axis) for axis in usual]
        self.outward = [usual.index(axis) for axis in order]
        self.missing = [at for at, axis in enumerate(f"bc{spatial}") if axis not in order]

    def forward(self, image: Tensor) -> Tensor:
        turned = image.permute(self.inward)
        for at in self.missing:
            turned = turned.unsqueeze(at)
        given: Tensor = self.network(turned)
        for at in reversed(self.missing):
            given = given.squeeze(at)
        return given.permute(self.outward)


def save_package(path: Path, wish: Wish, test: NDArray[Any] | None = None) -> Path:
    """Write a package as a zip file, and give its path.

    The test output is what bioimageio.core makes of the test input; it is filled in last.
    """
    folder = path.with_suffix(".parts")
    folder.mkdir(parents=True)
    network = wish.network()
    edges = (16, 16) if wish.kind == "Patches" else {2: (50, 46), 3: (18, 22, 26)}[wish.dims]
    letters = {"b": 1, "c": wish.channels, **dict(zip(wish.spatial, edges, strict=True))}
    shape = tuple(letters[axis] for axis in wish.axes)
    given = test if test is not None else np.random.default_rng(0).gamma(2.0, 200.0, shape).astype(wish.dtype)
    np.save(folder / "test_input.npy", given)
    example = torch.rand(shape)
    made = network(example).detach()
    np.save(folder / "test_output.npy", made.numpy())
    _save_weights(folder, wish, network, example)
    imageio.v3.imwrite(folder / "cover.png", np.zeros((8, 8), dtype=np.uint8))
    (folder / "README.md").write_text("# A network\n\n## Validation\n\nNone.\n")
    describe = _described_05 if wish.format == "0.5" else _described_04
    context = ValidationContext(root=folder, log_warnings=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with context.replace(perform_io_checks=False):
            outcome = predict_with_core(describe(wish), given)
        np.save(folder / "test_output.npy", outcome.astype(wish.output_dtype))
        with context:
            save_bioimageio_package(describe(wish), output_path=path)
        gc.collect()  # it leaves files open
    with ZipFile(path, "a") as archive:
        # Of format 0.4 it leaves out the code, which authors put there by hand.
        if "pytorch_state_dict" in wish.weights and "networks.py" not in archive.namelist():
            archive.write(folder / "networks.py", "networks.py")
    return path


def predict_with_core(description: Any, image: NDArray[Any]) -> NDArray[Any]:  # noqa: ANN401 (it has no types)
    """Give what bioimageio.core predicts of an image as it is, as its own tests do: nothing is padded or cropped.

    By default it pads an image by the halo, repeating pixels at the edge, for format 0.5; and takes statistics of that.
    """
    from bioimageio.core import create_prediction_pipeline
    from bioimageio.core.digest_spec import create_sample_for_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with create_prediction_pipeline(description) as pipeline:
            sample = create_sample_for_model(description, inputs={_input_name(description): image})
            outcome = pipeline.predict_sample_without_blocking(
                sample, skip_input_padding=True, skip_output_cropping=True
            )
    (tensor,) = outcome.members.values()
    return np.asarray(tensor.data)


def predict_by_default(description: Any, image: NDArray[Any]) -> NDArray[Any]:  # noqa: ANN401 (it has no types)
    """Give what `bioimageio.core.predict` gives of an image, with no other arguments."""
    from bioimageio.core import predict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = predict(model=description, inputs={_input_name(description): image})
    (tensor,) = outcome.members.values()
    return np.asarray(tensor.data)


def _input_name(description: Any) -> str:  # noqa: ANN401 (it has no types)
    return str(getattr(description.inputs[0], "id", None) or description.inputs[0].name)


def _save_weights(folder: Path, wish: Wish, network: nn.Module, example: Tensor) -> None:
    if "torchscript" in wish.weights:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(network, example), str(folder / "weights.pt"))  # type: ignore[no-untyped-call]
    if "pytorch_state_dict" in wish.weights:
        torch.save(network.state_dict(), folder / "weights.pth")
        (folder / "networks.py").write_text(CODE)
    if "onnx" in wish.weights:
        free: Any = {at: torch.export.Dim.AUTO for at, axis in enumerate(wish.axes) if axis in wish.spatial}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(network, (example,), dynamo=True, dynamic_shapes=(free,), verbose=False)
        assert program is not None
        onnx.save(program.model_proto, folder / "weights.onnx")


def _described_05(wish: Wish) -> Any:  # noqa: ANN401 (bioimageio.spec has no types)
    def axes(kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for letter in wish.axes:
            if letter == "b":
                found.append({"type": "batch"})
            elif letter == "c":
                number = wish.channels if kind == "input" else wish.outputs
                names = wish.channel_names if kind == "output" and wish.channel_names else None
                found.append({"type": "channel", "channel_names": names or [f"{kind}{at}" for at in range(number)]})
            else:
                size: Any = {"min": 18, "step": wish.step} if wish.kind == "Small" else 16
                extra: dict[str, Any] = {}
                if kind == "output" and wish.kind == "Patches":
                    continue
                if kind == "output":
                    size = {"tensor_id": "raw", "axis_id": letter, "offset": -wish.lost}
                    extra = {"halo": wish.halo} if wish.halo else {}
                found.append({"type": "space", "id": letter, "size": size, **extra})
        return found

    steps = {
        kind: [
            {"id": name} | ({"kwargs": kwargs} if kwargs else {}) for name, kwargs in getattr(wish, f"{kind}processing")
        ]
        for kind in ("pre", "post")
    }
    weights: dict[str, Any] = {}
    if "torchscript" in wish.weights:
        weights["torchscript"] = {"source": "weights.pt", "pytorch_version": "2.6"}
    if "pytorch_state_dict" in wish.weights:
        weights["pytorch_state_dict"] = {
            "source": "weights.pth",
            "pytorch_version": "2.6",
            "architecture": {"source": "networks.py", "callable": wish.kind, "kwargs": wish.arguments},
        }
    if "onnx" in wish.weights:
        weights["onnx"] = {"source": "weights.onnx", "opset_version": 18}
    _parents(weights)
    return v0_5.ModelDescr.model_validate(
        {
            "type": "model", "format_version": "0.5.12",
            "name": "a small network", "description": "made for a test", "license": "BSD-3-Clause",
            "authors": [{"name": "Someone"}], "cite": [{"text": "nothing", "doi": "10.1234/something"}],
            "documentation": {"source": "README.md"}, "covers": [{"source": "cover.png"}],
            "inputs": [{"id": "raw", "axes": axes("input"), "test_tensor": {"source": "test_input.npy"},
                        "data": {"type": wish.dtype}, "preprocessing": steps["pre"]}],
            "outputs": [{"id": "scores", "axes": axes("output"), "test_tensor": {"source": "test_output.npy"},
                         "data": {"type": wish.output_dtype}, "postprocessing": steps["post"]}],
            "weights": weights,
        } | wish.changes
    )  # fmt: skip


def _parents(weights: dict[str, Any]) -> None:
    """All weights but the first are converted from these."""
    first = next(each for each in ("pytorch_state_dict", "torchscript", "onnx") if each in weights)
    for name, entry in weights.items():
        if name != first:
            entry["parent"] = first


def _described_04(wish: Wish) -> Any:  # noqa: ANN401
    smallest = {"b": 1, "c": wish.channels}
    step = {"b": 0, "c": 0}
    offset = [-wish.lost / 2 if letter in wish.spatial else 0.0 for letter in wish.axes]
    scale = [0.0 if letter == "c" else 1.0 for letter in wish.axes]
    offset = [wish.outputs / 2 if letter == "c" else each for letter, each in zip(wish.axes, offset, strict=True)]
    steps = {
        kind: [
            {"name": name} | ({"kwargs": kwargs} if kwargs else {})
            for name, kwargs in getattr(wish, f"{kind}processing")
        ]
        for kind in ("pre", "post")
    }
    weights: dict[str, Any] = {}
    if "torchscript" in wish.weights:
        weights["torchscript"] = {"source": "weights.pt", "pytorch_version": "2.6"}
    if "pytorch_state_dict" in wish.weights:
        import hashlib

        weights["pytorch_state_dict"] = {
            "source": "weights.pth",
            "pytorch_version": "2.6",
            "architecture": "networks.py:Small",
            "architecture_sha256": hashlib.sha256(CODE.encode()).hexdigest(),
            "kwargs": wish.arguments,
        }
    if "onnx" in wish.weights:
        weights["onnx"] = {"source": "weights.onnx", "opset_version": 18}
    _parents(weights)
    return v0_4.ModelDescr.model_validate(
        {
            "type": "model", "format_version": "0.4.10",
            "name": "a small network", "description": "made for a test", "license": "BSD-3-Clause",
            "authors": [{"name": "Someone"}], "cite": [{"text": "nothing", "doi": "10.1234/something"}],
            "documentation": "README.md", "covers": ["cover.png"], "timestamp": "2026-01-01T00:00:00",
            "inputs": [{"name": "raw", "axes": wish.axes, "data_type": wish.dtype,
                        "shape": {"min": [smallest.get(each, 18) for each in wish.axes],
                                  "step": [step.get(each, wish.step) for each in wish.axes]},
                        "preprocessing": steps["pre"]}],
            "outputs": [{"name": "scores", "axes": wish.axes, "data_type": wish.output_dtype,
                         "shape": {"reference_tensor": "raw", "scale": scale, "offset": offset},
                         "halo": [wish.halo or 0 if each in wish.spatial else 0 for each in wish.axes],
                         "postprocessing": steps["post"]}],
            "test_inputs": ["test_input.npy"], "test_outputs": ["test_output.npy"],
            "weights": weights,
        } | wish.changes
    )  # fmt: skip
