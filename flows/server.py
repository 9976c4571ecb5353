"""Prefect's server where nobody has one at hand: it lives as long as the process that starts it.

It listens on the loopback interface only, is started again when it ends, and says what is wrong when it does not start.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic
from typing import IO

from pipeline.engine.parent import dies_with_parent
from pipeline.errors import ClusterError

__all__ = ["Server", "free_port", "recording_server", "use_server"]

log = logging.getLogger(__name__)

_PATIENCE = 300.0
"""Seconds that a server may take to answer; a first start makes its database."""

_STARTS = 3
"""How often a server is started that ends before it has answered: one that is killed, or loses its port."""

_END = 5.0
"""Seconds that a server may take to end."""


def free_port(wanted: int = 0) -> int:
    """Give a free port of the loopback interface: the one that is wanted, if it is free.

    Raises
    ------
    ClusterError
        If there is none.
    """
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ClusterError("no port of the loopback interface is free")


class Server:
    """A server that is kept alive.

    Parameters
    ----------
    start : callable
        Starts a server on a port.
    port : int
        The port.
    where : callable
        Gives where it is told what is wrong, for the message when it does not start.
    told : file, optional
        What it says; closed when it ends.
    is_stale : callable, optional
        Says, asked twice a second, whether it has to be started anew although it lives.
    """

    def __init__(
        self,
        start: Callable[[int], subprocess.Popen[bytes]],
        port: int,
        where: Callable[[], str],
        told: IO[bytes] | None = None,
        is_stale: Callable[[], bool] = lambda: False,
    ) -> None:
        self._start, self._port, self._where, self._told, self._is_stale = start, port, where, told, is_stale
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="server", daemon=True)
        self._process = start(port)

    @property
    def url(self) -> str:
        """Address of its API."""
        return f"http://127.0.0.1:{self._port}/api"

    def wait(self) -> None:
        """Wait until it answers, and keep it alive from now on.

        Raises
        ------
        ClusterError
            If it does not start.
        """
        import httpx

        deadline, starts = monotonic() + _PATIENCE, 1
        while True:
            try:
                if httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if self._process.poll() is not None and starts < _STARTS:
                starts += 1
                # Somebody else may have taken its port.
                self._port = free_port(self._port)
                self._process = self._start(self._port)
            elif self._process.poll() is not None or monotonic() > deadline:
                where = self._where()
                self.end()
                raise ClusterError(f"Prefect's server does not start; {where}")
            self._ended.wait(0.1)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._ended.wait(0.5):
            if self._is_stale():
                self._stop()
            if self._process.poll() is not None:
                log.warning("Prefect's server has ended (%s) and is started again", self._process.returncode)
                self._process = self._start(self._port)

    def end(self) -> None:
        """End it."""
        self._ended.set()
        if self._keeper.is_alive():
            # Or it would start another one.
            self._keeper.join()
        self._stop()
        if self._told is not None:
            self._told.close()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def use_server(url: str) -> None:
    """Have Prefect, in this process and in those that it starts, talk to a server, whether it was imported or not."""
    os.environ["PREFECT_API_URL"] = url
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def recording_server() -> Server:
    """Start a server that records runs in Prefect's home and schedules none, as Prefect's temporary one does.

    That one is not asked for, because it waits two minutes for a server that has died.
    """
    package = find_spec("prefect")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent
    # Not on the terminal: what goes wrong there, the run tells.
    told = TemporaryFile()  # noqa: SIM115 (for as long as the server lives)

    def start(port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "--factory",
                   "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port),
                   "--log-level", "error", "--lifespan", "on"]  # fmt: skip
        environment = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        return subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=told, stderr=told,
            preexec_fn=dies_with_parent,
        )  # fmt: skip

    def why() -> str:
        told.seek(0)
        lines = told.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")
        return f"its last words: {last[-300:]}; --direct does without"

    return Server(start, free_port(), why, told)
