"""Some of the trials of `make faults`, the same ones each time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.jobs import Job, prepare_job
from tests.faults.trials import KINDS, Outcome, draw_kinds, run_trial, tabulate

pytestmark = [
    pytest.mark.slow,
    # Processes that start are slow on a busy machine, and nothing of this is about time.
    pytest.mark.timeout(1500),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
]

TRIALS, SEED = 25, 5


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return prepare_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def outcomes(job: Job) -> list[Outcome]:
    return []


@pytest.mark.parametrize(("number", "kind"), list(enumerate(draw_kinds(TRIALS))))
def test_nothing_shows_that_processes_were_killed(
    job: Job, outcomes: list[Outcome], tmp_path: Path, number: int, kind: str
) -> None:
    outcome = run_trial(job, kind, number, SEED, tmp_path)
    outcomes.append(outcome)
    assert not outcome.faults, "\n".join(outcome.faults)


def test_enough_was_killed(outcomes: list[Outcome]) -> None:
    print(tabulate(outcomes))
    assert {outcome.kind for outcome in outcomes} == set(KINDS)
    # A process may end between the look at it and its death.
    assert sum(outcome.kills for outcome in outcomes) >= TRIALS - 2
