"""OME-Zarr and plain Zarr: pixels, region by region, and what metadata say of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.geometry import Box
from pipeline.images.opening import open_image
from tests.images.reading import assert_reads, boxes, info_of, opened, pixels, read_whole
from tests.images.zarrs import STACK, VERSIONS, array, frame, layout, ome, scale, translation


@st.composite
def images(draw: st.DrawFn) -> tuple[NDArray[Any], str]:
    optional = draw(st.sets(st.sampled_from("tcz")))
    axes = "".join(axis for axis in "tczyx" if axis in optional or axis in "yx")
    shape = tuple(draw(st.integers(1, 40 if axis in "yx" else 3)) for axis in axes)
    return pixels(shape, draw(st.sampled_from(["uint8", "uint16", "int16", "uint32", "float32", "float64"]))), axes


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None)
@given(image=images(), data=st.data())
def test_every_region_of_an_ome_zarr_is_the_same_slice_of_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, version: str, image: tuple[NDArray[Any], str], data: st.DataObject
) -> None:
    written, axes = image
    path = ome(tmp_path_factory.mktemp("zarr") / "a.zarr", written, axes, version)
    expected = frame(written, axes)
    with opened(path) as source:
        assert source.info.kind == "ome-zarr"
        assert source.info.axes == axes.upper()
        assert_reads(source, expected, Box.whole(expected.shape))
        for _ in range(3):
            assert_reads(source, expected, data.draw(boxes(expected.shape)))


@pytest.mark.parametrize("zarr_format", [2, 3])
@settings(max_examples=20, deadline=None)
@given(image=images(), data=st.data())
def test_every_region_of_a_plain_array_with_names_is_the_same_slice_of_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    zarr_format: Literal[2, 3],
    image: tuple[NDArray[Any], str],
    data: st.DataObject,
) -> None:
    written, axes = image
    order = data.draw(st.permutations(range(len(axes))))
    axes = "".join(axes[at] for at in order)  # any order of the axes, for the names tell it
    written = np.ascontiguousarray(written.transpose(order))
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    if zarr_format == 2:
        array(path, written, 2, chunks=(5,) * written.ndim, attributes={"_ARRAY_DIMENSIONS": list(axes)})
    else:
        array(path, written, 3, chunks=(5,) * written.ndim, dimension_names=list(axes))
    expected = frame(written, axes)
    with opened(path) as source:
        assert source.info.kind == "zarr"
        assert source.info.axes == "".join(axis for axis in "TCZYX" if axis in axes.upper())
        assert_reads(source, expected, Box.whole(expected.shape))
        assert_reads(source, expected, data.draw(boxes(expected.shape)))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", ["YX", "ZYX", "CZYX", "TCZYX"])
def test_axes_without_names_are_the_last_of_tczyx(tmp_path: Path, zarr_format: Literal[2, 3], axes: str) -> None:
    data = pixels((2, 3, 2, 20, 30)[-len(axes) :], "int16")
    array(tmp_path / "a", data, zarr_format)
    assert np.array_equal(read_whole(tmp_path / "a"), frame(data, axes))
    info = info_of(tmp_path / "a")
    assert (info.kind, info.axes, info.dtype) == ("zarr", axes, "int16")
    assert (info.pixel_size, info.translation, info.units) == ((1.0,) * 5, (0.0,) * 5, (None,) * 5)


def test_names_that_are_no_axes_of_ours_count_as_none(tmp_path: Path) -> None:
    array(tmp_path / "a", STACK, 3, dimension_names=["band", "lat", "lon"])
    array(tmp_path / "b", STACK, 3, dimension_names=[None, "y", "x"])
    for name in "ab":
        assert info_of(tmp_path / name).axes == "ZYX"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_pixels_come_in_the_byte_order_of_the_machine(tmp_path: Path, zarr_format: Literal[2, 3], order: str) -> None:
    array(tmp_path / "a", STACK.astype(f"{order}u2"), zarr_format)
    found = read_whole(tmp_path / "a")
    assert found.dtype == np.dtype("=u2")
    assert np.array_equal(found, frame(STACK, "ZYX"))


def test_truth_values_are_read_as_numbers(tmp_path: Path) -> None:
    data = pixels((20, 30), "bool")
    array(tmp_path / "a", data, 3)
    found = read_whole(tmp_path / "a")
    assert found.dtype == np.uint8 == np.dtype(info_of(tmp_path / "a").dtype)
    assert np.array_equal(found[0, 0, 0], data)


def test_the_block_is_a_chunk_or_a_shard(tmp_path: Path) -> None:
    array(tmp_path / "a", STACK, 3)
    array(tmp_path / "b", STACK, 3, shards=(1, 32, 48))
    assert info_of(tmp_path / "a").block == (1, 1, 1, 16, 16)
    assert info_of(tmp_path / "b").block == (1, 1, 1, 32, 48)
    assert np.array_equal(read_whole(tmp_path / "b"), frame(STACK, "ZYX"))


def test_chunks_that_were_never_written_are_the_fill_value(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(64, 64), dtype="uint8", chunks=(16, 16), fill_value=7)[:16, :16] = 3
    found = read_whole(tmp_path / "a")[0, 0, 0]
    assert set(np.unique(found[:16, :16])) == {3}
    assert set(np.unique(found[16:])) == {7}


# OME-Zarr's own facts


@pytest.mark.parametrize("version", VERSIONS)
def test_sizes_positions_units_and_names_are_told(tmp_path: Path, version: str) -> None:
    path = ome(
        tmp_path / "a.zarr", pixels((2, 2, 3, 20, 30)), "tczyx", version,
        transforms=[scale(1.5, 1, 2, 0.5, 0.25), translation(3, 0, 10, -20, 30.5)],
        units={"t": "second", "z": "micrometer", "y": "micrometer", "x": "nanometer"},
        omero={"channels": [{"label": label, "color": "00FF00", "window": {"min": 0, "max": 1, "start": 0, "end": 1}}
                            for label in ("DNA", "488")]},
    )  # fmt: skip
    info = info_of(path)
    assert info.pixel_size == (1.5, 1.0, 2.0, 0.5, 0.25)
    assert info.translation == (3.0, 0.0, 10.0, -20.0, 30.5)
    assert info.units == ("second", None, "micrometer", "micrometer", "nanometer")
    assert info.channel_names == ("DNA", "488")


@pytest.mark.parametrize("version", VERSIONS)
def test_axes_that_are_missing_have_a_length_of_one_and_no_unit(tmp_path: Path, version: str) -> None:
    path = ome(tmp_path / "a.zarr", pixels((20, 30)), "yx", version, [scale(0.5, 0.25)], {"y": "meter", "x": "meter"})
    info = info_of(path)
    assert (info.shape, info.axes) == ((1, 1, 1, 20, 30), "YX")
    assert info.pixel_size == (1.0, 1.0, 1.0, 0.5, 0.25)
    assert info.units == (None, None, None, "meter", "meter")
    assert info.channel_names == ("channel 0",)


@pytest.mark.parametrize("version", VERSIONS)
def test_transformations_of_all_resolutions_come_after_those_of_one(tmp_path: Path, version: str) -> None:
    def share(described: dict[str, Any]) -> None:
        described["multiscales"][0]["coordinateTransformations"] = [scale(0.1, 2, 2), translation(5, 0, 1)]

    own = [scale(1, 0.5, 0.25), translation(0, 10, 20)]
    info = info_of(ome(tmp_path / "a.zarr", STACK, "tyx", version, own, change=share))
    assert info.pixel_size == pytest.approx((0.1, 1, 1, 1.0, 0.5))
    assert info.translation == pytest.approx((5, 0, 0, 20, 41))


@pytest.mark.parametrize("channels", [["a", "b", "c"], [{}, {"label": None}, {"label": ""}], [{"label": "one"}]])
def test_channels_without_proper_names_are_numbered(tmp_path: Path, channels: list[object]) -> None:
    path = ome(tmp_path / "a.zarr", STACK, "cyx", "0.5", omero={"channels": channels})
    assert info_of(path).channel_names == ("channel 0", "channel 1", "channel 2")


@pytest.mark.parametrize("version", VERSIONS)
def test_of_a_pyramid_by_ome_zarr_py_the_full_resolution_is_read(tmp_path: Path, version: str) -> None:
    data = pixels((2, 128, 160))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ome-zarr-py uses a class of its own that it deprecates
        from ome_zarr.format import format_from_version
        from ome_zarr.writer import write_image

        write_image(data, str(tmp_path / "a.zarr"), axes="cyx", scale_factors=[2, 4], fmt=format_from_version(version))
    assert len([entry for entry in (tmp_path / "a.zarr").iterdir() if entry.is_dir()]) > 1
    assert np.array_equal(read_whole(tmp_path / "a.zarr"), frame(data, "cyx"))
    assert info_of(tmp_path / "a.zarr").kind == "ome-zarr"


# Several images


@pytest.mark.parametrize("version", VERSIONS)
def test_series_of_bioformats2raw_are_counted_from_zero(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.zarr"
    written = layout(path, version, ["0", "1", "2"])
    assert np.array_equal(read_whole(path)[0, 0, 0], written[0])
    for series, data in enumerate(written):
        assert np.array_equal(read_whole(path, series)[0, 0, 0], data)
    for absent in (3, -1):
        with pytest.raises(ImageError, match=f"no series {absent}"):
            open_image(path, absent)


@pytest.mark.parametrize("version", VERSIONS)
def test_series_that_the_group_ome_lists_are_taken_from_there(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.zarr"
    written = layout(path, version, ["0", "1", "named"])
    listed = {"series": ["named", "1"]}
    group = zarr.open_group(path / "OME", mode="w", zarr_format=2 if version == "0.4" else 3)
    group.attrs.update(listed if version == "0.4" else {"ome": {"version": version, **listed}})
    assert np.array_equal(read_whole(path)[0, 0, 0], written[2])
    assert np.array_equal(read_whole(path, 1)[0, 0, 0], written[1])
    with pytest.raises(ImageError, match="no series 2"):
        open_image(path, 2)


def test_a_single_image_has_no_further_series(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.zarr", STACK, "zyx", "0.5")
    assert np.array_equal(read_whole(path, 0), read_whole(path))
    with pytest.raises(ImageError, match="no series 1; this Zarr holds one image"):
        open_image(path, 1)


@pytest.mark.parametrize("more", [{}, {"bioformats2raw.layout": 3}])
def test_of_a_plate_a_well_must_be_given(tmp_path: Path, more: dict[str, Any]) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.attrs.update({"ome": {"version": "0.5", "plate": {"wells": []}, **more}})
    with pytest.raises(ImageError, match="invalid plate metadata: a plate without wells"):
        open_image(tmp_path / "a.zarr")


def test_a_group_with_one_array_is_that_array(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(ImageError, match="holds 0 arrays"):
        open_image(tmp_path / "a.zarr")
    array(tmp_path / "a.zarr" / "one", STACK, 3)
    (tmp_path / "a.zarr" / "notes.txt").write_text("zarr warns of files that are not its own")
    assert np.array_equal(read_whole(tmp_path / "a.zarr"), frame(STACK, "zyx"))
    array(tmp_path / "a.zarr" / "two", STACK, 3)
    with pytest.raises(ImageError, match="holds 2 arrays; give one"):
        open_image(tmp_path / "a.zarr")
