"""What all contenders are given: an image, one network's weights, and the labels of one pass over the whole image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.geometry import Footprint
from pipeline.models.architecture import UNetConfig
from pipeline.models.unet import UNet

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NETWORKS", "Case", "bundled_network", "differing", "prepare"]

NETWORKS = {
    "2d-16": UNetConfig(base_channels=16, classes=3),
    "2d-64": UNetConfig(base_channels=64, classes=3),
    "3d-16": UNetConfig(dims=3, depth=3, base_channels=16, classes=3),
}
"""The paper's U-Nets. That of 16 channels has the weights of the bundled model, the others random ones."""

PADDINGS = ("valid", "same")


@dataclass(frozen=True)
class Case:
    """A folder that `prepare` has filled, as a contender sees it.

    Parameters
    ----------
    folder : Path
        The folder.
    padding : str
        Whether the network's convolutions are padded; the weights are the same.
    """

    folder: Path
    padding: str

    @cached_property
    def architecture(self) -> UNetConfig:
        """Of the network."""
        held = UNetConfig.model_validate(json.loads((self.folder / "network.json").read_text()))
        return held.model_copy(update={"padding": self.padding})

    @cached_property
    def image(self) -> NDArray[np.float32]:
        """YX or ZYX, scaled as the network wants it."""
        found: NDArray[np.float32] = np.load(self.folder / "scaled.npy")
        return found

    @property
    def footprint(self) -> Footprint:
        """Of the network."""
        return self.architecture.footprint

    def network(self) -> UNet:
        """Load the network: float32, on the CPU, layers in the order that torch makes them in."""
        network = UNet(self.architecture)
        network.load_state_dict(torch.load(self.folder / "weights.pt", weights_only=True))
        return network.eval().requires_grad_(requires_grad=False)

    @property
    def objects(self) -> int:
        """The class of objects."""
        return self.architecture.classes - 1


def prepare(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    """Write an image, the models and what contenders read."""
    from tests.random_models import random_network, save_network

    architecture = NETWORKS[name]
    network = bundled_network() if name == "2d-16" else random_network(architecture)
    folder.mkdir(parents=True)
    for padding in PADDINGS:
        save_network(folder / padding, architecture.model_copy(update={"padding": padding}), network)
    torch.save(network.state_dict(), folder / "weights.pt")
    (folder / "network.json").write_text(architecture.model_dump_json())
    image = _image(shape)
    _write(folder / "image.ome.tif", image)
    np.save(folder / "scaled.npy", _scaled(image, folder / "valid"))


def bundled_network() -> UNet:
    """Give the bundled model's network with its normalisation folded, and with nuclei as the last class."""
    from pipeline.models.fusing import fold_normalisation
    from pipeline.models.library import DEFAULT_MODEL, load_model

    folded = fold_normalisation(load_model(DEFAULT_MODEL).network.double()).float().state_dict()
    for part in ("head.weight", "head.bias"):
        folded[part] = folded[part][[0, 2, 1]]
    network = UNet(NETWORKS["2d-16"])
    network.load_state_dict(folded)
    return network.eval()


def _image(shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Make a mosaic of real fields, or a volume of blobs: random weights make as much of them as of anything."""
    from scipy import ndimage

    from tests.fields import compose, load_fields

    if len(shape) == 2:
        return compose(load_fields(), (shape[0], shape[1]))
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    blobs = ndimage.gaussian_filter(noise, 3)
    volume: NDArray[np.uint16] = (2000 + 400 * blobs / blobs.std() + 20 * noise).clip(0, 65535).astype(np.uint16)
    return volume


def _write(path: Path, image: NDArray[np.uint16]) -> None:
    import tifffile

    from tests.fields import write_tiled

    if image.ndim == 2:
        write_tiled(path, image)
    else:
        tifffile.imwrite(path, image, tile=(256, 256), compression="zlib", ome=True, metadata={"axes": "ZYX"})


def _scaled(image: NDArray[np.uint16], model: Path) -> NDArray[np.floating]:
    """Scale intensities as seamfree does for a model."""
    from pipeline.images.intensity import make_scaling, wanted_percentiles
    from pipeline.images.statistics import Search
    from pipeline.models.card import read_card

    rule = read_card(model).intensity
    search = Search(image.dtype.name, wanted_percentiles(rule.method, rule.low, rule.high))
    while not search.finished:
        search = search.advance(search.count(image))
    return make_scaling(rule.method, search.summary()).apply(image, np.float32)


def differing(labels: NDArray[np.generic], wanted: NDArray[np.generic], border: int) -> float:
    """Give the share of pixels that differ, far from the image's edge, for programs differ in what is beyond it."""
    inner = tuple(slice(border, length - border) for length in wanted.shape)
    if any(part.stop <= part.start for part in inner):
        raise ValueError(f"an image of {wanted.shape} has no pixel that is {border} from its edge; give a larger one")
    return float(np.mean(labels[inner] != wanted[inner]))
