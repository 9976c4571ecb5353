from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
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
from tests.images.reading import assert_reads, boxes, info_of, opened, pixels, read_whole, refused_or_right

VERSIONS = ["0.4", "0.5"]
KINDS = {"t": "time", "c": "channel"}


def frame(data: NDArray[Any], axes: str) -> NDArray[Any]:
    """Bring an array of the named axes to TCZYX."""
    order = [axes.upper().index(axis) for axis in "TCZYX" if axis in axes.upper()]
    missing = tuple(at for at, axis in enumerate("TCZYX") if axis not in axes.upper())
    return np.expand_dims(data.transpose(order), missing)


def array(path: Path, data: NDArray[Any], zarr_format: Literal[2, 3], **options: Any) -> None:  # noqa: ANN401
    created = zarr.create_array(
        path, shape=data.shape, dtype=data.dtype, zarr_format=zarr_format,
        **{"chunks": (1,) * (data.ndim - 2) + (16, 16), **options},
    )  # fmt: skip
    created[...] = data


def scale(*values: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(values)}


def translation(*values: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(values)}


def ome(
    path: Path,
    data: NDArray[Any],
    axes: str,
    version: str,
    transforms: list[dict[str, Any]] | None = None,
    units: dict[str, str] | None = None,
    change: Callable[[dict[str, Any]], object] = dict,
    **more: Any,  # noqa: ANN401
) -> Path:
    """Write an OME-Zarr by hand, metadata and all; `change` may then break them."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    array(path / "0", data, 2 if version == "0.4" else 3)
    named = [
        {"name": axis, "type": KINDS.get(axis, "space")} | ({"unit": units[axis]} if units and axis in units else {})
        for axis in axes
    ]
    dataset = {"path": "0", "coordinateTransformations": transforms or [scale(*[1.0] * data.ndim)]}
    described: dict[str, Any] = {"multiscales": [{"axes": named, "datasets": [dataset]}], **more}
    if version == "0.4":
        described["multiscales"][0]["version"] = version
    else:
        described["version"] = version
    change(described)
    group.attrs.update(described if version == "0.4" else {"ome": described})
    return path


STACK = pixels((3, 40, 50))


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


def layout(path: Path, version: str, names: list[str]) -> list[NDArray[Any]]:
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    said = {"bioformats2raw.layout": 3}
    group.attrs.update(said if version == "0.4" else {"ome": {"version": version, **said}})
    found = [pixels((20, 30), seed=seed) for seed in range(len(names))]
    for name, data in zip(names, found, strict=True):
        ome(path / name, data, "yx", version)
    return found


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


# What is damaged


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda described: described["multiscales"][0].pop(name)


def put(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda described: described["multiscales"][0].update({name: value})


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no axes": (drop("axes"), r"axes: Field required"),
    "no datasets": (drop("datasets"), r"datasets: Field required"),
    "empty datasets": (put("datasets", []), r"invalid OME-Zarr metadata"),
    "no image": (lambda described: described.update(multiscales=[]), r"invalid OME-Zarr metadata: multiscales"),
    "text": (lambda described: described.update(multiscales="image"), r"invalid OME-Zarr metadata: multiscales"),
    "a missing array": (
        lambda described: described["multiscales"][0]["datasets"][0].update(path="nowhere"), r"nowhere.* not a Zarr"
    ),
    "too few scales": (
        lambda described: described["multiscales"][0]["datasets"][0].update(coordinateTransformations=[scale(1, 1)]),
        r"invalid OME-Zarr metadata",
    ),
    "a strange axis": (
        put("axes", [{"name": name, "type": "space"} for name in "ayx"]), r"axes AYX do not form an image"
    ),
    "too few axes": (put("axes", [{"name": name, "type": "space"} for name in "yx"]), r"metadata|not an array"),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_are_refused_with_the_place(tmp_path: Path, name: str, version: str) -> None:
    change, why = BROKEN[name]
    path = ome(tmp_path / "a.zarr", STACK, "zyx", version, change=change)
    with pytest.raises(ImageError, match=why) as caught:
        open_image(path)
    assert str(path) in str(caught.value)


def test_metadata_that_are_no_mapping_are_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs.update({"ome": ["0.5"]})
    with pytest.raises(ImageError, match="not a mapping"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "content",
    ["", "[1, 2]", "7", '"text"', "{", "{}", '{"zarr_format": 9, "node_type": "array"}',
     '{"zarr_format": 3, "node_type": "array"}', '{"zarr_format": 3, "node_type": "tree"}', "\x00\x01"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zgroup"])
def test_damaged_zarr_metadata_are_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / name).write_text(content)
    with pytest.raises(ImageError, match=str(path)):
        open_image(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_that_were_cut_off_are_refused_wherever_they_end(tmp_path: Path, version: str) -> None:
    path = ome(tmp_path / "a.zarr", STACK, "zyx", version)
    names = ["zarr.json", "0/zarr.json"] if version == "0.5" else [".zgroup", ".zattrs", "0/.zarray"]
    for name in names:
        whole = (path / name).read_bytes()
        for length in range(0, len(whole.rstrip()) - 1, 7):
            (path / name).write_bytes(whole[:length])
            assert refused_or_right(path, frame(STACK, "zyx")), f"{name} cut at {length}"
        (path / name).write_bytes(whole)
    assert np.array_equal(read_whole(path), frame(STACK, "zyx"))


@pytest.mark.parametrize(
    ("zarr_format", "options"),
    [(2, {}), (2, {"compressors": None}), (3, {}), (3, {"compressors": None}), (3, {"shards": (32, 32)}),
     (3, {"shards": (32, 32), "compressors": None})],
)  # fmt: skip
def test_a_chunk_that_was_cut_off_is_refused_wherever_it_ends(
    tmp_path: Path, zarr_format: Literal[2, 3], options: dict[str, Any]
) -> None:
    data = pixels((64, 64))
    path = tmp_path / "a.zarr"
    array(path, data, zarr_format, **options)
    chunks = sorted(
        entry for entry in path.rglob("*") if entry.is_file() and entry.name not in ("zarr.json", ".zarray", ".zattrs")
    )
    for chunk in (chunks[0], chunks[-1]):
        whole = chunk.read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 40)):
            chunk.write_bytes(whole[:length])
            assert refused_or_right(path, frame(data, "yx")), f"cut at {length}"
        chunk.write_bytes(whole)


def test_regions_beside_an_empty_shard_are_read(tmp_path: Path) -> None:
    data = pixels((64, 96))
    path = tmp_path / "a.zarr"
    array(path, data, 3, shards=(32, 32))
    (path / "c" / "1" / "2").write_bytes(b"")
    with opened(path) as source:
        expected = frame(data, "yx")
        assert_reads(source, expected, Box((0, 0, 0, 0, 0), (1, 1, 1, 32, 96)))
        assert_reads(source, expected, Box((0, 0, 0, 0, 0), (1, 1, 1, 64, 64)))
        with pytest.raises(ImageError, match="this shard is empty"):
            source.read(Box((0, 0, 0, 32, 64), (1, 1, 1, 33, 65)))


def test_of_a_big_array_only_the_chunks_are_read_that_a_region_touches(tmp_path: Path) -> None:
    data = pixels((64, 64))
    path = tmp_path / "a.zarr"
    array(path, data, 3)
    needed = {path / "c" / "1" / "2", path / "c" / "2" / "2"}
    for chunk in path.glob("c/*/*"):
        if chunk not in needed:
            chunk.write_bytes(b"whoever decodes this fails")
    with opened(path) as source:
        found = source.read(Box((0, 0, 0, 20, 33), (1, 1, 1, 40, 47)))
        assert np.array_equal(found[0, 0, 0], data[20:40, 33:47])
        with pytest.raises(ImageError, match="cannot be decoded"):
            source.read(Box((0, 0, 0, 15, 33), (1, 1, 1, 40, 47)))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "dtype", "why"),
    [
        ((9,), "uint8", "an array of 1 axes is not an image"),
        ((2, 2, 2, 2, 9, 9), "uint8", "an array of 6 axes is not an image"),
        ((0, 9), "uint8", "has no pixels"),
        ((9, 9), "complex64", "complex64 cannot be segmented"),
    ],
)
def test_arrays_that_are_no_images_are_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, why: str, zarr_format: Literal[2, 3]
) -> None:
    zarr.create_array(tmp_path / "a", shape=shape, dtype=dtype, chunks=(2,) * len(shape), zarr_format=zarr_format)
    with pytest.raises(ImageError, match=why):
        open_image(tmp_path / "a")


@pytest.mark.parametrize("names", [["y", "x"], ["z", "c", "t", "y", "x"], ["y", "y", "x"], ["t", "c", "z"]])
def test_names_that_do_not_fit_the_array_are_refused(tmp_path: Path, names: list[str]) -> None:
    array(tmp_path / "a", STACK, 2, attributes={"_ARRAY_DIMENSIONS": names})
    with pytest.raises(ImageError, match=r"has the names|do not form an image"):
        open_image(tmp_path / "a")


def test_a_folder_that_is_no_zarr_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "notes.json").write_text(json.dumps({}))
    with pytest.raises(ImageError, match="this folder is not a Zarr"):
        open_image(tmp_path / "a.zarr")


# What an image is known by again


def rewrite(path: Path, content: bytes | None = None) -> None:
    """Write a file anew, with a later time even where the clock is coarse."""
    stat = path.stat()
    path.write_bytes(path.read_bytes() if content is None else content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def identity(path: Path, series: int | None = None) -> tuple[int, int]:
    info = info_of(path, series)
    return info.size_bytes, info.modified_ns


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_chunk_that_is_rewritten_added_or_removed_makes_it_another_image(
    tmp_path: Path, version: str, inside: bool
) -> None:
    path = ome(tmp_path / "a.zarr", STACK, "zyx", version)
    seen = [identity(path / "0" if inside else path)]
    chunk = path / "0" / ("0/1/1" if version == "0.4" else "c/0/1/1")
    if version == "0.4" and not chunk.exists():
        chunk = path / "0" / "0.1.1"
    latest = max(entry.stat().st_mtime_ns for entry in (path / "0").rglob("*") if entry.is_file())
    os.utime(chunk, ns=(latest, latest))
    rewrite(chunk)
    seen.append(identity(path / "0" if inside else path))
    extra = chunk.with_name("9" if version == "0.5" else "9.9.9")
    extra.write_bytes(b"")
    os.utime(extra, ns=(0, 0))
    seen.append(identity(path / "0" if inside else path))
    extra.unlink()
    chunk.unlink()
    seen.append(identity(path / "0" if inside else path))
    assert len(set(seen)) == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_that_are_rewritten_make_it_another_image(tmp_path: Path, version: str) -> None:
    layout(tmp_path / "a.zarr", version, ["0", "1"])
    name = ".zattrs" if version == "0.4" else "zarr.json"
    for changed in (tmp_path / "a.zarr" / name, tmp_path / "a.zarr" / "1" / name):
        before = identity(tmp_path / "a.zarr", 1)
        rewrite(changed, changed.read_bytes() + b"\n")
        assert identity(tmp_path / "a.zarr", 1) != before


def test_labels_and_coarser_levels_beside_the_array_do_not_make_it_another_image(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.zarr", STACK, "zyx", "0.5")
    before = identity(path)
    array(path / "1", STACK[:, ::2, ::2], 3)
    array(path / "labels" / "cells" / "0", STACK, 3)
    assert identity(path) == before


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_that_goes_while_it_is_read_is_no_image_of_zeros(tmp_path: Path, version: Literal[2, 3]) -> None:
    data = np.full((32, 32), 7, dtype=np.uint16)
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(16, 16), zarr_format=version)
    source = open_image(tmp_path / "a.zarr")
    box = Box.whole(source.info.shape)
    np.testing.assert_array_equal(source.read(box).squeeze(), data)
    (tmp_path / "a.zarr").rename(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match=r"a\.zarr: has gone while it was read"):
        source.read(box)
