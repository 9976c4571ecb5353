"""Checking what a finished result says of itself: metadata of groups, and whether they are as they were written."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import zarr
from ome_zarr_models import open_ome_zarr

from pipeline.checks import Check
from pipeline.remote.zarr_stores import readable
from pipeline.stores.metadata import group_files
from pipeline.stores.publish import PROVENANCE, file_checksums
from pipeline.stores.tables import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.remote.paths import AnyPath
    from pipeline.results import PlateResult
    from pipeline.stores.metadata import Version

__all__ = ["check_groups", "check_plate"]


def check_groups(folder: AnyPath, plan: Mapping[str, Any], noted: Mapping[str, Any] | None) -> list[Check]:
    """Check the metadata of a result's groups.

    Parameters
    ----------
    folder : Path or RemotePath
        The result's folder.
    plan : mapping
        The plan as the provenance has it; it may be that of another version.
    noted : mapping, optional
        Checksums of the groups' files; results of earlier versions have none.
    """
    pixels = {"labels/semantic": "ImageLabel"}
    if plan["instances"] != "none":
        pixels["labels/instances"] = "ImageLabel"
    if plan["probabilities"] != "none":
        pixels["probabilities"] = "Image"
    own = list(pixels) if plan.get("in_place") else ["", *pixels]
    version: Version = "0.4" if plan.get("ome_zarr") == "0.4" else "0.5"
    checks = [
        _check_kind(folder, "", "Image"),
        _check_list(folder, "labels", pixels, _check_kind(folder, "labels", "Labels")),
    ]
    checks += [_check_kind(folder, group, kind) for group, kind in pixels.items()]
    if plan.get("table"):
        checks.append(_check_list(folder, "tables", [TABLE]))
    if noted is None:
        return [*checks, _unchecked()]
    names = {_named(group): group_files(group, version) for group in own}
    return [_compare(folder, check, names.get(check.what, []), noted) for check in checks]


def check_plate(plate: PlateResult, noted: Mapping[str, Any] | None) -> list[Check]:
    """Check the metadata of a plate of results, of its rows and of its wells.

    Parameters
    ----------
    plate : PlateResult
        The plate.
    noted : mapping, optional
        Checksums of the groups' files; results of earlier versions have none, nor have plates of somebody else's to
        which labels were added in place.
    """
    folder = plate.path
    whole = _check_kind(folder, "", "HCS", "metadata of the plate")
    if noted is None:
        return [whole] if plate.provenance.get("in_place") else [whole, _unchecked()]
    version: Version = "0.4" if ".zgroup" in noted else "0.5"
    rows = dict.fromkeys(field.row for field in plate.fields)
    wells = dict.fromkeys(f"{field.row}/{field.column}" for field in plate.fields)
    # Nothing but names of wells stands in a plate's rows: the files by which they are groups have no attributes.
    inner = [group_files(row, version)[0] for row in rows]
    inner += [file for well in wells for file in group_files(well, version)]
    return [
        _compare(folder, whole, group_files("", version), noted),
        _compare(folder, Check("metadata of rows and wells", passed=True), inner, noted),
    ]


def _named(group: str) -> str:
    return f"metadata of {group or 'the image'}"


def _unchecked() -> Check:
    why = f"{PROVENANCE} has none, as those of earlier versions: whether metadata were changed cannot be told"
    return Check("checksums of metadata", passed=True, detail=why, made=False)


def _check_kind(folder: AnyPath, group: str, expected: str, what: str = "") -> Check:
    """Check that a group is what OME-Zarr calls by a name."""
    what = what or _named(group)
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


def _check_list(folder: AnyPath, group: str, members: Iterable[str], so_far: Check | None = None) -> Check:
    """Check that a group lists what a run has put into it.

    By their names, not by a checksum: other programs add labels and tables of theirs to a result.
    """
    check = so_far or Check(_named(group), passed=True)
    if not check.passed:
        return check
    wanted = [member.removeprefix(f"{group}/") for member in members if member.startswith(f"{group}/")]
    try:
        attributes: dict[str, Any] = zarr.open_group(readable(folder / group), mode="r").attrs.asdict()
        listed = attributes.get("ome", attributes).get(group, [])
        missing = [name for name in wanted if name not in listed]
    except Exception as error:  # noqa: BLE001 (likewise)
        return Check(check.what, passed=False, detail=" ".join(f"{type(error).__name__}: {error}".splitlines()[:1]))
    if missing:
        return Check(check.what, passed=False, detail=f"{', '.join(missing)} not listed")
    return check if so_far else Check(check.what, passed=True, detail=", ".join(wanted))


def _compare(folder: AnyPath, check: Check, files: Sequence[str], noted: Mapping[str, Any]) -> Check:
    """Compare files with their checksums, if nothing else is wrong with them."""
    if not check.passed:
        return check
    if missing := [file for file in files if file not in noted]:
        return Check(check.what, passed=False, detail=f"{PROVENANCE} has no checksum for {', '.join(missing)}")
    found = file_checksums(folder, files)
    changed = [file for file in files if found[file] != noted[file]]
    if changed:
        return Check(check.what, passed=False, detail=f"{', '.join(changed)} changed since it was written")
    return check
