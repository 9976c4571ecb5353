"""Files that microscopes' programs have written, as far as they are at hand, against another reader's pixels.

They belong to others, and are looked for in `../shared/data/formats`: CZI of the package czitools' repository (with
stage positions, mosaics, compression, Airyscan), ND2 of the repository of PIMS, LIF of that of readlif.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ImageError
from tests.images.reading import info_of, read_whole

FILES = Path(__file__).parents[3] / "shared" / "data" / "formats"

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the readers


def at_hand(name: str) -> Path:
    """Give a file, or skip the test."""
    path = FILES / name
    if not path.is_file():
        pytest.skip(f"{path} is not there; it belongs to others, and is not copied")
    return path


def czi(path: Path) -> Iterator[NDArray[Any]]:
    """Read all scenes by the maker's own library, as TCZYX."""
    from pylibCZIrw import czi

    with czi.open_czi(str(path)) as file:
        lengths = [file.total_bounding_box[axis][1] for axis in "TCZ"]
        for scene in sorted(file.scenes_bounding_rectangle) or [None]:
            planes = [
                file.read(plane=dict(zip("TCZ", at, strict=True)), scene=scene)[..., 0] for at in np.ndindex(*lengths)
            ]
            yield np.stack(planes).reshape(*lengths, *planes[0].shape)


def nd2(path: Path) -> Iterator[NDArray[Any]]:
    """Read a file of axes TZCYX."""
    from nd2 import imread

    yield imread(path).transpose(0, 2, 1, 3, 4)


@pytest.mark.parametrize(
    ("name", "read", "shape", "size", "channels"),
    [
        ("1_tileregion.czi", czi, (1, 1, 1, 570, 1480), (1.0, 0.4, 0.4), ("EGFP",)),
        ("Airyscan.czi", czi, (3, 2, 1, 480, 480), (1.0, 0.0439294, 0.0439294), ("ChA-T1", "ChA-T2")),
        (
            "CellDivision_T3_Z6_CH1_X300_Y200_DCV_ZSTD.czi", czi, (3, 1, 6, 200, 300),
            (0.32, 0.0905767, 0.0905767), ("LED555",),
        ),
        # Nobody has named its channels.
        (
            "CellDivision_T3_Z5_CH2_X240_Y170_comp1.czi", czi, (3, 2, 5, 170, 240),
            (1.0, 1.0, 1.0), ("channel 0", "channel 1"),
        ),
        ("LLS7_small.czi", czi, (2, 2, 3, 64, 64), (0.144992,) * 3,
         ("LatticeLightsheet 1-T1", "LatticeLightsheet 2-T2")),
        ("S3_1Pos_2Mosaic_T2Z3_CH2_sm.czi", czi, (2, 2, 3, 122, 295), (1.0, 1.6, 1.6), ("DAPI", "EGFP")),
        ("WellD6-7_S2.czi", czi, (1, 1, 1, 440, 544), (1.0, 0.1, 0.1), ("AF488",)),
        # An electron microscope's: it has no axis of channels.
        ("Al2O3_SE_020_sp.czi", czi, (1, 1, 1, 1536, 2048), (1.0, 0.02791, 0.02791), ("Channel:0:0",)),
        # It does not say how large its pixels are.
        ("DAPI_GFP.czi", czi, (1, 2, 1, 640, 640), (1.0, 1.0, 1.0), ("Channel:0", "Channel:1")),
        (
            "cluster.nd2", nd2, (3, 2, 10, 31, 38), (0.5, 0.167809, 0.167809), ("5-FAM/pH 9.0", "FM 4-64/2% CHAPS"),
        ),
    ],
)  # fmt: skip
def test_pixels_are_those_of_another_reader(
    name: str, read: Callable[[Path], Iterator[NDArray[Any]]], shape: tuple[int, ...], size: tuple[float, ...],
    channels: tuple[str, ...],
) -> None:  # fmt: skip
    path = at_hand(name)
    pytest.importorskip(f"bioio_{path.suffix[1:]}", reason=f"pip install 'seamfree[{path.suffix[1:]}]'")
    info = info_of(path)
    assert info.shape == shape
    assert info.pixel_size[2:] == pytest.approx(size, rel=1e-5)
    assert info.channel_names == channels
    for series, expected in enumerate(read(path)):
        found = read_whole(path, series)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("xz-example.lif", "is a scan of ZX planes"),
        ("LeicaLASX_wavelength-sweep_example.lif", r"λ of length 20"),
    ],
)
def test_what_is_not_understood_is_refused_when_it_is_opened(name: str, told: str) -> None:
    path = at_hand(name)
    with pytest.raises(ImageError, match=told):
        info_of(path)
