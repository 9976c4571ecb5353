"""Networks drawn by chance, against what changing single pixels and cutting tiles shows of them.

``python -m tests.models.drawn_trials --networks 400 --seed 1`` tries so many and prints what is wrong; ``--only 7``
tries that one alone, and prints how it is made.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain, product
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.geometry import Footprint
from pipeline.models.context import ModelContext
from pipeline.models.derive import derive_context
from tests.models.drawn import Dims, draw_network
from tests.models.zoo import make_positive

__all__ = ["Trial", "try_network"]


@dataclass
class Trial:
    """What was found of a network.

    Parameters
    ----------
    number : int
        Its number in the draw.
    verdict : str
        What was derived, in a few words.
    faults : list of str
        What is wrong with that.
    """

    number: int
    verdict: str
    faults: list[str] = field(default_factory=list)


def try_network(seed: int, number: int) -> Trial:
    """Draw a network, derive its context, and hold that to the truth. Of every four one cannot be tiled."""
    network, dims, spoiler = draw_network(seed, number, spoiled=number % 4 == 3)
    try:
        context = derive_context(network, 1, dims)
    except ModelError as error:
        return Trial(number, "an error", [f"{error}"])
    if spoiler is not None:
        faults = [f"it has {spoiler}, and is said to be local"] if context.local else []
        return Trial(number, "refused" if not context.local else "local", faults)
    if not context.local:
        # What loses an odd number of pixels has no middle: that is so, and no fault.
        rightly = "no middle" in context.reason
        return Trial(number, "no middle" if rightly else "refused", [] if rightly else [context.reason])
    trial = Trial(number, f"local, {dims}-D{'' if max(context.scale) == 1 else ', coarser'}")
    trial.faults += [*_tiles(network, context, dims), *_reaches(network, context, dims)]
    if number % 8 == 0 and dims == 2:
        trial.faults += _scripted(network, context)
    if number % 8 == 4 and dims == 2:
        trial.faults += _hidden(network, context)
    return trial


def _run(network: nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.as_tensor(network(image))


def _image(extent: tuple[int, ...]) -> Tensor:
    return torch.rand(1, 1, *extent, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1


def _tiles(network: nn.Module, context: ModelContext, dims: Dims) -> Iterator[str]:
    """Compare tiles at the corners of a larger pass with it."""
    footprint = context.footprint
    assert footprint is not None
    network = deepcopy(network).double()
    core = footprint.step
    window = footprint.window_shape(core)
    # As far from the first as a tile can be, and at an odd number of strides.
    shift = footprint.stride
    extent = tuple(edge + 3 * by for edge, by in zip(window, shift, strict=True))
    image = _image(extent)
    whole = _run(network, image)
    for times in (0, 1, 3):
        corner = tuple(times * by for by in shift)
        cut = image[
            (slice(None), slice(None), *(slice(at, at + edge) for at, edge in zip(corner, window, strict=True)))
        ]
        tile = _owned(_run(network, cut.contiguous()), footprint, (0,) * dims, core)
        wanted = _owned(whole, footprint, corner, core)
        apart = float((tile - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
        if not apart <= 1e-9:
            yield f"a tile at {corner} differs by {apart:.1e} from a larger pass"


def _owned(output: Tensor, footprint: Footprint, corner: tuple[int, ...], core: tuple[int, ...]) -> Tensor:
    """Cut the core of a tile, whose window begins at a corner, out of an output."""
    start = tuple(at // by + inset for at, by, inset in zip(corner, footprint.scale, footprint.inset, strict=True))
    return output[(slice(None), slice(None), *(slice(at, at + edge) for at, edge in zip(start, core, strict=True)))]


def _reaches(network: nn.Module, context: ModelContext, dims: Dims) -> Iterator[str]:
    """Change single pixels, one of each phase along each axis, and compare how far outputs see them."""
    network = make_positive(deepcopy(network)).double()
    edges = []
    for axis in range(dims):
        stride = context.stride[axis]
        need = 2 * (max(0, *context.reach[axis]) + context.margin[axis]) + 4 * stride
        edges.append(max(context.phase[axis] + -(-need // stride) * stride, context.smallest[axis]))
    image = _image(tuple(edges))
    before = _run(network, image)
    derived = [tuple(each) for each in context.reach]
    found = [(-max(context.scale),) * 2] * dims
    # All phases of each axis, whatever the others' are; and where that is not enough, each with each.
    together = [[number % by for by in context.stride] for number in range(max(context.stride))]
    for offset in chain(together, product(*map(range, context.stride))):
        at = [edge // 2 + by for edge, by in zip(edges, offset, strict=True)]
        changed = image.clone()
        changed[(0, 0, *at)] = 1e3
        differs = (_run(network, changed) != before).any(dim=1)[0]
        for axis, places in enumerate(differs.nonzero().unbind(dim=1) if differs.any() else ()):
            scale, margin = context.scale[axis], context.margin[axis]
            low = int(places.max()) * scale + margin - at[axis]
            high = at[axis] - (int(places.min()) * scale + margin + scale - 1)
            found[axis] = (max(found[axis][0], low), max(found[axis][1], high))
        if derived == found and offset == together[-1]:
            break
    nearly = _interpolates(network) and all(
        less <= more < less + stride
        for stride, told, true in zip(context.stride, derived, found, strict=True)
        for less, more in zip(true, told, strict=True)
    )
    if derived != found and not nearly:
        yield f"it is said to see {derived} far, and sees {found}"


def _interpolates(network: nn.Module) -> bool:
    """Tell whether it interpolates to an odd number of pixels: the one in the middle has a weight by rounding only."""
    return any(
        isinstance(each, nn.Upsample) and "linear" in each.mode and _factor(each) % 2 == 1 for each in network.modules()
    )


def _factor(layer: nn.Upsample) -> int:
    factor: Any = layer.scale_factor
    return int(max(factor) if isinstance(factor, tuple) else factor)


def _scripted(network: nn.Module, context: ModelContext) -> Iterator[str]:
    """Compare what is derived of the same network as TorchScript."""
    edges = tuple(at + 2 * by for at, by in zip(context.smallest, context.stride, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(network, _image(edges).float())  # type: ignore[no-untyped-call]
    # What a trace takes for a constant, it is of the size that was traced.
    try:
        other = derive_context(script, 1, 2, first=edges)
    except ModelError as error:
        yield f"as TorchScript: {error}"
        return
    if not any(isinstance(each, nn.Identity) for each in network.get_submodule("grow").children()) and (
        (other.local, other.reach, other.footprint) != (context.local, context.reach, context.footprint)
    ):
        yield f"as TorchScript: {other.reason}, {other.reach}, {other.footprint}"


def _hidden(network: nn.Module, context: ModelContext) -> Iterator[str]:
    """Compare what is derived of the same network where nobody can watch it: no less, and no other grid.

    With positive weights, for what never comes through a network's own ones cannot be seen from outside.
    """
    hidden = make_positive(deepcopy(network))
    hidden.opaque = True  # type: ignore[assignment]  # as one that another runtime computes
    other = derive_context(hidden, 1, 2)
    if not other.local:
        return  # it is refused where a probe is not long enough to tell
    if (other.margin, other.scale) != (context.margin, context.scale):
        yield f"unwatched, it has another margin or scale: {other}"
    if any(one % by for one, by in zip(other.stride, context.stride, strict=True)):
        yield f"unwatched, its stride is {other.stride}"
    # The weight that is there by rounding only makes a difference that is lost.
    lost = max(context.stride) - 1 if _interpolates(network) else 0
    if any(less + lost < true for told, far in zip(other.reach, context.reach, strict=True)
           for less, true in zip(told, far, strict=True)):  # fmt: skip
        yield f"unwatched, it is said to see {other.reach} far, and sees {context.reach}"


def main() -> int:
    """Try networks; the exit code says whether anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=400)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--from", type=int, default=0, dest="first", help="no network of a smaller number")
    parser.add_argument("--only", type=int, help="only the network of this number, and how it is made")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"seed {given.seed}", flush=True)
    verdicts: Counter[str] = Counter()
    faulty = 0
    for number in range(given.first, given.networks) if given.only is None else (given.only,):
        if given.only is not None:
            print(draw_network(given.seed, number, spoiled=number % 4 == 3)[0])
        trial = try_network(given.seed, number)
        verdicts[trial.verdict] += 1
        faulty += bool(trial.faults)
        for fault in trial.faults:
            print(f"network {number}: FAULT {fault}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))
    print(f"{faulty} with a fault")
    return int(faulty > 0)


if __name__ == "__main__":
    sys.exit(main())
