"""From a disk into an object store: a finished result goes there object by object, what makes it visible last.

An object store knows no renaming. So a reader could meet half a result, were it not for the order: first go the pixels
and the table, then the metadata from the innermost to those of the result itself, and last the provenance, by which
seamfree knows a result. Whatever is replaced goes in the opposite order before. While that is under way, an object
says who is at it: object stores have no locks that end with their holders, but let one of two writers only make it.
"""

from __future__ import annotations

import json
import logging
import platform
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self
from uuid import uuid4

from pipeline.errors import StoreError
from pipeline.remote.paths import RemotePath
from pipeline.stores.publish import PROVENANCE

__all__ = ["SENDING", "check_free", "finish_sending", "is_sent", "send", "sent_log", "take_over"]

SENDING = "seamfree-sending.json"
"""Object in a result that is being sent: who does it."""

_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")

THREADS = 8

_IN_PARTS = 2**24
"""Objects from this size on are sent in parts, smaller ones at once: those are held in memory, one by each thread."""

log = logging.getLogger(__name__)


def sent_log(folder: Path) -> Path:
    """Give where it is noted what of a result has been sent: beside it."""
    return folder.with_name(f".{folder.name}.sent")


class _Log:
    """What of a result has been sent, on the disk; outlives the process, and a line that was half written."""

    def __init__(self, folder: Path) -> None:
        self._path = sent_log(folder)
        self.sent: dict[str, tuple[int, str]] = {}
        self.mark = ""
        with suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError):
                    entry = json.loads(line)
                    self.mark = entry.get("mark", self.mark)
                    if "key" in entry:
                        self.sent[entry["key"]] = (entry["size"], entry["tag"])
        self._file = self._path.open("a", encoding="utf-8")
        # Whatever the last line is, the next one begins anew.
        self._file.write("\n")
        if not self.mark:
            self.mark = uuid4().hex
            self._note({"mark": self.mark})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _note(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def add(self, key: str, size: int, tag: str) -> None:
        self._note({"key": key, "size": size, "tag": tag})
        self.sent[key] = (size, tag)


def check_free(target: RemotePath) -> None:
    """Refuse a place that seamfree has not filled.

    Raises
    ------
    StoreError
        If there is something that is no result and no part of one, or nobody answers.
    """
    try:
        first = next(target.files_below(), None)
        foreign = first is not None and not (target / PROVENANCE).is_file() and not (target / SENDING).is_file()
    except OSError as error:
        raise StoreError(f"{target}: cannot be looked at ({error.strerror or error})") from error
    if foreign:
        raise StoreError(f"{target}: there is something that seamfree has not made; choose another -o, or remove it")


def is_sent(target: RemotePath) -> bool:
    """Say whether a whole result is there.

    Raises
    ------
    StoreError
        If nobody answers.
    """
    try:
        return (target / PROVENANCE).is_file()
    except OSError as error:
        raise StoreError(f"{target}: cannot be looked at ({error.strerror or error})") from error


def send(folder: Path, target: RemotePath, beside: Path | None = None) -> int:
    """Send a finished result, or what an interrupted sending has left to do.

    Parameters
    ----------
    folder : Path
        The result on the disk; held by this run.
    target : RemotePath
        Where it shall be, with the name ``NAME.ome.zarr``. A result that is there is replaced: a reader meets the old
        one, then none, then the new one.
    beside : Path, optional
        A file that shall lie beside it, if there is one: the report.

    Returns
    -------
    int
        Bytes sent now.

    Raises
    ------
    StoreError
        If another run is sending a result there, nobody answers, or the disk refuses.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    ordered = sorted(files, key=_turn)
    plain = [key for key in ordered if _turn(key)[0] == 0]
    try:
        with _Log(folder) as noted:
            _mark(target, noted.mark)
            held = {
                path.relative_to(target).as_posix(): (stat.st_size, str(stat.e_tag))
                for path, stat in target.files_below()
            }
            kept = {key for key, found in held.items() if key in files and noted.sent.get(key) == found}
            for key in sorted(set(held) - kept - {SENDING}, key=_turn, reverse=True):
                (target / key).unlink(missing_ok=True)
            sizes = {key: path.stat().st_size for key, path in files.items()}

            def put(key: str) -> int:
                if key in kept:
                    return 0
                noted.add(key, sizes[key], _put(files[key], target / key, sizes[key]))
                return sizes[key]

            with ThreadPoolExecutor(THREADS) as pool:
                total = sum(pool.map(put, plain))
            if beside is not None and beside.is_file():
                _put(beside, target.with_name(beside.name), beside.stat().st_size)
            total += sum(put(key) for key in ordered[len(plain) :])
            (target / SENDING).unlink(missing_ok=True)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"{target}: cannot be sent ({error.strerror or error}); run again: what is done and sent is kept"
        ) from error
    log.info("%s: %d objects, %.1f MiB sent", target, len(files) - len(kept), total / 2**20)
    return total


def _turn(key: str) -> tuple[int, int, str]:
    """Give when an object is sent: pixels and tables, metadata from the innermost on, the provenance."""
    if key == PROVENANCE:
        return 2, 0, key
    path = PurePosixPath(key)
    return (1, -len(path.parts), key) if path.name in _METADATA else (0, 0, key)


def _put(path: Path, target: RemotePath, size: int) -> str:
    """Send a file, and give the tag by which the store knows its content."""
    return target.send_file(path, in_parts=size > _IN_PARTS)


def _mark(target: RemotePath, mark: str) -> None:
    """Say that this run is sending; refuse where another one is."""
    text = json.dumps({"mark": mark, "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
    if (target / SENDING).create(text.encode()):
        return
    holder = _read_mark(target)
    if holder.get("mark") != mark:
        raise StoreError(
            f"{target}: another run, on {holder.get('host')} since {holder.get('since')}, has begun to send a result "
            "there; go on with that one, or take its place with --fresh"
        )


def _read_mark(target: RemotePath) -> dict[str, Any]:
    try:
        found = json.loads((target / SENDING).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def take_over(folder: Path, target: RemotePath) -> None:
    """Take the place of whoever has begun to send a result to a place, and what is noted of sending to it.

    Raises
    ------
    StoreError
        If nobody answers, or the disk refuses.
    """
    try:
        sent_log(folder).unlink(missing_ok=True)
        if (target / SENDING).is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _Log(folder) as noted:
                (target / SENDING).write_bytes(json.dumps({"mark": noted.mark}).encode())
    except OSError as error:
        raise StoreError(f"{target}: cannot be taken over ({error.strerror or error})") from error


def finish_sending(folder: Path, target: RemotePath) -> None:
    """Remove what a sending has left that was interrupted after the result was there.

    Raises
    ------
    StoreError
        If nobody answers, or the disk refuses.
    """
    try:
        if sent_log(folder).exists():
            with _Log(folder) as noted:
                mark = noted.mark
            if _read_mark(target).get("mark") == mark:
                (target / SENDING).unlink(missing_ok=True)
            sent_log(folder).unlink()
    except OSError as error:
        raise StoreError(f"{target}: cannot be looked at ({error.strerror or error})") from error
