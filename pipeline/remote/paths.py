"""Places in object stores and on web servers, with those methods of `pathlib.Path` that seamfree needs.

obstore speaks to them: it knows S3, Google Cloud Storage and HTTP, tries again what fails in passing, and takes
credentials from the environment. No credential is ever part of a path, so none is logged or noted.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError
from pipeline.remote.addresses import without_secrets

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["LISTED", "AnyPath", "RemotePath", "is_url", "open_ahead", "to_path"]

_SCHEMES = ("s3", "gs", "https", "http")

LISTED = ("s3", "gs")
"""Of the schemes, those that can be listed and written to; a web server gives what it is asked for by name."""

_BUFFER, _AHEAD = 2**16, 2**23
"""Bytes that reading a file takes ahead: here and there in it, and from its beginning to its end."""

Found = TypeVar("Found")


def is_url(text: object) -> bool:
    """Say whether a text names a place that is not on a disk."""
    return isinstance(text, RemotePath) or (isinstance(text, str) and "://" in text)


def to_path(place: str | Path | RemotePath) -> AnyPath:
    """Give a path for what a user or a plan names: a `RemotePath` for a URL, else a `pathlib.Path`.

    Raises
    ------
    ConfigError
        If it is a URL that cannot be read from, or that carries a password.
    """
    if isinstance(place, str):
        return RemotePath(place) if is_url(place) else Path(place)
    return place


class RemotePath:
    """A place in an object store or on a web server.

    Parameters
    ----------
    url : str
        ``s3://bucket/key``, ``gs://bucket/key``, ``https://host/path`` or ``http://host/path``.

    Raises
    ------
    ConfigError
        If it is of another scheme, lacks a bucket or host, or carries a user, a password or a query: they would be
        noted with the results.
    """

    __slots__ = ("_key", "_root")

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigError(f"{url.partition('://')[0]}://...: not a URL ({error})") from error
        shown = without_secrets(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
        if parts.scheme not in _SCHEMES:
            raise ConfigError(f"{shown}: places of this kind are not known; there are {', '.join(_SCHEMES)}")
        if not parts.netloc:
            raise ConfigError(f"{shown}: a bucket or host is wanted after {parts.scheme}://")
        if "@" in parts.netloc or without_secrets(url) != url or parts.query or parts.fragment:
            raise ConfigError(
                f"{shown}: an address has no user, password, query or token, for it is noted with the results; "
                "credentials are taken from the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        self._root = f"{parts.scheme}://{parts.netloc}"
        path = unquote(parts.path) if parts.scheme.startswith("http") else parts.path
        self._key = "/".join(part for part in path.split("/") if part not in ("", "."))
        if ".." in PurePosixPath(self._key).parts:
            raise ConfigError(f"{shown}: a URL without '..' is wanted")

    def _at(self, key: str) -> RemotePath:
        made = object.__new__(RemotePath)
        made._root, made._key = self._root, key
        return made

    def __str__(self) -> str:
        return f"{self._root}/{self._key}" if self._key else self._root

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __lt__(self, other: RemotePath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[type[RemotePath], tuple[str]]:
        return RemotePath, (str(self),)

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return self.joinpath(str(name))

    def joinpath(self, *names: str) -> RemotePath:
        """Give a place below this one."""
        key = PurePosixPath(self._key).joinpath(*names)
        return self._at("" if str(key) == "." else str(key))

    @property
    def scheme(self) -> str:
        """Such as ``"s3"``."""
        return self._root.partition("://")[0]

    @property
    def key(self) -> str:
        """Below the bucket or host."""
        return self._key

    @property
    def root(self) -> RemotePath:
        """The bucket or host."""
        return self._at("")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self._key).name

    @property
    def parent(self) -> RemotePath:
        """What it is in."""
        return self.root.joinpath(str(PurePosixPath(self._key).parent))

    @property
    def parts(self) -> tuple[str, ...]:
        """The bucket or host, and the names below it."""
        return (self._root, *PurePosixPath(self._key).parts)

    @property
    def store(self) -> ObjectStore:
        """The bucket or host, opened; one for each process.

        Raises
        ------
        ConfigError
            If obstore is not installed, or the environment's settings contradict each other.
        """
        return _open_store(self._root)

    @property
    def is_listed(self) -> bool:
        """Whether what lies below it can be found, and it can be written to."""
        return self.scheme in LISTED

    def absolute(self) -> RemotePath:
        """Give itself."""
        return self

    def with_name(self, name: str) -> RemotePath:
        """Give the place beside it of another name."""
        return self.parent / name

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        """Give the path below another place."""
        return PurePosixPath(str(self)).relative_to(str(other))

    def _ask(self, question: Callable[[], Found]) -> Found:
        """Ask the store; what it complains of becomes what disks complain of.

        Raises
        ------
        OSError
            ``FileNotFoundError`` for what is not there, ``PermissionError`` for what may not be seen.
        """
        from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError

        try:
            return question()
        except (NotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from error
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            hint = _HINT if self.scheme == "s3" else ""
            raise PermissionError(errno.EACCES, f"the server says: no permission{hint}", str(self)) from error
        except (BaseError, OSError, ValueError) as error:
            raise OSError(errno.EIO, _essence(error), str(self)) from error

    def stat(self) -> Any:  # noqa: ANN401 (the fields of os.stat_result that are known)
        """Give ``st_size``, ``st_mtime_ns`` and ``st_mode`` of an object."""
        import obstore

        store = self.store
        return _as_stat(self._ask(lambda: obstore.head(store, self._key)))

    def is_file(self) -> bool:
        """Say whether there is such an object."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Say whether there is anything below it; on a web server nobody can tell."""
        return self.is_listed and next(self.files_below(), None) is not None

    def exists(self) -> bool:
        """Say whether there is such an object, or anything below it."""
        return (bool(self._key) and self.is_file()) or self.is_dir()

    def files_below(self) -> Iterator[tuple[RemotePath, Any]]:
        """Give all objects below it, in the order of their names, with what `stat` gives.

        Raises
        ------
        OSError
            If they cannot be listed.
        """
        import obstore

        store, prefix = self.store, f"{self._key}/" if self._key else None
        pages = self._ask(lambda: iter(obstore.list(store, prefix)))
        while (page := self._ask(lambda: next(pages, None))) is not None:
            for meta in sorted(page, key=lambda meta: meta["path"]):
                yield self._at(meta["path"]), _as_stat(meta)

    def children(self) -> tuple[list[RemotePath], list[RemotePath]]:
        """Give what lies in it: what has objects below it, and objects, by name."""
        import obstore

        store, prefix = self.store, f"{self._key}/" if self._key else None
        found = self._ask(lambda: obstore.list_with_delimiter(store, prefix))
        folders = sorted(str(name).rstrip("/") for name in found["common_prefixes"])
        return [self._at(name) for name in folders], [self._at(meta["path"]) for meta in found["objects"]]

    def iterdir(self) -> Iterator[RemotePath]:
        """Give what lies in it: objects, and what has objects below it."""
        folders, objects = self.children()
        return iter(sorted({*folders, *objects}))

    def read_bytes(self) -> bytes:
        """Read an object whole."""
        import obstore

        store = self.store
        return self._ask(lambda: bytes(obstore.get(store, self._key).bytes()))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read an object whole, as text."""
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, length: int) -> bytes:
        """Read some bytes of an object."""
        import obstore

        store = self.store
        return self._ask(lambda: bytes(obstore.get_range(store, self._key, start=start, length=length)))

    def open(self, _mode: str = "rb", buffering: int = _BUFFER) -> io.BufferedReader:
        """Open an object for reading: by ranges, as they are asked for."""
        return io.BufferedReader(_Ranges(self), buffering)

    def write_bytes(self, content: bytes) -> None:
        """Write an object, whole or not at all."""
        import obstore

        store = self._writable()
        self._ask(lambda: obstore.put(store, self._key, content))

    def create(self, content: bytes) -> bool:
        """Write an object that is not there yet; of several writers, one does. Say whether it was this one."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        store = self._writable()

        def put() -> bool:
            try:
                obstore.put(store, self._key, content, mode="create")
            except AlreadyExistsError:
                return False
            return True

        return self._ask(put)

    def send_file(self, path: Path, *, in_parts: bool) -> str:
        """Write an object, whole or not at all, from a file; give the tag by which the store knows its content."""
        import obstore

        store = self._writable()
        return str(self._ask(lambda: obstore.put(store, self._key, path, use_multipart=in_parts))["e_tag"])

    def write_text(self, text: str) -> None:
        """Write an object of text, whole or not at all."""
        self.write_bytes(text.encode())

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object."""
        import obstore

        store = self._writable()
        try:
            self._ask(lambda: obstore.delete(store, self._key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _writable(self) -> ObjectStore:
        if not self.is_listed:
            raise OSError(errno.EROFS, "nothing can be written to a web server; give s3://", str(self))
        return self.store


AnyPath = Path | RemotePath


def open_ahead(path: AnyPath) -> io.BufferedReader:
    """Open a file that is read whole, from its beginning to its end."""
    return path.open("rb") if isinstance(path, Path) else path.open("rb", buffering=_AHEAD)


_HINT = "; credentials are taken from AWS_ACCESS_KEY_ID and the like, AWS_SKIP_SIGNATURE=true does without"


class _Ranges(io.RawIOBase):
    """An object as a file that is read by ranges."""

    def __init__(self, path: RemotePath) -> None:
        self._path, self._size, self._position = path, int(path.stat().st_size), 0
        self.name = path.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (whatever can be written to)
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        found = self._path.read_range(self._position, length)
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)


@lru_cache(maxsize=32)
def _open_store(root: str) -> ObjectStore:
    try:
        from obstore.store import GCSStore, HTTPStore, S3Store
    except ImportError as error:
        raise ConfigError(
            f"{root}: obstore, which speaks to it, is not installed; install it with: pip install 'seamfree[remote]'"
        ) from error
    scheme, _, place = root.partition("://")
    try:
        if scheme == "s3":
            endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
            # Whoever names an address without encryption has asked for it.
            return S3Store(place, client_options={"allow_http": endpoint.startswith("http://")})
        if scheme == "gs":
            return GCSStore(place)
        return HTTPStore.from_url(root, client_options={"allow_http": scheme == "http"})
    except Exception as error:  # the library raises kinds of its own for settings that contradict each other
        raise ConfigError(f"{root}: cannot be opened ({_essence(error)})") from error


def _as_stat(meta: Any) -> SimpleNamespace:  # noqa: ANN401 (obstore's ObjectMeta)
    modified: datetime = meta["last_modified"]
    since = modified - datetime(1970, 1, 1, tzinfo=UTC)
    nanoseconds = (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
    return SimpleNamespace(
        st_size=int(meta["size"]), st_mtime_ns=nanoseconds, st_mode=stat.S_IFREG | 0o444, e_tag=meta.get("e_tag")
    )


def _essence(error: BaseException) -> str:
    """Give what the server says, else what the library does, without what it adds for its own authors."""
    if found := re.search(r"<Message>(.*?)</Message>", str(error), re.DOTALL):
        return f"the server says: {' '.join(found[1].split())}"
    lines = [line.strip() for line in str(error).split("Debug source:")[0].splitlines()]
    return " ".join(line for line in lines if line)[:300]
