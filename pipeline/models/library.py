"""Finding models and loading them: safetensors and a card, nothing that could run code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipeline.errors import ModelError
from pipeline.models.card import CARD_FILE, ModelCard, read_card
from pipeline.models.packages import Package, find_package

if TYPE_CHECKING:
    from torch import nn

    from pipeline.models.network import NetworkUse

__all__ = [
    "DEFAULT_MODEL",
    "LoadedModel",
    "bundled_models",
    "check_weights",
    "describe_model",
    "find_model",
    "is_network_file",
    "load_model",
    "save_model",
]

DEFAULT_MODEL = "nuclei-fluorescence"

_BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A network with its card.

    Parameters
    ----------
    card : ModelCard
        The facts.
    network : nn.Module
        On the CPU, in evaluation mode, float32.
    code_sha256 : str, optional
        Of the code that makes the network, where neither the card nor a version of seamfree tells it.
    """

    card: ModelCard
    network: nn.Module
    code_sha256: str | None = None


def bundled_models() -> dict[str, Path]:
    """Give the folders of the models that come with seamfree, by name."""
    return {card.parent.name: card.parent for card in sorted(_BUNDLED.glob(f"*/{CARD_FILE}"))}


_NETWORKS = (".ckpt", ".onnx", ".pt", ".pt2", ".pth", ".safetensors")


def is_network_file(path: Path) -> bool:
    """Tell whether a path is, by its suffix, the file of a network or of weights."""
    return path.suffix.lower() in _NETWORKS and path.is_file()


def find_model(reference: str | Path) -> Path:
    """Find a model.

    Parameters
    ----------
    reference : str or Path
        A bundled model's name, a folder, the card in it, or a package of bioimage.io: a folder, a zip file, or the
        description in the folder.

    Returns
    -------
    Path
        The folder with the card; of a package the zip file or the description.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    known = bundled_models()
    if isinstance(reference, str) and reference in known:
        return known[reference]
    path = Path(reference).absolute()
    if path.name == CARD_FILE:
        path = path.parent
    try:
        if (path / CARD_FILE).is_file():
            return path
        if (package := find_package(path)) is not None:
            return package
        alone = is_network_file(path)
    except OSError as error:
        raise ModelError(f"{str(reference)!r:.200}: the model cannot be read ({error.strerror or error})") from error
    if alone:
        raise ModelError(
            f"{str(reference)!r}: a network's file does not say what its channels and classes are; put it into a "
            f"folder beside a {CARD_FILE} that says so (README, 'Bring your own model'), and name the folder"
        )
    raise ModelError(
        f"there is no model {str(reference)!r}: neither a bundled one ({', '.join(known) or 'none'}) nor a folder "
        f"with a {CARD_FILE}, nor a package of bioimage.io"
    )


def describe_model(reference: str | Path, *, trust: bool = False) -> ModelCard:
    """Give a model's card: that in its folder, or what a package's description says.

    Parameters
    ----------
    reference : str or Path
        As for `find_model`.
    trust : bool
        Whether weights of a package may be chosen that need its code.

    Raises
    ------
    ModelError
        If there is no such model, or no valid card or description.
    """
    found = find_model(reference)
    if found.is_dir():
        return read_card(found)
    from pipeline.models.descriptions import read_package

    return read_package(found, trust=trust).card


def load_model(
    reference: str | Path, *, factory: str | None = None, trust: bool = False, use: NetworkUse | None = None
) -> LoadedModel:
    """Load a model.

    Parameters
    ----------
    reference : str or Path
        As for `find_model`.
    factory : str, optional
        ``package.module:function`` that makes the network, where its format says so. Imports that module.
    trust : bool
        Whether to load files that can run code.
    use : NetworkUse, optional
        Another output than the card's, or a classifier as a network of convolutions.

    Returns
    -------
    LoadedModel

    Raises
    ------
    ModelError
        If there is no such model, its weights are not those that the card describes, they do not fit the
        architecture, or the network cannot be used so.
    """
    from pipeline.models.factories import digest_code
    from pipeline.models.loading import load_network, load_unet, put_to_use

    found = find_model(reference)
    card = describe_model(found, trust=trust)
    make = None
    if found.is_dir():
        path, content = _read_weights(found, card)
    else:
        from pipeline.models.descriptions import make_network

        path, content = found, Package(found).read(card.weights.file, sha256=card.weights.sha256)
        make = partial(make_network, found)
    network: nn.Module
    code: str | None = None
    if card.network is not None:
        network = load_network(card.network, path, content, factory, trust=trust, spatial=card.axes, make=make)
        installed = card.network.architecture is not None and card.network.architecture.sha256 is None
        if card.network.format == "factory" or (card.network.format == "state-dict" and installed):
            code = digest_code(network, factory if card.network.format == "factory" else None)
    else:
        assert card.architecture is not None  # a card has one of the two
        network = load_unet(card.architecture, path, content)
    if card.network is None or card.network.format != "torch-export":
        network.eval()
    network = network.float().requires_grad_(requires_grad=False)
    return LoadedModel(card, network if use is None else put_to_use(network, card, use), code)


def check_weights(reference: str | Path) -> None:
    """Make sure that a model's weights are those that its card describes; loads nothing.

    Raises
    ------
    ModelError
        If there is no such model, or the weights are other ones.
    """
    folder = find_model(reference)
    _read_weights(folder, read_card(folder))


def _read_weights(folder: Path, card: ModelCard) -> tuple[Path, bytes]:
    """Read the file of weights that a card names, and check that it is the one described."""
    path = folder / card.weights.file
    if path.parent != folder or path.name in ("", ".."):
        raise ModelError(f"{folder / CARD_FILE}: weights.file {card.weights.file!r} leaves the model's folder")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read ({error})") from error
    found = hashlib.sha256(content).hexdigest()
    if found != card.weights.sha256:
        raise ModelError(
            f"{path}: these are not the weights that the card describes (sha256 {found[:12]}…, expected "
            f"{card.weights.sha256[:12]}…); fetch the model again"
        )
    return path, content


def save_model(folder: Path, card: ModelCard, network: nn.Module) -> ModelCard:
    """Write a model's folder.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    card : ModelCard
        The facts; the hash of the weights is put in.
    network : nn.Module
        The network.

    Returns
    -------
    ModelCard
        The card as written.
    """
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    digest = hashlib.sha256(content).hexdigest()
    card = card.model_copy(update={"weights": card.weights.model_copy(update={"sha256": digest})})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / card.weights.file).write_bytes(content)
    absent = {name for name in ("architecture", "network") if getattr(card, name) is None}
    text = yaml.safe_dump(card.model_dump(mode="json", exclude=absent), sort_keys=False, allow_unicode=True, width=110)
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    return card
