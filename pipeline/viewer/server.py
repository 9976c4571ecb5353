"""The server of the viewer: one result, on the loopback interface, to whoever knows the token.

Other users of the machine can connect to the loopback interface, and so can web pages that the user has open, by a name
that resolves to it. Hence every request must bear the token in its path, and name this machine as its host.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import re
import secrets
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.errors import ConfigError, SeamfreeError
from pipeline.look import THEME
from pipeline.printing import in_one_line

if TYPE_CHECKING:
    from socket import socket

    from pipeline.viewer.site import Site

__all__ = ["ViewerServer", "byte_range"]

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"

HOSTS = {"127.0.0.1", "localhost"}
"""Names by which the server may be called, at any port: a tunnel has another one at its near end."""

PIECE = 2**20
"""Bytes of a file that are held at a time."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Read a ``Range`` header.

    Parameters
    ----------
    header : str, optional
        What was asked: ``bytes=FIRST-LAST``, ``bytes=FIRST-`` or ``bytes=-LENGTH``.
    size : int
        Of the file.

    Returns
    -------
    tuple of int, int, or None
        First byte, and the one after the last; None where the whole is to be sent, as for what is not understood.

    Raises
    ------
    ValueError
        If there is no such part.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    start, stop = (size - min(int(last), size), size) if not first else (int(first), int(last) + 1 if last else size)
    if last and first and int(last) < int(first):
        return None
    if start >= min(stop, size):
        raise ValueError(f"{header} of {size} bytes")
    return start, min(stop, size)


class ViewerServer(ThreadingTCPServer):
    """Serves the page and the files of one result.

    Parameters
    ----------
    site : Site
        What is shown.
    port : int
        0 for any that is free.

    Raises
    ------
    ConfigError
        If the port is taken, or may not be used.
    """

    # After a server ends, its port can be taken again at once.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site, self.token = site, secrets.token_urlsafe(24)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port}: cannot be used ({error.strerror or error}); give another --port"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is; whoever has this address sees the result."""
        return f"http://127.0.0.1:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:  # noqa: ANN401, ARG002
        """Tell of what went wrong where it is asked for: mostly a browser that has gone."""
        log.debug("a request failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: ViewerServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "seamfree", ""
    timeout = 300
    # A head and a small body would wait for one another.
    wbufsize = -1

    answers: ClassVar = {"facts.json": "facts", "object.json": "object", "objects.json": "objects"}

    def do_GET(self) -> None:
        """Answer a request."""
        try:
            self._answer()
        except SeamfreeError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, in_one_line(str(error)))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the terminal clean; the token is in no log."""
        log.debug("%s", (format % args).replace(self.server.token, "TOKEN"))

    def _answer(self) -> None:
        # A name that an attacker's server has pointed at this machine would otherwise be as good as its own.
        host = (self.headers.get("Host") or "").rpartition(":")
        if (host[0] or host[2]) not in HOSTS:
            self._refuse(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only")
            return
        asked = urlsplit(self.path)
        token, _, path = asked.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(
                HTTPStatus.FORBIDDEN, "the address has no valid token; seamfree view has printed one that does"
            )
            return
        query = {name: values[-1] for name, values in parse_qs(asked.query).items()}
        kind, _, rest = unquote(path).partition("/")
        if kind in self.answers and not rest:
            found = getattr(self.server.site, self.answers[kind])(**self._known(query))
            self._send(json.dumps(found, allow_nan=False).encode(), "application/json", cached=False)
        elif kind == "look.css" and not rest:
            self._send(THEME.encode(), "text/css; charset=utf-8", cached=False)
        elif kind == "data":
            self._send_file(self.server.site.file(rest))
        elif kind == "input":
            content = self.server.site.piece(rest)
            if content is None:
                self._refuse(HTTPStatus.NOT_FOUND, "no such file")
            else:
                self._send(content, "application/octet-stream", cached=True)
        else:
            name = path or "index.html"
            known = re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is not None
            self._send_file(STATIC / name if known else None, cached=False)

    def _known(self, query: dict[str, str]) -> dict[str, str]:
        return {name: query[name] for name in ("field", "label", "column", "order") if name in query}

    def _send_file(self, path: Path | None, *, cached: bool = True) -> None:
        """Send a file, or the part of it that was asked for."""
        file = None
        with suppress(OSError):
            file = None if path is None or not path.is_file() else path.open("rb")
        if file is None or path is None:
            self._refuse(HTTPStatus.NOT_FOUND, "no such file")
            return
        with file:
            size = file.seek(0, 2)
            try:
                part = byte_range(self.headers.get("Range"), size)
            except ValueError:
                self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, "text/plain", cached, {
                    "Content-Range": f"bytes */{size}"})  # fmt: skip
                return
            start, stop = part or (0, size)
            more = {"Accept-Ranges": "bytes"} | (
                {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if part is not None else {}
            )
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
            self._head(status, stop - start, kind, cached, more)
            if self.command == "HEAD":
                return
            file.seek(start)
            while start < stop and (piece := file.read(min(PIECE, stop - start))):
                self.wfile.write(piece)
                start += len(piece)

    def _send(self, content: bytes, kind: str, *, cached: bool) -> None:
        self._head(HTTPStatus.OK, len(content), kind, cached)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        content = json.dumps({"error": why}).encode()
        self._head(status, len(content), "application/json", cached=False)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(
        self, status: HTTPStatus, length: int, kind: str, cached: bool, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        keep = "private, max-age=600" if cached else "no-store"
        given = {"Content-Type": kind, "Content-Length": str(length), "Cache-Control": keep}
        for name, value in (given | _HEADERS | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
