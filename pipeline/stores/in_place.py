"""Publication into an image that is there already: labels and table move in, and then its metadata name them.

At each moment the image is a valid one: labels that are not listed yet, or no more, are no part of it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.stores.metadata import Version, group_of
from pipeline.stores.publish import (
    PROVENANCE,
    flush,
    is_complete,
    is_leftover,
    leftovers,
    note_damage,
    read_provenance,
)

__all__ = ["add_to_image", "is_in_place", "recover_addition", "refuse_taken_names", "warn_of_consolidated"]

_GONE, _COPIED = ".gone", ".copied"
"""What notes are called that nobody needs any more, and where goes what was copied to another file system."""


def is_in_place(folder: Path) -> bool:
    """Say whether what a folder holds of seamfree has been added to an image that was there before."""
    try:
        return bool(read_provenance(folder).get("in_place"))
    except StoreError:
        return False


def refuse_taken_names(image: Path, parts: Iterable[str]) -> None:
    """Refuse to add to an image what it has already and seamfree has not added.

    Parameters
    ----------
    image : Path
        Folder of the image's group.
    parts : iterable of str
        What shall be added, such as ``"labels/instances"``.

    Raises
    ------
    StoreError
        If something of such a name is there, or the image is a result itself.
    """
    own: list[str] = []
    if (image / PROVENANCE).exists():
        if not is_in_place(image):
            raise StoreError(f"{image}: a result of seamfree itself; --in-place is for the images that results come of")
        own = _parts_of(image)
    for part in parts:
        if part not in own and (image / part).exists():
            raise StoreError(
                f"{image / part}: this is there already, and not made by seamfree; rename it, or leave out --in-place"
            )


def _parts_of(image: Path) -> list[str]:
    """Give what a run has added to an image, or is about to."""
    if not (image / PROVENANCE).exists():
        return []
    found = {"/".join(path.split("/")[:2]) for path in read_provenance(image).get("checksums", {})}
    # The classes come first, as in the plan: viewers list labels in this order.
    return sorted(found, key=lambda part: (part != "labels/semantic", part))


def _version_of(partial: Path) -> Version:
    """Give the version of OME-Zarr that a result, and so the image, is written in."""
    return "0.4" if read_provenance(partial).get("plan", {}).get("ome_zarr") == "0.4" else "0.5"


def warn_of_consolidated(image: Path) -> str | None:
    """Say where readers may look for labels in vain: in consolidated metadata, which are as they were."""
    for folder in (image, *list(image.parents)[:3]):
        if (folder / ".zmetadata").exists() or b'"consolidated_metadata": {' in _metadata_of(folder):
            return (
                f"{folder}: has consolidated metadata, which do not list what is added; readers that trust them see it "
                "once they are consolidated anew (zarr.consolidate_metadata)"
            )
    return None


def _metadata_of(folder: Path) -> bytes:
    return (folder / "zarr.json").read_bytes() if (folder / "zarr.json").is_file() else b""


def add_to_image(partial: Path, image: Path, notes: str = ".work") -> None:
    """Move what was made into the image. Done again after an interruption, it goes on where it was.

    What that is, such as ``labels/instances``, says its own provenance: it may be that of another run than goes on.

    Parameters
    ----------
    partial : Path
        Where it was made; gone in the end.
    image : Path
        Folder of the image's group.
    notes : str, optional
        Name of a folder in `partial` that is no part of the result.

    Raises
    ------
    StoreError
        If the image has something of such a name that seamfree has not made, or the disk refuses.
    """
    if not (partial / PROVENANCE).is_file():
        raise StoreError(f"{partial}: not complete, there is no {PROVENANCE} in it; run again")
    parts, version = _parts_of(partial), _version_of(partial)
    try:
        if (partial / notes).exists():
            refuse_taken_names(image, parts)
            for path in leftovers(partial):
                path.unlink()
            flush(partial, besides=notes)
            (partial / notes).rename(partial / _GONE)
        else:
            # The run before may have been killed while it wrote to the groups that are the image's own.
            for path in [path for name in ("labels", "tables") for path in (image / name).glob("*.partial")]:
                if is_leftover(path):
                    path.unlink()
        dropped = [part for part in _parts_of(image) if part not in parts]
        replaced = [part for part in parts if (image / part).exists() and not _has_moved(partial, image, part)]
        _list(image, [*dropped, *replaced], version, listed=False)
        for part in parts:
            _move(partial, image, part)
        for part in dropped:
            shutil.rmtree(image / part, ignore_errors=True)
        _list(image, parts, version, listed=True)
        beside = image / f".{PROVENANCE}.partial"
        shutil.copyfile(partial / PROVENANCE, beside)
        beside.replace(image / PROVENANCE)
        note_damage(image, [])
        shutil.rmtree(partial)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{image}: cannot be written to ({error.strerror or error})") from error


def recover_addition(partial: Path, image: Path, notes: str = ".work") -> None:
    """Finish an addition that was interrupted, if there is one.

    Parameters
    ----------
    partial, image, notes
        As for `add_to_image`.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    if is_complete(partial, notes):
        add_to_image(partial, image, notes)
    elif (partial / _GONE).exists() or (partial.exists() and not (partial / notes).exists()):
        # All of it is in the image; only the clearing was interrupted.
        shutil.rmtree(partial, ignore_errors=True)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}")


def _has_moved(partial: Path, image: Path, part: str) -> bool:
    return not (partial / part).exists() and not _beside(image / part, "partial").exists()


def _move(partial: Path, image: Path, part: str) -> None:
    """Move a part in, first beside its place: renamed, or copied where the image is on another file system."""
    source, target = partial / part, image / part
    beside, old = _beside(target, "partial"), _beside(target, "old")
    if source.exists():
        target.parent.mkdir(exist_ok=True)
        _remove(beside)
        try:
            source.rename(beside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copytree(source, beside)
            flush(beside)
            (partial / _COPIED / part).parent.mkdir(parents=True, exist_ok=True)
            source.rename(partial / _COPIED / part)
    if beside.exists():
        if target.exists():
            _remove(old)
            target.rename(old)
        beside.rename(target)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _list(image: Path, parts: Sequence[str], version: Version, *, listed: bool) -> None:
    """Put parts onto the lists of their groups, or take them off; what else is on the lists stays as it is."""
    for name in dict.fromkeys(part.split("/")[0] for part in parts):
        if not listed and not (image / name).exists():
            continue
        members = [part.split("/")[1] for part in parts if part.startswith(f"{name}/")]
        group = group_of(image / name, version)
        attributes: dict[str, Any] = group.attrs.asdict()
        # OME-Zarr knows labels; the list of tables stands outside of what it says.
        inner = name == "labels" and version == "0.5"
        holder = attributes.setdefault("ome", {"version": version}) if inner else attributes
        before = [str(member) for member in holder.get(name, [])]
        after = [member for member in before if listed or member not in members]
        after += [member for member in members if listed and member not in before]
        if after != before or name not in holder:
            holder[name] = after
            group.attrs.put(attributes)
