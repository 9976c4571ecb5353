"""Several files as one sequence of bytes, for a fuzzer knows nothing else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

__all__ = ["pack", "pack_folder", "unpack", "write_folder"]

_MARK = b"\0FILE:"


def pack(files: dict[str, bytes]) -> bytes:
    """Join files, by their names."""
    return b"".join(_MARK + name.encode() + b"\0" + content for name, content in files.items())


def unpack(data: bytes) -> dict[str, bytes]:
    """Undo `pack`; what has no name that is below a folder is left out."""
    found = {}
    for part in data.split(_MARK)[1:]:
        name, _, content = part.partition(b"\0")
        path = PurePosixPath(name.decode(errors="replace"))
        if path.parts and not path.is_absolute() and ".." not in path.parts and len(name) < 100:
            found[str(path)] = content
    return found


def pack_folder(folder: Path) -> bytes:
    """Join all files in a folder."""
    return pack({
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    })  # fmt: skip


def write_folder(data: bytes, folder: Path) -> None:
    """Write what is packed; a file whose name is taken by a folder, or the other way round, is left out."""
    for name, content in unpack(data).items():
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            continue
