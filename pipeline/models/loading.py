"""From bytes of a checked file to a network. No pickle is taken and no code imported, unless the user names it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.adapting import Reordered, finish_scores, in_usual_order
from pipeline.models.factories import call_factory
from pipeline.models.graphs import OnnxNetwork
from pipeline.models.harmless import NO_SCRIPT, check_onnx, check_script, check_tensors
from pipeline.models.probe import load_script, named_outputs
from pipeline.models.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.models.architecture import UNetConfig
    from pipeline.models.card import ModelCard
    from pipeline.models.network import NetworkFile, NetworkUse

__all__ = ["OneOutput", "load_network", "load_unet", "put_to_use"]


class OneOutput(nn.Module):
    """A network of which one output is wanted.

    Parameters
    ----------
    network : nn.Module
        Gives an image, or several in a list or by name.
    output : str, optional
        Name or number of the one that is wanted; the first, where absent.
    design : NetworkFile, optional
        What is done to that output before it is scores.
    """

    def __init__(self, network: nn.Module, output: str | None, design: NetworkFile | None = None) -> None:
        super().__init__()
        self.network, self.output, self.design = network, output, design

    def forward(self, image: Tensor) -> Tensor:
        """Give the one output."""
        outputs = named_outputs(self.network(image))
        scores = outputs[self.output if self.output is not None else next(iter(outputs))]
        return scores if self.design is None else finish_scores(scores, self.design)


def load_network(
    design: NetworkFile,
    path: Path,
    content: bytes,
    factory: str | None,
    *,
    trust: bool,
    spatial: str,
    make: Callable[[], Any] | None = None,
) -> OneOutput:
    """Make a network of a file in any format.

    Parameters
    ----------
    design : NetworkFile
        What its card says of the file.
    path : Path
        Where it came from, for messages.
    content : bytes
        The file.
    factory : str, optional
        ``package.module:function``, by the user's own word, for a network of that format.
    trust : bool
        Whether files may be loaded that can run code.
    spatial : str
        Letters of the spatial axes.
    make : callable, optional
        Runs a package's code that makes its network; only called where the user trusts it.

    Raises
    ------
    ModelError
        If the file is not valid, or the format needs a word of the user's that was not given.
    """
    if design.format == "factory":
        loaded: nn.Module = call_factory(path, factory, design.arguments)
        _give_weights(loaded, path, _read_safetensors(path, content))
    elif design.format == "state-dict":
        loaded = _make_packaged(path, content, make if trust else None)
    else:
        loaded = _load_whole(design, path, content, trust=trust)
    return OneOutput(in_usual_order(loaded, design, spatial), design.output, design)


def _load_whole(design: NetworkFile, path: Path, content: bytes, *, trust: bool) -> nn.Module:
    """Load a file that holds the network itself, not only its weights."""
    if design.format == "torch-export" and not trust:
        raise ModelError(
            f"{path}: a .pt2 file may hold pickles, which can run any code; if you trust who made it, say "
            "--trust-model-code, or export the network as TorchScript or ONNX"
        )
    if design.format == "torchscript" and not trust:
        content = check_script(path, content)
    if design.format == "onnx":
        check_onnx(path, content)
    try:
        if design.format == "torchscript":
            loaded: nn.Module = load_script(content, "cpu")
        elif design.format == "torch-export":
            loaded = torch.export.load(io.BytesIO(content)).module()
            # Exported modules stand in the mode in which they were exported, and refuse to change.
            loaded.training = False
        else:
            loaded = OnnxNetwork(content)
    except ModelError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        wrong = NO_SCRIPT if "constants.pkl" in text else f"not a valid file of the format {design.format} ({text})"
        raise ModelError(f"{path}: {wrong}") from error
    return loaded


def _make_packaged(path: Path, content: bytes, make: Callable[[], Any] | None) -> nn.Module:
    """Make a network by a package's own code, and give it weights of torch.save."""
    if make is None:
        raise ModelError(
            f"{path}: code of this package makes its network, and code may do anything; if you trust who made it, say "
            "--trust-model-code"
        )
    check_tensors(path, content)
    try:
        # Nothing but tensors is unpickled, whomever the user trusts.
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{path}: not a state dict of tensors alone ({' '.join(str(error).split())[:160]}…); nothing else is "
            "unpickled: save model.state_dict()"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(each, Tensor) for each in tensors.values()):
        raise ModelError(f"{path}: not a state dict of tensors alone; save model.state_dict()")
    network = make()
    if not isinstance(network, nn.Module):
        raise ModelError(f"{path}: the package's code gives a {type(network).__name__}, not a torch.nn.Module")
    _give_weights(network, path, tensors)
    return network


def put_to_use(network: nn.Module, card: ModelCard, use: NetworkUse) -> nn.Module:
    """Choose an output of a loaded network, and make it one of convolutions, if wanted.

    Parameters
    ----------
    network : nn.Module
        As it was loaded.
    card : ModelCard
        What is said of it.
    use : NetworkUse
        What is wanted.

    Raises
    ------
    ModelError
        If the network cannot be used so; names the layer.
    """
    if not isinstance(network, OneOutput):
        if use.head not in (None, "0"):
            raise ModelError(f"the model {card.name!r} has no output {use.head!r}; it has one, 0")
        if use.fully_convolutional:
            raise ModelError(f"the model {card.name!r} is fully convolutional; leave out --fully-convolutional")
        return network
    output = use.head if use.head is not None else network.output
    inner, said = network.network, network.design
    if use.head not in (None, network.output) and said is not None and (said.steps or said.background):
        raise ModelError(
            f"the model {card.name!r}: what is done to its output is said of {network.output or 'its first one'}, "
            f"not of {use.head!r}; leave out --head"
        )
    if use.fully_convolutional:
        try:
            inner = _slide(inner, card)
        except ModelError as error:
            raise ModelError(f"the model {card.name!r} cannot be made fully convolutional: {error}") from error
    return OneOutput(inner, output, network.design)


def _slide(network: nn.Module, card: ModelCard) -> nn.Module:
    """Make a network of convolutions of a classifier."""
    from pipeline.models.convolutional import find_window, make_fully_convolutional

    assert card.network is not None  # it was loaded by it
    if card.network.format not in ("factory", "state-dict"):
        raise ModelError(
            f"of a file of the format {card.network.format} the layers are not at hand to be made others; bring the "
            "network's code: a factory and safetensors, or a package with pytorch_state_dict and --trust-model-code"
        )
    if isinstance(network, Reordered):
        raise ModelError(f"it takes its axes in the order {network.order!r}; bring a network of {network.usual!r}")
    window = card.network.window or find_window(network, len(card.channels), card.dims)
    return make_fully_convolutional(network, len(card.channels), window)


def load_unet(architecture: UNetConfig, path: Path, content: bytes) -> UNet:
    """Make a U-Net and give it its weights.

    Parameters
    ----------
    architecture : UNetConfig
        Its shape.
    path : Path
        Where the weights came from, for messages.
    content : bytes
        A safetensors file.

    Raises
    ------
    ModelError
        If the file is not valid or does not fit the architecture, or a weight is not finite.
    """
    with torch.device("meta"):
        network = UNet(architecture)
    _give_weights(network, path, _read_safetensors(path, content))
    return network


def _read_safetensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return load(content)
    except safetensors.SafetensorError as error:
        advice = "fetch the model again"
        if content.startswith((b"PK", b"\x80")):
            advice = (
                "it looks like what torch.save writes, a pickle, which is not read: write the weights by "
                f"safetensors.torch.save_file(network.state_dict(), {path.name!r}), and their sha256 into the card"
            )
        raise ModelError(f"{path}: not a valid safetensors file ({error}); {advice}") from error


def _give_weights(network: nn.Module, path: Path, tensors: dict[str, Tensor]) -> None:
    """Put tensors into a network, which may be on the meta device."""
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    given = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != given:
        odd = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise ModelError(
            f"{path}: the weights do not fit the architecture, for example {odd[0]}: {given.get(odd[0])} instead of "
            f"{expected.get(odd[0])}"
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() != network.state_dict()[name].is_floating_point():
            raise ModelError(f"{path}: {name} is of type {tensor.dtype}, which these weights cannot be")
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: {name} holds numbers that are not finite; the training went wrong")
    network.load_state_dict(tensors, assign=True)
