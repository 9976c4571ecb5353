"""A classifier of patches made fully convolutional, against the classifier slid over every window, in batches.

Gives the largest difference of the scores, and how many times faster the network of convolutions is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from pipeline.models.convolutional import make_fully_convolutional

WINDOW, STRIDE = 66, 4


def classifier() -> nn.Module:
    """Make a small network for windows of 66 pixels, with two poolings."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 13 * 13, 64), nn.ReLU(), nn.Linear(64, 3),
    ).eval()  # fmt: skip


def slide(network: nn.Module, image: Tensor, batch: int) -> Tensor:
    """Run a classifier on every window that starts on a multiple of the stride."""
    windows = image[0, 0].unfold(0, WINDOW, STRIDE).unfold(1, WINDOW, STRIDE)
    rows, columns = windows.shape[:2]
    patches = windows.reshape(-1, 1, WINDOW, WINDOW)
    found = torch.cat([network(part.contiguous()) for part in torch.split(patches, batch)])
    return found.T.reshape(1, -1, rows, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=514)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    network = classifier()
    made = make_fully_convolutional(network, 1, (WINDOW, WINDOW))
    image = torch.rand(1, 1, given.edge, given.edge)
    seconds: dict[str, list[float]] = {"sliding": [], "convolutional": []}
    difference = 0.0
    with torch.inference_mode():
        made(image)
        # One after the other in each round: the machine's speed drifts.
        for _ in range(given.repeats):
            began = perf_counter()
            wanted = slide(network, image, given.batch)
            between = perf_counter()
            found = made(image)
            ended = perf_counter()
            seconds["sliding"].append(between - began)
            seconds["convolutional"].append(ended - between)
            difference = max(difference, float((found - wanted).abs().max()))
    times = {name: median(each) for name, each in seconds.items()}
    facts = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "edge": given.edge,
        "windows": wanted[0, 0].numel(),
        "seconds": {name: round(each, 4) for name, each in times.items()},
        "times_faster": round(times["sliding"] / times["convolutional"], 1),
        "difference": difference,
        "largest_score": float(wanted.abs().max()),
    }
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
