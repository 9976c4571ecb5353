"""The image that a result was made of, found again: where the plan says, and only while it is the same."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ImageError, StoreError
from pipeline.geometry import Box
from pipeline.images.opening import open_coarser, open_image
from pipeline.images.source import AXES, ImageInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.images.source import ImageSource
    from pipeline.planning import RunPlan

__all__ = ["InputArray", "Segmented", "open_input"]

LEAST_EDGE = 1024
"""A piece of an input is at least so long along Y and X: files of strips decode a row at a time."""


@dataclass(frozen=True, slots=True)
class Segmented:
    """What is noted of the image that a result was made of.

    Parameters
    ----------
    source : ImageInfo
        Its facts.
    series : int or None
        Which image of the file.
    content_sha256 : str or None
        Where it is known by that, and not by the time of its modification.
    """

    source: ImageInfo
    series: int | None
    content_sha256: str | None

    @classmethod
    def of(cls, plan: RunPlan) -> Self:
        """Take it from a plan."""
        return cls(plan.source, plan.series, plan.content_sha256)

    @classmethod
    def noted(cls, plan: Mapping[str, Any]) -> Self:
        """Take it from the plan in a provenance.

        Raises
        ------
        StoreError
            If it is not there.
        """
        try:
            return TypeAdapter(cls).validate_python({field: plan.get(field) for field in cls.__dataclass_fields__})
        except (ValidationError, ImageError) as error:
            raise StoreError("the provenance does not say which image was segmented") from error


def open_input(segmented: Segmented) -> list[ImageSource]:
    """Open what an image was read from, and the coarser levels that it has itself.

    Parameters
    ----------
    segmented : Segmented
        What is noted of it.

    Returns
    -------
    list of ImageSource
        Full resolution first. To be closed by whoever asked.

    Raises
    ------
    ImageError
        If it is gone, cannot be read, or is another image than was segmented.
    """
    first = open_image(segmented.source.path, segmented.series)
    try:
        _check_same(first, segmented)
        return [first, *open_coarser(segmented.source.path, segmented.series)]
    except ImageError:
        first.close()
        raise


def _check_same(source: ImageSource, segmented: Segmented) -> None:
    names = ["shape", "dtype", "size_bytes"]
    names += ["modified_ns", "files_sha256"] if segmented.content_sha256 is None else []
    if any(getattr(source.info, name) != getattr(segmented.source, name) for name in names):
        raise ImageError(f"{segmented.source.path}: the image has changed since it was segmented")


class InputArray:
    """A level of an input as dask takes it: an array with the axes that the file has, read by regions.

    What travels to other processes is what was noted; each opens the file, and looks whether it is still the same.

    Parameters
    ----------
    segmented : Segmented
        What is noted of the image.
    level : int
        0 for full resolution.

    Raises
    ------
    ImageError
        As for `open_input`; also if there is no such level.
    """

    def __init__(self, segmented: Segmented, level: int = 0) -> None:
        self._segmented, self._level = segmented, level
        levels = open_input(segmented)
        for number, source in enumerate(levels):
            if number == level:
                weakref.finalize(self, source.close)
            else:
                source.close()
        if not 0 <= level < len(levels):
            raise ImageError(f"{segmented.source.path}: the image has levels 0 to {len(levels) - 1}, not {level}")
        self._source = levels[level]
        # A user may have stated what the files do not tell.
        self.info = levels[level].info if level else segmented.source
        self._present = [AXES.index(axis) for axis in segmented.source.axes]
        self.shape = tuple(self.info.shape[at] for at in self._present)
        self.ndim, self.dtype = len(self.shape), np.dtype(self.info.dtype)

    def __reduce__(self) -> tuple[type[InputArray], tuple[Segmented, int]]:
        return type(self), (self._segmented, self._level)

    @property
    def chunks(self) -> tuple[int, ...]:
        """What is best read at once: whole blocks of the file."""
        least = (1, 1, 1, LEAST_EDGE, LEAST_EDGE)
        edges = [-(-few // edge) * edge for few, edge in zip(least, self.info.block, strict=True)]
        return tuple(min(edges[at], self.info.shape[at]) for at in self._present)

    def __getitem__(self, index: Any) -> NDArray[Any]:  # noqa: ANN401 (as of any array)
        """Read a region.

        Parameters
        ----------
        index : tuple of slice
            One for each axis, of step 1; as dask asks for its pieces.
        """
        start, stop = [0] * 5, [1] * 5
        for at, part in zip(self._present, index, strict=True):
            start[at], stop[at], _ = part.indices(self.info.shape[at])
        block = self._source.read(Box(tuple(start), tuple(stop)))
        return block.reshape([block.shape[at] for at in self._present])
