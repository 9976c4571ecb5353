"""Runs cases of the corpus."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipeline.models.architecture import UNetConfig
from tests.corpus.case import Case
from tests.corpus.command import Outcome, seamfree
from tests.corpus.places import PLACES
from tests.corpus.room import little_room
from tests.corpus.tiffs import TIFFS
from tests.corpus.zarrs import ZARRS
from tests.random_models import save_random_model

__all__ = ["CASES", "run", "small_model", "told"]

CASES = {
    f"{kind}: {case.name}": case
    for kind, cases in (("TIFF", TIFFS), ("Zarr", ZARRS), ("place", PLACES))
    for case in cases
}

_PROGRESS = re.compile(r" *(done|failed|skipped) ")
"""What is told of each image when it is finished."""


def small_model(folder: Path) -> str:
    """Save a network that is small enough for it not to matter, with settings beside."""
    name = save_random_model(folder, UNetConfig(depth=1, base_channels=1), seed=3)
    (folder / "settings.yaml").write_text("tile: 64\naudit: {windows: 0}\nexecution: {scheduler: serial}\n")
    return name


def run(case: Case, model: str, folder: Path) -> tuple[Outcome, Path]:
    """Make a case's input in a folder, run the command on it, and give the folder of results, too."""
    given, output = folder / "in", folder / "out"
    given.mkdir()
    arguments: list[str | Path] = [
        str(case.make(given)),
        "-o",
        output,
        "--direct",
        "-m",
        model,
        "-c",
        Path(model) / "settings.yaml",
    ]
    with little_room():
        return seamfree("run", *arguments, *case.options), output


def told(outcome: Outcome, output: Path) -> tuple[list[str], list[str]]:
    """Give the statuses and reasons of a run's images, and the lines on the terminal beside them."""
    lines = [line for line in outcome.err.splitlines() if line and not _PROGRESS.match(line)]
    if not (output / "run-summary.json").exists():
        return [], lines
    entries = json.loads((output / "run-summary.json").read_text())["images"]
    return [entry["status"] for entry in entries], [entry["reason"] for entry in entries if entry["reason"]] + lines
