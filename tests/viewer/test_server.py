"""The viewer's server: closed to all but its one user, and to all files but those of its one result."""

from __future__ import annotations

import http.client
import json
import shutil
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.viewer.server import ViewerServer, byte_range
from pipeline.viewer.site import Site
from tests.viewer.conftest import serving

KINDS = (
    "",
    "index.html",
    "look.css",
    "facts.json",
    "object.json?label=1",
    "data/seamfree.json",
    "input/0/zarr.json",
    "x",
)


class Client:
    """Asks for paths as they are, not as a browser would mend them."""

    def __init__(self, server: ViewerServer) -> None:
        self.port, self.token = server.server_address[1], server.token
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(
        self, path: str, method: str = "GET", host: str | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        given = {"Host": host or f"127.0.0.1:{self.port}"} | {
            name.replace("_", "-"): to for name, to in headers.items()
        }
        self.connection.request(method, path, headers=given)
        response = self.connection.getresponse()
        return response, response.read()

    def status(self, path: str, method: str = "GET", host: str | None = None) -> int:
        return self.ask(f"/{self.token}/{path}", method, host)[0].status


def test_without_the_token_nothing_is_answered(nuclei: Path) -> None:
    with serving(nuclei) as server, serving(nuclei) as other, Client(server) as client:
        assert len(server.token) >= 32
        assert server.token != other.token
        for path in KINDS:
            for token in (
                "",
                "T",
                server.token[:-1],
                server.token + "x",
                other.token,
                f"{server.token}%2F",
                "../" + server.token,
            ):
                response, content = client.ask(f"/{token}/{path}")
                assert response.status == 403
                assert set(json.loads(content)) == {"error"}
                assert server.token.encode() not in content
        assert client.status("facts.json") == client.status("data/seamfree.json") == client.status("") == 200


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("127.0.0.1", True), ("127.0.0.1:1", True), ("localhost:8000", True), ("localhost", True),
        ("evil.example", False), ("evil.example:{port}", False), ("127.0.0.1.evil.example:{port}", False),
        ("localhost.evil.example", False), ("0.0.0.0:{port}", False), ("", False), ("[::1]:{port}", False),
    ],
)  # fmt: skip
def test_other_names_that_lead_here_are_refused(nuclei: Path, host: str, answered: bool) -> None:
    with serving(nuclei) as server, Client(server) as client:
        given = host.format(port=client.port) or " "
        for path in KINDS[:4]:
            assert client.status(path, host=given) == (200 if answered else 403)


def test_only_files_of_the_result_are_given_out(nuclei: Path, tmp_path: Path) -> None:
    result = tmp_path / "a.ome.zarr"
    shutil.copytree(nuclei, result)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "a.ome.zarrx").mkdir()
    (tmp_path / "a.ome.zarrx/secret").write_text("secret")
    (result / "link").symlink_to(tmp_path / "secret")
    (result / "folder").symlink_to(tmp_path)
    (result / "inside").symlink_to(result / "zarr.json")
    outside = (
        "../secret", "labels/../../secret", "..%2fsecret", "%2e%2e/secret", "%252e%252e/secret", f"{tmp_path}/secret",
        f"/{tmp_path}/secret", "..%5csecret", "../a.ome.zarrx/secret", "link", "folder/secret", "labels", "", ".",
        "seamfree.json/", "seamfree.json%00", "%00", "labels//semantic", "no", "x" * 5000,
    )  # fmt: skip
    with serving(result) as server, Client(server) as client:
        for name in outside:
            response, content = client.ask(f"/{server.token}/data/{name.replace(chr(0), '%00')}")
            assert response.status == 404, name
            assert b"secret" not in content
        for name in ("../server.py", "..%2fserver.py", "%2e%2e%2fserver.py", "sub/viewer.js", ".", "..", "-x"):
            assert client.status(name) == 404, name
        assert client.status("data/inside") == client.status("data/labels/semantic/zarr.json") == 200
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert client.status("facts.json", method) == 501


def test_parts_of_files_come_as_they_are_asked_for(nuclei: Path) -> None:
    content = (nuclei / "seamfree.json").read_bytes()
    with serving(nuclei) as server, Client(server) as client:
        path = f"/{server.token}/data/seamfree.json"
        for asked, start, stop in (("0-0", 0, 1), ("5-14", 5, 15), (f"{len(content) - 3}-", -3, None), ("-7", -7, None),
                                   (f"-{10**9}", 0, None), ("3-999999999", 3, None)):  # fmt: skip
            response, part = client.ask(path, Range=f"bytes={asked}")
            assert (response.status, part) == (206, content[start:stop])
            first, last = response.headers["Content-Range"].removeprefix("bytes ").split("/")[0].split("-")
            assert content[int(first) : int(last) + 1] == part
        response, part = client.ask(path, Range=f"bytes={len(content)}-")
        assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{len(content)}")
        for asked in ("", "lines=0-1", "bytes=a-b", "bytes=5-2", "bytes=-", "bytes=0-1,4-5"):
            response, part = client.ask(path, Range=asked)
            assert (response.status, part) == (200, content)
        response, part = client.ask(path, "HEAD")
        assert (response.status, response.headers["Content-Length"], part) == (200, str(len(content)), b"")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        policy = client.ask(f"/{server.token}/")[0].headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


@given(st.binary(max_size=30), st.integers(0, 40), st.integers(0, 40))
def test_a_range_is_that_of_a_slice(content: bytes, first: int, last: int) -> None:
    for header, expected in ((f"bytes={first}-{last}", content[first : last + 1]), (f"bytes={first}-", content[first:]),
                             (f"bytes=-{last}", content[-last:] if last else b"")):  # fmt: skip
        if f"{first}-{last}" in header and last < first:
            assert byte_range(header, len(content)) is None
        elif expected:
            found = byte_range(header, len(content))
            assert found is not None
            assert content[slice(*found)] == expected
        else:
            with pytest.raises(ValueError, match="of"):
                byte_range(header, len(content))


def test_it_listens_on_the_loopback_interface_and_says_when_a_port_is_taken(nuclei: Path) -> None:
    site = Site(nuclei)
    with ViewerServer(site) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.server_address[1]}/{server.token}/"
        with pytest.raises(ConfigError, match=r"cannot be used .*; give another --port"):
            ViewerServer(site, server.server_address[1])
