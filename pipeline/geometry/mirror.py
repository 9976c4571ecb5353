"""Mirroring beyond the edges of an image, as index arithmetic.

The image is continued as in Ronneberger et al. 2015: mirrored at its outermost pixels, which are not repeated,
again and again in both directions. This is ``numpy.pad(mode="reflect")`` without a limit on the width.
"""

from __future__ import annotations

from pipeline.errors import GeometryError

__all__ = ["mirror_index", "mirror_indices"]


def mirror_index(position: int, length: int) -> int:
    """Give the pixel of an axis that stands at `position` of its mirrored continuation.

    Parameters
    ----------
    position : int
        Any integer; inside the axis it gives itself.
    length : int
        Number of pixels along the axis, at least 1.

    Raises
    ------
    GeometryError
        If the axis has no pixels.
    """
    if length < 1:
        raise GeometryError(f"an axis of {length} pixels cannot be mirrored")
    if length == 1:
        return 0
    period = 2 * (length - 1)
    folded = position % period
    return min(folded, period - folded)


def mirror_indices(start: int, stop: int, length: int) -> tuple[int, ...]:
    """Give the pixels that stand at `start` to `stop` (exclusive) of an axis' mirrored continuation."""
    return tuple(mirror_index(position, length) for position in range(start, stop))
