"""The flows, as the command line runs them, on a real Prefect server with a home of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType

from flows.acquisitions import PrefectRuns
from flows.records import drop_old_runs
from pipeline import open_result
from pipeline.acquisitions.place import run_hold
from pipeline.acquisitions.rules import WatchRules
from pipeline.acquisitions.scanning import RunState
from pipeline.results import PlateResult
from pipeline.stores.hold import hold
from tests.fields import load_fields

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent

CONFIGS = Path(__file__).parents[2] / "configs"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start Prefect's server, wait until it answers, and give the environment that leads to it."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert process.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < deadline, (home / "server.log").read_text()
                time.sleep(0.2)
            yield {**environment, "PREFECT_API_URL": url}
        finally:
            process.terminate()
            process.wait(30)


def seamfree(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "seamfree", *arguments], env=environment, capture_output=True, text=True, check=False, timeout=280
    )


def query(server: dict[str, str], what: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = httpx.post(f"{server['PREFECT_API_URL']}/{what}/filter", json=body, timeout=30)
    response.raise_for_status()
    found: list[dict[str, Any]] = response.json()
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Give the content of all files, but for what tells when and where a run took place."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("seamfree.json", "run-summary.json")
        and not path.name.endswith(".report.html")
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good images, one truncated, one that is text, one that is empty."""
    folder = tmp_path_factory.mktemp("inputs")
    for number, field in enumerate(load_fields()[:3]):
        tifffile.imwrite(folder / f"good-{number}.tif", field[:200, :240], compression="zlib")
    (folder / "day 2").mkdir()
    random = np.random.default_rng(0)
    tifffile.imwrite(folder / "day 2" / "noise.tif", random.integers(0, 4000, (70, 90), dtype=np.uint16))
    tifffile.imwrite(folder / "day 2" / "flat.ome.tif", np.full((33, 47), 7, dtype=np.uint8), ome=True)
    whole = (folder / "good-0.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tif").write_text("this is not an image\n")
    (folder / "empty.tif").write_bytes(b"")
    return folder


def test_a_folder_through_the_flows_and_without_them(server: dict[str, str], inputs: Path, tmp_path: Path) -> None:
    through, without = tmp_path / "through", tmp_path / "without"
    run = seamfree("run", inputs, "-o", through, environment=server)
    assert run.returncode == 1, run.stderr
    summary = json.loads((through / "run-summary.json").read_text())
    reasons = {Path(entry["input"]).name: entry["reason"] for entry in summary["images"] if entry["status"] == "failed"}
    assert summary["counts"] == {"done": 5, "failed": 3}
    assert set(reasons) == {"truncated.tif", "text.tif", "empty.tif"}
    assert "truncated" in reasons["truncated.tif"]
    assert "not a TIFF file" in reasons["text.tif"]
    assert "empty" in reasons["empty.tif"]
    for reason in reasons.values():
        assert len(reason.splitlines()) == 1
        assert " ".join(reason.split()[:1])[:20] in run.stdout.replace("\n", "")
    assert "Traceback" not in run.stdout + run.stderr
    assert sorted(path.name for path in through.iterdir()) == [
        "day 2", "good-0.ome.zarr", "good-0.report.html", "good-1.ome.zarr", "good-1.report.html", "good-2.ome.zarr",
        "good-2.report.html", "run-summary.json",
    ]  # fmt: skip
    assert sorted(path.name for path in (through / "day 2").iterdir()) == [
        "flat.ome.zarr", "flat.report.html", "noise.ome.zarr", "noise.report.html",
    ]  # fmt: skip

    flows = {flow["id"]: flow["name"] for flow in query(server, "flows", {})}
    runs = query(server, "flow_runs", {})
    states = sorted((flows[found["flow_id"]], found["state_type"]) for found in runs)
    assert (
        states
        == [("segment-folder", "FAILED")] + [("segment-image", "COMPLETED")] * 5 + [("segment-image", "FAILED")] * 3
    )
    assert any(found["name"].startswith("good-0 · nuclei") for found in runs)
    assert all("seamfree" in found["tags"] for found in runs if flows[found["flow_id"]] == "segment-image")
    tasks = [found["name"] for found in query(server, "task_runs", {"limit": 200})]
    assert "segment good-0" in tasks
    artifacts = query(server, "artifacts", {"limit": 200})
    keys = Counter(found["key"] for found in artifacts)
    assert keys["seamfree-images"] == keys["seamfree-summary"] == 1
    assert keys["seamfree-image"] == keys["seamfree-stages"] == keys["seamfree-progress"] == 5
    assert 1 <= keys["seamfree-objects"] <= 5  # not of what has none
    assert {float(found["data"]) for found in artifacts if found["key"] == "seamfree-progress"} == {100.0}
    assert all("](data:image/jpeg;base64," in found["data"] for found in artifacts if found["key"] == "seamfree-image")
    logs = " ".join(found["message"] for found in query(server, "logs", {"limit": 200}))
    assert "segment took" in logs  # the pipeline's own log

    direct = seamfree("run", inputs, "-o", without, "--direct")
    assert direct.returncode == 1
    assert files(through) == files(without)

    again = seamfree("run", inputs, "-o", through, environment=server)
    assert again.returncode == 1
    assert json.loads((through / "run-summary.json").read_text())["counts"] == {"failed": 3, "skipped": 5}
    assert files(through) == files(without)


def write_plate(path: Path, fields: list[NDArray[np.uint8]]) -> None:
    """Write a plate of one row, with a field in each well."""
    columns = [str(number) for number, _ in enumerate(fields, start=1)]
    wells = [{"path": f"A/{column}", "rowIndex": 0, "columnIndex": at} for at, column in enumerate(columns)]
    plate = zarr.open_group(path, mode="w", zarr_format=3)
    named: Any = {"rows": [{"name": "A"}], "columns": [{"name": column} for column in columns], "wells": wells}
    plate.attrs["ome"] = {"version": "0.5", "plate": named}
    for column, pixels in zip(columns, fields, strict=True):
        plate.create_group(f"A/{column}").attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}]}}
        field = plate.create_group(f"A/{column}/0")
        scale = [{"type": "scale", "scale": [0.5, 0.5]}]
        multiscale: Any = {
            "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"],
            "datasets": [{"path": "0", "coordinateTransformations": scale}],
        }
        field.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
        field.create_array("0", data=pixels)


def prefect(*arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [BIN / "prefect", "--no-prompt", *arguments], env=environment, capture_output=True, text=True, check=False,
        timeout=280, cwd=CONFIGS.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_worker_of_a_pool_segments_a_plate(server: dict[str, str], tmp_path: Path) -> None:
    api, output = server["PREFECT_API_URL"], tmp_path / "out"
    write_plate(tmp_path / "plate.ome.zarr", [field[:100, :120] for field in load_fields()[2:4]])
    for name, value in (("seamfree_incoming", tmp_path), ("seamfree_results", output)):
        httpx.post(f"{api}/variables/", json={"name": name, "value": str(value)}, timeout=30).raise_for_status()
    for name in ("process", "docker", "kubernetes"):
        # What the command line makes of the types of pools that it knows; only that for processes can be used here.
        pool = {"name": "seamfree" if name == "process" else f"seamfree-{name}", "type": name}
        if name == "kubernetes":
            pool["base_job_template"] = json.loads((CONFIGS / "kubernetes.json").read_text())
        httpx.post(f"{api}/work_pools/", json=pool, timeout=30).raise_for_status()
    prefect("deploy", "--prefect-file", "configs/prefect.yaml", "--all", environment=server)

    deployments = {found["name"]: found for found in query(server, "deployments", {})}
    assert set(deployments) == {f"{what}-{where}" for what in ("segment", "scan") for where in
                                ("process", "docker", "kubernetes")}  # fmt: skip
    scan, segment = deployments["scan-process"], deployments["segment-process"]
    schedules = {bool(found["active"]): found["schedule"] for found in scan["schedules"]}
    assert schedules[True]["interval"] == 60.0
    assert schedules[False]["cron"] == "0 6-20 * * 1-5"
    assert scan["parameters"]["folder"] == str(tmp_path)
    form = segment["parameter_openapi_schema"]
    assert form["properties"]["hours"]["description"].startswith("Give up after")
    assert form["definitions"]["RunConfig"]["properties"]["tile"]["description"]
    assert set(form["definitions"]["InputImage"]["properties"]) == {"path", "name"}

    httpx.patch(f"{api}/deployments/{scan['id']}", json={"paused": True}, timeout=30).raise_for_status()
    response = httpx.post(
        f"{api}/deployments/{segment['id']}/create_flow_run", timeout=30,
        json={"parameters": segment["parameters"] | {"image": {"path": str(tmp_path / "plate.ome.zarr")}}},
    )  # fmt: skip
    run = response.raise_for_status().json()["id"]
    prefect("worker", "start", "--pool", "seamfree", "--type", "process", "--run-once", environment=server)
    held = httpx.get(f"{api}/flow_runs/{run}", timeout=30).json()
    assert held["state_type"] == "COMPLETED", held["state"]
    assert held["name"].startswith("plate · nuclei")
    plate = open_result(output / "plate.ome.zarr")
    assert isinstance(plate, PlateResult)
    assert held["state"]["message"] == f"{plate.objects:,} objects"
    assert [field.well for field in plate.fields] == ["A1", "A2"]
    assert list(output.rglob("*.partial")) == []
    children = query(server, "flow_runs", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
    assert sorted(child["name"].split()[0] for child in children) == ["plate/A/1/0", "plate/A/2/0"]


@pytest.mark.timeout(600)
def test_a_watcher_on_the_server_of_others_by_the_clock(server: dict[str, str], tmp_path: Path) -> None:
    folder, output, log = tmp_path / "night", tmp_path / "out", tmp_path / "watch.log"
    folder.mkdir()
    bad = seamfree("watch", folder, "-o", output, "--cron", "every night", environment=server)
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)
    assert "five fields" in bad.stderr
    tifffile.imwrite(folder / "a.tif", load_fields()[3][:100, :120])
    # Once a year: what is there, and what comes, is found because the folder changes.
    command: list[str | Path] = [
        BIN / "seamfree", "watch", folder, "-o", output, "--cron", "0 3 1 1 *", "--settle", "1", "--workers", "1",
    ]  # fmt: skip
    with log.open("wb") as told:
        process = subprocess.Popen(command, env=server, stdout=told, stderr=told)
    try:
        deadline = time.monotonic() + 400
        while not (output / "a.ome.zarr").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(60)
    assert log.read_text().splitlines()[0].endswith(server["PREFECT_API_URL"].removesuffix("/api"))
    assert not (output / ".seamfree" / "prefect.db").exists()
    (scan,) = [found for found in query(server, "deployments", {}) if found["parameters"].get("folder") == str(folder)]
    assert [found["schedule"]["cron"] for found in scan["schedules"]] == ["0 3 1 1 *"]


def test_the_latest_runs_stay_on_record(server: dict[str, str]) -> None:
    ended = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED, StateType.COMPLETED]
    with SyncPrefectClient(server["PREFECT_API_URL"]) as client:

        def run(flow: Flow[..., Any], state: StateType) -> UUID:
            made = client.create_flow_run(flow, state=State(type=StateType.RUNNING))
            if state != StateType.RUNNING:
                client.set_flow_run_state(made.id, State(type=state), force=True)
            return made.id

        kept, other = Flow(lambda: None, name="kept"), Flow(lambda: None, name="other")
        working = run(kept, StateType.RUNNING)
        elsewhere = run(other, StateType.COMPLETED)
        runs = [run(kept, state) for state in ended]
        # What has begun first has ended last.
        client.set_flow_run_state(working, State(type=StateType.COMPLETED), force=True)
        working_still = run(kept, StateType.RUNNING)
        assert drop_old_runs(client, 3, flow="kept") == 3
        assert {held.id for held in client.read_flow_runs()} >= {elsewhere, working, working_still, *runs[3:]}
        assert {held.id for held in client.read_flow_runs()}.isdisjoint(runs[:3])
        assert drop_old_runs(client, 3, flow="kept") == 0


@pytest.mark.parametrize("said", [StateType.PENDING, StateType.RUNNING])
def test_a_run_that_is_slow_to_begin_is_not_dead(server: dict[str, str], tmp_path: Path, said: StateType) -> None:
    with SyncPrefectClient(server["PREFECT_API_URL"]) as client:
        run = client.create_flow_run(Flow(lambda: None, name="slow"), state=State(type=said))
        # Prefect's server may have waited for its database for a minute, and for another.
        allowed = timedelta(seconds=WatchRules().begin)
        assert allowed > timedelta(seconds=120)
        assert PrefectRuns(client, "", tmp_path, allowed).look(str(run.id)) == RunState("alive")
        with hold(run_hold(tmp_path, str(run.id))):
            assert PrefectRuns(client, "", tmp_path, timedelta()).look(str(run.id)) == RunState("alive")
        assert PrefectRuns(client, "", tmp_path, timedelta()).look(str(run.id)).kind == "dead"
        assert client.read_flow_run(run.id).state_type == StateType.CRASHED


def test_the_servers_own_start_needs_nothing(inputs: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["PREFECT_HOME"] = str(tmp_path / "home")
    run = seamfree("run", inputs / "good-1.tif", "-o", tmp_path / "out", environment=environment)
    assert run.returncode == 0, run.stderr
    assert open_result(tmp_path / "out" / "good-1.ome.zarr").objects
