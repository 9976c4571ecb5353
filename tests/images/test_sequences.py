"""Images of many files, by the names of the files: what belongs together, what is missing, and what is read."""

from __future__ import annotations

import os
import re
import shutil
from itertools import product
from pathlib import Path
from time import time_ns
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import make_config
from pipeline.errors import ConfigError, ImageError
from pipeline.geometry import Box
from pipeline.images.discover import discover
from pipeline.images.opening import open_image
from pipeline.images.patterns import PRESETS, parse_pattern, row_letters
from pipeline.images.plates import is_plate, read_plate
from tests.images.reading import assert_reads, boxes, info_of, opened, pixels, read_whole

IMAGE = pixels((3, 2, 4, 21, 34))
PATTERN = "img_t{time}_{channel}_z{z}.tif"
CHANNELS = ("DAPI", "GFP")
THUMB = "_thumb0A1B2C3D-9F1F-45A1-B2C8-2EB2F1D2DCF2"
IDENTIFIER = "3F1C3BD5-9F1F-45A1-B2C8-2EB2F1D2DCF2"


def write_planes(folder: Path) -> Path:
    """One file for each plane; the path that names all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, c, z in product(range(3), range(2), range(4)):
        # The second frame comes after the first and the tenth before, by the order of letters.
        tifffile.imwrite(folder / f"img_t{(2, 9, 16)[t]}_{CHANNELS[c]}_z{z:02}.tif", IMAGE[t, c, z], rowsperstrip=5)
    return folder / PATTERN


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planes(tmp_path_factory.mktemp("planes") / "scan")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("img.tif", "finds nothing in names; write fields where they stand: {well}, {row}"),
        (
            "img_{tim}.tif",
            "there is no field {tim}; there are {well}, {row}, {column}, {field}, {channel}, {time}, {z}",
        ),
        ("{z}_{z}.tif", "{z} stands twice"),
        ("{z}{time}.tif", "where {z} ends and {time} begins cannot be told"),
        ("{well}_{row}-{column}.tif", "{well} is row and column together"),
        ("r{row}.tif", "a plate needs both {row} and {column}"),
        ("{z.tif", "a brace is open"),
        ("[_{z}.tif", "a bracket is open"),
        ("_{z}].tif", "brackets in '_{z}].tif' do not go together"),
        ("{z:two}.tif", "after the colon comes how many characters long it is"),
        ("{}_{z}.tif", "{} in '{}_{z}.tif' says nothing"),
        ("{z}.png", "is no name of TIFF files"),
        ("opera", "ends in .tif or .tiff is wanted, or one of phenix, imagexpress, micromanager"),
        ("../{z}.tif", "must name files below the folder"),
        ("*a*b*c*{z}.tif", "more than 3 stars"),
        ("", "a pattern of 1 to 200 characters is wanted"),
    ],
)
def test_a_pattern_that_is_none_is_refused_with_the_configuration(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"sequence": {"pattern": text}})
    assert str(caught.value).startswith("the configuration: sequence.pattern: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "name", "told"),
    [
        ("phenix", "r03c12f02p01-ch2sk1fk1fl1.tiff",
         {"row": "03", "column": "12", "field": "02", "z": "01", "channel": "2", "time": "1"}),
        ("imagexpress", "My plate_A01_s1_w2.tif", {"well": "A01", "field": "1", "channel": "2"}),
        ("imagexpress", f"P_B12_w1{IDENTIFIER}.TIF", {"well": "B12", "channel": "1"}),
        ("imagexpress", f"TimePoint_3/P_AF12_s10_w1{IDENTIFIER}.tif",
         {"time": "3", "well": "AF12", "field": "10", "channel": "1"}),
        ("imagexpress", "TimePoint_1/ZStep_4/P_A01.tif", {"time": "1", "z": "4", "well": "A01"}),
        ("imagexpress", f"P_A01_s1_w1{THUMB}.tif", None),
        ("micromanager", "img_channel001_position002_time000000003_z004.tif",
         {"channel": "001", "field": "002", "time": "000000003", "z": "004"}),
        ("{row:3}{column:3}-{field}.tif", "001012-7.tif", {"row": "001", "column": "012", "field": "7"}),
        ("Pos{field}/img_{time}_{channel}_{z}.tif", "Pos0/img_000_Cy5 long_pass_001.tif",
         {"field": "0", "time": "000", "channel": "Cy5 long_pass", "z": "001"}),
        ("a(1).{z}.tif", "a(1).5.tif", {"z": "5"}),
        ("a.{z}.tif", "ab5.tif", None),
    ],
)  # fmt: skip
def test_what_a_name_tells(pattern: str, name: str, told: dict[str, str] | None) -> None:
    found = parse_pattern(pattern).regex.fullmatch(name)
    assert (found and {field: text for field, text in found.groupdict().items() if text is not None}) == told


def test_rows_are_counted_as_plates_do() -> None:
    assert [row_letters(number) for number in (1, 26, 27, 32, 702)] == ["A", "Z", "AA", "AF", "ZZ"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(data=st.data())
def test_any_region_is_read_from_the_files_that_hold_it(planes: Path, data: st.DataObject) -> None:
    with opened(planes) as source:
        assert_reads(source, IMAGE, data.draw(boxes(IMAGE.shape)))


def test_facts_come_from_names_and_files(planes: Path) -> None:
    info = info_of(planes)
    assert (info.path, info.kind, info.axes) == (str(planes), "sequence", "TCZYX")
    assert (info.channel_names, info.block) == (CHANNELS, (1, 1, 1, 1, 34))
    files = sorted(planes.parent.iterdir())
    assert (len(files), info.size_bytes) == (24, sum(file.stat().st_size for file in files))
    with opened(planes) as source:
        assert (sorted(source.files()), source.pieces(), source.notes) == (files, (24 * 5, 24 * 5), ())


def test_files_may_have_axes_and_sizes_of_their_own(tmp_path: Path) -> None:
    for channel in range(2):
        tifffile.imwrite(
            tmp_path / f"stack-w{channel + 1}.ome.tif", IMAGE[:, channel], ome=True, compression="zlib",
            metadata={"axes": "TZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2},
        )  # fmt: skip
    path = tmp_path / "stack-w{channel}.ome.tif"
    np.testing.assert_array_equal(read_whole(path), IMAGE)
    info = info_of(path)
    assert (info.channel_names, info.pixel_size) == (("w1", "w2"), (1.0, 1.0, 2.0, 0.25, 0.5))
    colour = pixels((2, 20, 30, 3), "uint8")
    for z in range(2):
        tifffile.imwrite(tmp_path / f"colour{z}.tif", colour[z], photometric="rgb")
    np.testing.assert_array_equal(read_whole(tmp_path / "colour{z}.tif"), colour.transpose(3, 0, 1, 2)[None])
    assert info_of(tmp_path / "colour{z}.tif").channel_names == ("red", "green", "blue")


def test_only_the_files_of_a_region_are_opened(tmp_path: Path) -> None:
    path = write_planes(tmp_path)
    with opened(path) as source:
        for file in tmp_path.glob("img_t2_*.tif"):
            file.unlink()
        assert_reads(source, IMAGE, Box((1, 0, 0, 0, 0), IMAGE.shape))
        with pytest.raises(ImageError, match=r"img_t2_DAPI_z00\.tif: cannot be read"):
            source.read(Box.whole(IMAGE.shape))
        tifffile.imwrite(tmp_path / "img_t9_DAPI_z00.tif", IMAGE[1, 0, 0, :20])
        with pytest.raises(ImageError, match=r"img_t9_DAPI_z00\.tif: the file has changed"):
            source.read(Box((1, 0, 0, 0, 0), (2, 1, 1, 1, 1)))


def damage(folder: Path, kind: str) -> None:
    name = folder / "img_t9_GFP_z02.tif"
    match kind:
        case "hole":
            name.unlink()
        case "duplicate":
            shutil.copy(name, folder / "img_t09_GFP_z2.tif")
        case "size":
            tifffile.imwrite(name, IMAGE[0, 0, 0, :-1])
        case "type":
            tifffile.imwrite(name, IMAGE[0, 0, 0].astype("uint8"))
        case "truncated":
            name.write_bytes(name.read_bytes()[:-9])
        case "no tiff":
            name.write_text("oops")
        case "frame":
            for file in folder.glob("img_t9_*"):
                file.unlink()
            for file in folder.glob("img_t16_*"):
                shutil.copy(file, folder / file.name.replace("t16", "t23"))
        case "stack":
            tifffile.imwrite(name, IMAGE[0, 0], photometric="minisblack")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("hole", r"img_t16_DAPI_z00\.tif: 1 of the 24 files of its image are missing, first that of time 9, "
                 r"channel GFP, z 02;"),
        ("duplicate", r"img_t9_GFP_z02\.tif: by its name it is the same plane as img_t09_GFP_z2\.tif"),
        ("size", r"img_t9_GFP_z02\.tif: its shape TCZYX is \(1, 1, 1, 20, 34\), and that of \S+img_t16_DAPI_z00\.tif"),
        ("type", r"img_t9_GFP_z02\.tif: its data type is uint8, and that of"),
        ("truncated", r"img_t9_GFP_z02\.tif: truncated"),
        ("no tiff", r"img_t9_GFP_z02\.tif: not a TIFF"),
        ("frame", r"img_t2_\w+_z\d\d\.tif: time 9 is missing between this file and img_t16_"),
        ("stack", r"img_t9_GFP_z02\.tif: the pattern \S+ finds {z} in the name, and the file holds 4 along Z itself"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_the_name_of_a_file(tmp_path: Path, kind: str, told: str) -> None:
    path = write_planes(tmp_path)
    damage(tmp_path, kind)
    with pytest.raises(ImageError, match=told):
        open_image(path)


def test_a_name_that_tells_less_than_others_is_refused(tmp_path: Path) -> None:
    for name in ("a_w1.tif", "a.tif"):
        tifffile.imwrite(tmp_path / name, IMAGE[0, 0, 0])
    with pytest.raises(ImageError, match=r"/a\.tif: its name tells no channel, and that of a_w1\.tif beside it does"):
        open_image(tmp_path / "a[_w{channel}].tif")


def test_it_is_known_again_by_each_file(tmp_path: Path) -> None:
    """Files of a sequence are mostly of one size, and one that is brought back from a copy may be older than others."""
    path = write_planes(tmp_path)
    before = info_of(path)
    assert info_of(path) == before
    name = tmp_path / "img_t9_GFP_z02.tif"
    old = name.stat()
    tifffile.imwrite(name, IMAGE[0, 0, 0], rowsperstrip=5)
    os.utime(name, ns=(old.st_atime_ns, old.st_mtime_ns - 10**9))
    after = info_of(path)
    assert (after.size_bytes, after.modified_ns) == (before.size_bytes, before.modified_ns)
    assert after.files_sha256 != before.files_sha256


def write_screen(folder: Path, wells: tuple[str, ...] = ("r03c10", "r01c09")) -> Path:
    """Two fields of two channels in each well, as Harmony names them, and a thumbnail that it does not."""
    folder.mkdir(parents=True)
    for at, (well, field, channel) in enumerate(product(wells, ("01", "02"), (1, 3))):
        image = np.full((20, 30), at, np.uint16)
        tifffile.imwrite(folder / f"{well}f{field}p01-ch{channel}sk1fk1fl1.tiff", image)
    tifffile.imwrite(folder / "overview.tif", image)
    return folder


def test_wells_and_fields_are_found_in_names(tmp_path: Path) -> None:
    folder = write_screen(tmp_path / "screen" / "Plate 7" / "Images")
    for named in (folder, folder.parent, tmp_path, f"{tmp_path}/*"):
        images = discover([str(named)], "phenix")
        prefix = "screen/" * (named == tmp_path)
        assert [image.name for image in images] == [
            f"{prefix}Plate 7/{field}" for field in ("A/09/01", "A/09/02", "C/10/01", "C/10/02")
        ]
        assert images[0].place == f"{prefix}Plate 7.ome.zarr/A/09/01"
        assert images[0].path == str(folder / "{phenix}/A/09/01")
    assert discover([str(folder / "{phenix}")]) == discover([str(folder)], "phenix")
    assert discover([str(folder / PRESETS["phenix"])])[0].path == str(folder / PRESETS["phenix"] / "A/09/01")
    (alone,) = discover([str(folder / "{phenix}" / "C/10/02")])
    assert (alone.name, alone.plate) == ("Plate 7/C/10/02", "")
    plate = folder / "{phenix}"
    assert is_plate(plate)
    assert not is_plate(plate / "C/10/02")
    layout = read_plate(plate)
    assert [field.path for field in layout.fields] == ["A/09/01", "A/09/02", "C/10/01", "C/10/02"]
    assert layout.described["wells"][1] == {"path": "C/10", "rowIndex": 1, "columnIndex": 1}
    info = info_of(plate / "C/10/02")
    assert (info.shape, info.channel_names) == ((1, 2, 1, 20, 30), ("ch1", "ch3"))
    assert read_whole(plate / "C/10/02")[0, :, 0, 0, 0].tolist() == [2, 3]
    with pytest.raises(ImageError, match=r"names 4 images; take one, such as .*\{phenix\}/A/09/01"):
        open_image(plate)
    with pytest.raises(ImageError, match=r"there is no such image; .*A/09/01"):
        open_image(plate / "C/10/3")
    with pytest.raises(ImageError, match="what comes after the pattern is no ROW/COLUMN/FIELD"):
        open_image(plate / "C10")


def test_fields_without_wells_are_images_of_their_own(tmp_path: Path) -> None:
    for position, time in product(range(2), range(3)):
        name = f"img_channel000_position{position:03}_time{time:09}_z000.tif"
        tifffile.imwrite(tmp_path / name, IMAGE[time, position, 0])
    images = discover([str(tmp_path)], "micromanager")
    assert [image.name for image in images] == [f"{tmp_path.name}/000", f"{tmp_path.name}/001"]
    np.testing.assert_array_equal(read_whole(Path(images[1].path)), IMAGE[:, 1:, :1])
    tifffile.imwrite(tmp_path / "img_channel000_position000_time000000003_z000.tif", IMAGE[0, 0, 0])
    with opened(Path(images[1].path)) as source:
        (note,) = source.notes
    assert "its files are 3 along {time}, and those of other images there 4; time 3 is missing" in note


@pytest.mark.parametrize(
    ("given", "pattern", "told"),
    [
        ("", "phenix", "no file is called like r{row}c{column}f{field}p{z}-ch{channel}sk{time}fk1fl1.tiff; there is "
                       "img_t16_DAPI_z00.tif, for instance"),
        ("nowhere", "phenix", "no such folder"),
        ("s3://bucket/a", "phenix", "read from a disk"),
        ("", "{zed}.tif", "there is no field {zed}"),
        ("x_{time}_{zed}.tif", None, "there is no field {zed}"),
        ("x_{time}.tif", None, "no file is called like x_{time}.tif"),
    ],
)  # fmt: skip
def test_inputs_without_such_files_are_refused(planes: Path, given: str, pattern: str | None, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        discover([given if "://" in given else str(planes.parent / given)], pattern)
    assert told in str(caught.value)


@pytest.mark.parametrize("when", ["long ago", "just now"])
def test_a_file_that_comes_later_is_seen(tmp_path: Path, when: str) -> None:
    """A folder that was still for long tells by its time; of one that has just changed, the time may stay the same."""
    path = write_planes(tmp_path / "scan")
    changed = 0 if when == "long ago" else time_ns() + 10**10
    os.utime(tmp_path / "scan", ns=(changed, changed))
    assert info_of(path).shape[2] == 4
    for t, channel in product((2, 9, 16), CHANNELS):
        tifffile.imwrite(tmp_path / "scan" / f"img_t{t}_{channel}_z04.tif", IMAGE[0, 0, 0])
    if when == "just now":
        os.utime(tmp_path / "scan", ns=(changed, changed))
    assert info_of(path).shape[2] == 5


def metaseries(**values: str) -> str:
    props = "".join(
        f'<prop id="spatial-calibration-{name}" type="x" value="{value}"/>' for name, value in values.items()
    )
    return f"<MetaData><PlaneInfo>{props}</PlaneInfo></MetaData>"


@pytest.mark.parametrize(("state", "size"), [("on", (0.5, 0.25)), ("off", (1.0, 1.0))])
def test_the_pixel_size_of_an_imagexpress(tmp_path: Path, state: str, size: tuple[float, float]) -> None:
    for channel in (1, 2):
        tifffile.imwrite(
            tmp_path / f"P_A01_s1_w{channel}{IDENTIFIER}.tif", IMAGE[0, 0, 0], software="MetaSeries", metadata=None,
            description=metaseries(state=state, x="0.25", y="0.5", units="um"),
        )  # fmt: skip
        tifffile.imwrite(tmp_path / f"P_A01_s1_w{channel}{THUMB}.tif", IMAGE[0, 0, 0, ::4, ::4])
    (image,) = discover([str(tmp_path)], "imagexpress")
    info = info_of(Path(image.path))
    assert (info.shape[1], info.pixel_size[3:]) == (2, size)


def call(*arguments: Any) -> tuple[int, str]:  # noqa: ANN401
    done = CliRunner().invoke(app, [*map(str, arguments)])
    return done.exit_code, done.output


def test_inspect_shows_what_was_found(planes: Path, tmp_path: Path) -> None:
    code, shown = call("inspect", planes.parent, "--sequence", PATTERN)
    assert code == 0
    for line in (
        r"kind +sequence",
        r"shape +\(3, 2, 4, 21, 34\)",
        r"files +24",
        r"channel in names +\['DAPI', 'GFP'\]",
    ):
        assert re.search(f"^{line}$", shown, re.MULTILINE), shown
    folder = write_screen(tmp_path / "P")
    assert call("inspect", folder / "{phenix}") == call("inspect", folder, "--sequence", "phenix")
    code, shown = call("inspect", folder, "--sequence", "phenix")
    assert "plate of files" in shown
    assert "1, such as overview.tif" in shown
    assert shown.splitlines()[-3:] == ["   09  10", "A   2   ·", "C   ·   2"]
