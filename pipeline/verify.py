"""Checking finished results: metadata, checksums, what their parts say of one another, and whether the tiles show."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.checks import Check
from pipeline.errors import ConfigError, ImageError, ModelError, PlanError, SeamfreeError, StoreError
from pipeline.noted_plan import noted_plan
from pipeline.printing import in_one_line
from pipeline.remote.paths import to_path
from pipeline.results import PlateResult
from pipeline.stores.publish import PROVENANCE, checksum, note_damage, noted_damage, read_provenance
from pipeline.stores.tables import TABLE
from pipeline.verify_metadata import check_groups, check_plate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pipeline.engine.executor import Executor
    from pipeline.planning import RunPlan
    from pipeline.remote.paths import AnyPath

__all__ = ["Check", "audit_again", "verify"]


def verify(
    path: str | AnyPath,
    *,
    audit: bool = True,
    windows: int | None = None,
    seed: int = 0,
    workers: int = 1,
    function: str | None = None,
    factory: str | None = None,
    trust_model_code: bool = False,
) -> list[Check]:
    """Check a finished result: its metadata, that no byte of its arrays has changed, and that its tiles do not show.

    Besides, its parts are held against one another: numbers of objects, the table, and pyramids. Labels are read once
    for this, core by core; of the rest a sample is looked at, whatever the size. What is held at a time are a core's
    labels, and 12 bytes for each object that begins in one row of cores.

    What is damaged is noted in the result, so that the next run makes it again.

    Parameters
    ----------
    path : str or Path
        Folder ``NAME.ome.zarr``.
    audit : bool
        Whether to compute parts of it again; for this, and for intensities in the table, the input may be opened.
    windows, seed, workers, function, factory, trust_model_code
        As for `audit_again`.

    Returns
    -------
    list of Check

    Raises
    ------
    ConfigError
        If a function is named that is not the one that the result was made with.
    StoreError
        If it is no result of seamfree, or its provenance is damaged.
    """
    folder = to_path(path)
    provenance = read_provenance(folder)
    named: dict[str, Any] = {
        "windows": windows, "seed": seed, "workers": workers, "function": function, "factory": factory,
        "trust_model_code": trust_model_code,
    }  # fmt: skip
    again = partial(audit_again, **named)
    if "fields" in provenance:
        return _verify_plate(
            PlateResult.of(folder, provenance),
            lambda field: verify(field, audit=audit, **named),
        )
    try:
        noted, checksums = provenance["plan"], dict(provenance["checksums"])
        known = provenance.get("metadata_checksums")
        checks = check_groups(folder, noted, None if known is None else dict(known))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{folder / PROVENANCE}: the provenance is damaged, it does not say what the result holds "
            f"({type(error).__name__}: {error})"
        ) from error
    plan = None
    damaged = Check("", passed=True, detail="the result itself is damaged", made=False)
    unknown = damaged
    try:
        plan = noted_plan(folder.absolute(), provenance)
    except PlanError as error:
        unknown = replace(damaged, detail=in_one_line(str(error)))
    except StoreError as error:
        checks.append(Check("plan", passed=False, detail=in_one_line(str(error))))
    checks += _check_files(folder, noted, plan, checksums)
    whole = all(check.passed for check in checks)
    if plan is not None and whole:
        checks += _check_contents(plan, provenance, seed, ask_input=audit)
    else:
        checks.append(replace(unknown if whole else damaged, what=_CONTENTS))
    checks += _note_damage(folder, [check.what for check in checks if not check.passed])
    if audit:
        seams = _check_seams(folder, again) if whole else replace(damaged, what=_SEAMS)
        checks.append(seams)
    return checks


_CONTENTS, _SEAMS = "numbers of objects, table and pyramids", "seams"


def _verify_plate(plate: PlateResult, verify_field: Callable[[AnyPath], list[Check]]) -> list[Check]:
    """Check a plate, and each of its fields."""
    known, entries = plate.provenance.get("metadata_checksums"), plate.provenance["fields"]
    checks = check_plate(plate, known if isinstance(known, dict) or known is None else {})
    for field, entry in zip(plate.fields, entries, strict=True):
        name = f"{field.row}/{field.column}/{field.name}"
        found = verify_field(field.path)
        objects = read_provenance(field.path).get("objects")
        if entry.get("objects") != objects:
            told = f"the plate says {entry.get('objects')!r}, the field itself {objects!r}"
            found.append(Check("objects", passed=False, detail=told))
        checks += [replace(each, what=f"{name}: {each.what}") for each in found]
    return checks


def _check_files(
    folder: AnyPath, noted: Mapping[str, Any], plan: RunPlan | None, checksums: Mapping[str, object]
) -> list[Check]:
    """Compare arrays and the table with their checksums, which are there for all that the plan wants, and no others."""
    for array in checksums:
        parts = PurePosixPath(array)
        if not parts.parts or parts.is_absolute() or ".." in parts.parts or "\0" in array:
            raise StoreError(
                f"{folder / PROVENANCE}: the provenance is damaged, it names {array!r}, which is not inside the result"
            )
    checks = []
    wanted = _wanted(noted, plan)
    if missing := [path for path in wanted if path not in checksums]:
        checks.append(Check("checksums", passed=False, detail=f"no checksum for {', '.join(missing)}"))
    if plan is not None and (beyond := [path for path in checksums if path not in wanted]):
        told = f"of {', '.join(beyond)}, which the plan does not know"
        checks.append(Check("checksums", passed=False, detail=told))
    for array, expected in checksums.items():
        same = checksum(folder / array) == expected
        checks.append(Check(f"checksum of {array}", same, "" if same else "changed since it was written"))
    return checks


def _wanted(noted: Mapping[str, Any], plan: RunPlan | None) -> list[str]:
    """Give the arrays of a result, and its table; of one whose plan is not understood, those that all results have."""
    if plan is not None:
        return sorted([*plan.array_specs, *([TABLE] if plan.table else [])])
    found = ["labels/semantic/0"]
    found += ["labels/instances/0"] if noted["instances"] != "none" else []
    found += ["probabilities/0"] if noted["probabilities"] != "none" else []
    found += ["0"] if noted.get("copy_image") else []
    return [*found, *([TABLE] if noted.get("table") else [])]


def _check_contents(plan: RunPlan, provenance: Mapping[str, Any], seed: int, *, ask_input: bool) -> list[Check]:
    """Hold the parts of a result whose bytes are as they were written against one another."""
    from pipeline.audit_jobs import audit_bench
    from pipeline.verify_contents import check_numbering, check_pyramids
    from pipeline.verify_table import check_table

    bench, objects = audit_bench(plan, finished=True), provenance.get("objects")
    checks: list[Check] = []
    pixels: int | None = None
    if plan.instances != "none":
        try:
            check, pixels = check_numbering(bench, objects)
        except SeamfreeError as error:
            check = Check("numbers of objects", passed=False, detail=in_one_line(str(error)))
        checks.append(check)
    elif objects is not None:
        checks.append(Check("numbers of objects", passed=False, detail=f"the plan wants none, {objects!r} are noted"))
    if plan.table:
        table = _made("table of objects", lambda: check_table(bench, objects, pixels, seed, ask_input=ask_input))
        checks.append(table)
    if max(len(pyramid.levels) for pyramid in plan.pyramids) > 1:
        checks.append(_made("pyramids", lambda: check_pyramids(bench, seed)))
    return checks


def _made(what: str, make: Callable[[], Check]) -> Check:
    """Make a check; what cannot be read has failed it."""
    try:
        return make()
    except ImageError as error:
        return Check(what, passed=True, detail=in_one_line(str(error)), made=False)
    except SeamfreeError as error:
        return Check(what, passed=False, detail=in_one_line(str(error)))


def _note_damage(folder: AnyPath, what: list[str]) -> list[Check]:
    """Tell the next run of what is damaged, and the user what that run will do."""
    if not what and not noted_damage(folder):
        return []
    try:
        note_damage(folder, what)
    except StoreError as error:
        return [Check("repair", passed=True, detail=f"{error}; --fresh makes the result again", made=False)]
    return (
        [Check("repair", passed=True, detail="the same seamfree run as before makes the result again")] if what else []
    )


def _check_seams(folder: AnyPath, again: Callable[[AnyPath], dict[str, Any]]) -> Check:
    from pipeline.audit import describe_faults, describe_report

    try:
        report = again(folder)
    except ConfigError:
        raise
    except (ImageError, ModelError, PlanError) as error:
        return Check(_SEAMS, passed=True, detail=in_one_line(str(error)), made=False)
    except SeamfreeError as error:
        return Check(_SEAMS, passed=False, detail=in_one_line(str(error)))
    if report["passed"] is None:
        return Check(_SEAMS, passed=True, detail=describe_report(report), made=False)
    if not report["passed"]:
        return Check(_SEAMS, passed=False, detail=describe_faults(report))
    return Check(_SEAMS, passed=True, detail=describe_report(report))


def audit_again(
    path: str | AnyPath,
    *,
    windows: int | None = None,
    seed: int = 0,
    workers: int = 1,
    function: str | None = None,
    factory: str | None = None,
    trust_model_code: bool = False,
) -> dict[str, Any]:
    """Audit the seams of a finished result: with its model, and its input where it has no copy of the image.

    Parameters
    ----------
    path : str or Path
        Folder ``NAME.ome.zarr``.
    windows : int, optional
        How many windows to compute again; as many as its plan says where absent.
    seed : int
        Chooses the windows; 0 takes those of the run itself.
    workers : int
        Processes to do it in; 1 does it in this one.
    function : str, optional
        The function that has found the objects, as the run was told it, where one has: it may be called again. What a
        result says of a function is no permission to run it.
    factory : str, optional
        The function that makes the network, as the run was told it; that it is another one by now is refused.
    trust_model_code : bool
        Whether code of the model may be run.

    Returns
    -------
    dict
        As `pipeline.audit.audit_result`.

    Raises
    ------
    ConfigError
        If the function is not the one that the result was made with.
    ImageError, ModelError, PlanError
        If it cannot be done: the input, the model or the device is missing or another one, or the result was made by a
        version whose plan is not understood.
    StoreError
        If the result cannot be read.
    """
    from pipeline.audit import audit_result
    from pipeline.detect import check_same_function

    plan = _plan_of(to_path(path).absolute(), windows, factory, trust=trust_model_code)
    if function is not None:
        check_same_function(plan.network, function, str(path))
    with _open_executor(plan, workers) as executor:

        def run(stage: str, job: Any, total: int) -> list[dict[str, Any]]:  # noqa: ANN401 (as the executor takes it)
            found = dict(executor.map(stage, job, plan, range(total)))
            return [found[index] for index in range(total)]

        report = audit_result(plan, run, finished=True, seed=seed, ask=function is not None)
    noted = read_provenance(to_path(path)).get("audit") or {}
    if report["windows"] is None and "spots" in (noted.get("seams") or {}) and noted.get("passed") is True:
        # The run has asked the function itself about the objects that end at seams. Checksums say that they still do.
        report |= {"passed": None, "faults": {"total": 0, "listed": []}}
    return report


def _plan_of(folder: AnyPath, windows: int | None, factory: str | None, *, trust: bool) -> RunPlan:
    """Give the plan of a result, for the place where it lies now, with as many windows and as much trust as wanted."""
    from pipeline.audit import learn_footprint
    from pipeline.audit_windows import choose_count
    from pipeline.site import count_gpus

    plan = noted_plan(folder, read_provenance(folder))
    plan = plan.model_copy(update={"factory": factory, "trust_model_code": trust})
    if plan.device == "cuda" and not count_gpus("auto"):
        raise PlanError(f"{folder}: computed on a GPU, and there is none here")
    if windows is None:
        # A run that was told to do without an audit has a number of windows, too.
        windows = plan.audit_windows
        if not windows:
            # A function, of which a result is no permission to run it, is not asked what it needs.
            whole = None if plan.instances == "overlap" else learn_footprint(plan)
            windows = choose_count(plan.label_shape, plan.core, whole) if whole else 1
    return plan.model_copy(update={"audit_windows": windows})


@contextmanager
def _open_executor(plan: RunPlan, workers: int) -> Iterator[Executor]:
    """Give what runs the jobs; a single worker is this process."""
    from pipeline.engine.cluster import ClusterSpec, connect, open_cluster

    scheduler = "serial" if workers == 1 else None
    spec = ClusterSpec(workers, 1 if plan.device == "cpu" else 4, scheduler, ("pipeline.audit_jobs",))
    with open_cluster(spec) as address, connect(address) as executor:
        yield executor
