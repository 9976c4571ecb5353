"""A microscope at work: a real watcher, its real server, and files that come as instruments and copies write them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline import open_result
from pipeline.acquisitions.ledger import Acquisition, AcquisitionLedger, Sighting
from pipeline.acquisitions.place import SERVER, ledger_of
from pipeline.images.content import content_sha256
from pipeline.images.opening import open_image
from pipeline.results import PlateResult
from pipeline.stores.hold import is_held
from tests.fields import load_fields
from tests.plates import write_plate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent

DEADLINE = 240.0
"""Seconds for anything that is waited for: far more than it takes."""


class Watched:
    """A folder, the watcher at work on it, and what its ledger says."""

    def __init__(self, place: Path) -> None:
        self.folder, self.output = place / "in", place / "out"
        self.log = place / "watch.log"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment["PREFECT_HOME"] = str(place / "home")
        self.folder.mkdir()
        self.process: psutil.Process | None = None
        self.popen: subprocess.Popen[bytes] | None = None
        self.told: list[dict[str, Any]] = []
        told = self.told

        class Listener(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.listener = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def start(self) -> None:
        """Start the watcher, and wait until it has looked once."""
        (self.output / ".seamfree" / SERVER).unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [BIN / "seamfree", "watch", self.folder, "-o", self.output, "--every", "2", "--settle", "2",
                 "--patience", "6", "--at-once", "2", "--workers", "2", "--notify", f"http://127.0.0.1:{self.listener.server_port}/"],
                env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.process = psutil.Process(self.popen.pid)
        self.until((self.output / ".seamfree" / SERVER).exists)

    def kill(self) -> None:
        """Kill the watcher alone, and wait until all that it had started has ended by itself."""
        assert self.process is not None
        assert self.popen is not None
        children = self.process.children(recursive=True)
        self.popen.kill()
        self.popen.wait()
        _, alive = psutil.wait_procs(children, timeout=DEADLINE)
        assert not alive

    def kill_server(self) -> None:
        assert self.process is not None
        (server,) = [
            child for child in self.process.children()
            if child.cmdline()[1:5] == ["-m", "prefect", "server", "start"]
        ]  # fmt: skip
        server.kill()

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.popen is not None
            assert self.popen.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.tell()
            time.sleep(0.1)

    def tell(self) -> str:
        server = (self.output / ".seamfree" / "server.log").read_text()[-3000:]
        return f"{self.sightings()}\n{self.acquisitions()}\n{self.log.read_text()}\n{server}"

    def sightings(self) -> dict[str, Sighting]:
        """Give what was seen, by the path below the folder."""
        if not ledger_of(self.output).exists():
            return {}
        with AcquisitionLedger(ledger_of(self.output)) as ledger:
            found = ledger.sightings()
        return {Path(path).relative_to(self.folder).as_posix(): sighting for path, sighting in found.items()}

    def acquisitions(self) -> list[Acquisition]:
        if not ledger_of(self.output).exists():
            return []
        with AcquisitionLedger(ledger_of(self.output)) as ledger:
            return ledger.acquisitions()

    def seen(self, name: str, *states: str) -> bool:
        sighting = self.sightings().get(name)
        return sighting is not None and sighting.state in states

    def mark(self, name: str) -> str:
        sighting = self.sightings().get(name)
        return sighting.fingerprint if sighting is not None else ""

    def done(self, *names: str) -> bool:
        return set(names) <= {held.name for held in self.acquisitions() if held.state == "done"}

    def is_segmenting(self) -> bool:
        """Say whether the process of a run lives."""
        runs = self.output / ".seamfree" / "runs"
        names = [path.name.removeprefix(".").removesuffix(".lock") for path in runs.glob(".*.lock")]
        return any(is_held(runs / name) for name in names)

    def content(self, name: str) -> str:
        source = open_image(self.folder / name)
        try:
            return content_sha256(source)
        finally:
            source.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    try:
        yield watched
    finally:
        if watched.popen is not None and watched.popen.poll() is None:
            watched.kill()
        watched.listener.shutdown()
        watched.listener.server_close()


def encoded(image: NDArray[Any], place: Path) -> bytes:
    tifffile.imwrite(place, image)
    return place.read_bytes()


def write_set(folder: Path, planes: list[NDArray[Any]], written: list[int]) -> None:
    """Write files of an OME-TIFF with a plane in each; those alone that are asked for."""
    height, width = planes[0].shape
    names = [f"set_{number}.ome.tif" for number in range(len(planes))]
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{at}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{at:032d}</UUID></TiffData>'
        for at, name in enumerate(names)
    )
    for at in written:
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{at:032d}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
            f'SizeX="{width}" SizeY="{height}" SizeZ="{len(planes)}" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / names[at], planes[at], description=xml, metadata=None)


def begin_zarr(path: Path, shape: tuple[int, int], chunk: int) -> zarr.Array[Any]:
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array("0", shape=shape, chunks=(chunk, chunk), dtype="uint8")
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    multiscale: Any = {"name": "grown", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return array


def test_a_microscope_at_work(watched: Watched, tmp_path: Path) -> None:
    fields = [field[:200, :240] for field in load_fields()[:8]]
    folder, stage = watched.folder, tmp_path / "stage.tif"
    watched.start()

    # All of it begins at once. A file that is written slowly, and a burst of two:
    slow = encoded(fields[0], stage)
    (folder / "slow.tif").write_bytes(slow[:20000])
    for number in (1, 2):
        tifffile.imwrite(folder / f"burst-{number}.tif", fields[number])
    # One that gets its name at the end, and one beside which a lock lies:
    (folder / "renamed.tif.part").write_bytes(encoded(fields[3], stage))
    (folder / "locked.tif").write_bytes(encoded(fields[4], stage))
    (folder / "locked.tif.lock").touch()
    # A set whose last file is missing, an OME-Zarr without its last chunks, one that is cut off, one that is no image:
    write_set(folder, [fields[5], fields[6]], [0])
    grown = begin_zarr(folder / "grown.ome.zarr", (200, 240), 100)
    grown[:100] = np.maximum(fields[7][:100], 1)
    whole = encoded(fields[0][::-1], stage)
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tif").write_text("this is not an image\n")

    watched.until(lambda: watched.seen("slow.tif", "growing", "waiting"))
    first = watched.mark("slow.tif")
    with (folder / "slow.tif").open("ab") as file:
        file.write(slow[20000:30000])
    watched.until(lambda: watched.mark("slow.tif") not in ("", first))
    with (folder / "slow.tif").open("ab") as file:
        file.write(slow[30000:])
    watched.until(lambda: watched.seen("set_0.ome.tif", "waiting", "quarantined"))
    assert "set_1.ome.tif" in str(watched.sightings()["set_0.ome.tif"].reason)
    watched.until(lambda: watched.seen("grown.ome.zarr", "waiting", "quarantined"))
    assert "chunks" in str(watched.sightings()["grown.ome.zarr"].reason)
    grown[100:, :100] = np.maximum(fields[7][100:200, :100], 1)
    watched.until(lambda: watched.seen("locked.tif", "waiting"))
    assert "locked.tif.lock" in str(watched.sightings()["locked.tif"].reason)
    watched.until(lambda: watched.seen("cut.tif", "quarantined"))
    watched.until(lambda: watched.seen("text.tif", "quarantined"))
    assert "truncated" in str(watched.sightings()["cut.tif"].reason)
    assert "renamed.tif" not in watched.sightings()
    assert {held.name for held in watched.acquisitions()} <= {"slow", "burst-1", "burst-2"}

    # What was missing comes.
    (folder / "renamed.tif.part").rename(folder / "renamed.tif")
    (folder / "locked.tif.lock").unlink()
    write_set(folder, [fields[5], fields[6]], [1])
    grown[100:, 100:] = np.maximum(fields[7][100:200, 100:], 1)
    (folder / "cut.tif").write_bytes(whole)

    # The watcher is killed while an image is being segmented, and more comes before it is back.
    watched.until(lambda: any(held.state == "started" for held in watched.acquisitions()))
    watched.until(watched.is_segmenting)
    watched.kill()
    tifffile.imwrite(folder / "overnight.tif", fields[5][:, ::-1])
    watched.start()

    # The server is killed, too; and two files come again, under another name, and touched.
    watched.until(watched.is_segmenting)
    watched.kill_server()
    watched.until(lambda: watched.done("burst-1", "burst-2"))
    (folder / "again").mkdir()
    shutil.copy(folder / "burst-1.tif", folder / "again" / "copy.tif")
    os.utime(folder / "burst-2.tif")
    touched = watched.mark("burst-2.tif")
    tifffile.imwrite(folder / "last.tif", fields[6][:, ::-1])

    files = {
        "slow": "slow.tif", "burst-1": "burst-1.tif", "burst-2": "burst-2.tif", "renamed": "renamed.tif",
        "locked": "locked.tif", "set_0": "set_0.ome.tif", "grown": "grown.ome.zarr", "cut": "cut.tif",
        "overnight": "overnight.tif", "last": "last.tif",
    }  # fmt: skip
    watched.until(lambda: watched.done(*files))
    watched.until(lambda: watched.seen("again/copy.tif", "known"))
    watched.until(lambda: watched.seen("burst-2.tif", "known") and watched.mark("burst-2.tif") != touched)

    # Each once, whole, and nothing else.
    held = {acquisition.name: acquisition for acquisition in watched.acquisitions()}
    assert len(watched.acquisitions()) == len(files)
    assert set(held) == set(files)
    for name, delivered in files.items():
        assert held[name].content == watched.content(delivered), name
        result = open_result(watched.output / f"{name}.ome.zarr")
        assert result.provenance["plan"]["content_sha256"] == held[name].content, name
    assert watched.seen("set_1.ome.tif", "part")
    assert {name for name in watched.sightings() if watched.seen(name, "quarantined")} == {"text.tif"}
    assert list((watched.output).rglob("*.partial")) == []

    # The server says the same: a run of each that ended well, and none that failed.
    url = json.loads((watched.output / ".seamfree" / SERVER).read_text())["url"]
    response = httpx.post(f"{url}/flow_runs/filter", json={"flows": {"name": {"any_": ["segment-image"]}}}, timeout=30)
    runs = response.raise_for_status().json()
    states = sorted((run["parameters"]["image"]["name"], run["state_type"]) for run in runs)
    assert [name for name, state in states if state == "COMPLETED"] == sorted(files)
    assert {state for _, state in states} <= {"COMPLETED", "CRASHED"}

    # Who asked to be told has been told.
    watched.until(lambda: any(Path(told["image"]).name == "last.tif" for told in watched.told))
    (told_of_last,) = [told for told in watched.told if Path(told["image"]).name == "last.tif"]
    assert told_of_last["state"] == "Completed"
    assert told_of_last["message"] == f"{held['last'].objects} objects"

    # Images from elsewhere are handed over, and one whose result is finished is left alone.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    tifffile.imwrite(elsewhere / "by-hand.tif", fields[7][:, ::-1])
    (elsewhere / "bad.tif").write_text("this is not an image\n")
    tifffile.imwrite(elsewhere / "overnight.tif", fields[2][:, ::-1])
    write_plate(elsewhere / "plate.ome.zarr", [field[:100, :120] for field in fields[:2]], per_well=1)
    handed = subprocess.run(
        [BIN / "seamfree", "submit", elsewhere, folder / "last.tif", "-o", watched.output], env=watched.environment,
        capture_output=True, text=True, check=False, timeout=DEADLINE,
    )  # fmt: skip
    assert handed.returncode == 1, handed.stderr
    lines = {line.split()[0]: line for line in handed.stdout.splitlines()}
    assert lines["by-hand"].split()[1] == "done"
    assert open_result(watched.output / "by-hand.ome.zarr").provenance["objects"] == int(lines["by-hand"].split()[2])
    assert "not a TIFF" in lines["bad"]
    plate = open_result(watched.output / "plate.ome.zarr")
    assert isinstance(plate, PlateResult)
    assert lines["plate"].split()[1:3] == ["done", f"{plate.objects}"]
    assert lines["last"].split()[1] == "skipped"
    assert "there is a finished result" in lines["last"]

    # One whose result would take another's place is refused, unless that is asked for; then the ledger knows.
    assert lines["overnight"].split()[1] == "failed"
    assert "there is a finished result of another image" in lines["overnight"]
    assert watched.done("overnight")
    subprocess.run(
        [BIN / "seamfree", "submit", "--fresh", elsewhere / "overnight.tif", "-o", watched.output],
        env=watched.environment, capture_output=True, text=True, check=True, timeout=DEADLINE,
    )  # fmt: skip
    (replaced,) = [each for each in watched.acquisitions() if each.name == "overnight"]
    assert replaced.state == "cancelled"
    assert str(elsewhere / "overnight.tif") in str(replaced.reason)

    # A second watcher is refused, and `status` lists what is in quarantine.
    second = subprocess.run(
        [BIN / "seamfree", "watch", folder, "-o", watched.output], env=watched.environment, capture_output=True,
        text=True, check=False, timeout=DEADLINE,
    )  # fmt: skip
    assert second.returncode == 1
    assert "at work" in second.stderr
    told = subprocess.run(
        [BIN / "seamfree", "status", watched.output, "--json"], capture_output=True, text=True, check=True
    )
    facts = json.loads(told.stdout)
    assert facts["watcher"]
    assert [entry["path"] for entry in facts["files"] if entry["state"] == "quarantined"] == [str(folder / "text.tif")]
