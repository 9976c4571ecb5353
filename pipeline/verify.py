"""Checking finished results: metadata, checksums, and whether the tiles show."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import zarr
from ome_zarr_models import open_ome_zarr
from pydantic import ValidationError

from pipeline.errors import ConfigError, ImageError, ModelError, PlanError, SeamfreeError, StoreError
from pipeline.remote.paths import to_path
from pipeline.remote.zarr_stores import readable
from pipeline.results import PlateResult
from pipeline.stores.publish import PROVENANCE, checksum, note_damage, noted_damage, read_provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.engine.executor import Executor
    from pipeline.planning import RunPlan
    from pipeline.remote.paths import AnyPath

__all__ = ["Check", "audit_again", "verify"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was verified.

    Parameters
    ----------
    what : str
        What it is.
    passed : bool
        Whether it is as it should be; also where the check could not be made.
    detail : str
        What was found.
    made : bool
        Whether the check could be made; the detail says why not.
    """

    what: str
    passed: bool
    detail: str = ""
    made: bool = True


def verify(
    path: str | AnyPath,
    *,
    audit: bool = True,
    windows: int | None = None,
    seed: int = 0,
    workers: int = 1,
    function: str | None = None,
) -> list[Check]:
    """Check a finished result: its metadata, that no byte of its arrays has changed, and that its tiles do not show.

    What is damaged is noted in the result, so that the next run makes it again.

    Parameters
    ----------
    path : str or Path
        Folder ``NAME.ome.zarr``.
    audit : bool
        Whether to compute parts of it again.
    windows, seed, workers, function
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
    if "fields" in provenance:
        checks = [_check_metadata(folder, "", "HCS", "metadata of the plate")]
        for field in PlateResult.of(folder, provenance).fields:
            name = f"{field.row}/{field.column}/{field.name}"
            for each in verify(field.path, audit=audit, windows=windows, seed=seed, workers=workers):
                checks.append(replace(each, what=f"{name}: {each.what}"))  # noqa: PERF401 (nested twice)
        return checks
    try:
        plan, checksums = provenance["plan"], dict(provenance["checksums"])
        groups = {"": "Image", "labels": "Labels", "labels/semantic": "ImageLabel"}
        if plan["instances"] != "none":
            groups["labels/instances"] = "ImageLabel"
        if plan["probabilities"] != "none":
            groups["probabilities"] = "Image"
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{folder / PROVENANCE}: the provenance is damaged, it does not say what the result holds "
            f"({type(error).__name__}: {error})"
        ) from error
    for array in checksums:
        parts = PurePosixPath(array)
        if not parts.parts or parts.is_absolute() or ".." in parts.parts or "\0" in array:
            raise StoreError(
                f"{folder / PROVENANCE}: the provenance is damaged, it names {array!r}, which is not inside the result"
            )
    checks = [_check_metadata(folder, group, kind) for group, kind in groups.items()]
    for array, expected in checksums.items():
        same = checksum(folder / array) == expected
        checks.append(Check(f"checksum of {array}", same, "" if same else "changed since it was written"))
    checks += _note_damage(folder, [check.what for check in checks if not check.passed])
    if audit:
        if all(check.passed for check in checks):
            checks.append(_check_seams(folder, windows, seed, workers, function))
        else:
            checks.append(Check(_SEAMS, passed=True, detail="the result itself is damaged", made=False))
    return checks


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


def _check_metadata(folder: AnyPath, group: str, expected: str, what: str = "") -> Check:
    what = what or f"metadata of {group or 'the image'}"
    if not any((folder / group / name).exists() for name in ("zarr.json", ".zgroup")):
        return Check(what, passed=False, detail="there are none")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = open_ome_zarr(zarr.open_group(readable(folder / group), mode="r"))
    except Exception as error:  # noqa: BLE001 (on damaged metadata the readers raise what they like)
        return Check(what, passed=False, detail=" ".join(f"{type(error).__name__}: {error}".splitlines()[:1]))
    kind, version = type(found).__name__, found.ome_zarr_version
    return Check(what, kind == expected, f"OME-Zarr {version} {kind}{'' if kind == expected else f', not {expected}'}")


_SEAMS = "seams"


def _check_seams(folder: AnyPath, windows: int | None, seed: int, workers: int, function: str | None) -> Check:
    from pipeline.audit import describe_faults, describe_report

    try:
        report = audit_again(folder, windows=windows, seed=seed, workers=workers, function=function)
    except ConfigError:
        raise
    except (ImageError, ModelError, PlanError) as error:
        return Check(_SEAMS, passed=True, detail=" ".join(str(error).split()), made=False)
    except SeamfreeError as error:
        return Check(_SEAMS, passed=False, detail=" ".join(str(error).split()))
    if report["passed"] is None:
        return Check(_SEAMS, passed=True, detail=describe_report(report), made=False)
    if not report["passed"]:
        return Check(_SEAMS, passed=False, detail=describe_faults(report))
    return Check(_SEAMS, passed=True, detail=describe_report(report))


def audit_again(
    path: str | AnyPath, *, windows: int | None = None, seed: int = 0, workers: int = 1, function: str | None = None
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

    plan = _plan_of(to_path(path).absolute(), windows)
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


def _plan_of(folder: AnyPath, windows: int | None) -> RunPlan:
    """Give the plan of a result, for the place where it lies now."""
    from pipeline.audit import learn_footprint
    from pipeline.audit_windows import choose_count
    from pipeline.planning import RunPlan
    from pipeline.site import count_gpus

    try:
        # A result may come from anywhere: what it says of code that may be run is no permission.
        changes = {"output": str(folder), "factory": None, "trust_model_code": False}
        plan = RunPlan.model_validate(read_provenance(folder)["plan"] | changes)
    except (ValidationError, KeyError, TypeError) as error:
        raise PlanError(f"{folder / PROVENANCE}: the plan is not one of this version of seamfree") from error
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
