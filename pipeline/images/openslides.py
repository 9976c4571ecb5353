"""Slides that are no TIFF, through OpenSlide: DICOM and MIRAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ImageError
from pipeline.images.source import ImageInfo, is_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.geometry import Box

__all__ = ["OpenSlideSource", "is_slide"]

_SUFFIXES = (".dcm", ".mrxs")

_TILE = 256
"""Edge of what is decoded at once, where the slide does not tell."""


def is_slide(path: Path) -> bool:
    """Say whether a file is of a kind that is read through OpenSlide, by its name."""
    return path.suffix.lower() in _SUFFIXES


class OpenSlideSource:
    """The finest level of a slide in brightfield: red, green, blue. What was not scanned has the background's colour.

    Parameters
    ----------
    path : Path
        A file of the slide. Others belong to it: all ``.dcm`` in its folder, or the folder named as a ``.mrxs``.
    series : int, optional
        There is one, 0.

    Raises
    ------
    ImageError
        If OpenSlide is not installed, or cannot read the file.
    """

    def __init__(self, path: Path, series: int | None) -> None:
        self._path = path
        if series:
            raise ImageError(f"{path}: there is no series {series}; the file holds 1, counted from 0")
        try:
            import openslide
        except (ImportError, OSError) as error:
            raise ImageError(
                f"{path}: {path.suffix} is read through OpenSlide, which is not installed; install it with: "
                "pip install 'seamfree[slides]', or convert the file to OME-TIFF or OME-Zarr"
            ) from error
        try:
            stats = [file.stat() for file in self.files()]
            self._slide: Any = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise ImageError(f"{path}: OpenSlide cannot read it ({error})") from error
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from error
        told = self._slide.properties
        self._background = f"#{told.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, 'ffffff')}"
        (width, height), size = self._slide.dimensions, [_positive(told.get(f"openslide.mpp-{axis}")) for axis in "yx"]
        known = all(size)
        tile = [int(_positive(told.get(f"openslide.level[0].tile-{edge}"))) or _TILE for edge in ("height", "width")]
        self._info = ImageInfo(
            path=str(path),
            kind="slide",
            shape=(1, 3, 1, height, width),
            dtype="uint8",
            axes="CYX",
            pixel_size=(1.0, 1.0, 1.0, size[0], size[1]) if known else (1.0,) * 5,
            units=(None, None, None, "micrometer", "micrometer") if known else (None,) * 5,
            translation=(0.0,) * 5,
            channel_names=("red", "green", "blue"),
            block=(1, 3, 1, min(tile[0], height), min(tile[1], width)),
            size_bytes=sum(stat.st_size for stat in stats),
            modified_ns=max(stat.st_mtime_ns for stat in stats),
        )

    @property
    def info(self) -> ImageInfo:
        """The facts."""
        return self._info

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know; see `ImageSource.notes`."""
        return ()

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a region; see `ImageSource.read`."""
        import openslide
        from PIL import Image

        _, _, _, top, left = box.start
        size = box.shape[4], box.shape[3]
        try:
            region = self._slide.read_region((left, top), 0, size)
        except openslide.OpenSlideError as error:
            raise ImageError(
                f"{self._path}: the pixels at {box.start} to {box.stop} (TCZYX) cannot be decoded ({error})"
            ) from error
        whole = Image.new("RGB", size, self._background)
        whole.paste(region, mask=region.getchannel("A"))
        block = np.asarray(whole)[..., box.start[1] : box.stop[1]]
        return np.ascontiguousarray(np.moveaxis(block, -1, 0)[None, :, None])

    def files(self) -> Iterator[Path]:
        """Give all files that it is read from."""
        if self._path.suffix.lower() == ".dcm":
            yield from sorted(path for path in self._path.parent.iterdir() if path.suffix.lower() == ".dcm")
            return
        yield self._path
        beside = self._path.with_suffix("")
        yield from sorted(path for path in beside.rglob("*") if path.is_file()) if beside.is_dir() else ()

    def pieces(self) -> tuple[int, int]:
        """Count what is there; see `ImageSource.pieces`. OpenSlide does not tell what is missing."""
        return 1, 1

    def close(self) -> None:
        """Let go of the files."""
        self._slide.close()


def _positive(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if is_size(value) else 0.0
