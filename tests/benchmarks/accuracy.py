"""How well the bundled model finds nuclei in the groups of images that it never saw, through the whole pipeline."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from pipeline import RunConfig, open_result, segment
from pipeline.config import ExecutionConfig, InstancesConfig
from pipeline.models.card import read_card
from pipeline.models.library import DEFAULT_MODEL, find_model
from pipeline.training.data import load_fields, split
from pipeline.training.evaluate import Agreement, match_objects

__all__ = ["held_out_agreement", "summarise"]


def held_out_agreement(
    data: Path,
    model: str,
    work: Path,
    threshold: float = 0.5,
    scheduler: str | None = None,
    instances: Literal["components", "watershed"] | None = None,
) -> dict[str, Agreement]:
    """Segment the held-out images through `segment`, and compare; by group.

    A method that is given replaces the card's, and nothing else: objects are at least as large as the card says.
    """
    card = read_card(find_model(model))
    _, fields = split(load_fields(data, card.intensity.low, card.intensity.high), card.training.held_out)
    inputs = [data / "images" / f"{field.name}.tif" for field in fields]
    wish = InstancesConfig(method=instances, minimum_size=card.instances.minimum_size if instances else None)
    config = RunConfig(model=model, instances=wish, execution=ExecutionConfig(scheduler=scheduler))
    reports = segment(inputs, work, config)
    assert all(report.status == "done" for report in reports), reports
    counts: dict[str, Agreement] = {}
    for field in fields:
        found = np.asarray(open_result(work / f"{field.name}.ome.zarr").instances[0])
        annotated = tifffile.imread(data / "masks" / f"{field.name}.tif")
        counts[field.group] = counts.get(field.group, Agreement()) + match_objects(found, annotated, threshold)
    return counts


def summarise(counts: dict[str, Agreement]) -> dict[str, float]:
    """Give the scores under the names that a model's card uses."""
    total = sum(counts.values(), start=Agreement())
    scores = {
        "f1_iou50_held_out": total.f1,
        "precision": total.precision,
        "recall": total.recall,
        "nuclei": total.annotated,
        **{f"f1_iou50 {group}": found.f1 for group, found in sorted(counts.items())},
    }
    return {name: round(value, 4) for name, value in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/*.tif and masks/*.tif")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--instances", choices=("components", "watershed"), help="the card's method where absent")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        counts = held_out_agreement(given.data, given.model, Path(work), instances=given.instances)
    total = sum(counts.values(), start=Agreement())
    for group, found in {**counts, "all": total}.items():
        print(f"{group:>14}  F1 {found.f1:.4f}  precision {found.precision:.4f}  recall {found.recall:.4f}  "
              f"nuclei {found.annotated}")  # fmt: skip
    print(json.dumps(summarise(counts)))


if __name__ == "__main__":
    main()
