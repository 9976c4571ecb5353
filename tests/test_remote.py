"""Images and results in object stores and on web servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

from pipeline import open_result, segment
from pipeline.config import RunConfig, make_config
from pipeline.destination import local_folder
from pipeline.errors import ConfigError, ImageError, StoreError
from pipeline.geometry import Box
from pipeline.images.content import content_sha256
from pipeline.images.discover import discover
from pipeline.images.opening import open_image
from pipeline.remote.paths import RemotePath
from pipeline.results import PlateResult, check_result
from pipeline.stores.metadata import Space, write_image_group
from pipeline.stores.sending import SENDING, send
from pipeline.verify import verify
from tests.elsewhere import SECRET, google_server, objects_below, s3_server, upload, web_server
from tests.faults.run import Run, contents, reached
from tests.plates import parts_of_fields, write_plate
from tests.random_models import save_threshold_model

BUCKET = "s3://lab-images"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an image as TIFF of several kinds and as OME-Zarr, and a model."""
    home = tmp_path_factory.mktemp("home")
    (home / "in").mkdir()
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(2, 300, 400)), (0, 4, 4))
    image = ((noise - noise.min()) * 10000).astype(np.uint16)
    tifffile.imwrite(home / "in" / "tiled.tif", image, tile=(64, 64), compression="zlib", photometric="minisblack")
    tifffile.imwrite(home / "in" / "plain.tif", image.astype(">u2"), byteorder=">", photometric="minisblack")
    group = home / "in" / "zarr.ome.zarr"
    array = zarr.create_array(group / "0", shape=image[0].shape, chunks=(50, 50), shards=(100, 100), dtype=image.dtype)
    array[:] = image[0]
    space = Space("YX", (0.5, 0.5), (0.0, 0.0), ("micrometer", "micrometer"))
    write_image_group(group, space, "zarr", 1, ("dna",), ((0.0, 65535.0, 0.0, 65535.0),), "0.5")
    save_threshold_model(home / "model", 2)
    return home


@pytest.fixture(scope="module")
def bucket(home: Path) -> Iterator[RemotePath]:
    """Give a bucket with the images."""
    with s3_server("lab-images") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        place = RemotePath(BUCKET)
        upload(home / "in", place / "in")
        yield place


def config_for(home: Path, staging: Path, *, report: bool = False) -> RunConfig:
    return make_config(
        {
            "model": str(home / "model"), "tile": 128, "instances": {"method": "watershed"},
            "output": {"staging": str(staging), "chunk": 128, "report": report}, "execution": {"scheduler": "serial"},
        }
    )  # fmt: skip


@pytest.mark.parametrize("name", ["tiled.tif", "plain.tif", "zarr.ome.zarr"])
def test_images_elsewhere_are_what_they_are_on_a_disk(home: Path, bucket: RemotePath, name: str) -> None:
    here = open_image(home / "in" / name)
    box = Box((0, 0, 0, 37, 110), (1, 1, here.info.shape[2], 201, 330))
    with web_server(home / "in") as (server, address):
        for place in (f"{BUCKET}/in/{name}", f"{address}/{name}"):
            there = open_image(place)
            at = here.info.modified_ns
            listed = replace(there.info, path=here.info.path, modified_ns=at, size_bytes=here.info.size_bytes)
            assert listed == here.info
            assert there.info.path == place
            np.testing.assert_array_equal(there.read(box), here.read(box))
            if place.startswith(BUCKET):
                assert there.info.size_bytes == here.info.size_bytes
                assert there.pieces() == here.pieces()
                assert content_sha256(there) == content_sha256(here)
            there.close()
        served = server.served
        there = open_image(f"{address}/{name}")
        opened = server.served
        there.read(Box((0, 0, 0, 0, 0), (1, 1, 1, 8, 8)))
        there.close()
        # What is at the file's ends, with what is read ahead; then eight rows, a tile, or a chunk and a shard's index.
        assert opened - served < 5 * 2**16
        assert server.served - opened < (20_000 if name == "plain.tif" else 2 * 2**16)
    here.close()


def test_folders_elsewhere_are_searched(bucket: RemotePath) -> None:
    found = discover([f"{BUCKET}/in"])
    assert [(image.path, image.name) for image in found] == [
        (f"{BUCKET}/in/plain.tif", "plain"), (f"{BUCKET}/in/tiled.tif", "tiled"), (f"{BUCKET}/in/zarr.ome.zarr", "zarr")
    ]  # fmt: skip


def test_images_in_googles_store_are_what_they_are_on_a_disk(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plate(tmp_path / "in" / "P.zarr", parts_of_fields(1), wells=("A/01",), per_well=1)
    shutil.copytree(home / "in", tmp_path / "in", dirs_exist_ok=True)
    with google_server("lab", tmp_path / "in", tmp_path / "key.json") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found = discover(["gs://lab"])
        assert [image.name for image in found] == ["P/A/01/0", "plain", "tiled", "zarr"]
        for image in found[1:]:
            here, there = (open_image(path) for path in (tmp_path / "in" / Path(image.path).name, image.path))
            box = Box((0, 0, 0, 37, 110), (1, 1, here.info.shape[2], 201, 330))
            np.testing.assert_array_equal(there.read(box), here.read(box))
            assert there.info.size_bytes == here.info.size_bytes
            assert content_sha256(there) == content_sha256(here)
            for source in (here, there):
                source.close()
        settings = config_for(home, tmp_path / "staging")
        reports = segment("gs://lab/P.zarr", tmp_path / "there", settings)
    segment(tmp_path / "in" / "P.zarr", tmp_path / "here", settings)
    assert {report.status for report in reports} == {"done"}
    one, other = (open_result(tmp_path / place / "P.ome.zarr" / "A/01/0") for place in ("here", "there"))
    np.testing.assert_array_equal(one.instances[0][:], other.instances[0][:])


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"{BUCKET}/in/none.tif", "in/none.tif: cannot be read (No such file"),
        (f"{BUCKET}/in/none.zarr", "in/none.zarr: there is no Zarr"),
        (f"{BUCKET}/nothing", "nothing: no image, and no images below it"),
        ("s3://no-such-bucket/a", "the server says: The specified bucket does not exist"),
        (f"s3://me:{SECRET}@bucket/a.tif", "s3://bucket/a.tif: an address has no user, password"),
        (f"https://host/a.tif?X-Amz-Signature={SECRET}", "https://host/a.tif: an address has no user, password"),
        ("ftp://host/a.tif", "places of this kind are not known"),
        ("s3:///a.tif", "a bucket or host is wanted"),
    ],
)
def test_what_cannot_be_read_is_told_and_tells_no_secret(bucket: RemotePath, url: str, told: str) -> None:
    with pytest.raises((ConfigError, ImageError)) as caught:
        open_image(discover([url])[0].path)
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_permission_it_is_told_where_it_comes_from(
    bucket: RemotePath, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"from pipeline.images.opening import open_image; open_image('{BUCKET}/in/plain.tif')"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "AWS_SKIP_SIGNATURE": "true"},
    )  # fmt: skip
    assert "no permission" in run.stderr
    assert "AWS_ACCESS_KEY_ID" in run.stderr
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError, match=r"pip install 'seamfree\[remote\]'"):
        local_folder("s3://another/out", config_for(home, tmp_path))
    with pytest.raises(ConfigError, match="nothing can be written there"):
        local_folder("https://host/out", config_for(home, tmp_path))


@pytest.mark.slow
def test_a_killed_run_leaves_in_the_end_what_an_undisturbed_one_does(
    home: Path, bucket: RemotePath, tmp_path: Path
) -> None:
    source, out = f"{BUCKET}/in/zarr.ome.zarr", bucket / "killed"
    settings = config_for(home, tmp_path / "staging", report=True)
    (done,) = segment(source, tmp_path / "here", settings)
    assert done.status == "done", done.reason
    final, notes = out / "zarr.ome.zarr", tmp_path / "notes"
    arguments: list[str | Path] = [
        source, "-o", str(out), "-m", home / "model", "--tile", "128", "--instances", "watershed", "--direct",
        "--scheduler", "serial", "-c", tmp_path / "c.yaml",
    ]  # fmt: skip
    (tmp_path / "c.yaml").write_text(f"output: {{staging: {tmp_path / 'staging'}, chunk: 128}}\n")
    said = []
    for point in ("marked:9", "sent:30", "finished sending:1"):
        run = Run(arguments, notes, point)
        assert run.wait() == -9, run.said()
        (notes / "killed").unlink()
        said.append(run.said())
        if not point.startswith("finished"):
            # Nobody takes half of it for a result.
            with pytest.raises(ConfigError, match=r"not whole yet|no such folder"):
                check_result(str(final))
            with pytest.raises(StoreError, match="not a result"):
                open_result(str(final))
            assert not (final / "zarr.json").is_file()
    put = reached(notes, "sent")
    run = Run(arguments, notes)
    assert run.wait() == 0, run.said()
    assert "skipped" in run.said()
    assert reached(notes, "sent") == put
    expected = contents(tmp_path / "here" / "zarr.ome.zarr")
    # No object was sent twice but what was on its way when the process died, by eight threads, and the report.
    assert put <= len(expected) + 4 * 9
    found = objects_below(final)
    (tmp_path / "there").mkdir()
    for name, content in found.items():
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(content)
    assert contents(tmp_path / "there") == expected
    assert (out / "zarr.report.html").is_file()
    everything = [*objects_below(out).values(), *(text.encode() for text in said)]
    assert not any(SECRET.encode() in content for content in everything)
    assert {path.name for path in (tmp_path / "staging").rglob("*") if path.is_file()} == {"run-summary.json"}
    # What is there is a result like any other.
    assert [check for check in verify(str(final)) if not check.passed or not check.made] == []
    result = open_result(str(final))
    assert len(result.table) == result.objects
    assert int(result.dask("instances").max().compute()) == result.objects
    assert result.xarray("image").shape == (300, 400)
    # Damage is found, noted there, and mended by the next run; what was there before is gone.
    (final / "labels" / "semantic" / "0" / "c" / "0" / "0").write_bytes(b"x")
    (final / "labels" / "semantic" / "9").write_bytes(b"of another result")
    assert not all(check.passed for check in verify(str(final)))
    run = Run([each for each in arguments if each != "--direct"], notes)
    assert run.wait() == 0, run.said()
    assert re.search(rf"zarr +done .*{final}", run.said())
    assert objects_below(final).keys() == found.keys()
    assert all(check.passed for check in verify(str(final), audit=False))


@pytest.mark.slow
def test_one_run_at_a_time_sends_and_nothing_foreign_is_replaced(
    home: Path, bucket: RemotePath, tmp_path: Path
) -> None:
    settings = config_for(home, tmp_path / "staging")
    final = bucket / "two" / "plain.ome.zarr"
    source = f"{BUCKET}/in/plain.tif"
    (final / "a.txt").write_bytes(b"mine")
    (report,) = segment(source, str(bucket / "two"), settings)
    assert report.status == "failed"
    assert "seamfree has not made" in str(report.reason)
    (final / "a.txt").unlink()
    # Another machine has begun to send there.
    (final / SENDING).write_bytes(b'{"mark": "1", "host": "other", "since": "today"}')
    (report,) = segment(source, str(bucket / "two"), settings)
    assert report.status == "failed"
    assert "another run, on other since today" in str(report.reason)
    (report,) = segment(source, str(bucket / "two"), settings, fresh=True)
    assert report.status == "done", report.reason
    assert not (final / SENDING).is_file()
    first = (final / "zarr.json").stat().st_mtime_ns
    # Of another image with the same name, nothing is lost.
    (bucket / "in2" / "plain.tif").write_bytes((home / "in" / "tiled.tif").read_bytes())
    (report,) = segment(str(bucket / "in2" / "plain.tif"), str(bucket / "two"), settings)
    assert report.status == "failed"
    assert "finished result of another image" in str(report.reason)
    assert (final / "zarr.json").stat().st_mtime_ns == first


@pytest.mark.parametrize("fresh", [False, True])
def test_a_plate_is_refused_before_it_is_computed(home: Path, bucket: RemotePath, tmp_path: Path, fresh: bool) -> None:
    write_plate(tmp_path / "p.ome.zarr", parts_of_fields(1), wells=("A/01",), per_well=1)
    settings = config_for(home, tmp_path / "staging")
    reports = segment(tmp_path / "p.ome.zarr", str(bucket / "plates"), settings, fresh=fresh)
    assert {report.status for report in reports} == {"failed"}
    assert all("a plate's result is made in a folder; give one with -o" in str(report.reason) for report in reports)
    assert not list((tmp_path / "staging").rglob("*.zarr*"))
    assert not (bucket / "plates" / "p.ome.zarr" / "zarr.json").is_file()


@pytest.mark.slow
def test_a_plate_of_a_web_server_gives_what_it_gives_on_a_disk(home: Path, tmp_path: Path) -> None:
    write_plate(tmp_path / "P.zarr", parts_of_fields(2), wells=("A/01", "B/03"), per_well=1)
    settings = config_for(home, tmp_path / "staging")
    segment(tmp_path / "P.zarr", tmp_path / "here", settings)
    with web_server(tmp_path) as (_, address):
        reports = segment(f"{address}/P.zarr", tmp_path / "there", settings)
    assert [(report.name, report.status) for report in reports] == [
        ("P/A/01/0", "done"), ("P/B/03/0", "done"), ("P", "done")
    ]  # fmt: skip
    here, there = (open_result(tmp_path / name / "P.ome.zarr") for name in ("here", "there"))
    assert isinstance(here, PlateResult)
    assert isinstance(there, PlateResult)
    assert (here.objects or 0) > 0
    for one, other in zip(here.fields, there.fields, strict=True):
        np.testing.assert_array_equal(one.result.instances[0][:], other.result.instances[0][:])
        pd.testing.assert_frame_equal(one.result.table, other.result.table)
    assert all(check.passed for check in verify(there.path, audit=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image", "most"), [("a.tif", "auto", 1.1), ("a.zarr", "copy", 1.1), ("a.zarr", "auto", 6.5)]
)
def test_a_run_asks_a_server_for_what_it_needs(home: Path, tmp_path: Path, name: str, image: str, most: float) -> None:
    """With a copy in the result each byte comes once; without, windows with their context, and measuring, ask again."""
    noise = gaussian_filter(np.random.default_rng(1).normal(size=(1024, 1024)), 4)
    pixels = ((noise - noise.min()) * 10000).astype(np.uint16)
    (tmp_path / "in").mkdir()
    group = tmp_path / "in" / "a.zarr"
    array = zarr.create_array(group / "0", shape=pixels.shape, chunks=(128, 128), dtype=pixels.dtype, compressors=None)
    array[:] = pixels
    space = Space("YX", (0.5, 0.5), (0.0, 0.0), ("micrometer", "micrometer"))
    write_image_group(group, space, "a", 1, ("dna",), ((0.0, 65535.0, 0.0, 65535.0),), "0.5")
    tifffile.imwrite(tmp_path / "in" / "a.tif", pixels, tile=(128, 128), photometric="minisblack")
    settings = config_for(home, tmp_path / "staging").model_dump()
    settings["output"]["image"], settings["tile"] = image, 256
    with web_server(tmp_path / "in") as (server, address):
        (report,) = segment(f"{address}/{name}", tmp_path / "out", make_config(settings))
    assert report.status == "done", report.reason
    assert server.served < most * pixels.nbytes


def test_a_result_becomes_visible_last(bucket: RemotePath, tmp_path: Path) -> None:
    for name in ("zarr.json", "0/zarr.json", "0/c/0", "labels/zarr.json", "labels/a/zarr.json", "seamfree.json"):
        (tmp_path / "r.ome.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "r.ome.zarr" / name).write_text("{}")
    target = bucket / "order" / "r.ome.zarr"
    assert send(tmp_path / "r.ome.zarr", target) == 12
    log = (tmp_path / ".r.ome.zarr.sent").read_text()
    order = [line.split('"key": "')[1].split('"')[0] for line in log.splitlines() if "key" in line]
    assert order == ["0/c/0", "labels/a/zarr.json", "0/zarr.json", "labels/zarr.json", "zarr.json", "seamfree.json"]
    assert send(tmp_path / "r.ome.zarr", target) == 0
