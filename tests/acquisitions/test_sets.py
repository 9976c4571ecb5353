"""Sets of files of which one describes the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.images.opening import open_image
from tests.acquisitions.folder import Place


def test_a_file_that_another_one_describes_waits_for_it(place: Place) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 20), dtype=np.uint8)
    space = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    alone = f'<?xml version="1.0"?><OME {space}><BinaryOnly MetadataFile="a.ome.tif" UUID="urn:uuid:{0:032d}"/></OME>'
    tifffile.imwrite(place.folder / "b.ome.tif", pixels, description=alone, metadata=None)
    assert "describes" in place.settle().waiting[str(place.folder / "b.ome.tif")]
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{at}" PlaneCount="1"><UUID FileName="{name}.ome.tif">urn:uuid:{at:032d}</UUID>'
        "</TiffData>"
        for at, name in ((0, "b"), (1, "a"))
    )
    whole = (
        f'<?xml version="1.0"?><OME {space} UUID="urn:uuid:{1:032d}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="20" SizeY="16" SizeZ="2" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(place.folder / "a.ome.tif", pixels, description=whole, metadata=None)
    assert place.settle().started == ["a"]
    assert place.scan().waiting == {}
    assert [name for name, _ in place.runs.asked] == ["a"]


def write_companion_set(
    folder: Path, *, described: bool = True, planes: tuple[int, ...] = (0, 1)
) -> list[NDArray[Any]]:
    """Write files of one plane each that name the one which describes their image, ``c.companion.ome``."""
    space = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    pixels = [np.random.default_rng(at).integers(0, 255, (16, 20), dtype=np.uint8) for at in (0, 1)]
    for at in planes:
        alone = f'<BinaryOnly MetadataFile="c.companion.ome" UUID="urn:uuid:{99:032d}"/>'
        xml = f'<?xml version="1.0"?><OME {space} UUID="urn:uuid:{at:032d}">{alone}</OME>'
        tifffile.imwrite(folder / f"c_{at}.ome.tif", pixels[at], description=xml, metadata=None)
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{at}" PlaneCount="1"><UUID FileName="c_{at}.ome.tif">urn:uuid:{at:032d}</UUID>'
        "</TiffData>"
        for at in (0, 1)
    )
    if described:
        (folder / "c.companion.ome").write_text(
            f'<?xml version="1.0"?><OME {space} UUID="urn:uuid:{99:032d}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint8" SizeX="20" SizeY="16" SizeZ="2" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
    return pixels


def test_a_set_that_a_companion_describes_is_one_acquisition(place: Place) -> None:
    pixels = write_companion_set(place.folder)
    for name in ("c_0.ome.tif", "c_1.ome.tif"):
        source = open_image(place.folder / name)
        assert source.info.shape == (1, 1, 2, 16, 20)
        assert np.array_equal(source.read(Box((0,) * 5, (1, 1, 2, 16, 20)))[0, 0], pixels)
        assert [Path(str(file)).name for file in source.files()][1:] == [
            "c.companion.ome", "c_1.ome.tif" if name.startswith("c_0") else "c_0.ome.tif",
        ]  # fmt: skip
        source.close()
    assert place.settle().started == ["c_0"]
    place.settle()
    assert [name for name, _ in place.runs.asked] == ["c_0"]
    assert place.scan(after=600).quarantined == {}


@pytest.mark.parametrize("missing", ["the companion", "a part of the companion", "a plane"])
def test_all_files_of_a_set_that_a_companion_describes_are_waited_for(place: Place, missing: str) -> None:
    write_companion_set(
        place.folder, described=missing != "the companion", planes=(0,) if missing == "a plane" else (0, 1)
    )
    companion = place.folder / "c.companion.ome"
    if missing == "a part of the companion":
        companion.write_bytes(companion.read_bytes()[:300])
    place.settle()
    found = place.scan(after=600)
    assert found.quarantined == {}
    assert ("c_1.ome.tif" if missing == "a plane" else "companion") in found.waiting[str(place.folder / "c_0.ome.tif")]
    write_companion_set(place.folder, planes=(1,) if missing == "a plane" else ())
    place.settle()
    place.settle()
    assert [name for name, _ in place.runs.asked] == ["c_0"]
