"""The stages of one image's run, from its plan alone: each can be run by itself, by whoever orchestrates.

Each is driven from here, done on workers job by job, and can be done again after an interruption.
"""

from __future__ import annotations

import logging
import shutil
from functools import partial
from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import jobs, measure_jobs, object_jobs, overlap_jobs, skip_jobs
from pipeline.audit import audit_result, describe_faults, noted_lists
from pipeline.destination import send_result
from pipeline.engine.ledger import Ledger
from pipeline.errors import AuditError, ImageError, StoreError, TileError, TileMemoryError, WorkersKilledError
from pipeline.finishing import publish_result, told_of
from pipeline.geometry import ways_to_cut
from pipeline.images.intensity import wanted_percentiles
from pipeline.images.opening import open_image
from pipeline.images.sequences import on_disk
from pipeline.images.statistics import Counts, Search
from pipeline.job_places import less_memory, where_is_job
from pipeline.notes import save_facts
from pipeline.progress import JobDone, StageStarted, tell
from pipeline.remote.paths import is_url, to_path
from pipeline.resume import ledger_path, trusted, why_not_resumed, witnessed
from pipeline.room import check_room
from pipeline.scaling import scale_by
from pipeline.self_check import compare_passes, judge_passes, why_unchecked
from pipeline.stores.arrays import create_array
from pipeline.stores.hold import refuse_taken
from pipeline.stores.publish import refuse_foreign_partial
from pipeline.stores.written import checksums_of, witnessing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.engine.executor import Executor
    from pipeline.planning import RunPlan

__all__ = ["discard", "run_stage", "stage_names"]

log = logging.getLogger(__name__)


def stage_names(plan: RunPlan) -> tuple[str, ...]:
    """Give the stages of a plan, in order."""
    objects: tuple[str, ...] = ()
    if plan.instances != "none":
        objects = {"watershed": ("cross", "part"), "overlap": ("compare", "choose", "paint")}.get(plan.instances, ())
        objects = ("holes", "fill", *objects) if plan.fill_holes else objects
        objects += ("number", "relabel")
        objects += ("measure",) if plan.table else ()
    skip = ("skipped",) if plan.skip_below is not None else ()
    audit = ("audit",) if plan.audit_windows else ()
    end = ("publish",) if plan.destination is None else ("publish", "send")
    return ("create", "read", "statistics", "check", "segment", *skip, *objects, "pyramids", *audit, *end)


def discard(plan: RunPlan) -> None:
    """Remove an unfinished result.

    Raises
    ------
    StoreError
        If the disk refuses, or it is none.
    """
    refuse_foreign_partial(plan.partial)
    try:
        if plan.partial.exists():
            shutil.rmtree(plan.partial)
    except OSError as error:
        raise StoreError(f"{plan.partial}: cannot be removed ({error.strerror or error})") from error


def _create(plan: RunPlan, _executor: Executor) -> dict[str, Any]:
    """Make the arrays, or find the unfinished result of the same plan."""
    if plan.partial.exists():
        why = why_not_resumed(plan)
        if why is None:
            check_room(plan, plan.partial.parent)
            log.info("%s: an unfinished run of the same plan is resumed", plan.name)
            return {"resumed": True}
        log.warning("%s: an unfinished result is not gone on with, all is done anew: %s", plan.name, why)
        discard(plan)
    try:
        plan.partial.parent.mkdir(parents=True, exist_ok=True)
        check_room(plan, plan.partial.parent)
        plan.work.mkdir(parents=True)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{plan.work}: cannot be made ({error.strerror or error}); choose another -o") from error
    with witnessing() as paths:
        for spec in plan.array_specs.values():
            create_array(plan.partial, spec)
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        ledger.mark("create", 0, {}, checksums_of(plan.partial, paths))
    # Last of all: what has a plan has a ledger, and all arrays.
    save_facts(plan.work / "plan.json", {"digest": plan.digest, "plan": plan.model_dump(mode="json")})
    return {"resumed": False}


def _map(
    plan: RunPlan,
    stage: str,
    job: jobs.TileJob,
    total: int,
    executor: Executor,
    lowered: Sequence[jobs.TileJob] = (),
) -> None:
    """Run a stage's jobs that are not done yet, and mark each when it is; see `_records` for what they report.

    No more than a byte is kept for each job: there may be millions. For `lowered`, see `Executor.map`.
    """
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        done = trusted(plan, ledger, stage, total)
        tell(StageStarted(plan.name, stage, total, sum(done)))
        waiting = (index for index in range(total) if not done[index])
        try:
            for index, (record, files) in executor.map(
                stage, partial(witnessed, job), plan, waiting, [partial(witnessed, each) for each in lowered]
            ):
                ledger.mark(stage, index, record, files)
                tell(JobDone(plan.name, stage, int(record.get("pixels", 0))))
        except TileError as error:
            short = isinstance(error, TileMemoryError | WorkersKilledError)
            cause = f"{error.cause}; {less_memory(stage)}" if short else error.cause
            raise type(error)(stage, error.index, cause, where_is_job(plan, stage, error.index)) from error


def _records(plan: RunPlan, stage: str, total: int) -> Iterator[dict[str, Any]]:
    """Give what the jobs of a stage have reported, in order, one after the other."""
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        yield from ledger.records(stage, total)


def _only(plan: RunPlan, stage: str, job: jobs.TileJob, executor: Executor) -> dict[str, Any]:
    """Run a stage of one job, and give its record."""
    _map(plan, stage, job, 1, executor)
    (record,) = _records(plan, stage, 1)
    return record


def _read(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    _map(plan, "read", jobs.read_region, len(plan.regions), executor)
    return {}


def _statistics(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    """Find the whole image's percentiles, and from them how its intensities are scaled."""
    wanted = wanted_percentiles(plan.intensity.method, plan.intensity.low, plan.intensity.high)
    times = plan.source.shape[0]
    searches = {
        (time, channel): Search(plan.source.dtype, wanted) for time in range(times) for channel in plan.channels
    }
    level = 0
    while not all(search.finished for search in searches.values()):
        if level:
            prefixes = {f"{time},{channel}": search.prefixes for (time, channel), search in searches.items()}
            save_facts(plan.work / "counts" / f"{level}.json", prefixes)
            _map(plan, f"statistics {level}", partial(jobs.count_values, level=level), len(plan.regions), executor)
        searches = _advance(plan, searches, level)
        level += 1
    summaries = {key: search.summary() for key, search in searches.items()}
    if not any(summary.finite for summary in summaries.values()):
        raise ImageError(f"{plan.source.path}: no pixel is a finite number; all are NaN or infinite")
    noted = []
    for (time, channel), summary in summaries.items():
        scaling = scale_by(plan.intensity, summary, plan.channels.index(channel))
        noted.append(
            {
                "time": time,
                "channel": channel,
                **scaling.note(),
                "percentiles": dict(zip(map(str, wanted), summary.percentiles, strict=True)),
                "mean": summary.mean,
                "std": summary.std,
                "left_out": summary.odd,
            }
        )
    save_facts(plan.work / "intensity.json", noted)
    return {}


def _advance(plan: RunPlan, searches: dict[tuple[int, int], Search], level: int) -> dict[tuple[int, int], Search]:
    """Add up what the regions have counted in a pass, and give the searches that are left.

    One time point after the other: sums of all numbers take about a megabyte for each of its channels.
    """
    advanced = dict(searches)
    for time, regions in groupby(plan.regions, lambda region: region.owned.start[0]):
        totals: dict[tuple[int, int], Counts] = {}
        for region in regions:
            if not (channels := jobs.counted_channels(plan, region.index)):
                continue
            with np.load(plan.work / "counts" / str(level) / f"{region.index}.npz", allow_pickle=False) as arrays:
                for channel in channels:
                    counts = Counts.from_array(arrays[f"c{channel}"])
                    totals[time, channel] = totals[time, channel] + counts if (time, channel) in totals else counts
        if plan.intensity.together and totals:
            every = sum((totals[time, channel] for channel in plan.channels), Counts.none())
            totals = dict.fromkeys(totals, every)
        advanced |= {key: searches[key].advance(counts) for key, counts in totals.items() if not searches[key].finished}
    return advanced


def _check(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    """Hold two tiles against one larger pass, before all are computed."""
    if why_unchecked(plan) is None:
        record = _only(plan, "check", compare_passes, executor)
        judge_passes(plan, record)
    return {}


def _segment(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    job = overlap_jobs.detect_tile if plan.instances == "overlap" else jobs.segment_tile
    _map(plan, "segment", job, len(plan.tiles), executor, _with_less_memory(plan))
    return {}


def _skipped(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    """Find out what it changes that background was skipped."""
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        tiles = skip_jobs.choose_windows(plan, ledger.marks("segment"))
    _map(plan, "skipped", partial(skip_jobs.look_anyway, tiles=tiles), len(tiles), executor)
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        marks, looked = ledger.marks("segment"), ledger.records("skipped", len(tiles))
        save_facts(plan.work / "skipped.json", skip_jobs.sum_up_skipped(plan, marks, looked))
    return {}


def _with_less_memory(plan: RunPlan) -> list[jobs.TileJob]:
    """Give the jobs that do what `segment_tile` does with less memory, each with less than the one before."""
    if plan.instances == "overlap" or plan.seams is not None:
        # What a function, or a network that is not local, finds in a piece of a window is another thing.
        return []
    ways = len(ways_to_cut(plan.core, plan.footprint))
    return [partial(jobs.segment_tile, cuts=cuts) for cuts in range(1, ways + 1)]


def _holes(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    return _only(plan, "holes", object_jobs.find_all_holes, executor)


def _fill(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    _map(plan, "fill", object_jobs.fill_tile, len(plan.tiles), executor)
    return {}


def _cross(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    record = _only(plan, "cross", object_jobs.unite_crossing, executor)
    if record["too_large"]:
        box = record["boxes"][0]
        spans = zip("tzyx", box["start"], box["stop"], strict=True)
        log.warning(
            "%s: %d touching groups of objects are too large to be parted, each stays one object; the first lies at "
            "%s; seamfree.json lists them, under audit, too_large_to_part",
            plan.source.path,
            record["too_large"],
            ", ".join(f"{axis} {start} to {stop}" for axis, start, stop in spans if stop - start > 1),
        )
    return record


def _part(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        batches = int(ledger.done("cross")[0]["batches"])
    _map(plan, "part", object_jobs.part_batch, batches, executor)
    return {}


def _compare(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    _map(plan, "compare", overlap_jobs.compare_tile, len(plan.tiles), executor)
    return {}


def _choose(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    return _only(plan, "choose", overlap_jobs.choose_objects, executor)


def _paint(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    _map(plan, "paint", overlap_jobs.paint_tile, len(plan.tiles), executor)
    return {}


def _number(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    job = overlap_jobs.number_objects if plan.instances == "overlap" else object_jobs.number_objects
    return _only(plan, "number", job, executor)


def _relabel(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    job = overlap_jobs.relabel_tile if plan.instances == "overlap" else object_jobs.relabel_tile
    _map(plan, "relabel", job, len(plan.tiles), executor)
    return {}


def _measure(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    _map(plan, "measure", measure_jobs.measure_core, len(plan.tiles), executor)
    ranges = measure_jobs.note_ranges(plan, _records(plan, "measure", len(plan.tiles)))
    _map(plan, "measure ranges", measure_jobs.measure_range, ranges, executor)
    return _only(plan, "measure table", measure_jobs.tabulate, executor)


def _pyramids(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    for level in range(1, max(len(pyramid.levels) for pyramid in plan.pyramids)):
        total = sum(len(pyramid.shards(level)) for pyramid in plan.pyramids if level < len(pyramid.levels))
        _map(plan, f"pyramids {level}", partial(jobs.make_level, level=level), total, executor)
    return {}


def _audit(plan: RunPlan, executor: Executor) -> dict[str, Any]:
    """Compute parts of the result again, before anybody can see it."""

    def run(stage: str, job: jobs.TileJob, total: int) -> list[dict[str, Any]]:
        # An audit has no more jobs than it was told to have, whatever the image.
        _map(plan, stage, job, total, executor)
        return list(_records(plan, stage, total))

    report = audit_result(plan, run, finished=False)
    with Ledger(ledger_path(plan), plan.digest) as ledger:
        lists = noted_lists(plan, ledger.done("cross").get(0, {}))
    save_facts(plan.work / "audit.json", report | lists)
    if report["passed"] is False:
        raise AuditError(
            f"{plan.source.path}: the result depends on the tiles and is kept as {plan.partial.name}, not published: "
            f"{describe_faults(report)}; please report this, with {plan.work / 'audit.json'}; --fresh makes it again"
        )
    return {}


def _is_there(path: str) -> bool:
    try:
        if not (to_path(path) if is_url(path) else on_disk(path)).exists():
            return False
    except (OSError, ImageError):
        return False
    return True


def _unchanged(plan: RunPlan) -> None:
    """Make sure that the input is still what was planned for: a store that vanishes or changes reads as something."""
    source = open_image(plan.source.path, plan.series)
    source.close()
    if not source.info.is_still(plan.source):
        discard(plan)
        raise ImageError(f"{plan.source.path}: the image has changed during the run; run again")


def _publish(plan: RunPlan, _executor: Executor) -> dict[str, Any]:
    _unchanged(plan)
    return told_of(publish_result(plan, stage_names(plan)))


def _send(plan: RunPlan, _executor: Executor) -> dict[str, Any]:
    return told_of(send_result(plan))


_STAGES: dict[str, Callable[[RunPlan, Executor], dict[str, Any]]] = {
    "create": _create,
    "read": _read,
    "statistics": _statistics,
    "check": _check,
    "segment": _segment,
    "skipped": _skipped,
    "holes": _holes,
    "fill": _fill,
    "cross": _cross,
    "part": _part,
    "compare": _compare,
    "choose": _choose,
    "paint": _paint,
    "number": _number,
    "relabel": _relabel,
    "measure": _measure,
    "pyramids": _pyramids,
    "audit": _audit,
    "publish": _publish,
    "send": _send,
}


def run_stage(name: str, plan: RunPlan, executor: Executor) -> dict[str, Any]:
    """Run one stage of a plan, or what is left of it.

    Parameters
    ----------
    name : str
        One of `stage_names`.
    plan : RunPlan
        The plan.
    executor : Executor
        Where its jobs run.

    Returns
    -------
    dict
        A few facts about it.
    """
    began = perf_counter()
    refuse_taken(plan.held)
    try:
        facts = _STAGES[name](plan, executor)
    except ImageError:
        if name in ("create", "read", "statistics") and _is_there(plan.source.path):
            # Nothing is lost with it yet. Later on, or where it has gone, the image was good once, and may be again.
            discard(plan)
        raise
    except FileNotFoundError:
        # What was made may have been cleared away by a run that has taken over meanwhile.
        refuse_taken(plan.held)
        raise
    seconds = round(perf_counter() - began, 3)
    log.info("%s: %s took %.1f s", plan.name, name, seconds)
    if name not in ("publish", "send"):
        with Ledger(ledger_path(plan), plan.digest) as ledger:
            ledger.mark(f"stage {name}", 0, {"seconds": seconds})
    return facts
