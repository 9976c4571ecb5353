"""What a plan is known by beside its own fields, and in what two plans differ, in the user's words."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

__all__ = ["NUMBERS_DEPEND_ON", "differences", "versions_of"]

_NUMBERS_DEPEND_ON = ("seamfree", "numpy", "torch", "zarr", "numcodecs", "pyarrow")
_OBJECTS_DEPEND_ON = ("connected-components-3d", "edt", "scikit-image", "scipy")
_TIFF_DEPENDS_ON = ("imagecodecs", "tifffile")

NUMBERS_DEPEND_ON = (*_NUMBERS_DEPEND_ON, *_OBJECTS_DEPEND_ON, *_TIFF_DEPENDS_ON)
"""Distributions whose versions may be part of a plan's identity."""

_NAMES = {
    "source": "input",
    "source.size_bytes": "input size",
    "source.modified_ns": "input time of modification",
    "source.files_sha256": "names, sizes or times of the input's files",
    "source.dtype": "input data type",
    "content_sha256": "input sha256",
    "weights_sha256": "model sha256",
    "code_sha256": "code of the network",
    "core": "tile",
    "label_chunk": "chunk of labels",
    "image_chunk": "chunk of the image",
    "image_shard": "shard of the image",
    "parting_depth": "depth",
    "largest": "largest box that is parted",
    "versions": "version of",
}
"""What fields of a plan are called, where it is not their name in plain words."""


def differences(held: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Say what a plan wants otherwise than an earlier one did.

    Parameters
    ----------
    held : dict
        The earlier plan, as JSON; perhaps of another version of seamfree.
    wanted : dict
        What is compared: the plan's identity, or a part of it.

    Returns
    -------
    list of str
        Such as ``"tile differs ([1, 1, 64, 64] before, [1, 1, 32, 32] now)"``, one for each field.
    """
    found = []
    for name, now in wanted.items():
        before = held.get(name)
        if isinstance(now, dict) and isinstance(before, dict):
            called = _called(name)
            found += [
                _say(_NAMES.get(f"{name}.{key}", f"{called} {key.replace('_', ' ')}"), before.get(key), value)
                for key, value in now.items()
                if before.get(key) != value
            ]
        elif before != now:
            found.append(_say(_called(name), before, now))
    return found


def _called(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def _say(what: str, before: object, now: object) -> str:
    return f"{what} differs ({_short(before)} before, {_short(now)} now)"


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def versions_of(kind: str, *, objects: bool) -> dict[str, str]:
    """Give the versions of the libraries that numbers of a run depend on: a lossy codec gives what it likes.

    Parameters
    ----------
    kind : str
        Of the image's file, such as ``"tiff"``.
    objects : bool
        Whether objects are made.
    """
    names = [*_NUMBERS_DEPEND_ON, *(_OBJECTS_DEPEND_ON if objects else ())]
    if kind in ("tiff", "sequence"):
        names += _TIFF_DEPENDS_ON
    if kind == "vendor":
        names.append("bioio")
    if kind == "slide":
        names.append("openslide-python")
    return {name: version(name) for name in names}
