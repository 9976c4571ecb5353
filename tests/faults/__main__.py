"""Runs fault trials and prints a table: ``python -m tests.faults --trials 300 --seed 1``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.jobs import Job, prepare_job
from tests.faults.trials import KINDS, MORE, draw_kinds, job_of, run_trial, tabulate


def main() -> int:
    """Run the trials; the exit code says whether anything showed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kind", choices=[*KINDS, *MORE], help="only trials of one kind")
    parser.add_argument("--only", type=int, help="only the trial of this number")
    parser.add_argument("--from", type=int, default=0, dest="first", help="no trial of a smaller number")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="seamfree-faults-") as place:
        folder = Path(place)
        jobs: dict[str, Job] = {}
        kinds = [given.kind] * given.trials if given.kind else draw_kinds(given.trials)
        for number, kind in enumerate(kinds):
            if given.only not in (None, number) or number < given.first:
                continue
            name = job_of(kind)
            if name not in jobs:
                jobs[name] = job = prepare_job(folder / f"undisturbed {name}", name)
                facts = f"{job.jobs} jobs, {job.seconds:.1f} s, {len(job.wanted)} files"
                print(f"{name}, undisturbed: {facts}", flush=True)
            outcome = run_trial(jobs[name], kind, number, given.seed, folder / str(number))
            outcomes.append(outcome)
            facts = f"{outcome.kills} kills, {outcome.runs} runs, {outcome.repeated} jobs again"
            print(f"{number:4} {kind}: {facts}, {outcome.seconds:.1f} s", flush=True)
            for fault in outcome.faults:
                print(f"     FAULT {fault}", flush=True)
    print(tabulate(outcomes))
    return int(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
