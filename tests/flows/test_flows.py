"""The flows, as the command line runs them, on a real Prefect server with a home of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile

from pipeline import open_result
from tests.fields import load_fields

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


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
    assert {found["key"] for found in query(server, "artifacts", {})} >= {"seamfree-images", "seamfree-summary"}
    logs = " ".join(found["message"] for found in query(server, "logs", {"limit": 200}))
    assert "segment took" in logs  # the pipeline's own log

    direct = seamfree("run", inputs, "-o", without, "--direct")
    assert direct.returncode == 1
    assert files(through) == files(without)

    again = seamfree("run", inputs, "-o", through, environment=server)
    assert again.returncode == 1
    assert json.loads((through / "run-summary.json").read_text())["counts"] == {"failed": 3, "skipped": 5}
    assert files(through) == files(without)


def test_the_servers_own_start_needs_nothing(inputs: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["PREFECT_HOME"] = str(tmp_path / "home")
    run = seamfree("run", inputs / "good-1.tif", "-o", tmp_path / "out", environment=environment)
    assert run.returncode == 0, run.stderr
    assert open_result(tmp_path / "out" / "good-1.ome.zarr").objects
