"""An image of many TIFF files: regions are read file by file, and each file is opened for what is wanted of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.patterns import AXIS_NAMES
from pipeline.images.sequences import arrange, list_files
from pipeline.images.source import AXES, ImageInfo
from pipeline.images.tiff import TiffSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.images.sequences import Arrangement, SequencePath

__all__ = ["SequenceSource"]


class SequenceSource:
    """An image whose planes, channels or time points lie in files of their own.

    All files are looked at once, when it is opened. No file is held open, for there may be more than a process may
    have.

    Parameters
    ----------
    path : SequencePath
        Which image.
    series : int, optional
        Which of several images in each file; the first where absent.

    Raises
    ------
    ImageError
        If the path names several images, files are missing, one cannot be read, or they differ.
    """

    def __init__(self, path: SequencePath, series: int | None) -> None:
        listing = list_files(path.folder, path.pattern)
        self._path, self._series = path, series
        shown = path.whole.joinpath(*path.inside)
        image = path.inside
        if not image and len(listing.images) == 1:
            (image,) = listing.images
        if image not in listing.images:
            listed = "/".join(next(iter(listing.images)))
            told = f"names {len(listing.images)} images; take one, such as" if not image else "there is no such image;"
            raise ImageError(f"{shown}: {told} {path.whole}/{listed}")
        members = listing.images[image]
        self._placed: Arrangement = arrange(path, members)
        self._notes: list[str] = []
        self._pieces = (0, 0)
        known: list[tuple[str, int, int]] = []
        first: ImageInfo | None = None
        for name in sorted(self._placed.files.values()):
            source = TiffSource(path.folder / name, series)
            try:
                first = self._agree(first, source)
                self._notes += source.notes
                self._pieces = tuple(map(sum, zip(self._pieces, source.pieces(), strict=True)))  # type: ignore[assignment]
                known += [(name, source.info.size_bytes, source.info.modified_ns)]
            finally:
                source.close()
        assert first is not None
        self._first = first
        for name, own, every in zip(AXIS_NAMES.values(), self._placed.texts, listing.axes, strict=True):
            if len(own) < len(every):
                have = {int(text) if text.isdecimal() else text for text in own}
                lacking = next(value for value in every if value not in have)
                self._notes.append(
                    f"{shown}: its files are {len(own)} along {{{name}}}, and those of other images there "
                    f"{len(every)}; {name} {lacking} is missing"
                )
        # A number that is the same in all names is no axis; a channel has a name.
        along = {axis for axis, every in zip(AXIS_NAMES, listing.axes, strict=True) if axis == "C" or len(every) > 1}
        self._info = self._describe(str(shown), known, along)

    def _agree(self, first: ImageInfo | None, source: TiffSource) -> ImageInfo:
        """Refuse a file that is no part of the same image as the first."""
        info = source.info
        for axis, name in AXIS_NAMES.items():
            length = info.shape[AXES.index(axis)]
            if axis in self._placed.axes and length > 1:
                raise ImageError(
                    f"{info.path}: the pattern {self._path.pattern.text} finds {{{name}}} in the name, and the file "
                    f"holds {length} along {axis} itself; leave it out of the pattern, or name the file by itself"
                )
        if len(list(source.files())) > 1:
            raise ImageError(
                f"{info.path}: its OME-XML names other files of the image; give this file by itself, without a pattern"
            )
        if first is None:
            return info
        for what, own, other in (
            ("shape TCZYX", info.shape, first.shape),
            ("data type", info.dtype, first.dtype),
            ("pixel size TCZYX", info.pixel_size, first.pixel_size),
        ):
            if own != other:
                raise ImageError(
                    f"{info.path}: its {what} is {own}, and that of {first.path} of the same image is {other}; put it "
                    "right, or take it away"
                )
        return first

    def _describe(self, path: str, known: list[tuple[str, int, int]], along: set[str]) -> ImageInfo:
        first, placed = self._first, self._placed
        shape, block = list(first.shape), list(first.block)
        for at, texts in zip(range(3), placed.texts, strict=True):
            if AXES[at] in placed.axes:
                shape[at], block[at] = len(texts), 1
        names = first.channel_names
        if "C" in placed.axes:
            prefix = self._path.pattern.prefix or "channel "
            names = tuple(f"{prefix}{text}" if text.isdecimal() else text for text in placed.texts[1])
        return replace(
            first,
            path=path,
            kind="sequence",
            shape=tuple(shape),  # type: ignore[arg-type]
            axes="".join(axis for axis in AXES if axis in first.axes or (axis in placed.axes and axis in along)),
            channel_names=names,
            block=tuple(block),  # type: ignore[arg-type]
            size_bytes=sum(size for _, size, _ in known),
            modified_ns=max(modified for _, _, modified in known),
            files_sha256=hashlib.sha256(json.dumps(known).encode()).hexdigest(),
        )

    @property
    def info(self) -> ImageInfo:
        """The facts."""
        return self._info

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know; see `ImageSource.notes`."""
        return tuple(self._notes)

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a region; see `ImageSource.read`. Each file is opened anew."""
        found = np.empty(box.shape, dtype=self._info.dtype)
        alone = [AXES[at] in self._placed.axes for at in range(3)]
        spans = [range(box.start[at], box.stop[at]) if alone[at] else range(1) for at in range(3)]
        for index in product(*spans):
            start, stop, into = list(box.start), list(box.stop), [slice(None)] * 5
            for at in range(3):
                if alone[at]:
                    start[at], stop[at], offset = 0, 1, index[at] - box.start[at]
                    into[at] = slice(offset, offset + 1)
            source = TiffSource(self._path.folder / self._placed.files[index], self._series)  # type: ignore[index]
            try:
                if (source.info.shape, source.info.dtype) != (self._first.shape, self._first.dtype):
                    raise ImageError(
                        f"{source.info.path}: the file has changed since it was first looked at; run again"
                    )
                found[tuple(into)] = source.read(Box(tuple(start), tuple(stop)))
            finally:
                source.close()
        return found

    def files(self) -> Iterator[Path]:
        """Give all files that it is read from."""
        for name in sorted(self._placed.files.values()):
            yield self._path.folder / name

    def pieces(self) -> tuple[int, int]:
        """Count the strips, tiles and planes that are there; see `ImageSource.pieces`."""
        return self._pieces

    def close(self) -> None:
        """Nothing to let go of: files are opened for each region."""
