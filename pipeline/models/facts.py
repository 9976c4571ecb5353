"""What a plan needs to know of a model, whatever its network is made of."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from pipeline.errors import ModelError
from pipeline.geometry import Margin, round_up
from pipeline.models.architecture import ITEM_BYTES
from pipeline.models.card import ModelCard
from pipeline.models.constants import KEPT
from pipeline.models.context import ModelContext, Output, compare_declared, stitched_context, symmetric_context
from pipeline.models.library import describe_model, find_model
from pipeline.models.network import NetworkUse
from pipeline.models.rescaling import network_window, rescaled_context
from pipeline.models.work import Work

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pipeline.models.architecture import Precision, UNetConfig
    from pipeline.models.library import LoadedModel

__all__ = ["ModelFacts", "count_work", "learn_facts", "learn_heads", "unet_context"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model, as far as a plan must know it.

    Parameters
    ----------
    card : ModelCard
        What people say of it.
    context : ModelContext
        How far its network looks.
    code_sha256 : str, optional
        As of `pipeline.models.library.LoadedModel`.
    """

    card: ModelCard
    context: ModelContext
    code_sha256: str | None = None

    @property
    def versions(self) -> dict[str, str]:
        """Versions of libraries that the network needs beside those that every run depends on."""
        if self.card.network is None or self.card.network.format != "onnx":
            return {}
        from pipeline.models.graphs import runtime_version

        return {"onnxruntime": runtime_version()}

    def window_bytes(self, window: tuple[int, ...], precision: Precision, device: str) -> int:
        """Estimate the memory that a worker needs for a forward pass on one window beside the weights, in bytes.

        With what is kept of constant windows.
        """
        rescaling = self.context.rescaling
        if rescaling is not None:
            plain = replace(self, context=replace(self.context, rescaling=None))
            inner = network_window(window, rescaling)
            ends = 8 * (len(self.card.channels) + len(self.card.classes)) * (prod(window) + prod(inner))
            return plain.window_bytes(inner, precision, device) + 2 * ends
        kept = KEPT * (len(self.card.classes) * max(4, ITEM_BYTES[precision]) + 1) * prod(window)
        shape = self.card.architecture
        if shape is not None:
            return shape.window_bytes(window, precision, streamed=shape.in_slabs(device)) + kept
        pixels = 1
        for edge in window:
            pixels *= edge
        ends = 8 * len(self.card.channels) + 8 * len(self.card.classes)
        if self.context.stitching is not None:
            # What is put together, beside one pass.
            ends += 8 * len(self.card.classes)
        return pixels * (self.context.pixel_bytes * ITEM_BYTES[precision] // ITEM_BYTES["float32"] + ends) + kept

    def flops(self, window: tuple[int, ...]) -> int:
        """Give the floating-point operations of all passes on one window; in proportion to its pixels where unknown."""
        window = network_window(window, self.context.rescaling)
        passes = prod(self.context.stitching.scale) if self.context.stitching is not None else 1
        if self.card.architecture is not None:
            return passes * self.card.architecture.flops(window)
        return passes * (self.context.work.flops(window) if self.context.work is not None else prod(window))


def count_work(network: nn.Module, channels: int, context: ModelContext) -> Work | None:
    """Count the operations of a network of any kind; without numbers, on the meta device.

    Parameters
    ----------
    network : nn.Module
        The network, in evaluation mode.
    channels : int
        Channels of its input.
    context : ModelContext
        Its legal sizes.

    Returns
    -------
    Work or None
        None where it takes no image of any extent, or cannot run without numbers.
    """
    from pipeline.models.probe import Probe

    if not context.sizes_known:
        return None
    probe, dims = Probe(network, channels, len(context.stride)), range(len(context.stride))
    # So far above the smallest that no window is all border.
    low = tuple(context.phase[axis] + round_up(max(64, context.smallest[axis]), context.stride[axis]) for axis in dims)
    high = tuple(edge + 4 * stride for edge, stride in zip(low, context.stride, strict=True))
    counts = tuple(probe.operations(corner) for corner in product(*zip(low, high, strict=True)))
    return Work(low, high, counts) if all(counts) else None


def unet_context(architecture: UNetConfig) -> ModelContext:
    """Give the context of a U-Net of seamfree's own, by arithmetic: at once, and without torch."""
    footprint = architecture.footprint
    # Beside its margin or, where padded, its halo, an output of a valid network sees the rest of its pooling block.
    farthest = tuple(
        halo or margin + stride - 1
        for margin, halo, stride in zip(footprint.margin, footprint.halo, footprint.stride, strict=True)
    )
    ones = (1,) * footprint.ndim
    return ModelContext(
        local=True,
        reason="a U-Net of convolutions and poolings: each output sees a bounded part of the image",
        margin=footprint.margin,
        reach=tuple(Margin(far, far) for far in farthest),
        halo=footprint.halo,
        stride=footprint.stride,
        phase=footprint.phase,
        smallest=footprint.smallest,
        scale=ones,
        method="arithmetic",
        outputs=(Output("0", architecture.classes),),
    )


def learn_facts(
    reference: str | Path, *, factory: str | None = None, trust: bool = False, use: NetworkUse | None = None
) -> ModelFacts:
    """Learn what a plan needs of a model: at once for seamfree's own networks, in seconds for others.

    Parameters
    ----------
    reference : str or Path
        As for `find_model`.
    factory, trust, use
        As for `load_model`.

    Raises
    ------
    ModelError
        If there is no such model, it cannot be loaded, it is not what its card says, or it cannot be used so.
    PlanError
        If it cannot be run at another pixel size.
    """
    folder = find_model(reference)
    card = describe_model(folder, trust=trust)
    wanted = use if use is not None else NetworkUse()
    code: str | None = None
    if card.architecture is None:
        # What happens to the output is not asked here, so that one derivation serves.
        plain = NetworkUse(head=wanted.head, fully_convolutional=wanted.fully_convolutional)
        context, code = _derive(folder, card.model_dump_json(), factory, trust, plain)
    else:
        if wanted.head or wanted.fully_convolutional:
            from pipeline.models.library import load_model

            load_model(folder, use=wanted)  # says why not
        context = unet_context(card.architecture)
    if wanted.resolution == "image":
        context = stitched_context(context)
    if wanted.rescale is not None:
        context = rescaled_context(context, wanted.rescale)
    return ModelFacts(card, symmetric_context(context) if wanted.tta else context, code)


def learn_heads(
    reference: str | Path,
    facts: ModelFacts,
    *,
    factory: str | None = None,
    trust: bool = False,
    fully_convolutional: bool = False,
) -> dict[str, ModelContext]:
    """Learn how far each of a network's several outputs looks; of a network with one output nothing.

    Parameters
    ----------
    reference : str or Path
        As for `find_model`.
    facts : ModelFacts
        What was learnt of it, for the output that is used.
    factory, trust
        As for `load_model`.
    fully_convolutional : bool
        Whether it is a classifier that is made a network of convolutions.

    Returns
    -------
    dict of str to ModelContext
        By name of the output, in the network's order.

    Raises
    ------
    ModelError
        As `learn_facts`.
    """
    names = [each.name for each in facts.context.outputs]
    if len(names) < 2:
        return {}
    from pipeline.models.derive import derive_context
    from pipeline.models.library import load_model
    from pipeline.models.loading import OneOutput

    use = NetworkUse(fully_convolutional=fully_convolutional)
    network = load_model(reference, factory=factory, trust=trust, use=use).network
    assert isinstance(network, OneOutput)  # only files of others have several outputs
    card = facts.card
    window = card.network.window if card.network is not None and not fully_convolutional else None
    return {name: derive_context(network.network, len(card.channels), card.dims, name, first=window) for name in names}


@lru_cache(maxsize=8)
def _derive(
    folder: Path, _card: str, factory: str | None, trust: bool, use: NetworkUse
) -> tuple[ModelContext, str | None]:
    """Derive a network's context, once for all images of a batch, and hold the card to it."""
    from pipeline.models.derive import derive_context
    from pipeline.models.library import load_model
    from pipeline.models.loading import OneOutput

    model = load_model(folder, factory=factory, trust=trust, use=use)
    card, network = model.card, model.network
    assert isinstance(network, OneOutput)
    window = card.network.window if card.network is not None and not use.fully_convolutional else None
    try:
        context = derive_context(network.network, len(card.channels), card.dims, network.output, first=window)
    except ModelError as error:
        raise ModelError(f"the model {card.name!r}: {error}") from error
    context = replace(context, work=count_work(network.network, len(card.channels), context))
    given = next(each.channels for each in context.outputs if each.name == context.output)
    # With a sigmoid, background is what is left, and where the card's network says so.
    beside_it = card.activation == "sigmoid" or (card.network is not None and card.network.background)
    wanted = len(card.classes) - beside_it
    if given != wanted:
        beside = ", of which background needs none," if beside_it else ""
        raise ModelError(
            f"the model {card.name!r}: its card names {len(card.classes)} classes ({', '.join(card.classes)}){beside} "
            f"and its output {context.output!r} has {given} channels; correct the card, or choose another of its "
            f"outputs ({', '.join(each.name for each in context.outputs)}) with --head"
        )
    for difference in compare_declared(card.footprint, context):
        log.log(logging.INFO if difference.harmless else logging.WARNING, "the model %r: %s", card.name, difference)
    told = context if context.local or use.fully_convolutional else _with_hint(context, model)
    return told, model.code_sha256


def _with_hint(context: ModelContext, model: LoadedModel) -> ModelContext:
    """Say of a network that is not local whether it is a classifier of patches that could slide over an image."""
    from pipeline.models.loading import put_to_use

    try:
        put_to_use(model.network, model.card, NetworkUse(head=context.output, fully_convolutional=True))
    except ModelError as error:
        return replace(context, notes=(*context.notes, str(error)))
    hint = "it is a classifier of patches, and slides over the image with --fully-convolutional"
    return replace(context, reason=f"{context.reason}; {hint}", convertible=True)
