"""A watched folder and the runs that are asked for, without Prefect, by a clock that is set by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from pipeline.acquisitions.ledger import Acquisition, AcquisitionLedger
from pipeline.acquisitions.outcome import content_of_result
from pipeline.acquisitions.place import ledger_of
from pipeline.acquisitions.rules import WatchRules
from pipeline.acquisitions.scanning import Found, RunState, Scan, scan

RULES = WatchRules(settle=10, patience=100)


@dataclass
class Recorder:
    """Runs that do nothing: a list of what was asked for, and what is said of each."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    states: dict[str, RunState] = field(default_factory=dict)
    dies: bool = False

    def start(self, acquisition: Acquisition, key: str) -> str:
        if key not in [known for _, known in self.asked]:
            self.asked.append((acquisition.name, key))
        if self.dies:
            raise KeyboardInterrupt
        return key

    def look(self, run: str) -> RunState:
        return self.states.get(run, RunState("alive"))


class Place:
    """A folder that is scanned by a clock of its own."""

    def __init__(self, path: Path) -> None:
        self.folder, self.output = path / "in", path / "out"
        self.folder.mkdir()
        self.now, self.runs, self.recipe, self.rules, self.queue = 0.0, Recorder(), "recipe", RULES, 16

    def scan(self, after: float = 11.0) -> Found:
        self.now += after
        order = Scan(self.folder, self.output, self.recipe, self.rules, queue=self.queue, clock=lambda: self.now)
        with AcquisitionLedger(ledger_of(self.output)) as ledger:
            return scan(order, ledger, self.runs)

    def settle(self) -> Found:
        self.scan()
        return self.scan()

    def finish(self, number: int, content: str | None = None) -> None:
        """Have a run that was asked for end well, and leave a result."""
        name, key = self.runs.asked[number]
        result = self.output / f"{name}.ome.zarr"
        result.mkdir(parents=True, exist_ok=True)
        plan = {"content_sha256": content or key.split(":")[1]}
        (result / "seamfree.json").write_text(json.dumps({"plan": plan, "objects": 7}))
        self.runs.states[key] = RunState("done")

    def result(self, name: str) -> str:
        """Give the content that a result is of."""
        return str(content_of_result(self.output / f"{name}.ome.zarr"))

    def held(self) -> dict[str, Acquisition]:
        with AcquisitionLedger(ledger_of(self.output)) as ledger:
            return {held.name: held for held in ledger.acquisitions()}

    def write(self, name: str, seed: int = 0) -> Path:
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 20), dtype=np.uint8)
        tifffile.imwrite(self.folder / name, pixels)
        return self.folder / name


def contents(place: Place) -> dict[str, str]:
    """Give the content of each result that the ledger knows, and see that it is so."""
    with AcquisitionLedger(ledger_of(place.output)) as ledger:
        done = {held.name: held.content for held in ledger.acquisitions("done")}
    assert {name: place.result(name) for name in done} == done
    return done
