"""Slides through OpenSlide, of DICOM that is written here: one file for each level."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.identity import versions_of
from pipeline.images.discover import discover
from pipeline.images.opening import open_image
from tests.images.reading import assert_reads, info_of, opened, pixels, read_whole

IMAGE = pixels((150, 200, 3), "uint8")
TCZYX = IMAGE.transpose(2, 0, 1)[None, :, None]
TILE = 64


def write_level(path: Path, image: NDArray[np.uint8], number: int, spacing: tuple[float, float]) -> None:
    """Write a level of a slide: tiles of red, green and blue, row by row; spacing of Y and X in millimetres."""
    height, width = image.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.zeros((rows * TILE, columns * TILE, 3), np.uint8)
    padded[:height, :width] = image
    meta, slide, measures, shared = FileMetaDataset(), Dataset(), Dataset(), Dataset()
    meta.MediaStorageSOPClassUID = slide.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.77.1.6")
    meta.MediaStorageSOPInstanceUID = slide.SOPInstanceUID = UID(f"1.2.3.4.{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slide.file_meta = meta
    slide.StudyInstanceUID, slide.SeriesInstanceUID, slide.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    slide.Modality, slide.ImageType, slide.InstanceNumber = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], number
    slide.Rows, slide.Columns, slide.NumberOfFrames = TILE, TILE, rows * columns
    slide.SamplesPerPixel, slide.PhotometricInterpretation, slide.PlanarConfiguration = 3, "RGB", 0
    slide.BitsAllocated, slide.BitsStored, slide.HighBit, slide.PixelRepresentation = 8, 8, 7, 0
    slide.TotalPixelMatrixRows, slide.TotalPixelMatrixColumns = height, width
    slide.TotalPixelMatrixFocalPlanes, slide.NumberOfOpticalPaths = 1, 1
    slide.DimensionOrganizationType = "TILED_FULL"
    measures.PixelSpacing = list(spacing)
    shared.PixelMeasuresSequence = [measures]
    slide.SharedFunctionalGroupsSequence = [shared]
    slide.PixelData = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).tobytes()
    slide["PixelData"].VR = "OB"
    slide.save_as(path, enforce_file_format=True)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    write_level(tmp_path / "coarse.dcm", IMAGE[::2, ::2], 2, (0.001, 0.0005))
    write_level(tmp_path / "fine.dcm", IMAGE, 1, (0.0005, 0.00025))
    return tmp_path / "coarse.dcm"


def test_the_finest_level_is_read_whichever_file_is_named(slide: Path) -> None:
    for path in (slide, slide.with_name("fine.dcm")):
        np.testing.assert_array_equal(read_whole(path), TCZYX)
    with opened(slide) as source:
        assert_reads(source, TCZYX, Box((0, 1, 0, 20, 33), (1, 3, 1, 110, 197)))
        files = [file.name for file in source.files()]
    assert files == ["coarse.dcm", "fine.dcm"]
    info = info_of(slide)
    assert (info.kind, info.axes, info.block) == ("slide", "CYX", (1, 3, 1, TILE, TILE))
    assert info.pixel_size == pytest.approx((1.0, 1.0, 1.0, 0.5, 0.25))
    assert (info.units[3:], info.channel_names) == (("micrometer", "micrometer"), ("red", "green", "blue"))
    assert info.size_bytes == sum((slide.parent / name).stat().st_size for name in files)
    assert "openslide-python" in versions_of(info.kind, objects=False)
    assert [image.name for image in discover([f"{slide.parent}/fine*"])] == ["fine"]


def test_what_cannot_be_read_is_told(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="there is no series 1"):
        open_image(slide, 1)
    other = slide.parent / "other" / "a.mrxs"
    other.parent.mkdir()
    other.write_bytes(b"oops")
    with pytest.raises(ImageError, match=r"a\.mrxs: OpenSlide cannot read it"):
        open_image(other)
    with pytest.raises(ImageError, match=r"b\.dcm: .*cannot (be read|read it)"):
        open_image(slide.with_name("b.dcm"))
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImageError, match=r"which is not installed; install it with: pip install 'seamfree\[slides\]'"):
        open_image(slide)
