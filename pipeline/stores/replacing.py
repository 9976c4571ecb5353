"""Files that are there whole or as they were before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError

__all__ = ["replacing"]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a name to write under; what is there takes the target's place, or goes if the writing fails.

    Parameters
    ----------
    target : Path
        The file.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    beside = target.with_name(f"{target.name}.partial")
    try:
        yield beside
        beside.replace(target)
    except BaseException as error:
        # Where nothing was made, there is nothing to remove either.
        if beside.is_file():
            beside.unlink()
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            raise StoreError(f"{target}: cannot be written ({error.strerror or error})") from error
        raise
