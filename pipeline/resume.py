"""What an unfinished result is gone on with: nothing but work of the same plan whose files are as they were written."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from pipeline.engine.ledger import Ledger, why_untrusted
from pipeline.errors import StoreError
from pipeline.identity import differences
from pipeline.stores.publish import file_digests
from pipeline.stores.written import checksums_of, first_difference, witnessing

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engine.ledger import Files
    from pipeline.jobs import TileJob
    from pipeline.planning import RunPlan

__all__ = ["check_written", "ledger_path", "trusted", "why_not_resumed", "witnessed"]

log = logging.getLogger(__name__)


def ledger_path(plan: RunPlan) -> Path:
    """Give the place of a plan's ledger."""
    return plan.work / "ledger.sqlite"


def witnessed(job: TileJob, plan: RunPlan, index: int) -> tuple[dict[str, Any], Files]:
    """Do a job, and give beside its record the checksums of what it wrote."""
    with witnessing() as paths:
        record = job(plan, index)
    return record, checksums_of(plan.partial, paths)


def why_not_resumed(plan: RunPlan) -> str | None:
    """Say in one line why the unfinished result that is there cannot be gone on with, None if it can."""
    noted = plan.work / "plan.json"
    try:
        held = json.loads(noted.read_text())
        digest, earlier = held["digest"], held["plan"]
    except FileNotFoundError:
        return "it had hardly begun"
    except OSError as error:
        raise StoreError(f"{noted}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError):
        return "its plan is damaged"
    if digest != plan.digest:
        return ", ".join(differences(earlier, plan.identity)) or "its plan is damaged"
    why = why_untrusted(ledger_path(plan), plan.digest)
    if why is not None:
        return f"its ledger of done work {why}"
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        made = [first_difference(plan.partial, mark.files) for mark in ledger.marks("create") if mark.sound]
    if made == [None]:
        return None
    return f"{made[0]} is damaged" if made else "its ledger of done work is damaged"


def trusted(plan: RunPlan, ledger: Ledger, stage: str, total: int) -> bytearray:
    """Give for each of a stage's jobs 1 if it is done, else 0, after a look at each of their files.

    Marks of jobs whose files have changed are taken back, and with them whatever was done after this stage.
    """
    done = bytearray(total)
    damaged: dict[int, str] = {}
    for mark in ledger.marks(stage):
        changed = first_difference(plan.partial, mark.files) if mark.sound else "its mark"
        if changed is None:
            done[mark.job] = 1
        else:
            damaged[mark.job] = changed
    if damaged:
        ledger.forget(stage, list(damaged))
        log.warning(
            "%s: %s: %d of %d done jobs are damaged, first %s; they and what followed from them are done again",
            plan.name, stage, len(damaged), len(damaged) + sum(done), next(iter(damaged.values())),
        )  # fmt: skip
    return done


def check_written(plan: RunPlan, ledger: Ledger, folder: str) -> list[tuple[str, bytes]]:
    """Compare the files of an array or table with what the ledger says that was written.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    ledger : Ledger
        Of the plan.
    folder : str
        Of the array, below the result's folder.

    Returns
    -------
    list of tuple of str, bytes
        Its files and their digests, as `file_digests` gives them.

    Raises
    ------
    StoreError
        If a file differs. The next run makes it again.
    """
    found = list(file_digests(plan.partial / folder))
    known = {f"{folder}/{path}": digest for path, digest in found}
    for mark in ledger.marks_of(folder):
        own = {path: checksum for path, checksum in mark.files.items() if path.startswith(f"{folder}/")}
        changed = first_difference(plan.partial, own, known) if mark.sound else "the mark of its job"
        if changed is not None:
            # The mark stays: without it, nobody would know what is wanted here. The next run takes it back.
            raise StoreError(
                f"{plan.partial}: {changed} has changed since it was written; run again: it and what followed from it "
                "are made anew"
            )
    return found
