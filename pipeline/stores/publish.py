"""Provenance, checksums, and the rename that makes a result visible."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import StoreError
from pipeline.remote.paths import AnyPath, RemotePath
from pipeline.stores.written import digest_of

__all__ = [
    "PROVENANCE",
    "checksum",
    "count_objects",
    "file_checksums",
    "file_digests",
    "flush",
    "fold",
    "is_complete",
    "is_leftover",
    "leftovers",
    "not_ours",
    "note_damage",
    "noted_damage",
    "publish",
    "read_provenance",
    "recover",
    "refuse_foreign",
    "refuse_foreign_partial",
    "write_provenance",
]

T = TypeVar("T")

PROVENANCE = "seamfree.json"

DAMAGE = "damaged.json"
"""In a result that is known to be damaged: what of it. The next run makes the result again."""

_LEFTOVER = re.compile(r"\.[0-9a-f]{32}\.partial$")
"""How zarr's LocalStore calls a file that it is still writing."""


_THREADS, _AT_ONCE = 8, 1024
"""Files of a disk are read, and brought to it, by so many threads; so many wait for them, for there may be millions."""


def _in_threads(function: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """Give what a function gives for each file, in their order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(function, paths[start : start + _AT_ONCE])


def checksum(array: AnyPath) -> str:
    """Give a digest of an array's files: metadata and chunks, in the order of their names.

    What a killed process left half-written does not count; `publish` removes it.

    Parameters
    ----------
    array : Path or RemotePath
        Folder of one array.

    Returns
    -------
    str
        BLAKE2b, hexadecimal.
    """
    return fold(file_digests(array))


def fold(files: Iterable[tuple[str, bytes]]) -> str:
    """Give the `checksum` of an array whose files' digests are known.

    Parameters
    ----------
    files : iterable of tuple of str, bytes
        As `file_digests` gives them.
    """
    digest = hashlib.blake2b(digest_size=32)
    for path, content in files:
        digest.update(path.encode() + b"\0" + content)
    return digest.hexdigest()


def file_digests(array: AnyPath) -> Iterator[tuple[str, bytes]]:
    """Give the path below an array's folder, and the digest, of each of its files, in the order of `checksum`."""
    if isinstance(array, RemotePath):
        for name, place in sorted((path.relative_to(array).as_posix(), path) for path, _ in array.files_below()):
            yield name, digest_of(place)
        return
    ignored = set(leftovers(array))
    paths = sorted(path for path in array.rglob("*") if path.is_file() and path not in ignored)
    for path, digest in zip(paths, _in_threads(digest_of, paths), strict=True):
        yield path.relative_to(array).as_posix(), digest


def file_checksums(result: AnyPath, files: Iterable[str]) -> dict[str, str | None]:
    """Give the BLAKE2b digests of single files of a result, hexadecimal; None of those that are not there.

    Parameters
    ----------
    result : Path or RemotePath
        The result's folder.
    files : iterable of str
        Their paths below it.

    Raises
    ------
    StoreError
        If the disk refuses.
    """

    def of(path: AnyPath) -> str | None:
        try:
            return digest_of(path).hex()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error

    return {file: of(result / file) for file in files}


def write_provenance(result: Path, facts: dict[str, Any]) -> None:
    """Write a result's provenance, whole or not at all.

    Parameters
    ----------
    result : Path
        The result's folder.
    facts : dict
        What JSON can hold.

    Raises
    ------
    StoreError
        If a number is not finite, which JSON cannot hold, or the disk refuses.
    """
    path = result / PROVENANCE
    beside = path.with_suffix(".tmp")
    try:
        # In ASCII: a name of a file that is not UTF-8 comes back as it was, and cannot be written otherwise.
        text = json.dumps(facts, indent=2, allow_nan=False)
        beside.write_text(text + "\n", encoding="ascii")
        beside.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: the provenance cannot be written ({error.strerror or error})") from error
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: the provenance holds what JSON cannot ({error})") from error


def read_provenance(result: AnyPath) -> dict[str, Any]:
    """Read a result's provenance.

    Raises
    ------
    StoreError
        If there is none, it cannot be read, or it does not say what was planned.
    """
    path = result / PROVENANCE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"{result}: not a result of seamfree (no {PROVENANCE} in it)") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: the provenance cannot be read ({error})") from error
    if not isinstance(facts, dict):
        raise StoreError(f"{path}: the provenance is not a mapping")
    # A plate's own lists its fields; the plans are those of the fields.
    if not isinstance(facts.get("plan"), dict) and not isinstance(facts.get("fields"), list):
        raise StoreError(f"{path}: the provenance is damaged, its plan is no mapping; --fresh makes the result again")
    return facts


def count_objects(result: AnyPath) -> int | None:
    """Read how many objects a result holds, those of all fields of a plate; None where no objects were looked for.

    Raises
    ------
    StoreError
        If its provenance cannot be read.
    """
    facts = read_provenance(result)
    entries = facts["fields"] if isinstance(facts.get("fields"), list) else [facts]
    counts = [int(entry["objects"]) for entry in entries if entry.get("objects") is not None]
    return sum(counts) if len(counts) == len(entries) else None


def note_damage(result: AnyPath, what: list[str]) -> None:
    """Note in a result what of it is damaged, so that the next run makes it again; take the note away if nothing is.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    path = result / DAMAGE
    try:
        if what:
            path.write_text(json.dumps(what) + "\n")
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: the damage cannot be noted ({error.strerror or error})") from error


def noted_damage(result: AnyPath) -> list[str]:
    """Give what of a result is known to be damaged."""
    try:
        return [str(what) for what in json.loads((result / DAMAGE).read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"{DAMAGE} ({error})"]


def leftovers(result: Path) -> list[Path]:
    """Find the files that a process was writing when it was killed; zarr writes beside the file and renames."""
    return sorted(path for path in result.rglob("*.partial") if is_leftover(path))


def is_leftover(path: Path) -> bool:
    """Say whether a file is what zarr was writing when its process was killed."""
    return _LEFTOVER.search(path.name) is not None and path.is_file()


def is_complete(partial: Path, notes: str) -> bool:
    """Say whether nothing but the rename is missing: a publication was interrupted.

    Parameters
    ----------
    partial : Path
        Where a result was made.
    notes : str
        Name of the folder in it that `publish` takes away.
    """
    return (partial / PROVENANCE).is_file() and not (partial / notes).exists()


def not_ours(path: Path) -> StoreError:
    """Give the error that tells of what has a name of seamfree's and was not made by it."""
    return StoreError(f"{path}: there is something that seamfree has not made; choose another -o, or move it away")


def refuse_foreign(final: Path) -> None:
    """Refuse to replace what is no result of seamfree.

    Raises
    ------
    StoreError
        If there is something of that name that seamfree has not made.
    """
    if os.path.lexists(final) and not (final / PROVENANCE).is_file():
        raise not_ours(final)


_MADE = {
    "zarr.json", ".zgroup", ".zattrs", "labels", "tables", "probabilities", PROVENANCE, "seamfree.tmp", DAMAGE,
    ".work", ".gone", ".copied",
}  # fmt: skip
"""What may lie in an unfinished result, beside the resolutions of the image and what zarr was writing."""


def refuse_foreign_partial(partial: Path) -> None:
    """Refuse to touch what has the name of an unfinished result and is something else.

    Raises
    ------
    StoreError
        If it is no folder, or there is something in it that seamfree never makes.
    """
    if not os.path.lexists(partial):
        return
    if partial.is_symlink() or not partial.is_dir():
        held = partial
    else:
        names = {path.name for path in partial.iterdir() if not path.name.isdecimal() and not is_leftover(path)}
        if not names - _MADE:
            return
        held = partial / min(names - _MADE)
    raise not_ours(held)


def publish(
    partial: Path, final: Path, *, replace: bool, notes: str = ".work", written: Iterable[Path] | None = None
) -> None:
    """Give a complete result its name.

    Everything is flushed to the disk first, so that what has the name is whole after a power failure, too. Done again
    after an interruption, it goes on where it was.

    Parameters
    ----------
    partial : Path
        Where it was made, in the same folder.
    final : Path
        Its name.
    replace : bool
        Whether a result of that name may be replaced; a reader sees the old or the new one, or for an instant none.
    notes : str, optional
        Name of a folder in `partial` that is no part of the result, if there is one. It is taken away in one step, as
        late as possible: while it is there, an interrupted run can be resumed; once it is gone, see `is_complete`.
    written : iterable of Path, optional
        The only files that may not be on the disk yet, where all others were published before; else all are flushed.

    Raises
    ------
    StoreError
        If there is such a result and it may not be replaced, or something else of that name, the result is not
        complete, or the disk refuses.
    """
    if final.exists() and not replace:
        raise StoreError(f"{final}: there is a result already; use --fresh to replace it")
    refuse_foreign(final)
    if not (partial / PROVENANCE).is_file():
        raise StoreError(f"{partial}: not complete, there is no {PROVENANCE} in it; run again")
    aside = _aside(final)
    try:
        if written is None:
            for path in leftovers(partial):
                path.unlink()
            flush(partial, besides=notes)
        else:
            files = {*written, partial / PROVENANCE}
            for path in files:
                _flush_file(path)
            for folder in {path.parent for path in files}:
                _flush_folder(folder)
        _clear(aside)
        aside.mkdir()
        if (partial / notes).exists():
            (partial / notes).rename(aside / _NOTES)
        if final.exists():
            final.rename(aside / _REPLACED)
        partial.rename(final)
        _flush_folder(final.parent)
        shutil.rmtree(aside)
    except OSError as error:
        raise StoreError(f"{final}: cannot be published ({error.strerror or error})") from error


def recover(partial: Path, final: Path, notes: str = ".work") -> bool:
    """Finish a publication that was interrupted, and remove what it left beside the result.

    To be called before anything else is done with either.

    Parameters
    ----------
    partial, final, notes
        As for `publish`.

    Returns
    -------
    bool
        Whether a result has been published.

    Raises
    ------
    StoreError
        If the disk refuses, or something else has the name of what it leaves.
    """
    _refuse_foreign_aside(_aside(final))
    if is_complete(partial, notes):
        publish(partial, final, replace=True, notes=notes)
        return True
    try:
        if final.exists():
            _clear(_aside(final))
    except OSError as error:
        raise StoreError(f"{_aside(final)}: cannot be removed ({error.strerror or error})") from error
    return False


_NOTES, _REPLACED = "notes", "replaced"
"""What a publication puts aside."""


def _aside(final: Path) -> Path:
    """Where a publication puts what goes: beside the result, for renames are within one file system."""
    return final.with_name(f".{final.name}.old")


def _refuse_foreign_aside(aside: Path) -> None:
    """Refuse what has the name of what a publication puts aside, and is something else."""
    if os.path.lexists(aside) and (
        aside.is_symlink() or not aside.is_dir() or {path.name for path in aside.iterdir()} - {_NOTES, _REPLACED}
    ):
        raise not_ours(aside)


def _clear(aside: Path) -> None:
    """Remove what a publication has put aside."""
    _refuse_foreign_aside(aside)
    if aside.exists():
        shutil.rmtree(aside)


def flush(folder: Path, besides: str = "") -> None:
    """Have a folder's files and names on the disk, but for those of one folder in it."""
    for where, folders, names in os.walk(folder):
        if Path(where) == folder and besides in folders:
            folders.remove(besides)
        # All of a folder's files are there before its names are.
        for _ in _in_threads(_flush_file, [Path(where, name) for name in names]):
            pass
        _flush_folder(Path(where))


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Have the names in a folder on the disk; Windows knows no such thing."""
    if os.name == "nt":
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
