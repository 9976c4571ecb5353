"""The server that a run starts for itself: real ones, killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from flows.server import Server, free_port, recording_server
from pipeline.errors import ClusterError

pytestmark = pytest.mark.slow


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "prefect.server.api.server:create_app" in child.cmdline()]


def test_a_server_that_is_killed_is_started_again_also_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    server = recording_server()
    try:
        (first,) = children()
        first.kill()
        server.wait()
        (second,) = children()
        assert second.pid != first.pid
        url = server.url
        second.kill()
        second.wait()
        deadline = time.monotonic() + 120
        while True:
            try:
                assert httpx.get(f"{url}/health", timeout=5).status_code == 200
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
    finally:
        server.end()
    assert children() == []


def test_a_server_that_does_not_start_is_told_at_once() -> None:
    started = []

    def start(port: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        started.append(process)
        return process

    server = Server(start, free_port(), lambda: "its last words: no database")
    with pytest.raises(ClusterError, match="does not start; its last words: no database"):
        server.wait()
    assert [process.returncode for process in started] == [3, 3, 3]


ANSWERING = """
import http.server, sys

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


def test_a_server_that_has_become_stale_is_started_anew_once(caplog: pytest.LogCaptureFixture) -> None:
    """One whose connections to its database are for reading alone, for instance."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", ANSWERING, str(port)], stderr=subprocess.DEVNULL))
        return started[-1]

    said = iter([False, True, False, False, False])
    asked_out = threading.Event()

    def is_stale() -> bool:
        answer = next(said, None)
        if answer is None:
            asked_out.set()
        return bool(answer)

    server = Server(start, free_port(), str, is_stale=is_stale)
    try:
        server.wait()
        assert asked_out.wait(60)
        assert len(started) == 2
        assert started[0].poll() is not None
        assert "is started again" in caplog.text
    finally:
        server.end()
    assert started[1].poll() is not None
