"""The end of a run: the result is described, says how it came about, and gets its name."""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import skip_jobs
from pipeline.audit import noted_lists
from pipeline.describe import describe, own_metadata
from pipeline.engine.ledger import Ledger
from pipeline.report.writing import drop_report, report_beside
from pipeline.resume import check_written, ledger_path
from pipeline.self_check import why_unchecked
from pipeline.stores.in_place import add_to_image, warn_of_consolidated
from pipeline.stores.publish import file_checksums, fold, publish, write_provenance
from pipeline.stores.tables import TABLE
from pipeline.tile_times import hold_to_expectation, sum_up_times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.planning import RunPlan

__all__ = ["publish_result", "told_of"]

log = logging.getLogger(__name__)


def publish_result(plan: RunPlan, stages: Sequence[str]) -> dict[str, Any]:
    """Describe a result, sum up how it came about, and give it its name.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    stages : sequence of str
        Its stages, whose seconds are noted.

    Returns
    -------
    dict
        The provenance.

    Raises
    ------
    StoreError
        If what was written is not there any more, or the disk refuses.
    """
    intensity = json.loads((plan.work / "intensity.json").read_text())
    describe(plan, intensity)
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        numbered = ledger.done("number").get(0, {})
        crossed = ledger.done("cross").get(0, {})
        checked = ledger.done("check").get(0)
        tiles = sum_up_times(plan, ledger.marks("segment"))
        seconds = {stage: record.get("seconds") for stage in stages
                   for record in ledger.done(f"stage {stage}").values()}  # fmt: skip
        parts = sorted([*plan.array_specs, *([TABLE] if plan.table else [])])
        checksums = {path: fold(check_written(plan, ledger, path)) for path in parts}
    audited = plan.work / "audit.json"
    skipped = json.loads(noted.read_text()) if (noted := plan.work / "skipped.json").exists() else None
    provenance = {
        "seamfree": version("seamfree"),
        "input": plan.source.path,
        "in_place": plan.in_place,
        "digest": plan.digest,
        "plan": plan.model_dump(mode="json", exclude={"output", "staging", "destination", "tiling"}),
        "intensity": intensity,
        "self_check": checked if checked is not None else {"not_made": why_unchecked(plan)},
        "objects": numbered.get("objects"),
        "objects_dropped": numbered.get("dropped"),
        "components_too_large_to_part": crossed.get("too_large"),
        "skipped": skipped,
        "overlap": json.loads(noted.read_text()) if (noted := plan.work / "ambiguous.json").exists() else None,
        "audit": json.loads(audited.read_text())
        if plan.audit_windows
        else {"passed": None, **noted_lists(plan, crossed)},
        "checksums": checksums,
        "metadata_checksums": file_checksums(plan.partial, own_metadata(plan)),
        "environment": {"python": sys.version.split()[0], "platform": sys.platform},
        "timings": {"stages": seconds, **tiles, "network": hold_to_expectation(plan, tiles)},
    }
    write_provenance(plan.partial, provenance)
    drop_report(plan.held)
    if plan.in_place:
        if (warning := warn_of_consolidated(Path(plan.output))) is not None:
            log.warning("%s", warning)
        add_to_image(plan.partial, Path(plan.output), plan.work.name)
    else:
        publish(plan.partial, Path(plan.output), replace=True, notes=plan.work.name)
    report_beside(plan)
    return provenance


def told_of(provenance: dict[str, Any]) -> dict[str, Any]:
    """Give what the user is told of a result."""
    skipped = provenance["skipped"]
    told = {} if skipped is None else {"skipped": skip_jobs.describe_skipped(skipped)}
    return {"objects": provenance["objects"]} | told
