"""What was derived of a network, in words for a terminal; the fields that programs read are in `describe_facts`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.models.context import ModelContext

__all__ = ["tell_context"]

_SHOWN = 3
"""Legal sizes that are listed."""

_METHODS = {
    "arithmetic": "by arithmetic: it is a network of seamfree's own",
    "nan": "by one pixel that is NaN: where the output became NaN, the pixel was seen",
    "perturbation": "by changing pixels: where the output changed, they were seen",
}


def tell_context(context: ModelContext) -> dict[str, str]:
    """Say what was derived of a network, and what each of it means.

    Parameters
    ----------
    context : ModelContext
        The network's.

    Returns
    -------
    dict of str to str
        By the name of the field of `ModelContext.describe`, where it is one. What is not known is left out.
    """
    told = {"local": f"{'yes' if context.local else 'no'}: {context.reason.removeprefix('not local: ')}"}
    if context.margin:
        told["margin"] = _pixels(context.margin, "that the output lacks on each side")
    if context.halo:
        told["halo"] = _pixels(context.halo, "on each side that padding spoils; they are thrown away")
    if context.stride:
        told["stride"] = _pixels(context.stride, "of the image; tiles start on multiples of it")
        sizes = zip(context.smallest, context.stride, strict=True)
        listed = [
            "".join(f"{smallest + number * stride}, " for number in range(_SHOWN)) + "..." for smallest, stride in sizes
        ]
        told["legal sizes"] = f"{_along(listed)} pixels along an edge of a window, and so on by the stride"
    if context.reach:
        before, behind = zip(*context.reach, strict=True)
        sides = "on each side" if before == behind else f"before and {_along(behind)} behind"
        told["reach"] = _pixels(before, f"{sides} are the farthest that an output sees")
    if context.scale:
        told["scale"] = _pixels(context.scale, "of the image for one of the output")
    told["method"] = _METHODS[context.method]
    outputs = (f"{each.name} with {each.channels} channel{'s' * (each.channels > 1)}" for each in context.outputs)
    told["outputs"] = ", ".join(outputs) + (f"; all this is of {context.output}" if len(context.outputs) > 1 else "")
    if context.convertible:
        told["convertible"] = "yes: --fully-convolutional makes it slide over the image"
    if context.notes:
        told["notes"] = "; ".join(context.notes)
    return told


def _pixels(numbers: Sequence[int], of_what: str) -> str:
    """Count pixels along the axes, and say what they are."""
    return f"{_along(numbers)} pixel{'s' * (set(numbers) != {1})} {of_what}"


def _along(values: Sequence[object]) -> str:
    """Write what holds along each axis: once where all are alike, else with the axes' letters."""
    texts = [str(value) for value in values]
    if len(set(texts)) == 1:
        return texts[0]
    pairs = groupby(zip("ZYX"[-len(texts) :], texts, strict=True), key=lambda pair: pair[1])
    mark = "; " if any("," in text for text in texts) else ", "
    return mark.join(f"{''.join(axis for axis, _ in axes)} {text}" for text, axes in pairs)
