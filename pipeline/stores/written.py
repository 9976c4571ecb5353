"""What a job has written, file by file, and the checksums by which it is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.remote.paths import AnyPath, open_ahead

__all__ = ["checksums_of", "digest_of", "first_difference", "note_written", "witnessing"]

_SHORT = 8
"""Bytes of a digest that a mark keeps: against accidents, not against forgers."""

_noted: ContextVar[list[Path] | None] = ContextVar("seamfree_written", default=None)


@contextmanager
def witnessing() -> Iterator[list[Path]]:
    """Collect the files that are written inside, by this thread."""
    paths: list[Path] = []
    token = _noted.set(paths)
    try:
        yield paths
    finally:
        _noted.reset(token)


def note_written(*paths: Path) -> None:
    """Tell whoever collects that files have been written, or left out for they would hold nothing but zeros."""
    noted = _noted.get()
    if noted is not None:
        noted.extend(paths)


def digest_of(path: AnyPath) -> bytes:
    """Give the BLAKE2b digest of a file, 32 bytes."""
    with open_ahead(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest()


def checksums_of(folder: Path, paths: Iterable[Path]) -> dict[str, str | None]:
    """Give the checksums of files by their path below a folder; None where there is no file."""
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in sorted(set(paths))}


def _checksum(path: Path) -> str | None:
    try:
        return _shortened(digest_of(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error


def first_difference(
    folder: Path, files: Mapping[str, str | None], known: Mapping[str, bytes] | None = None
) -> str | None:
    """Find a file that is not what it was when it was written.

    Parameters
    ----------
    folder : Path
        Where the files lie.
    files : mapping of str to str or None
        As `checksums_of` gave them.
    known : mapping of str to bytes, optional
        Digests of all files there, for who has them at hand.

    Returns
    -------
    str or None
        The path of the first that differs, below the folder.
    """
    for path, checksum in files.items():
        if checksum != (_checksum(folder / path) if known is None else _shortened(known.get(path))):
            return path
    return None


def _shortened(digest: bytes | None) -> str | None:
    return None if digest is None else digest[:_SHORT].hex()
