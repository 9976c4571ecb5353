"""Files of microscope makers, through bioio and its plugins: CZI, ND2 and LIF."""

from __future__ import annotations

import warnings
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import SubElement

import numpy as np

from pipeline.errors import ImageError
from pipeline.images.source import AXES, ImageInfo, is_size
from pipeline.images.told import AGAIN, not_read, why

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.geometry import Box

__all__ = ["BioioSource", "is_of_a_vendor"]

_EXTRAS = {".czi": "czi", ".nd2": "nd2", ".lif": "lif"}
"""Which extra of seamfree reads files of a suffix."""

_BY_PLANES: dict[str, dict[str, Any]] = {".czi": {"chunk_dims": ["Y", "X"]}, ".lif": {"chunk_dims": ["Y", "X"]}}
"""What makes a plugin read plane by plane; that for ND2 does so always, and takes no such argument."""


def is_of_a_vendor(path: Path) -> bool:
    """Say whether a file is of a kind that bioio reads, by its name."""
    return path.suffix.lower() in _EXTRAS


def _czi_reader() -> type[Any]:
    """Give the plugin's reader for CZI, which by itself refuses files without a pixel size, or an axis of channels."""
    from bioio_czi.aicspylibczi_reader.reader import Reader

    class Lenient(Reader):
        """Takes a missing size for one that is not known, and leaves out names of channels where no axis has them."""

        @staticmethod
        def _get_coords_and_physical_px_sizes(xml: Any, scene_index: int, dims_shape: dict[str, Any]) -> Any:  # noqa: ANN401
            for axis in "YX":
                at = xml
                for step in ("Metadata", "Scaling", "Items", f"Distance[@Id='{axis}']", "Value"):
                    below = at.find(step)
                    if below is None:
                        below = SubElement(at, step.partition("[")[0], {"Id": axis} if "@" in step else {})
                    at = below
                at.text = at.text or "0"
            coords, sizes = Reader._get_coords_and_physical_px_sizes(xml, scene_index, dims_shape)
            return {axis: coords[axis] for axis in coords if axis in dims_shape}, sizes

    return Lenient


class BioioSource:
    """An image in a file of a microscope's maker; a plane is read at once, and channels one by one.

    Parameters
    ----------
    path : Path
        The file.
    series : int, optional
        Which of several images (scenes); the first where absent.

    Raises
    ------
    ImageError
        If bioio or its plugin is not installed, or the file cannot be read.
    """

    def __init__(self, path: Path, series: int | None) -> None:
        self._path, self._turn = path, Lock()
        extra = _EXTRAS[path.suffix.lower()]
        try:
            stat = path.stat()
            with warnings.catch_warnings():
                # What the plugins' own libraries tell one another.
                warnings.simplefilter("ignore")
                import bioio

                __import__(f"bioio_{extra}")
                reader = _czi_reader() if extra == "czi" else None
                self._image: Any = bioio.BioImage(path, reader=reader, **_BY_PLANES.get(path.suffix.lower(), {}))
                self._open(series or 0)
                self._info = self._describe(stat.st_size, stat.st_mtime_ns)
        except ImportError as error:
            raise ImageError(
                f"{path}: {extra.upper()} is read through bioio and a plugin, which are not installed ({error.name}); "
                f"install both with: pip install 'seamfree[{extra}]', or convert the file to OME-Zarr or OME-TIFF"
            ) from error
        except ImageError:
            raise
        except Exception as error:  # plugins raise what they like on damaged files
            raise ImageError(f"{path}: cannot be read ({why(error)}); {AGAIN}, or convert it to OME-Zarr") from error

    @property
    def info(self) -> ImageInfo:
        """The facts."""
        return self._info

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know; see `ImageSource.notes`."""
        scenes = len(self._image.scenes)
        return (f"{self._path}: one of {scenes} scenes is read; --series chooses another",) if scenes > 1 else ()

    def _open(self, number: int) -> None:
        scenes = self._image.scenes
        if not 0 <= number < len(scenes):
            raise ImageError(f"{self._path}: there is no series {number}; the file holds {len(scenes)}, counted from 0")
        self._image.set_scene(number)
        self._check_axes(number)
        self._samples = "S" in self._image.dims.order
        if self._samples and self._image.dims.C > 1:
            raise ImageError(f"{self._path}: {self._image.dims.C} channels of colours each are not understood")
        self._pixels = self._image.get_image_dask_data("TSZYX" if self._samples else AXES)

    def _check_axes(self, number: int) -> None:
        """Refuse what has more axes than are read: plugins would take the first of each, or fail plane by plane."""
        sizes = dict(zip(self._image.dims.order, self._image.dims.shape, strict=True))
        frame = "YX"
        if self._path.suffix.lower() == ".lif":
            import liffile

            # The plugin leaves axes that it does not know out.
            with liffile.LifFile(self._path) as file:
                image = file.images[number]
                sizes = {**image.sizes, **sizes}
                frame = "".join(image.dims).rstrip("S")[-2:]
        if self._path.suffix.lower() == ".nd2":
            self._check_frames()
        others = [f"{axis} of length {length}" for axis, length in sizes.items() if axis not in "TCZYXS" and length > 1]
        if others:
            raise ImageError(
                f"{self._path}: series {number} has an axis that is not understood ({', '.join(others)}); export the "
                "part that is wanted as OME-TIFF"
            )
        if frame != "YX":
            raise ImageError(
                f"{self._path}: series {number} is a scan of {frame} planes, which is not understood; export it as "
                "OME-TIFF"
            )

    def _check_frames(self) -> None:
        """Refuse an ND2 whose acquisition was ended early: the plugin would give black planes for what is missing."""
        import nd2

        with nd2.ND2File(self._path) as file:
            wanted = prod(length for axis, length in file.sizes.items() if axis not in "CSYX")
            there = file.attributes.sequenceCount
        if there < wanted:
            raise ImageError(
                f"{self._path}: {wanted - there} of its {wanted} frames are missing, as where an acquisition is ended "
                "early; export what is there as OME-TIFF"
            )

    def _describe(self, size: int, modified: int) -> ImageInfo:
        shape = tuple(int(length) for length in self._pixels.shape)
        dtype = np.dtype(self._pixels.dtype)
        sizes = self._image.physical_pixel_sizes
        given = {axis: getattr(sizes, axis) for axis in "ZYX"}
        known = {axis: float(each) for axis, each in given.items() if each and is_size(each)}
        names = tuple(str(name) for name in self._image.channel_names or ())
        if self._samples:
            names = ("red", "green", "blue", "alpha")[: shape[1]]
        axes = "".join(axis for axis, length in zip(AXES, shape, strict=True) if axis in "YX" or length > 1)
        chunks = self._pixels.chunksize
        return ImageInfo(
            path=str(self._path),
            kind="vendor",
            shape=shape,  # type: ignore[arg-type]
            dtype=np.dtype(np.uint8).name if dtype.kind == "b" else dtype.newbyteorder("=").name,
            axes=axes,
            pixel_size=tuple(known.get(axis, 1.0) for axis in AXES),  # type: ignore[arg-type]
            units=tuple("micrometer" if axis in known else None for axis in AXES),  # type: ignore[arg-type]
            translation=(0.0,) * 5,
            channel_names=tuple(
                (names[at].strip() if len(names) == shape[1] else "") or f"channel {at}" for at in range(shape[1])
            ),
            block=tuple(int(edge) for edge in chunks),  # type: ignore[arg-type]
            size_bytes=size,
            modified_ns=modified,
        )

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a region; see `ImageSource.read`."""
        part = self._pixels[tuple(slice(*span) for span in zip(box.start, box.stop, strict=True))]
        try:
            with self._turn, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                block = part.compute(scheduler="synchronous")
        except Exception as error:  # decoders raise what they like on damaged data
            raise not_read(self._info, box, error) from error
        return np.ascontiguousarray(block, dtype=self._info.dtype)

    def files(self) -> Iterator[Path]:
        """Give all files that it is read from."""
        yield self._path

    def pieces(self) -> tuple[int, int]:
        """Count the planes; see `ImageSource.pieces`."""
        count = self._pixels.npartitions
        return count, count

    def close(self) -> None:
        """Nothing to let go of: plugins open the file for each plane."""
