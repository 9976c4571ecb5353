"""What is known of how far a network looks: derived, never only declared. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.errors import PlanError
from pipeline.geometry import Footprint, Margin, round_up
from pipeline.models.rescaling import Rescaling
from pipeline.models.work import Work

__all__ = [
    "GENEROUS",
    "Difference",
    "ModelContext",
    "Output",
    "Stitching",
    "compare_declared",
    "draw_footprint",
    "exchangeable",
    "stitched_context",
    "symmetric_context",
    "tiling_footprint",
]

GENEROUS: dict[int, int] = {2: 256, 3: 48}
"""Pixels of overlap, by number of spatial axes, for a network that sees everything, where the user insists."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a network.

    Parameters
    ----------
    name : str
        Its key, or its number where the network gives a list.
    channels : int
        How many channels it has.
    """

    name: str
    channels: int


@dataclass(frozen=True, slots=True)
class Stitching:
    """How outputs of a network that looks at every so manieth pixel become an output at each pixel.

    The network runs on as many shifted windows as there are phases, and the outputs are put between each other.

    Parameters
    ----------
    scale : tuple of int
        Shifts along each axis.
    crop : tuple of Margin
        What is cut off before and after, so that as much is missing on either side.
    """

    scale: tuple[int, ...]
    crop: tuple[Margin, ...]


@dataclass(frozen=True, slots=True)
class ModelContext:
    """How far a network's outputs see, and whether it can be tiled without a seam. Tuples go along the spatial axes.

    Parameters
    ----------
    local : bool
        Whether each output sees a bounded part of the image, and shifts with it.
    reason : str
        Why it is local or is not, naming the layer that is responsible.
    margin : tuple of int
        Pixels that the output lacks on each side.
    reach : tuple of Margin
        The farthest input pixel that an output sees, before and after, worst case over all phases of the poolings;
        below 0 where a coarser output does not see all of its own pixels. Empty where the network is not local.
    halo : tuple of int
        How far padding inside the network reaches into its output; 0 where no output ever sees padding.
    stride : tuple of int
        The shifts that the network commutes with are the multiples of it.
    phase, smallest : tuple of int
        Legal input sizes: from the smallest on, those equal to `phase` modulo `stride`.
    scale : tuple of int
        Input pixels per output pixel.
    method : str
        ``"arithmetic"`` (of a known architecture), ``"nan"`` (where one NaN went), or ``"perturbation"`` (what
        changed when pixels did, since a NaN would not travel).
    outputs : tuple of Output
        All that the network gives.
    output : str
        Name of the one that all this is about.
    notes : tuple of str
        What else a user should know: a bound that was reached, an operation that swallows NaN.
    pixel_bytes : int
        What a forward pass in float32 allocates at its peak, per pixel of the input; 0 where it was not measured.
    work : Work, optional
        How much arithmetic a pass is; None where it was not counted.
    stitching : Stitching, optional
        Where the output is put together of several passes.
    convertible : bool
        Whether it is a classifier of patches that can be made fully convolutional.
    rescaling : Rescaling, optional
        Where the network is run at another pixel size than the image's, in whose pixels all this is then.
    """

    local: bool
    reason: str
    margin: tuple[int, ...]
    reach: tuple[Margin, ...]
    halo: tuple[int, ...]
    stride: tuple[int, ...]
    phase: tuple[int, ...]
    smallest: tuple[int, ...]
    scale: tuple[int, ...]
    method: Literal["arithmetic", "nan", "perturbation"]
    outputs: tuple[Output, ...] = ()
    output: str = "0"
    notes: tuple[str, ...] = ()
    pixel_bytes: int = 0
    work: Work | None = None
    stitching: Stitching | None = None
    convertible: bool = False
    rescaling: Rescaling | None = None

    @property
    def sizes_known(self) -> bool:
        """Whether the network runs on images of any extent."""
        return bool(self.margin) and min(self.scale) > 0

    @property
    def centre(self) -> tuple[float, ...]:
        """Where the first pixel of a coarser output lies: the middle of what it sees of the image, in input pixels.

        Halves are exact. An output as fine as the image lies where the image does.
        """
        reach = self.reach or (Margin(0, 0),) * len(self.scale)
        return tuple(
            (scale - 1 + high - low) / 2 if scale > 1 else 0.0
            for scale, (low, high) in zip(self.scale, reach, strict=True)
        )

    @property
    def footprint(self) -> Footprint | None:
        """What a tile needs so that no seam shows; None where no tile can have it."""
        if not self.local or not self.sizes_known:
            return None
        return Footprint(self.margin, self.halo, self.stride, self.phase, self.smallest, self.scale)

    @property
    def generous(self) -> Footprint | None:
        """A footprint with much overlap for a network that is not local: seams are possible, and fainter."""
        if not self.sizes_known:
            return None
        halo = tuple(round_up(GENEROUS[len(self.margin)], stride) for stride in self.stride)
        return Footprint(self.margin, halo, self.stride, self.phase, self.smallest, self.scale)

    def describe(self) -> dict[str, Any]:
        """Give what `seamfree inspect` shows of it, in plain types."""
        return {
            "local": self.local,
            "margin": list(self.margin),
            "halo": list(self.halo),
            "stride": list(self.stride),
            "reason": self.reason,
            "reach": [list(each) for each in self.reach],
            "scale": list(self.scale),
            "smallest": list(self.smallest),
            "phase": list(self.phase),
            "method": self.method,
            "convertible": self.convertible,
            "outputs": {each.name: each.channels for each in self.outputs},
            "notes": list(self.notes),
        }


def stitched_context(context: ModelContext) -> ModelContext:
    """Give the context of a network whose coarser output is computed at each pixel of the image, by shift-and-stitch.

    Parameters
    ----------
    context : ModelContext
        Of the network as it is.

    Returns
    -------
    ModelContext
        With its `stitching`; the same where the output is as fine as the image, or the network is not local.
    """
    if not context.local or not context.sizes_known or set(context.scale) == {1}:
        return context
    margins, halos, phases, smallest, reaches, crops = [], [], [], [], [], []
    for axis, scale in enumerate(context.scale):
        margin, (low, high), stride = context.margin[axis], context.reach[axis], context.stride[axis]
        # The output of the first window lies on the pixel in the middle of what it sees, or on the one before.
        first = (scale - 1 + high - low) // 2
        before, after = margin + first, margin + scale - 1 - first
        wide = max(before, after)
        reach = Margin(first + low, scale - 1 + high - first)
        phase = (context.phase[axis] + scale - 1) % stride
        least = max(context.smallest[axis] + scale - 1, 2 * wide + 1)
        margins.append(wide)
        halos.append(max(0, max(reach) - wide) if context.halo[axis] else 0)
        phases.append(phase)
        smallest.append(least + (phase - least) % stride)
        reaches.append(reach)
        crops.append(Margin(wide - before, wide - after))
    return replace(
        context,
        margin=tuple(margins),
        halo=tuple(halos),
        phase=tuple(phases),
        smallest=tuple(smallest),
        scale=(1,) * len(context.scale),
        reach=tuple(reaches),
        stitching=Stitching(context.scale, tuple(crops)),
    )


def exchangeable(footprint: Footprint) -> bool:
    """Tell whether a network treats Y and X alike, so that a transposed window is as good as one that is not."""
    fields = (footprint.margin, footprint.stride, footprint.phase, footprint.scale)
    return all(field[-1] == field[-2] for field in fields)


def symmetric_context(context: ModelContext) -> ModelContext:
    """Give the context of a network whose scores are averaged over the symmetries of a window.

    A mirrored window starts where the other one ends. All windows have one phase at their start and, for their sizes
    are legal, one phase at their end, so that a mirrored network, too, is the same wherever a window lies.

    Parameters
    ----------
    context : ModelContext
        Of the network as it is.

    Returns
    -------
    ModelContext
        As far on each side, and along Y as along X where these are exchanged.
    """
    footprint = context.footprint
    if footprint is None:
        return context
    reach = [Margin(max(each), max(each)) for each in context.reach]
    halo, smallest = list(context.halo), list(context.smallest)
    if exchangeable(footprint):
        for field in (halo, smallest):
            field[-2:] = [max(field[-2:])] * 2
        reach[-2:] = [max(reach[-2:])] * 2
    return replace(context, reach=tuple(reach), halo=tuple(halo), smallest=tuple(smallest))


@dataclass(frozen=True, slots=True)
class Difference:
    """Something declared of a network that it is not.

    Parameters
    ----------
    field : str
        What.
    said, true : tuple of int
        As declared, and as derived.
    harmless : bool
        Whether nothing would go wrong if the declaration were used: it only asks for more than is needed.
    """

    field: str
    said: tuple[int, ...]
    true: tuple[int, ...]
    harmless: bool

    def __str__(self) -> str:
        what = "is not what the network has"
        if self.field == "halo":
            what = "is larger than needed" if self.harmless else "is too small, its tiling would show"
        elif self.harmless:
            what = "is a multiple of what the network has"
        return f"the declared {self.field} {list(self.said)} {what}; the derived one is used, {list(self.true)}"


def compare_declared(declared: Mapping[str, tuple[int, ...]], derived: ModelContext) -> list[Difference]:
    """Hold what a model's file declares to what was derived from its network.

    Parameters
    ----------
    declared : mapping of str to tuple of int
        By name of the field: any of margin, halo, stride, scale, phase, smallest.
    derived : ModelContext
        What is true.

    Returns
    -------
    list of Difference
        One for each declaration that differs. What was derived is used, whatever is declared.
    """
    found = []
    for field in ("margin", "halo", "stride", "scale", "phase", "smallest"):
        said, true = declared.get(field), getattr(derived, field)
        if said is None or not true or tuple(said) == true:
            continue
        pairs = list(zip(said, true, strict=False))
        harmless = len(said) == len(true) and (
            (field == "halo" and all(one >= other for one, other in pairs))
            or (field == "stride" and all(one % other == 0 for one, other in pairs))
        )
        found.append(Difference(field, tuple(said), true, harmless))
    return found


def draw_footprint(context: ModelContext) -> str:
    """Draw, for a terminal, what a tile must see: once where all axes are alike, else along each.

    Parameters
    ----------
    context : ModelContext
        The network's.

    Returns
    -------
    str
        A few lines.
    """
    footprint = context.footprint
    if footprint is None:
        return f"no tile: {context.reason}"
    letters = "ZYX"[-footprint.ndim :]
    alike: dict[tuple[int, ...], str] = {}
    for axis, letter in enumerate(letters):
        alike.setdefault(_span(footprint, axis), "")
        alike[_span(footprint, axis)] += letter
    return "\n".join(
        line for span, axes in alike.items() for line in _draw_span(span, "" if axes == letters else f" along {axes}")
    )


def _span(footprint: Footprint, axis: int) -> tuple[int, ...]:
    """Give, along an axis, what a tile of a handy size would be: context, stride, core, window."""
    around, step, scale = footprint.context[axis], footprint.stride[axis], footprint.scale[axis]
    core = round_up(max(2 * around, 4 * step), step)
    return around, step, core, footprint.window_shape((core // scale,) * footprint.ndim)[axis]


def _draw_span(span: tuple[int, ...], where: str) -> list[str]:
    around, step, core, window = span
    # Between the bars, in proportion, with room for what is written there.
    side = max(9, round(40 * around / window)) if around else 0
    inner = max(14, 40 - 2 * side)
    frame, bar = "─" * side, "┄" * side
    return [
        f"  a window of {window} pixels{where} for a core of {core}, which starts on a multiple of {step}",
        f"  ├{frame}┬{'─' * inner}┬{frame}┤",
        f"  │{f'{around}':^{side}}│{f'core {core}':^{inner}}│{f'{window - core - around}':^{side}}│",
        f"  ├{bar}┴{'─' * inner}┴{bar}┤" if side else f"  └{'─' * inner}┘",
    ]


def tiling_footprint(name: str, context: ModelContext, *, insist: bool) -> tuple[Footprint, str | None]:
    """Find what a tile must see, or refuse a network that no tiling can serve.

    Parameters
    ----------
    name : str
        The model's, for messages.
    context : ModelContext
        What was derived of its network.
    insist : bool
        Whether the user takes possible seams into account.

    Returns
    -------
    footprint : Footprint
        What a tile needs; with much overlap where seams are possible.
    seams : str or None
        Why seams are possible.

    Raises
    ------
    PlanError
        If the network cannot be tiled, or not without seams and nobody insists; names the layer.
    """
    footprint, generous = context.footprint, context.generous
    if footprint is not None:
        return footprint, None
    if generous is None:
        raise PlanError(f"the model {name!r} cannot be tiled: {context.reason}")
    if not insist:
        raise PlanError(
            f"the model {name!r} cannot be tiled without seams: {context.reason}; take a model without that layer, or "
            "accept possible seams with --allow-nonlocal"
        )
    return generous, f"seams are possible: {context.reason}"
