"""`seamfree view`, as typed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

SEAMFREE = [sys.executable, "-c", "from pipeline.cli import main; main()"]


@pytest.mark.slow
def test_it_says_where_the_page_is_and_ends_when_it_is_told(nuclei: Path) -> None:
    with subprocess.Popen(
        [*SEAMFREE, "view", str(nuclei)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        address = run.stdout.readline().rstrip().removeprefix(f"{nuclei}: ")
        assert address.startswith("http://127.0.0.1:")
        with urlopen(f"{address}facts.json", timeout=20) as answer:
            assert json.load(answer)["name"] == "a"
        run.send_signal(signal.SIGINT)
        out, error = run.communicate(timeout=20)
    assert (run.returncode, out.splitlines()[-1], error) == (0, "ended", "")


@pytest.mark.skipif(find_spec("napari") is not None, reason="napari is installed")
def test_without_napari_it_says_how_to_get_it(nuclei: Path) -> None:
    told = subprocess.run(
        [*SEAMFREE, "view", str(nuclei), "--napari"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == "seamfree: napari is not installed; install it with: pip install 'napari[all]'\n"
