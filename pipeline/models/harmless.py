"""What a file of weights may not hold, looked for before anything is loaded from it."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from zipfile import ZipFile

from pipeline.errors import ModelError

__all__ = ["check_onnx", "check_script", "check_tensors"]

_WRITING = re.compile(r"\.(save|from_file)\b")
"""TorchScript's operations on files: torch.save writes any, torch.from_file makes and maps any."""

_OPERATIONS = re.compile(r"\bops\.(\w+)\.")

_KNOWN = {"aten", "prim", "prims", "quantized"}
"""Whose other operations see nothing but tensors. Those of other libraries are registered when these are imported."""

_LARGEST = 32 * 2**30

_ZIP, _FLATBUFFER = b"PK\x03\x04", b"PTMF"
"""How a zip file begins, and what torch takes, at its fifth byte, for a network in another format."""

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


def check_script(path: Path, content: bytes) -> None:
    """Refuse a TorchScript file that touches other files: its language knows a few operations that do.

    Raises
    ------
    ModelError
        If it is no whole file, or does so.
    """
    with _open(path, content, "torchscript") as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".py"):
                continue
            try:
                text = archive.read(member).decode("utf-8")
            except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
                raise ModelError(f"{path}: {member.filename} is damaged ({error}); fetch the model again") from error
            # Blanks may stand anywhere in it, and comments.
            text = re.sub(r"\s+", "", re.sub(r"#[^\n]*", "", text))
            text = re.sub(r"\\", "", text)
            found = _WRITING.search(text)
            alien = next((each for each in _OPERATIONS.findall(text) if each not in _KNOWN), None)
            if found is not None or alien is not None:
                what = f"torch.{found[1]}" if found is not None else f"operations of {alien}"
                raise ModelError(
                    f"{path}: this TorchScript calls {what}, which can write files; if you trust who made it, say "
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
        from onnx.external_data_helper import uses_external_data
    except ImportError as error:
        raise ModelError("ONNX files need onnxruntime: pip install 'seamfree[onnx]'") from error
    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:
        raise ModelError(
            f"{path}: not a valid file of the format onnx ({' '.join(str(error).split())[:200]})"
        ) from error
    outside = next((each.name for each in graph.initializer if uses_external_data(each)), None)
    if outside is not None:
        raise ModelError(f"{path}: the weights {outside!r} lie in another file; export the network into one")
