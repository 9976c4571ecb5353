"""What is run in trials, and what comes of it when nobody disturbs it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tests.faults.run import POINTS, Run, attempts, contents, reached
from tests.fields import compose, load_fields
from tests.plates import write_plate
from tests.random_models import save_threshold_model

__all__ = ["JOBS", "WORKERS", "Job", "prepare_job"]

WORKERS = 2


@dataclass(frozen=True)
class Job:
    """What is run, and what comes of it when nobody disturbs it.

    Parameters
    ----------
    inputs : Path
        A folder of images, or a plate.
    options : tuple
        Of the command, beside those of all jobs.
    pristine : Path, optional
        Where the inputs become part of the result: what they were before.
    wanted : dict of str to bytes
        What an undisturbed run leaves.
    points : dict of str to int
        How often each named point is reached in it.
    jobs : int
        How many jobs it does.
    seconds : float
        How long it takes.
    """

    inputs: Path
    options: tuple[str | Path, ...] = ()
    pristine: Path | None = None
    wanted: dict[str, bytes] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    jobs: int = 0
    seconds: float = 0.0

    def arguments(self, out: Path, *way: str) -> list[str | Path]:
        """Give those of the command."""
        return [self.inputs, "-o", out, *self.options, *(way or ("--direct", "--workers", str(WORKERS)))]

    def restore(self) -> None:
        """Make the inputs what they were."""
        if self.pristine is not None:
            shutil.rmtree(self.inputs, ignore_errors=True)
            shutil.copytree(self.pristine, self.inputs)

    def found(self, out: Path) -> dict[str, bytes]:
        """Give every file that there is now."""
        inside = contents(self.inputs) if self.pristine is not None else {}
        return contents(out) | {f"in place: {name}": content for name, content in inside.items()}


def _nuclei(folder: Path) -> Job:
    inputs = folder / "images"
    inputs.mkdir(parents=True)
    fields = load_fields()
    tifffile.imwrite(inputs / "a.tif", compose(fields, (270, 300)), tile=(128, 128), compression="zlib")
    tifffile.imwrite(inputs / "b.tif", compose(fields, (130, 150), seed=1))
    return Job(inputs, ("--tile", "128"))


def _settings(folder: Path, **settings: object) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _holes(folder: Path) -> Job:
    """Holes are filled, and small objects dropped, before touching ones are parted."""
    job = _nuclei(folder)
    instances = {"method": "watershed", "fill_holes": True, "minimum_size": 40}
    return replace(job, options=(*job.options, "-c", _settings(folder, instances=instances)))


def _blobs(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint16]:
    noise: NDArray[np.float64] = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
    image: NDArray[np.uint16] = ((noise / noise.std() + 4) * 6000).clip(0, 65535).astype(np.uint16)
    return image


def _volume(folder: Path) -> Job:
    """A z-stack, by a network that takes volumes."""
    inputs = folder / "images"
    inputs.mkdir(parents=True)
    tifffile.imwrite(inputs / "a.ome.tif", _blobs((40, 150, 140)), ome=True, metadata={"axes": "ZYX"})
    settings = _settings(folder, instances={"method": "watershed"})
    return Job(inputs, ("--tile", "64", "-m", save_threshold_model(folder / "model", 3), "-c", settings))


def _overlap(folder: Path) -> Job:
    """A function finds the objects."""
    inputs = folder / "images"
    inputs.mkdir(parents=True)
    tifffile.imwrite(inputs / "a.tif", _blobs((290, 300)))
    code = folder / "detector.py"
    code.write_text("from scipy import ndimage\n\n\ndef bright(image):\n    return ndimage.label(image[0] > 0.6)[0]\n")
    return Job(inputs, ("--tile", "128", "--instances", "overlap", "--function", f"{code}:bright", "--diameter", "30"))


def _plate(folder: Path) -> Job:
    """Labels and tables become part of a plate."""
    pristine, inputs = folder / "pristine" / "P.zarr", folder / "P.zarr"
    pristine.parent.mkdir(parents=True)
    write_plate(pristine, [_blobs((150, 170), seed) for seed in range(3)], ("A/01", "B/03"), 1)
    model = save_threshold_model(folder / "model", 2)
    return Job(inputs, ("--in-place", "--tile", "96", "-m", model), pristine)


JOBS: dict[str, Callable[[Path], Job]] = {
    "nuclei": _nuclei,
    "holes": _holes,
    "volume": _volume,
    "overlap": _overlap,
    "plate in place": _plate,
}
"""What is run, by name."""


def prepare_job(folder: Path, name: str = "nuclei") -> Job:
    """Make the inputs of a job, and run it undisturbed."""
    job = JOBS[name](folder)
    job.restore()
    run = Run(job.arguments(folder / "out"), folder / "notes")
    assert run.wait() == 0, run.said()
    seconds = time.monotonic() - run.began
    points = {point: reached(folder / "notes", point) for group in POINTS.values() for point in group}
    assert all(points.values()), points
    done = attempts(folder / "notes")
    assert set(done.values()) == {1}
    return replace(job, wanted=job.found(folder / "out"), points=points, jobs=len(done), seconds=seconds)
