"""What a file of weights may not hold, looked for before anything is loaded from it."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from pipeline.errors import ModelError

__all__ = ["NO_SCRIPT", "check_onnx", "check_script", "check_tensors"]

NO_SCRIPT = (
    "not a TorchScript file; what torch.save writes is a pickle, and is not run: write the network by "
    "torch.jit.save, or its weights by safetensors, for the format factory"
)

_WRITING = re.compile(r"\b(save|from_file)\b", re.ASCII)
"""TorchScript's operations on files: torch.save writes any, torch.from_file makes and maps any."""

_TORCH = re.compile(r"(?<![\w.])torch\b(?!\.(?!autograd\b)\w)|\bautograd\b", re.ASCII)
"""Torch itself, or its other name, as a value, of which another word could ask for an operation."""

_OPERATIONS = re.compile(r"(?<![\w.])ops\b(?:\.(\w+)\.\w)?", re.ASCII)

_ATTRIBUTE = re.compile(r"\bgetattr\([\w.]+, \"[^\"\\\n]*\"\)", re.ASCII)
"""As torch writes it where a name is no identifier. In other forms a name may be put together of pieces."""

_KNOWN = {"aten", "prim", "prims", "quantized"}
"""Whose other operations see nothing but tensors. Those of other libraries are registered when these are imported."""

_LARGEST = 32 * 2**30

_ZIP, _END, _FLATBUFFER = b"PK\x03\x04", b"PK\x05\x06", b"PTMF"
"""How a zip file begins, how its last 22 bytes do, and what torch takes, at the fifth byte, for another format."""

_SUSPECT, _DENSEST = 64 * 2**20, 100


def _open(path: Path, content: bytes, kind: str) -> ZipFile:
    """Open a file of torch, which is a zip file of its own; its members are stored as they are, so none is a bomb."""
    try:
        archive = ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path}: not a valid file of the format {kind} ({error}), or not a whole one; fetch it again"
        ) from error
    members = archive.infolist()
    # What stands before a zip file is skipped here; torch looks there first, and may find another network, unchecked.
    if content[:4] != _ZIP or content[4:8] == _FLATBUFFER or min((each.header_offset for each in members), default=0):
        raise ModelError(f"{path}: something stands before the file of the format {kind}; do not use this file")
    if content[-22:-18] != _END:
        raise ModelError(f"{path}: something stands behind the file of the format {kind}; do not use this file")
    whole = sum(member.file_size for member in members)
    if whole > _LARGEST or (whole > _SUSPECT and whole > _DENSEST * len(content)):
        raise ModelError(f"{path}: {len(content):,} bytes would unpack to {whole:,}; do not use this file")
    return archive


def check_tensors(path: Path, content: bytes) -> None:
    """Refuse a file of torch.save that would fill the memory. That its pickle runs nothing, torch holds.

    Raises
    ------
    ModelError
        If it is no whole file, or unpacks to too much.
    """
    _open(path, content, "state-dict").close()


def check_script(path: Path, content: bytes) -> bytes:
    """Refuse a TorchScript file that touches other files: its language knows a few operations that do.

    Returns
    -------
    bytes
        What was checked, as a file made anew: of a file made to do so, torch might read something else.

    Raises
    ------
    ModelError
        If it is no whole file, or does so.
    """
    clean = io.BytesIO()
    with _open(path, content, "torchscript") as archive, ZipFile(clean, "w") as checked:
        seen: set[str] = set()
        for member in archive.infolist():
            # Torch finds members whatever their case.
            name = member.filename.lower()
            if name in seen or member.orig_filename != member.filename or name.endswith("/model.json"):
                raise ModelError(f"{path}: torch.jit.save gives no member {member.filename!r}; do not use this file")
            seen.add(name)
            try:
                held = archive.read(member)
                text = held.decode("utf-8") if name.endswith(".py") else ""
            except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, OSError, NotImplementedError) as error:
                raise ModelError(f"{path}: {member.filename} is damaged ({error}); fetch the model again") from error
            _check_code(path, text)
            checked.writestr(member.filename, held)
    if not any(name.endswith("/constants.pkl") for name in seen):
        raise ModelError(f"{path}: {NO_SCRIPT}")
    return clean.getvalue()


def _check_code(path: Path, text: str) -> None:
    """Refuse code of TorchScript, as it was saved, by the names in it: what is not understood is not let through."""
    calls = next((f"torch.{found}" for found in _WRITING.findall(text)), None)
    if calls is None:
        calls = next((f"operations of {each or '?'}" for each in _OPERATIONS.findall(text) if each not in _KNOWN), None)
    if calls is None:
        left, number = text, 1
        while number:
            left, number = _ATTRIBUTE.subn("_", left)
        if "getattr" in left or _TORCH.search(text):
            calls = "operations by names that it puts together"
    if calls is not None:
        raise ModelError(
            f"{path}: this TorchScript calls {calls}, which can write files; if you trust who made it, say "
            "--trust-model-code"
        )


def check_onnx(path: Path, content: bytes) -> None:
    """Refuse an ONNX graph whose weights lie in other files, which nobody has checked.

    Raises
    ------
    ModelError
        If it is no valid graph, or some do.
    """
    try:
        import onnx
    except ImportError as error:
        raise ModelError("ONNX files need onnxruntime: pip install 'seamfree[onnx]'") from error
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise ModelError(
            f"{path}: not a valid file of the format onnx ({' '.join(str(error).split())[:200]})"
        ) from error
    for tensor in _find_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(f"{path}: the weights {tensor.name!r} lie in another file; export the network into one")


def _find_tensors(message: Any) -> Iterator[Any]:  # noqa: ANN401 (protobuf's own)
    """Find the tensors of a graph wherever they are: in branches, loops, constants, functions, sparse ones."""
    waiting = [message]
    while waiting:
        current = waiting.pop()
        if current.DESCRIPTOR.full_name.endswith(".TensorProto"):
            yield current
            continue
        for kind, value in current.ListFields():
            if kind.message_type is not None:
                waiting += [value] if hasattr(value, "ListFields") else list(value)
