"""TIFF, BigTIFF, OME-TIFF and ImageJ hyperstacks, through tifffile, region by region."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr

from pipeline.errors import ImageError
from pipeline.images.companions import with_companion
from pipeline.images.micromanager import series_of
from pipeline.images.pipes import stat_of_file
from pipeline.images.ranges import RowsElsewhere, RowsOnDisk
from pipeline.images.source import AXES, ImageInfo
from pipeline.images.tiff_metadata import (
    check_agreement,
    check_files,
    check_xml,
    images_described,
    lost_planes,
    names_of_files,
    read_metadata,
)
from pipeline.images.tiff_structure import check_first_page, check_pages
from pipeline.images.told import AGAIN, not_opened, not_read, why
from pipeline.remote.paths import RemotePath

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pipeline.geometry import Box
    from pipeline.remote.paths import AnyPath

__all__ = ["TiffSource"]

_MAGIC = {
    b"\x89PNG": "a PNG", b"\xff\xd8\xff": "a JPEG", b"\x89HDF": "an HDF5 file", b"GIF8": "a GIF", b"BM": "a BMP",
    b"PK\x03\x04": "a ZIP archive", b"\xda\xce\xbe\x0a": "an ND2", b"\0\0\0\x0cjP  ": "a JPEG 2000",
}  # fmt: skip
"""How files begin that are taken for TIFF most often, and what they are."""


_NAME_AXES = "write it anew as OME-TIFF or OME-Zarr, in which each axis has a name"


class TiffSource:
    """An image in a TIFF file.

    Samples (RGB) become channels, palettes are looked up unless ImageJ has written them, and of a pyramid the full
    resolution is read. An axis that TIFF leaves unnamed becomes Z, or T where there is a Z already.

    Parameters
    ----------
    path : Path or RemotePath
        The file.
    series : int, optional
        Which of several images; the first where absent.

    Raises
    ------
    ImageError
        If the file is no TIFF, is truncated, or holds what cannot be segmented.
    """

    def __init__(self, path: AnyPath, series: int | None) -> None:
        self._path = path
        self._notes: list[str] = []
        self._companion: Path | None = None
        self._array: Any = None
        self._store: Any = None
        try:
            stat = stat_of_file(path)
            # Little is read ahead, for elsewhere it would be sent again.
            with path.open("rb", buffering=512) as file:
                check_first_page(path, file, stat.st_size)
            self._opened = path.open("rb") if isinstance(path, RemotePath) else None
            # What makers of microscopes have written there, tifffile divides by, whatever it is.
            with np.errstate(all="ignore"):
                if self._opened is None:
                    self._file, self._companion = with_companion(path, tifffile.TiffFile(str(path)))
                else:
                    # What lies beside it elsewhere is not looked for.
                    self._file = tifffile.TiffFile(self._opened, name=path.name, _multifile=False)
        except tifffile.TiffFileError as error:
            raise ImageError(
                f"{path}: {'the file is empty' if stat.st_size == 0 else _no_tiff(path, error)}"
            ) from error
        except ImageError:
            raise
        except OSError as error:
            raise not_opened(path, error) from error
        except Exception as error:  # tifffile meets whatever bytes a file holds: it is the file's fault
            raise ImageError(f"{path}: the TIFF structure is damaged ({why(error)}); {AGAIN}") from error
        try:
            with np.errstate(all="ignore"):
                self._open(series or 0, stat)
        except ImageError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise ImageError(f"{path}: the TIFF structure is damaged ({why(error)}); {AGAIN}") from error

    @property
    def info(self) -> ImageInfo:
        """The facts."""
        return self._info

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know; see `ImageSource.notes`."""
        return tuple(self._notes)

    def _open(self, number: int, stat: os.stat_result) -> None:
        path, file = self._path, self._file
        check_xml(path, file)
        _check_page(path, file)
        # Before tifffile looks for series: through pages in a circle that differ it goes without end.
        if file.pages:
            check_pages(file)
        found = series_of(file)
        count = len(found)
        if not count:
            raise ImageError(f"{path}: the TIFF file holds no image, or ends before it; {AGAIN}")
        if not 0 <= number < count:
            raise ImageError(f"{path}: there is no series {number}; the file holds {count}, counted from 0")
        series = found[number].levels[0]
        page = series.keyframe
        self._check_described(series)
        if isinstance(path, RemotePath) and any(each is None for each in series.pages):
            raise ImageError(f"{path}: planes of it lie in other files; copy all of them to a disk")
        self._check_companions(series.pages, number)
        self._notes += check_agreement(path, file, number)
        self._check_complete(series.pages)
        self._files: list[AnyPath] = [path, *self._companions(series.pages)]
        stats = [stat, *(companion.stat() for companion in self._files[1:])]
        self._order, merged = _arrange(path, series.axes, series.shape)
        self._palette: NDArray[np.uint8] | None = None
        # ImageJ's palettes say in which colours channels are shown, and the pixels are intensities.
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None and not file.is_imagej:
            colours = page.colormap
            if colours.ndim != 2 or len(colours) != 3 or series.dtype.kind != "u" or page.samplesperpixel != 1:
                raise ImageError(
                    f"{path}: a palette of shape {colours.shape} for pixels of {series.dtype} is damaged; {AGAIN}"
                )
            if colours.shape[1] < 1 << page.bitspersample:
                raise ImageError(
                    f"{path}: damaged: a palette of {colours.shape[1]} colours for pixels of {page.bitspersample} "
                    f"bits; {AGAIN}"
                )
            self._palette = (colours >> 8).astype(np.uint8)
            if merged[1] != 1:
                raise ImageError(f"{path}: a palette image with {merged[1]} channels is not understood")
            merged = (merged[0], 3, *merged[2:])
        dtype = np.dtype(np.uint8) if self._palette is not None else np.dtype(series.dtype)
        if dtype.kind == "b":
            dtype = np.dtype(np.uint8)
        if series.dataoffset is not None and dtype == series.dtype and (self._opened or page.is_memmappable):
            end, size = series.dataoffset + prod(series.shape) * series.dtype.itemsize, file.filehandle.size
            if end > size:
                raise ImageError(
                    f"{path}: truncated: the pixels end at byte {end} and the file at {size}; copy it again"
                )
            kind = series.dtype.newbyteorder(file.byteorder)
            if isinstance(path, RemotePath):
                self._array = RowsElsewhere(path, series.shape, kind, series.dataoffset, series.axes.index("Y"))
            else:
                self._array = RowsOnDisk(path, series.shape, kind, series.dataoffset, series.axes.index("X"))
            # Channels that lie behind each pixel are read with it.
            behind = series.axes[series.axes.index("X") + 1 :]
            inner = prod(length for axis, length in zip(series.axes, series.shape, strict=True) if axis in behind)
            block = (1, inner, 1, 1, merged[4])
        else:
            self._check_parts(series.pages)
            self._store = series.aszarr(level=0)
            self._array = zarr.open_array(self._store, mode="r")
            chunks = dict(zip(series.axes, self._array.chunks, strict=True))
            inner = merged[1] if self._palette is not None else chunks.get("C", 1) * chunks.get("S", 1)
            rows = chunks.get("Y", 1)
            # A tile is decoded whole; of a strip, only what there is of the image.
            block = (1, inner, 1, rows if page.is_tiled else min(rows, merged[3]), chunks.get("X", 1))
        axes = "".join(
            axis
            for axis, length in zip(AXES, merged, strict=True)
            if axis in "YX" or length > 1 or axis in self._order.replace("S", "C")
        )
        pixel_size, units, names = read_metadata(file, number)
        channels = merged[1]
        if len(names) != channels:
            # JPEG keeps RGB as YCbCr, and gives RGB back.
            photometric = tifffile.PHOTOMETRIC
            rgb = self._palette is not None or page.photometric in (photometric.RGB, photometric.YCBCR)
            names = ("red", "green", "blue", "alpha")[:channels] if rgb and channels in (3, 4) else ()
        self._info = ImageInfo(
            path=str(path),
            kind="tiff",
            shape=merged,
            dtype=dtype.newbyteorder("=").name,
            axes=axes,
            pixel_size=pixel_size,
            units=units,
            translation=(0.0,) * 5,
            channel_names=tuple(names) or tuple(f"channel {at}" for at in range(channels)),
            block=block,
            size_bytes=sum(each.st_size for each in stats),
            modified_ns=max(each.st_mtime_ns for each in stats),
        )

    def _check_described(self, series: tifffile.TiffPageSeries) -> None:
        """Refuse an ImageJ stack with fewer images than it says: tifffile would read those that are there."""
        described = self._file.imagej_metadata if self._file.is_imagej else None
        if not described or series.kind == "imagej":
            return
        counts = [described.get(axis, 1) for axis in ("channels", "slices", "frames")]
        if all(isinstance(count, int) and count > 0 for count in counts) and len(self._file.pages) < prod(counts):
            raise ImageError(
                f"{self._path}: truncated: ImageJ says {prod(counts)} images (channels, slices, frames: {counts}) and "
                "the file has fewer; copy it again"
            )

    def _check_companions(self, pages: Sequence[Any], number: int) -> None:
        """Refuse an OME-TIFF of several files where planes are lost with a file; planes that none has are zeros."""
        if not self._file.is_ome or all(page is not None for page in pages):
            return
        if lost := lost_planes(self._file, self._file, number):
            raise ImageError(f"{self._path}: truncated or damaged: {lost}; copy it again")
        images = images_described(self._file)[number : number + 1]
        for image in images:
            check_files(self._path, image)
        for name in sorted({name for image in images for name in names_of_files(image)}):
            other = Path(str(self._path)).parent / name
            if other.name == self._path.name:
                continue
            try:
                with tifffile.TiffFile(other) as companion:
                    check_pages(companion)
                    lost = lost_planes(self._file, companion, number)
            except ImageError:
                raise
            except Exception as error:
                raise ImageError(f"{other}: belongs to {self._path.name} and cannot be read ({error})") from error
            if lost:
                raise ImageError(f"{other}: truncated or damaged: as {self._path.name} says, {lost}; copy it again")

    def _companions(self, pages: Sequence[Any]) -> list[Path]:
        """Find the files beside this one that planes of the image, or its description, lie in."""
        files = {page.parent.filehandle.path for page in pages if page is not None}
        described = {str(self._companion)} if self._companion is not None else set()
        return [Path(path) for path in sorted((files | described) - {self._file.filehandle.path})]

    def _check_parts(self, pages: Sequence[Any]) -> None:
        """Refuse pages with fewer strips or tiles than their shape needs: tifffile would read zeros for the rest."""
        if self._file.is_philips:
            return  # known to leave the last row of tiles out
        for number, page in enumerate(pages):
            if page is not None and len(page.dataoffsets) < prod(page.keyframe.chunked):
                raise ImageError(
                    f"{self._path}: damaged: page {number} has {len(page.dataoffsets)} strips or tiles and needs "
                    f"{prod(page.keyframe.chunked)}; {AGAIN}"
                )

    def _check_complete(self, pages: Sequence[Any]) -> None:
        """Refuse a file that ends before its pixels do; note what was never written."""
        absent = total = left_out = 0
        for number, page in enumerate(pages):
            if page is None:
                left_out += 1  # OME-TIFF may leave planes out; they read as zeros
                continue
            offsets = np.asarray(page.dataoffsets, dtype=np.int64)
            counts = np.asarray(page.databytecounts, dtype=np.int64)
            if offsets.size == 0 or offsets.size != counts.size:
                raise ImageError(
                    f"{self._path}: damaged: page {number} has {counts.size} strips at {offsets.size} places; {AGAIN}"
                )
            absent += int((counts == 0).sum())
            total += counts.size
            end, size = int((offsets + counts).max()), page.parent.filehandle.size
            if end > size:
                raise ImageError(
                    f"{page.parent.filehandle.path}: truncated: page {number} needs {end} bytes and the file has "
                    f"{size}; copy it again"
                )
        self._pieces = (total - absent, total + left_out)
        if absent:
            self._notes.append(
                f"{self._path}: {absent} of {total} strips or tiles are not in the file; their pixels are zeros"
            )

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a region; see `ImageSource.read`."""
        shape = self._info.shape
        channels = (0, 1) if self._palette is not None else (box.start[1], box.stop[1])
        index: list[slice | int] = []
        present: list[int] = []
        samples = shape[1] // self._channel_axis_length
        outer = (channels[0] // samples, -(-channels[1] // samples))
        # Of several channels of samples each, all samples are read; of one, those that are wanted.
        first = outer[0] * samples
        inner = (channels[0] - first, channels[1] - first) if outer[1] - outer[0] == 1 else (0, samples)
        for axis in self._order:
            if axis == "S":
                index.append(slice(*inner))
            elif axis == "C":
                index.append(slice(*outer))
            else:
                at = AXES.index(axis)
                index.append(slice(box.start[at], box.stop[at]))
            present.append("TCSZYX".index(axis))
        try:
            block = np.asarray(self._array[tuple(index)])
        except Exception as error:  # decoders raise what they like on damaged data
            raise not_read(self._info, box, error) from error
        block = block.transpose(np.argsort(present))
        block = np.expand_dims(block, tuple(at for at in range(6) if at not in present))
        block = block.reshape(block.shape[0], -1, *block.shape[3:])
        if self._palette is not None:
            block = self._palette[:, block[:, 0]].swapaxes(0, 1)[:, box.start[1] : box.stop[1]]
        else:
            first += inner[0]
            block = block[:, channels[0] - first : channels[1] - first]
        return np.ascontiguousarray(block, dtype=self._info.dtype)

    @property
    def _channel_axis_length(self) -> int:
        """Length of the file's own C axis, beside which there may be samples."""
        for axis, length in zip(self._order, self._array.shape, strict=True):
            if axis == "C":
                return int(length)
        return 1

    def files(self) -> Iterator[AnyPath]:
        """Give all files that it is read from; see `ImageSource.files`."""
        yield from self._files

    def pieces(self) -> tuple[int, int]:
        """Count the strips, tiles and planes that are there; see `ImageSource.pieces`."""
        return self._pieces

    def close(self) -> None:
        """Let go of the file, and of those beside it that are read with it."""
        self._array = None
        if self._store is not None:
            self._store.close()
        self._file.close()
        if self._opened is not None:
            self._opened.close()


def _check_page(path: AnyPath, file: tifffile.TiffFile) -> None:
    """Refuse a first page without pixels, or of a kind that nobody can decode."""
    if not file.pages:
        return
    page = file.pages.first
    if min(page.imagewidth, page.imagelength, page.samplesperpixel) < 1:
        raise ImageError(
            f"{path}: damaged: a page of {page.imagewidth} x {page.imagelength} pixels (X, Y) of "
            f"{page.samplesperpixel} samples has no pixels; {AGAIN}"
        )
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
    except KeyError as error:
        raise ImageError(
            f"{path}: compressed in a way that cannot be read here, number {int(page.compression)}; write it anew, "
            "uncompressed or with zlib, LZW or zstd"
        ) from error


def _no_tiff(path: AnyPath, error: Exception) -> str:
    """Say what a file is that is no TIFF, and what to do."""
    with path.open("rb") as file:
        start = file.read(8)
    if start[:2] in (b"II", b"MM"):
        return f"not a TIFF file that can be read ({error}); copy it again, or convert it to TIFF or OME-Zarr"
    found = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    what = f"but {found}" if found else f"(it begins with {start[:4]!r})"
    return f"not a TIFF file {what}; convert it to TIFF or OME-Zarr"


def _arrange(path: AnyPath, axes: str, shape: Sequence[int]) -> tuple[str, tuple[int, int, int, int, int]]:
    """Name a series' axes TCZYX (and S for samples), and give its shape TCZYX."""
    named = list(axes)
    # From the right: Z comes after T in every order that counts.
    for at, axis in reversed(list(enumerate(axes))):
        if axis in "TCZYXS":
            continue
        free = next((name for name in "ZT" if name not in named), None)
        if free is None:
            raise ImageError(
                f"{path}: axes {axes} of lengths {tuple(shape)} are more than T, C, Z, Y and X; {_NAME_AXES}"
            )
        named[at] = free
    order = "".join(named)
    lengths = dict(zip(order, shape, strict=True))
    if len(lengths) != len(order) or "Y" not in lengths or "X" not in lengths:
        raise ImageError(f"{path}: axes {axes} do not form an image of Y and X; {_NAME_AXES}")
    merged = tuple(int(lengths.get(axis, 1)) for axis in AXES)
    return order, (merged[0], merged[1] * int(lengths.get("S", 1)), merged[2], merged[3], merged[4])
