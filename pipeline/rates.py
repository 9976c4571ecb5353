"""How fast a network runs on a device, as measured at some windows: what a plan estimates times with. Computes nothing.

What was measured is kept in the user's cache folder, by model, device, precision and versions, so that it is measured
once and not for each image.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from contextlib import suppress
from itertools import pairwise
from math import exp, log, prod
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Measured", "Rates", "RatesKey", "cache_folder", "device_name", "load_rates", "save_rates"]

_log = logging.getLogger(__name__)

BEYOND = 1.3
"""How many times larger than the largest measured window one may be whose time is estimated, whatever was measured."""

BEYOND_STEADY = 8.0
"""How many times larger a plane may be where the largest measured ones were no slower: no cache holds theirs either."""

NO_SLOWER = 0.02
"""What a rate may be below the best one, as a logarithm, and count as that."""


class RatesKey(BaseModel):
    """What a measured rate holds for, and nothing else."""

    model_config = ConfigDict(frozen=True)

    weights_sha256: str
    use: str
    """What is made of the network beside running it as it is."""
    precision: str
    device: str
    workers: int
    """Processes that share the device's memory and caches."""
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


class Measured(BaseModel):
    """One window's time."""

    model_config = ConfigDict(frozen=True)

    window: tuple[int, ...]
    """Spatial shape."""
    flops: int
    seconds: float
    """Of one forward pass, with what is made of its output, while all workers are at it."""


class Rates(BaseModel):
    """What was measured of one network on one device."""

    model_config = ConfigDict(frozen=True)

    measured: tuple[Measured, ...]

    @property
    def largest(self) -> int:
        """Pixels of the largest window."""
        return max(prod(each.window) for each in self.measured)

    def seconds(self, window: Sequence[int], flops: int) -> float | None:
        """Estimate the time of a forward pass.

        Parameters
        ----------
        window : sequence of int
            Spatial shape.
        flops : int
            Its floating-point operations.

        Returns
        -------
        float or None
            Seconds: the operations over the rate, which is interpolated between the measured windows, as a straight
            line of logarithms, and that of the largest one beyond it. None where the window is much larger than any
            that was measured, and the more so where larger ones were slower.
        """
        pixels = prod(window)
        if not self.measured:
            return None
        points = sorted((log(prod(each.window)), log(each.flops / each.seconds)) for each in self.measured)
        steady = len(window) == 2 and len(points) > 1 and points[-1][1] > max(rate for _, rate in points) - NO_SLOWER
        if pixels > (BEYOND_STEADY if steady else BEYOND) * self.largest:
            return None
        at = min(max(log(pixels), points[0][0]), points[-1][0])
        for (before, slow), (after, fast) in pairwise(points):
            if before <= at <= after:
                share = (at - before) / (after - before) if after > before else 0.0
                return flops / exp(slow + share * (fast - slow))
        return flops / exp(points[0][1])


def cache_folder() -> Path:
    """Give the user's folder for what can be found out again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seamfree"


def device_name(kind: str) -> str:
    """Name the device of this machine: what kind of processor it is, and how many cores it has."""
    if kind == "cuda":
        import torch

        return str(torch.cuda.get_device_name(0))
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


def _path(key: RatesKey) -> Path:
    return cache_folder() / "rates" / f"{key.digest[:32]}.json"


def load_rates(key: RatesKey) -> Rates | None:
    """Give what was measured before; None where nothing was, or it cannot be read: it can be measured again."""
    try:
        held = json.loads(_path(key).read_text(encoding="utf-8"))
        if held["key"] == key.model_dump():
            return Rates.model_validate(held["rates"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        _log.info("%s: what was measured cannot be read (%s); it is measured again", _path(key), error)
    return None


def save_rates(key: RatesKey, rates: Rates) -> None:
    """Keep what was measured. A folder that cannot be written to is no reason to stop: it is measured again."""
    path = _path(key)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps({"key": key.model_dump(), "rates": rates.model_dump(mode="json")}, indent=1))
        beside.replace(path)
    except OSError as error:
        _log.info("%s: what was measured cannot be kept (%s)", path, error)
