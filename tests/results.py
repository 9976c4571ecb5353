"""Results of real images, as tests of several subjects look at them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline import segment
from pipeline.config import make_config
from tests.fields import load_fields

__all__ = ["call", "run", "run_movie", "settings", "two_fields", "write_movie"]

BIN = Path(sys.executable).parent


def call(program: str, *arguments: str | Path, code: int = 0) -> str:
    """Run a command of this environment; fails if it ends with another code."""
    command: list[str | Path] = [BIN / program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def settings(**changes: Any) -> Any:  # noqa: ANN401 (as YAML gives them)
    values = {"tile": 128, "instances": {"method": "components"}, "execution": {"scheduler": "serial"}}
    return make_config(values | changes)


def run(image: Path, into: Path, /, *, fresh: bool = False, **changes: Any) -> Path:  # noqa: ANN401
    """Segment in this process; give the result."""
    (report,) = segment(image, into, settings(**changes), fresh=fresh)
    assert report.status == "done", report.reason
    assert report.result is not None
    return Path(report.result)


def two_fields() -> list[NDArray[np.uint8]]:
    """Give two real fields; without the data set there is one, which is turned."""
    found = load_fields()
    return [*found, np.ascontiguousarray(found[0][::-1, ::-1])][:2]


def write_movie(folder: Path) -> Path:
    """Write two time points of two channels; the second channel holds the nuclei."""
    frames = np.stack([field[:210, :290] for field in two_fields()]).astype(np.uint16) * 16
    path = folder / "movie.ome.tif"
    tifffile.imwrite(
        path, np.stack([frames[:, ::-1] // 2, frames], axis=1), ome=True, tile=(64, 64), compression="zlib",
        metadata={"axes": "TCYX", "PhysicalSizeX": 0.65, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 325,
                  "PhysicalSizeYUnit": "nm", "TimeIncrement": 2.5, "TimeIncrementUnit": "min",
                  "Channel": {"Name": ["membrane", "DNA"]}},
    )  # fmt: skip
    return path


def run_movie(movie: Path, output: Path, *more: str) -> Path:
    """Segment what `write_movie` writes by the command line; give the result."""
    call(
        "seamfree", "run", movie, "-o", output, "--direct", "--scheduler", "serial", "--tile", "128",
        "--channel", "DNA", "--instances", "components", *more,
    )  # fmt: skip
    return output / "movie.ome.zarr"
