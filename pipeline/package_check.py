"""What must hold before an image meets a model: the model passes its own test, and the pixels are of its type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ModelError, PlanError
from pipeline.models.library import find_model
from pipeline.models.network import usual_order
from pipeline.models.packages import Package
from pipeline.scaling import scale_by_own

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.images.source import ImageInfo
    from pipeline.models.card import IntensityRule, ModelCard

__all__ = ["PackageCheck", "check_package", "check_pixels"]


@dataclass(frozen=True, slots=True)
class PackageCheck:
    """How well a test output was met.

    Parameters
    ----------
    largest : float
        The largest difference.
    values : int
        Numbers that were compared.
    beyond : int
        Those that differ by more than the description tolerates.
    """

    largest: float
    values: int
    beyond: int

    def describe(self) -> str:
        """Say it in a few words."""
        more = f", {self.beyond:,} of them by more than tolerated" if self.beyond else ""
        return f"met: {self.values:,} values, the largest difference is {self.largest:.1e}{more}"


def check_package(reference: str | Path, *, trust: bool = False) -> PackageCheck | None:
    """Run a package's test, once for all images of a batch.

    Parameters
    ----------
    reference : str or Path
        As for `find_model`.
    trust : bool
        As for `load_model`.

    Returns
    -------
    PackageCheck or None
        None where the model is no package, or has no test.

    Raises
    ------
    ModelError
        If the network gives something else: the file is damaged, or is used otherwise than its author did.
    """
    path = find_model(reference)
    return None if path.is_dir() else _check(path, Package(path).stamp(), trust)


def check_pixels(card: ModelCard, info: ImageInfo) -> None:
    """Refuse an image whose pixels do not fit into the type that a model asks for.

    Raises
    ------
    PlanError
        If a cast would change them.
    """
    if card.pixel_type is not None and not np.can_cast(info.dtype, card.pixel_type):
        raise PlanError(
            f"{info.path}: the model {card.name!r} takes pixels of {card.pixel_type}, and these are {info.dtype}, "
            f"which do not all fit; convert the image to {card.pixel_type}"
        )


@lru_cache(maxsize=4)
def _check(path: Path, _stamp: object, trust: bool) -> PackageCheck | None:
    import torch

    from pipeline.models.adapting import apply_steps
    from pipeline.models.descriptions import read_array, read_package
    from pipeline.models.library import load_model
    from pipeline.models.loading import OneOutput

    package = read_package(path, trust=trust)
    if not package.tests:
        return None
    loaded = load_model(path, trust=trust)
    card, network = loaded.card, loaded.network
    assert isinstance(network, OneOutput)
    assert card.network is not None
    given, wanted = (read_array(Package(path), *each) for each in package.tests)
    usual = usual_order(card.axes)
    image = _arrange(given, card.network.order or usual, usual)[:1]
    order = card.network.output_order or usual
    # A classifier of patches gives numbers, and no image.
    expected = _arrange(wanted, order, usual if set(order) & set(card.axes) else "bc")[:1].astype(np.float64)
    if image.shape[1] != len(card.channels):
        raise ModelError(
            f"{path}: its test input has {image.shape[1]} channel(s), and its description says {len(card.channels)}; "
            "package the model again"
        )
    scaled = torch.from_numpy(_scale(image[0], card.intensity)[None])
    bare = OneOutput(network.network, network.output)
    try:
        with torch.inference_mode():
            found = apply_steps(bare(scaled), package.postprocessing).double().numpy()
    except RuntimeError as error:
        raise ModelError(
            f"{path}: the network does not take its own test input, {given.shape} "
            f"({' '.join(str(error).split())[:160]}); the package is not whole, or describes another network"
        ) from error
    if found.shape != expected.shape:
        raise ModelError(
            f"{path}: of its test input the network makes an output of {found.shape}, and the test output has "
            f"{expected.shape}; the weights or the description are of another network"
        )
    relative, absolute, millionths = package.tolerance
    difference = np.abs(found - expected)
    beyond = int(np.count_nonzero(~(difference <= absolute + relative * np.abs(expected))))
    check = PackageCheck(float(difference.max(initial=0)), expected.size, beyond)
    if beyond * 1_000_000 > millionths * expected.size:
        raise ModelError(
            f"{path}: the network misses its own test output in {beyond:,} of {expected.size:,} values, by up to "
            f"{check.largest:.3g}; the weights are not those described, or their author prepared images in another way"
        )
    return check


def _arrange(values: NDArray[np.generic], order: str, usual: str) -> NDArray[np.generic]:
    """Put axes in the usual order; those that are missing have one place."""
    if values.ndim != len(order):
        raise ModelError(f"a test tensor has {values.ndim} axes, and its description says {order!r}")
    present = [axis for axis in usual if axis in order]
    turned = values.transpose([order.index(axis) for axis in present])
    return turned[tuple(slice(None) if axis in order else None for axis in usual)]


def _scale(image: NDArray[np.generic], rule: IntensityRule) -> NDArray[np.float32]:
    """Scale an image, channels first, as those of files are: by statistics of the whole."""
    image = image.astype(image.dtype.newbyteorder("="))
    scaled = zip(scale_by_own(rule, list(image)), image, strict=True)
    return np.stack([scaling.apply(channel, np.float32) for scaling, channel in scaled]).astype(np.float32)
