"""How a network's input relates to its output: margins, strides and legal sizes, in integers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from pipeline.errors import GeometryError

__all__ = ["Footprint", "Margin", "round_up"]


def round_up(value: int, multiple: int) -> int:
    """Give the smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


class Margin(NamedTuple):
    """Pixels before and after something along one axis."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a network eats and what it leaves, one entry per spatial axis.

    A network with valid convolutions crops a `margin` and leaves nothing that saw padding. One with same-padded
    convolutions crops nothing, but its outputs near the border of a window saw the network's own zeros instead
    of image: they are its `halo` and are thrown away. Both are one thing to a tile: `context`.

    Parameters
    ----------
    margin : tuple of int
        Pixels that the output lacks on each side: ``output = input - 2 * margin``.
    halo : tuple of int
        How far padding inside the network reaches into its output, on each side: the farthest input pixel that
        an output pixel can see, worst case over all phases of the poolings. 0 where nothing is padded.
    stride : tuple of int
        Product of the poolings. The network commutes with shifts by multiples of it and with no others.
    phase : tuple of int
        Legal input sizes are those equal to `phase` modulo `stride`.
    smallest : tuple of int
        The smallest legal input size.
    scale : tuple of int, optional
        Input pixels per output pixel; 1 where absent. Divides the stride. Margin, halo, stride and sizes are counted
        in input pixels, cores in output pixels.

    Raises
    ------
    GeometryError
        If the entries differ in length or an entry is out of range.
    """

    margin: tuple[int, ...]
    halo: tuple[int, ...]
    stride: tuple[int, ...]
    phase: tuple[int, ...]
    smallest: tuple[int, ...]
    scale: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.scale:
            object.__setattr__(self, "scale", (1,) * len(self.margin))
        fields = (self.margin, self.halo, self.stride, self.phase, self.smallest, self.scale)
        if len({len(field) for field in fields}) != 1:
            raise GeometryError(f"a footprint needs one entry per axis in each field, got {self}")
        for axis in range(self.ndim):
            if self.margin[axis] < 0 or self.halo[axis] < 0 or self.stride[axis] < 1:
                raise GeometryError(f"axis {axis}: negative margin or halo, or stride below 1, in {self}")
            if not 0 <= self.phase[axis] < self.stride[axis]:
                raise GeometryError(f"axis {axis}: phase {self.phase[axis]} is not below the stride, in {self}")
            if self.scale[axis] < 1 or self.stride[axis] % self.scale[axis]:
                raise GeometryError(f"axis {axis}: the stride is no multiple of the output's scale, in {self}")
            smallest = self.smallest[axis]
            if smallest <= 2 * self.margin[axis] or smallest % self.stride[axis] != self.phase[axis]:
                raise GeometryError(f"axis {axis}: smallest input {smallest} is not legal in {self}")
            if (smallest - 2 * self.margin[axis]) % self.scale[axis]:
                raise GeometryError(f"axis {axis}: an input of {smallest} gives no whole output, in {self}")

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.margin)

    @property
    def step(self) -> tuple[int, ...]:
        """What the edges of a core are multiples of, in output pixels."""
        return tuple(stride // scale for stride, scale in zip(self.stride, self.scale, strict=True))

    @property
    def context(self) -> tuple[int, ...]:
        """Input pixels that a window needs on each side of its core, per axis.

        The halo is rounded up to the stride so that the window keeps the phase of the poolings.
        """
        return tuple(
            margin + round_up(halo, stride)
            for margin, halo, stride in zip(self.margin, self.halo, self.stride, strict=True)
        )

    def window_shape(self, core: tuple[int, ...]) -> tuple[int, ...]:
        """Give the smallest legal input that yields a core of this shape with full context.

        Parameters
        ----------
        core : tuple of int
            Edge lengths of the core, in output pixels.

        Returns
        -------
        tuple of int
            Edge lengths of the window, in input pixels.
        """
        shape = []
        for axis, edge in enumerate(core):
            need = edge * self.scale[axis] + 2 * self.context[axis]
            legal = self.phase[axis] + round_up(need - self.phase[axis], self.stride[axis])
            shape.append(max(legal, self.smallest[axis]))
        return tuple(shape)

    def output_shape(self, window: tuple[int, ...]) -> tuple[int, ...]:
        """Give the shape that the network leaves of an input.

        Raises
        ------
        GeometryError
            If the input is not of a legal size.
        """
        for axis, edge in enumerate(window):
            if edge < self.smallest[axis] or edge % self.stride[axis] != self.phase[axis]:
                raise GeometryError(
                    f"axis {axis}: an input of {edge} is not legal; legal are {self.smallest[axis]} and larger ones "
                    f"equal to {self.phase[axis]} modulo {self.stride[axis]}"
                )
        return tuple(
            (edge - 2 * margin) // scale for edge, margin, scale in zip(window, self.margin, self.scale, strict=True)
        )

    def surrounding(self, core: tuple[int, ...]) -> tuple[Margin, ...]:
        """Give what a window has before and after its core, per axis, in input pixels.

        The surplus of a legal size over the needed one stands on the far side, so that the near side
        keeps the phase of the poolings.
        """
        return tuple(
            Margin(context, window - edge * scale - context)
            for context, window, edge, scale in zip(
                self.context, self.window_shape(core), core, self.scale, strict=True
            )
        )

    @property
    def inset(self) -> tuple[int, ...]:
        """Pixels of a window's output that lie before its core, per axis.

        The output begins a margin inside the window, the core a whole context inside.
        """
        return tuple(
            (context - margin) // scale
            for context, margin, scale in zip(self.context, self.margin, self.scale, strict=True)
        )

    def behind(self, leading: int) -> Self:
        """Put axes that the network treats one by one (time, planes) before the spatial ones."""
        zeros, ones = (0,) * leading, (1,) * leading
        return type(self)(
            margin=zeros + self.margin,
            halo=zeros + self.halo,
            stride=ones + self.stride,
            phase=zeros + self.phase,
            smallest=ones + self.smallest,
            scale=ones + self.scale,
        )
