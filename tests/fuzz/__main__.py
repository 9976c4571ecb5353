"""Fuzzes what opens files, and prints a table: ``python -m tests.fuzz --runs 20000 --seed 1``.

Inputs that show a bug are kept in the folder that is told; ``python -m tests.fuzz tiff --input FILE`` tries one again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["NAMES", "Outcome", "fuzz_apart", "tabulate"]

NAMES = ("tiff", "zarr", "card", "config", "package")
"""Targets that are fuzzed where none is named."""


@dataclass
class Outcome:
    """What fuzzing a target has come to.

    Parameters
    ----------
    name : str
        Of the target.
    seeds, tried, good : int
        Inputs at the start and in all, and how many of them were taken for good.
    paths : tuple of int
        Branches that were reached by the seeds, and at the end.
    findings : list of dict
        Each bug, once.
    seconds : float
        With the start of the process.
    """

    name: str
    seeds: int = 0
    tried: int = 0
    good: int = 0
    paths: tuple[int, int] = (0, 0)
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def fuzz_apart(name: str, runs: int, seed: int, place: Path, given: list[str] | None = None) -> Outcome:
    """Fuzz a target in a process of its own, which a bug of a library in C may end.

    Parameters
    ----------
    name : str
        Of the target.
    runs, seed : int
        As for `tests.fuzz.running.fuzz`.
    place : Path
        A folder for what comes of it.
    given : list of str, optional
        Inputs to try, instead of all others.
    """
    place.mkdir(parents=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz", name, "--runs", str(runs), "--seed", str(seed), "--here", str(place)]
    # The order of sets must not differ from run to run.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    with (place / "log").open("wb") as log:
        ended = subprocess.run(
            [*command, *(f"--input={path}" for path in given or [])], stdout=log, stderr=log, check=False,
            env=environment, cwd=Path(__file__).parents[2],
        )  # fmt: skip
    said = (place / "log").read_text(errors="replace")
    counts = json.loads((place / "done.json").read_text()) if (place / "done.json").exists() else {}
    noted = place / "findings" / "findings.jsonl"
    findings = [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []
    if ended.returncode != 0:
        left = [str(path) for path in place.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
        findings.append({"what": f"the process ended with {ended.returncode}", "input": ", ".join(left),
                         "detail": said[-3000:]})  # fmt: skip
    covered = [int(number) for number in re.findall(r"\b(?:cov|ft): (\d+)", said)]
    return Outcome(name, len(list((place / "corpus").glob("seed-*"))), counts.get("tried", 0), counts.get("good", 0),
                   (covered[0], max(covered)) if covered else (0, 0), findings, time.monotonic() - began)  # fmt: skip


def tabulate(outcomes: list[Outcome]) -> str:
    """Give the table of what was fuzzed."""
    rows: list[tuple[str, ...]] = [
        ("target", "seeds", "inputs", "taken for good", "branches at first", "at the end", "seconds", "bugs")
    ]
    rows += [
        (each.name, str(each.seeds), str(each.tried), str(each.good), *map(str, each.paths), f"{each.seconds:.0f}",
         str(len(each.findings)))
        for each in outcomes
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    """Fuzz; the exit code says whether anything showed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(NAMES)}; all where none is named")
    parser.add_argument("--runs", type=int, default=20_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", action="append", default=[], help="a file, or a folder of files, to try instead")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here is not None:
        from tests.fuzz.running import fuzz

        fuzz(given.targets[0], given.runs, given.seed, given.here, [Path(path) for path in given.input])
        return 0
    place = Path(tempfile.mkdtemp(prefix="seamfree-fuzz-"))
    outcomes = []
    for name in given.targets or NAMES:
        outcome = fuzz_apart(name, 0 if given.input else given.runs, given.seed, place / name, given.input)
        outcomes.append(outcome)
        for finding in outcome.findings:
            print(f"{name}: {finding['what']}: {finding['input']}\n{finding['detail']}\n", flush=True)
    print(tabulate(outcomes))
    if any(outcome.findings for outcome in outcomes):
        print(f"inputs that show bugs lie in {place}")
    return int(any(outcome.findings for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
