"""Very many small acquisitions through one watcher: whether memory, open files or its databases grow, and the rate.

A microscope writes them one by one while the watcher is at work. Exits with 1 where a bound is passed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import numpy as np
import psutil
import tifffile

from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.place import ledger_of, place_of

AHEAD = 20
"""So many acquisitions lie in the folder that are not done yet."""

KEPT = 100
"""So many runs stay on record: by the second fifth of 500 acquisitions, the first of them have gone."""

BOUNDS = {"mebibytes": 64.0, "files": 8.0, "database_mebibytes": 16.0, "ledger_kibibytes_each": 2.0}
"""How much a process may gain in memory and in open files, and Prefect's database in all its files, between the second
fifth and the last, all acquisitions together; and what one acquisition may add to the ledger."""


def roles(watcher: psutil.Process) -> dict[str, list[psutil.Process]]:
    """Tell the processes apart that live as long as the watcher: those of runs come and go."""
    found: dict[str, list[psutil.Process]] = {"watcher": [watcher], "server": [], "workers": []}
    for child in watcher.children(recursive=True):
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        if command[1:5] == ["-m", "prefect", "server", "start"]:
            found["server"].append(child)
        elif any("multiprocessing" in part for part in command):
            found["workers"].append(child)
    return found


def look(watcher: psutil.Process, output: Path) -> dict[str, float]:
    """Give memory and open files by role, the largest of each, and the sizes of the databases."""
    seen: dict[str, float] = {}
    for role, processes in roles(watcher).items():
        seen[f"{role} MiB"] = max((each.memory_info().rss / 2**20 for each in processes), default=0)
        seen[f"{role} files"] = max((each.num_fds() for each in processes), default=0)
    place = place_of(output)
    seen["database KiB"] = sum(path.stat().st_size for path in place.glob("prefect.db*")) / 1024
    seen["ledger KiB"] = ledger_of(output).stat().st_size / 1024
    seen["log KiB"] = (place / "server.log").stat().st_size / 1024
    seen["entries"] = sum(1 for _ in place.rglob("*"))
    return seen


def run(number: int, edge: int, at_once: int, minutes: float, place: Path) -> list[dict[str, float]]:
    """Play a microscope until all acquisitions are segmented, or time is up; give what was seen after each ten."""
    folder, output = place / "in", place / "out"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["PREFECT_HOME"] = str(place / "home")
    with (place / "watch.log").open("wb") as log:
        watcher = subprocess.Popen(
            [Path(sys.executable).parent / "seamfree", "watch", folder, "-o", output, "--every", "30", "--settle", "1",
             "--at-once", str(at_once), "--workers", "2", "--keep-runs", str(KEPT)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    seen: list[dict[str, float]] = []
    try:
        random, written, began, pause = np.random.default_rng(0), 0, monotonic(), threading.Event()
        done = -10
        while done < number and monotonic() - began < minutes * 60:
            if watcher.poll() is not None:
                raise SystemExit((place / "watch.log").read_text()[-2000:])
            held = 0
            if ledger_of(output).exists():
                with AcquisitionLedger(ledger_of(output)) as ledger:
                    held = len(ledger.acquisitions("done"))
                    failed = ledger.acquisitions("failed", "cancelled", "replaced")
                if failed:
                    raise SystemExit(f"{failed[0].path}: {failed[0].state} ({failed[0].reason})")
            while written < min(number, held + AHEAD):
                pixels = random.integers(0, 2**12, (edge, edge), dtype=np.uint16)
                tifffile.imwrite(folder / f"{written:05}.tif", pixels)
                written += 1
            if held >= done + 10 or held == number:
                done = held
                if ledger_of(output).exists():
                    entry = {"done": done, "seconds": monotonic() - began}
                    seen.append(entry | look(psutil.Process(watcher.pid), output))
                    print(json.dumps({name: round(value) for name, value in seen[-1].items()}), flush=True)
            pause.wait(1)
    finally:
        watcher.terminate()
        watcher.wait(60)
    return seen


def judge(seen: list[dict[str, float]]) -> tuple[dict[str, Any], bool]:
    """Compare the last fifth with the second, and say what grew; the first one is that in which all gets started."""
    number = seen[-1]["done"]
    early = [entry for entry in seen if number / 5 <= entry["done"] <= 2 * number / 5]
    late = [entry for entry in seen if entry["done"] >= 4 * number / 5]
    gained = {name: median(e[name] for e in late) - median(e[name] for e in early) for name in seen[0]}
    each = gained["done"]
    figures = {
        "mebibytes": max(gained[f"{role} MiB"] for role in ("watcher", "server", "workers")),
        "files": max(gained[f"{role} files"] for role in ("watcher", "server", "workers")),
        "database_mebibytes": gained["database KiB"] / 1024,
        "ledger_kibibytes_each": gained["ledger KiB"] / each,
    }
    told: dict[str, Any] = {
        "acquisitions": int(number),
        "seconds_each": round(seen[-1]["seconds"] / number, 2),
        "seconds_each_early_and_late": [
            round((part[-1]["seconds"] - part[0]["seconds"]) / max(part[-1]["done"] - part[0]["done"], 1), 2)
            for part in (early, late)
        ],
        "gained": {name: round(value, 1) for name, value in gained.items() if name not in ("done", "seconds")},
        "at_the_end": {name: round(value) for name, value in seen[-1].items()},
        "figures": {name: round(value, 2) for name, value in figures.items()},
        "bounds": BOUNDS,
    }
    return told, all(figures[name] <= bound for name, bound in BOUNDS.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--acquisitions", type=int, default=500)
    parser.add_argument("--edge", type=int, default=64)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=240, help="After so many, what was done until then counts.")
    given = parser.parse_args()
    # The watcher ends with this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="seamfree-acquisitions-") as name:
        told, passed = judge(run(given.acquisitions, given.edge, given.at_once, given.minutes, Path(name)))
    print(json.dumps(told, indent=2))
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
