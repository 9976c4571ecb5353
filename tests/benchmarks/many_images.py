"""Very many small images in one folder: whether the rate holds, memory grows, and how often the network is loaded."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import psutil
import tifffile
import torch
from torch import nn

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline.models.card import Channel, InstanceRule, IntensityRule, ModelCard, Training, Weights
from pipeline.models.library import save_model
from pipeline.models.network import NetworkFile

LOADED = "loaded.txt"


class Threshold(nn.Module):
    """Two classes, by the sign of a convolution of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layer(image)
        return scores


def make(folder: str) -> nn.Module:
    """Make the network, and note in which process."""
    with (Path(folder) / LOADED).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return Threshold()


def save(folder: Path) -> None:
    """Save the network as a model whose factory tells each time it is called."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    (folder / LOADED).write_text("")
    card = ModelCard(
        name="counted", description="a network that does next to nothing", licence="none",
        network=NetworkFile(format="factory", arguments={"folder": str(folder)}), axes="yx",
        channels=(Channel(name="any"),), classes=("background", "object"),
        intensity=IntensityRule(method="percentile", low=1, high=99),
        instances=InstanceRule(method="components", classes=("object",)),
        training=Training(data="none", licence="none"), weights=Weights(sha256="0" * 64),
    )  # fmt: skip
    save_model(folder, card, Threshold())


def watch(process: subprocess.Popen[str], summary: Path, seen: list[dict[str, float]]) -> None:
    """Note the memory of the driver, and of the largest worker, whenever some more images are done."""
    root, done = psutil.Process(process.pid), -1
    while process.poll() is None:
        threading.Event().wait(0.5)
        try:
            finished = len(json.loads(summary.read_text())["images"]) if summary.exists() else 0
            if finished // 50 == done // 50:
                continue
            done = finished
            others = [child.memory_info().rss for child in root.children(recursive=True)]
            seen.append({"images": done, "driver": root.memory_info().rss / 2**20, "workers": max(others) / 2**20})
            print(json.dumps({key: round(value) for key, value in seen[-1].items()}), flush=True)
        except (psutil.Error, ValueError):
            continue


def measure(images: int, edge: int, workers: int, more: list[str]) -> dict[str, Any]:
    """Segment so many images with one command, and say how it went."""
    with tempfile.TemporaryDirectory(prefix="seamfree-images-") as name:
        given, output, model = (Path(name) / part for part in ("in", "out", "model"))
        given.mkdir()
        random = np.random.default_rng(0)
        for number in range(images):
            tifffile.imwrite(given / f"{number:05}.tif", random.integers(0, 2**12, (edge, edge), dtype=np.uint16))
        save(model)
        command: list[str | Path] = [
            Path(sys.executable).parent / "seamfree", "run", given, "-o", output, "-m", model,
            "--workers", str(workers), "--factory", "tests.benchmarks.many_images:make", *more,
        ]  # fmt: skip
        # Workers import the factory from here.
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, env=environment)
        seen: list[dict[str, float]] = []
        watch(process, output / "run-summary.json", seen)
        if process.returncode:
            raise SystemExit(f"exit code {process.returncode}")
        seconds = [entry["seconds"] for entry in json.loads((output / "run-summary.json").read_text())["images"]]
        loads = (model / LOADED).read_text().split()
    part = min(100, images // 3)
    middle = seen[len(seen) // 4] if len(seen) > 4 else seen[0]
    return {
        "images": images,
        "edge": edge,
        "seconds_each": {"first": round(fmean(seconds[:part]), 3), "last": round(fmean(seconds[-part:]), 3)},
        "last_to_first": round(fmean(seconds[-part:]) / fmean(seconds[:part]), 3),
        "mib_after_a_quarter": {name: round(middle[name]) for name in ("driver", "workers")},
        "mib_at_the_end": {name: round(seen[-1][name]) for name in ("driver", "workers")},
        "loads": len(loads),
        "processes_that_loaded": len(set(loads)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--prefect", action="store_true", help="Through the flows, not without them.")
    given = parser.parse_args()
    more = [] if given.prefect else ["--direct"]
    print(json.dumps(measure(given.images, given.edge, given.workers, more), indent=2))


if __name__ == "__main__":
    main()
