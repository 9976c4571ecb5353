"""A real browser without a window, spoken to by its debugging protocol: pages are opened, used, and photographed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import connect
from websockets.sync.connection import Connection

__all__ = ["BROWSER", "WHY_NOT", "Page", "open_page"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

BROWSER = next((found for name in _NAMES if (found := shutil.which(name))), None)

WHY_NOT = "no Chromium on this machine"

PATIENCE = 30
"""Seconds until what is waited for is given up."""


class Page:
    """A page in the browser.

    Parameters
    ----------
    connection : Connection
        To the browser.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._number, self._session = connection, 0, ""
        self.errors: list[str] = []
        self.responses: list[tuple[str, int, int]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 (as JSON has it)
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(told["exceptionDetails"].get("exception", {}).get("description", str(told)))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            # Chunks of nothing but zeros are no files.
            if "404" not in told["entry"]["text"]:
                self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.responseReceived":
            response = told["response"]
            size = int({name.lower(): value for name, value in response["headers"].items()}.get("content-length", 0))
            self.responses.append((response["url"], response["status"], size))

    def open(self, url: str, width: int = 1280, height: int = 800) -> None:
        """Go to an address."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:  # noqa: ANN401 (as JSON has it)
        """Give what a script is worth."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> Any:  # noqa: ANN401 (as JSON has it)
        """Wait until a script is worth something, and give it."""
        return self.evaluate(
            f"""new Promise((done, failed) => {{
                const began = Date.now();
                const look = () => {{
                    let found = null;
                    try {{ found = {condition}; }} catch (error) {{ found = null; }}
                    if (found) done(found);
                    else if (Date.now() - began > {1000 * PATIENCE}) failed(new Error({json.dumps(condition)}));
                    else setTimeout(look, 10);
                }};
                look();
            }})"""
        )

    def settle(self) -> None:
        """Wait until the map is at rest and drawn whole."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.wait_for("document.querySelector('#stage[aria-busy=false]')")

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Move, press or release the mouse."""
        pressed: dict[str, Any] = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def click(self, x: float, y: float) -> None:
        """Click at a point."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def key(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def picture(self, path: Path | None = None) -> NDArray[np.uint8]:
        """Photograph the page, YX and RGB; also into a PNG file, if one is named."""
        content = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(content)
        return np.asarray(imagecodecs.png_decode(content), dtype=np.uint8)[..., :3]


@contextmanager
def open_page() -> Iterator[Page]:
    """Start a browser with one page, and end both."""
    assert BROWSER is not None
    with tempfile.TemporaryDirectory(prefix="seamfree-browser-", ignore_cleanup_errors=True) as folder:
        options = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run",
                   "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                   *(["--no-sandbox"] if os.getuid() == 0 else [])]  # fmt: skip
        with subprocess.Popen([BROWSER, *options, "about:blank"], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                line = next(line for line in process.stderr if line.startswith("DevTools listening on "))
                # What it says from here on would fill the pipe.
                Thread(target=process.stderr.read, daemon=True).start()
                with connect(line.split()[-1], max_size=None, open_timeout=PATIENCE) as connection:
                    yield Page(connection)
                    connection.send(json.dumps({"id": 0, "method": "Browser.close"}))
                process.wait(PATIENCE)
            finally:
                process.kill()
