"""Input and output of a bioimage.io description, in one form for its formats 0.4 and 0.5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import ModelError

__all__ = ["TensorAxes", "declared_footprint", "read_axes"]

_LETTERS = {"batch": "b", "channel": "c", "time": "t", "index": "i"}


@dataclass(frozen=True, slots=True)
class TensorAxes:
    """The axes of an input or output.

    Parameters
    ----------
    name : str
        Of the tensor.
    order : str
        A letter for each axis, in order: b, c, z, y, x, t or i.
    channels : tuple of str
        Names; one where there is no axis of channels.
    step : dict of str to int
        Of legal sizes, for the axes that say so.
    scale : dict of str to float
        Of an output: output pixels per input pixel, along the axes whose size follows from the input's.
    lost : dict of str to float
        Of an output: pixels of its own that it lacks on each side, along those axes.
    halo : dict of str to int
        Of an output: pixels of its own that its author crops on each side.
    spacing : dict of str to (float, str or None)
        Size and unit of a pixel, for the axes that say so.
    """

    name: str
    order: str
    channels: tuple[str, ...]
    step: dict[str, int]
    scale: dict[str, float]
    lost: dict[str, float]
    halo: dict[str, int]
    spacing: dict[str, tuple[float, str | None]]

    @property
    def spatial(self) -> str:
        """The letters of the spatial axes, in the order of this program."""
        return "".join(axis for axis in "zyx" if axis in self.order)


def read_axes(tensor: Any) -> TensorAxes:  # noqa: ANN401 (of bioimageio.spec, which has no types)
    """Read the axes of a tensor of bioimageio.spec, format 0.4 or 0.5.

    Raises
    ------
    ModelError
        If there is an axis that this program has no image axis for; names it.
    """
    found = _axes_04(tensor) if isinstance(tensor.axes, str) else _axes_05(tensor)
    odd = [axis for axis in found.order if axis not in "bczyx"]
    if odd or (found.spatial and not found.spatial.endswith("yx")):
        raise ModelError(
            f"the tensor {found.name!r} has axes {found.order!r}, and only batch, channel, z, y and x are known; "
            "package a network of those"
        )
    return found


def _axes_04(tensor: Any) -> TensorAxes:  # noqa: ANN401
    order, shape = str(tensor.axes), tensor.shape
    step: dict[str, int] = {}
    scale: dict[str, float] = {}
    lost: dict[str, float] = {}
    sizes: list[int] | None = None
    if hasattr(shape, "reference_tensor"):
        for axis, factor, offset in zip(order, shape.scale, shape.offset, strict=True):
            if factor and axis in "zyx":
                scale[axis], lost[axis] = float(factor), -float(offset)
        # A channel axis that follows from the input's is that times the factor, or twice the offset where it is new.
        sizes = [
            round(2 * offset) if not factor else 0 for factor, offset in zip(shape.scale, shape.offset, strict=True)
        ]
    elif hasattr(shape, "min"):
        step = {axis: int(by) for axis, by in zip(order, shape.step, strict=True) if by and axis in "zyx"}
        sizes = [int(edge) for edge in shape.min]
    else:
        sizes = [int(edge) for edge in shape]
    number = sizes[order.index("c")] if "c" in order else 1
    halo = getattr(tensor, "halo", None) or ()
    return TensorAxes(
        name=str(tensor.name),
        order=order,
        channels=tuple(f"channel {at}" for at in range(number)) if number else (),
        step=step,
        scale=scale,
        lost=lost,
        halo={axis: int(by) for axis, by in zip(order, halo, strict=False) if axis in "zyx"},
        spacing={},
    )


def _axes_05(tensor: Any) -> TensorAxes:  # noqa: ANN401
    order = ""
    channels: tuple[str, ...] = ("channel 0",)
    step: dict[str, int] = {}
    scale: dict[str, float] = {}
    lost: dict[str, float] = {}
    halo: dict[str, int] = {}
    spacing: dict[str, tuple[float, str | None]] = {}
    for axis in tensor.axes:
        letter = _LETTERS.get(axis.type, str(axis.id))
        order += letter if len(letter) == 1 else "?"
        if axis.type == "channel":
            channels = tuple(str(name) for name in axis.channel_names)
        if axis.type != "space":
            continue
        spacing[letter] = float(axis.scale), str(axis.unit) if axis.unit is not None else None
        if hasattr(axis.size, "step"):
            step[letter] = int(axis.size.step)
        elif hasattr(axis.size, "offset"):
            # The scale is that of a pixel; relative to the input's it becomes that of the number of pixels, below.
            scale[letter], lost[letter] = float(axis.scale), -axis.size.offset / 2
            halo[letter] = int(getattr(axis, "halo", 0))
    return TensorAxes(str(tensor.id), order, channels, step, scale, lost, halo, spacing)


def declared_footprint(given: TensorAxes, made: TensorAxes) -> dict[str, tuple[int, ...]]:
    """Give what a description says of how far its network looks, in input pixels, along the spatial axes.

    Parameters
    ----------
    given, made : TensorAxes
        Of the input and of the output.

    Returns
    -------
    dict of str to tuple of int
        Some of ``stride``, ``scale``, ``margin`` and ``halo``; what is not said is absent.
    """
    axes = given.spatial
    found: dict[str, tuple[int, ...]] = {}
    if all(axis in given.step for axis in axes):
        found["stride"] = tuple(given.step[axis] for axis in axes)
    if made.spatial != axes or not all(axis in made.scale for axis in axes):
        return found
    # Format 0.4 says how many pixels come of one, format 0.5 how large they are.
    coarser = [
        made.spacing[axis][0] / given.spacing[axis][0] if axis in made.spacing else 1 / made.scale[axis]
        for axis in axes
    ]
    for name, values in (("margin", made.lost), ("halo", made.halo)):
        pixels = [values.get(axis, 0) * factor for axis, factor in zip(axes, coarser, strict=True)]
        found[name] = tuple(round(each) for each in pixels)
    found["scale"] = tuple(max(1, round(each)) for each in coarser)
    return found
