"""The files of a model's package, a folder or a zip file, read without trust: nothing is unpacked and nothing run."""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from zipfile import ZipFile

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Package", "find_package"]

DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
"""Names of a package's description, alone or after a name and a point; the first of them is taken."""

LARGEST_TEXT = 4 * 2**20
"""Bytes of a description or of code."""

LARGEST_FILE = 16 * 2**30
"""Bytes of weights, and of all that a zip file unpacks to."""

_MOST_MEMBERS = 10_000

_SUSPECT = 64 * 2**20
"""Bytes from which on a member that shrinks by more than `_DENSEST` is taken for a bomb. Weights hardly shrink."""

_DENSEST = 100


def find_package(path: Path) -> Path | None:
    """Find a package's description or zip file.

    Parameters
    ----------
    path : Path
        A folder, a zip file, or the description in a folder.

    Returns
    -------
    Path or None
        The zip file, or the description; None where the path is no package.
    """
    if path.is_dir():
        name = _description_among(sorted(each.name for each in path.iterdir() if each.is_file()))
        return path / name if name is not None else None
    if path.suffix.lower() == ".zip" or (path.is_file() and _description_among([path.name]) is not None):
        return path if path.exists() else None
    return None


def _description_among(names: list[str]) -> str | None:
    for wanted in DESCRIPTIONS:
        for name in names:
            if name == wanted or name.endswith(f".{wanted}"):
                return name
    return None


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose files can be read.

    Parameters
    ----------
    path : Path
        The zip file, or the description in a folder, as `find_package` gives it.
    """

    path: Path

    @property
    def zipped(self) -> bool:
        """Whether the files lie in a zip file."""
        return _description_among([self.path.name]) is None

    @contextmanager
    def open(self) -> Iterator[tuple[Path | ZipFile, str]]:
        """Give what the files' names are relative to, and the name of the description.

        Raises
        ------
        ModelError
            If a zip file is damaged, or made to do harm: a member that would leave its folder, or a bomb.
        """
        if not self.zipped:
            yield self.path.parent, self.path.name
            return
        try:
            archive = ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise ModelError(
                f"{self.path}: not a zip file, or not a whole one ({error}); download the package again"
            ) from error
        with archive:
            names = self._check_members(archive)
            description = _description_among(sorted(names))
            if description is None:
                raise ModelError(f"{self.path}: there is no {DESCRIPTIONS[0]} in this zip file, so it is no model")
            yield archive, description

    def _check_members(self, archive: ZipFile) -> set[str]:
        """Refuse what no honest packager makes."""
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise ModelError(f"{self.path}: {len(members):,} files in one package, at most {_MOST_MEMBERS:,} are read")
        names: set[str] = set()
        for member in members:
            parts = PurePosixPath(member.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in (parts.parts or ("",))[0]:
                raise ModelError(
                    f"{self.path}: the member {member.filename!r} would leave the package's folder; do not use this "
                    "file"
                )
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ModelError(f"{self.path}: the member {member.filename!r} is a link; do not use this file")
            if member.filename in names:
                raise ModelError(f"{self.path}: there are two members {member.filename!r}; package the model again")
            if member.file_size > _SUSPECT and member.file_size > _DENSEST * member.compress_size:
                raise ModelError(
                    f"{self.path}: the member {member.filename!r} would grow from {member.compress_size:,} to "
                    f"{member.file_size:,} bytes, which weights never do; do not use this file"
                )
            names.add(member.filename)
        whole = sum(member.file_size for member in members)
        packed, size = sum(member.compress_size for member in members), self.path.stat().st_size
        if whole > LARGEST_FILE or packed > size or (whole > _SUSPECT and whole > _DENSEST * size):
            raise ModelError(
                f"{self.path}: {size:,} bytes would unpack to {whole:,}; at most {LARGEST_FILE:,} are read, and no "
                f"member twice; do not use this file"
            )
        return names

    def read(self, name: str, limit: int = LARGEST_FILE, sha256: str | None = None) -> bytes:
        """Read a file, whole.

        Parameters
        ----------
        name : str
            Relative to the description.
        limit : int
            Bytes beyond which it is refused.
        sha256 : str, optional
            What the description says of it.

        Raises
        ------
        ModelError
            If there is no such file in the package, it is too large or damaged, or another one is described.
        """
        if name.startswith(("http://", "https://")):
            raise ModelError(
                f"{self.path}: {name} lies elsewhere, and nothing is fetched; download the whole package, with its "
                "files"
            )
        with self.open() as (root, _):
            content = (
                self._from_zip(root, name, limit) if isinstance(root, ZipFile) else self._beside(root, name, limit)
            )
        found = hashlib.sha256(content).hexdigest()
        if sha256 is not None and found != sha256:
            raise ModelError(
                f"{self.path}: {name} is not the file that is described (sha256 {found[:12]}…, expected "
                f"{str(sha256)[:12]}…); download the package again"
            )
        return content

    def _from_zip(self, archive: ZipFile, name: str, limit: int) -> bytes:
        wanted = str(PurePosixPath(name))
        try:
            member = archive.getinfo(wanted)
        except KeyError as error:
            raise ModelError(
                f"{self.path}: there is no {name!r} in the package, which its description names"
            ) from error
        self._check_size(name, member.file_size, limit)
        try:
            with archive.open(member) as opened:
                return opened.read()
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise ModelError(f"{self.path}: {name} is damaged ({error}); download the package again") from error

    def _beside(self, folder: Path, name: str, limit: int) -> bytes:
        try:
            path = (folder / name).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            # A zero within the name, or a link to itself.
            raise ModelError(
                f"{self.path}: {name!r}, which it names, cannot be a file ({error}); do not use this package"
            ) from error
        if not path.is_relative_to(folder.resolve()):
            raise ModelError(f"{self.path}: {name!r} leaves the package's folder; do not use this package")
        try:
            if not path.is_file():
                raise ModelError(f"{self.path}: there is no file {name!r} beside it, which it names")
            self._check_size(name, path.stat().st_size, limit)
            return path.read_bytes()
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read ({error})") from error

    def _check_size(self, name: str, size: int, limit: int) -> None:
        if size > limit:
            raise ModelError(
                f"{self.path}: {name} has {size:,} bytes, at most {limit:,} are read; do not use this file"
            )

    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Give what changes when a file of the package does."""
        files = [self.path] if self.zipped else sorted(each for each in self.path.parent.iterdir() if each.is_file())
        return tuple((str(each), (at := each.stat()).st_mtime_ns, at.st_size) for each in files)
