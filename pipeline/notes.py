"""Arrays that one stage leaves for the next, in the folder of an unfinished result."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numcodecs import Blosc

from pipeline.errors import StoreError
from pipeline.stores.written import note_written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Label = TypeVar("Label", bound=np.unsignedinteger[Any])

__all__ = ["load_arrays", "load_labels", "save_array", "save_arrays", "save_facts", "save_labels"]


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written, whole or not at all.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); make sure that there is room and that it may be "
            "written to, and run again: what is done is kept"
        ) from error
    note_written(path)


def save_facts(path: Path, facts: Any) -> None:  # noqa: ANN401 (what JSON can hold)
    """Write what JSON can hold to a file, whole or not at all."""
    with _writing(path) as file:
        file.write(json.dumps(facts).encode())


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write named arrays to a file, whole or not at all."""
    with _writing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array, to be mapped into memory by whoever needs parts of it, whole or not at all."""
    with _writing(path) as file:
        np.save(file, array, allow_pickle=False)


_LABELS = Blosc(cname="lz4", clevel=1, shuffle=Blosc.BITSHUFFLE)
"""Labels shrink to a fiftieth, in a thousandth of the time that it takes to find them."""


def save_labels(path: Path, labels: NDArray[np.unsignedinteger[Any]]) -> None:
    """Write a label image, compressed, whole or not at all."""
    with _writing(path) as file:
        file.write(_LABELS.encode(np.ascontiguousarray(labels)))


def load_labels(path: Path, shape: tuple[int, ...], dtype: type[Label]) -> NDArray[Label]:
    """Read what `save_labels` wrote, of this shape and type."""
    return np.frombuffer(_LABELS.decode(path.read_bytes()), dtype=dtype).reshape(shape)
