"""One run at a time on one result: a lock that ends with its holder, on this machine or another."""

from __future__ import annotations

import errno
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any

from pipeline.errors import StoreError

__all__ = ["EXPIRY", "TakenError", "clear_left", "held_since", "hold", "is_held", "is_same", "lock", "refuse_taken"]

BEAT = 15.0
"""Seconds between two signs of life of a holder."""

EXPIRY = 120.0
"""Seconds without one, after which a holder on another machine counts as dead. File systems of a network may show a
file's time up to a minute late."""

PAUSE = 0.02
"""Seconds until a lock is asked for again."""

_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Neither where a link leads, nor waiting for whoever writes into a pipe: there may be something else of that name."""

_MOST = 2**16
"""Bytes that are read of what says who holds a result."""

_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""What file systems say that have no locks."""


class TakenError(StoreError):
    """Another run holds what this one wants."""


@contextmanager
def hold(result: Path, *, beat: float = BEAT, expiry: float = EXPIRY, patience: float = 0.0) -> Iterator[None]:
    """Hold a result, finished or not, against other runs.

    A file beside the result is locked, and removed at the end. The lock is the system's (``flock``): on one machine it
    ends with the process that holds it, however that ends. Not all file systems of a network let other machines know
    of it, so the file also says who holds it, and its time of modification is renewed while the holder lives: a file
    of another machine counts until it has not been renewed for a while, by the file system's own clock. Where there
    are no locks at all, that alone counts. Packages for this leave the file where it was, beside each result; here it
    goes, which is safe because nobody waits for it: who has patience asks again, with a file that is opened anew.

    Parameters
    ----------
    result : Path
        Folder ``NAME.ome.zarr``, whether it is there or not; the folder that it is in is made.
    beat, expiry : float
        Seconds between signs of life, and without any until a holder elsewhere counts as dead.
    patience : float
        Seconds for which it is asked for again where another run holds it.

    Raises
    ------
    TakenError
        If another run holds it; says which one.
    StoreError
        If the file cannot be made.
    """
    descriptor = _open_held(result, expiry, patience)
    try:
        ended = threading.Event()
        heart = threading.Thread(target=_beat, args=(descriptor, ended, beat), name="hold", daemon=True)
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()
            if _is_ours(_noted(_lock_file(result))):
                _lock_file(result).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _open_held(result: Path, expiry: float, patience: float) -> int:
    """Open the file beside a result and lock it; give its descriptor."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return _open_once(result, expiry)
        except TakenError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(PAUSE)


def _open_once(result: Path, expiry: float) -> int:
    path = _lock_file(result)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o644)
    except OSError as error:
        if path.is_symlink():
            raise StoreError(f"{path}: a link, and not made by seamfree; take it away") from error
        raise StoreError(f"{path}: cannot be made ({error.strerror or error}); choose another -o") from error
    try:
        _take(result, path, descriptor, expiry)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_taken(result: Path) -> None:
    """Refuse to go on with a result that another run has taken over, as it may after a long standstill of this one.

    Raises
    ------
    StoreError
        If its lock names another process.
    """
    holder = _noted(_lock_file(result))
    if holder is not None and not _is_ours(holder):
        raise StoreError(f"{result}: another run has taken over ({_name(holder)}), since nothing was heard of this one")


def is_held(result: Path, *, expiry: float = EXPIRY) -> bool:
    """Say whether a process that lives, here or elsewhere, holds a result; see `hold`."""
    path = _lock_file(result)
    holder = _noted(path)
    if holder is None:
        return False
    if _is_near(holder):
        return _is_alive(holder)
    try:
        return _age(path) < expiry
    except OSError:
        return False


def held_since(result: Path) -> datetime | None:
    """Say since when a process that lives has held a result; None where none does."""
    holder = _noted(_lock_file(result))
    return datetime.fromisoformat(holder["since"]) if holder is not None and is_held(result) else None


def clear_left(result: Path) -> bool:
    """Remove what a holder that has died has left; say whether there was one."""
    path = _lock_file(result)
    if _noted(path) is None or is_held(result):
        return False
    path.unlink(missing_ok=True)
    return True


def _lock_file(result: Path) -> Path:
    return result.with_name(f".{result.name}.lock")


def _take(result: Path, path: Path, descriptor: int, expiry: float) -> None:
    """Lock the file and write into it who holds it."""
    if not S_ISREG(os.fstat(descriptor).st_mode):
        raise StoreError(f"{path}: no file, and not made by seamfree; take it away")
    locked = lock(descriptor)
    holder = _noted(path)
    # Or the holder before has just removed the file that was opened here, and another has made a new one.
    if locked is False or not is_same(path, descriptor):
        raise _held(result, holder)
    if holder is not None and holder["machine"] != _machine() and _age(path) < expiry:
        raise _held(result, holder, f"; if it has died, this is over {expiry:.0f} s after its last sign of life")
    if holder is not None and holder["machine"] == _machine() and locked is None and is_held(result, expiry=expiry):
        raise _held(result, holder)
    noted = _ours() | {"since": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(noted).encode(), 0)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or choose another -o"
        ) from error


def lock(descriptor: int) -> bool | None:
    """Lock a file, until it is closed; False where another holds it, None where there are no locks."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _WITHOUT_LOCKS else False
    return True


def _beat(descriptor: int, ended: threading.Event, beat: float) -> None:
    """Renew the file's time until the end."""
    while not ended.wait(beat):
        # A disk that does not answer may do so the next time.
        with suppress(OSError):
            os.utime(descriptor)


def is_same(path: Path, descriptor: int) -> bool:
    """Say whether a path still leads to a file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _age(path: Path) -> float:
    """Give the seconds since a file was renewed, by the clock of the file system that it is on."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name) as fresh:
        return os.fstat(fresh.fileno()).st_mtime - path.stat().st_mtime


def _ours() -> dict[str, Any]:
    """Say who this process is."""
    return {"host": platform.node(), "machine": _machine(), "space": _space(), "pid": os.getpid()}


def _is_ours(holder: dict[str, Any] | None) -> bool:
    return holder is not None and holder == {**holder, **_ours()}


def _machine() -> str:
    """Give what tells machines apart, and one machine before and after it was started anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def _space() -> str:
    """Give what tells the containers of a machine apart, each of which numbers its processes anew."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (no path, a name in brackets)
    except OSError:
        return ""


def _is_near(holder: dict[str, Any]) -> bool:
    """Say whether a holder's number of a process means something here."""
    return bool(holder["machine"] == _machine() and holder["space"] == _space())


def _is_alive(holder: dict[str, Any]) -> bool:
    """Say whether a process of this machine lives."""
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _noted(path: Path) -> dict[str, Any] | None:
    """Give who holds a lock, as far as that can be read."""
    try:
        with open(os.open(path, os.O_RDONLY | _AS_IT_IS)) as file:  # noqa: PTH123 (which waits for a pipe)
            noted = json.loads(file.read(_MOST))
        return {name: noted[name] for name in ("host", "machine", "pid", "since")} | {"space": noted.get("space", "")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _held(result: Path, holder: dict[str, Any] | None, more: str = "") -> TakenError:
    who = _name(holder) if holder is not None else "which has just begun or ended"
    return TakenError(f"{result}: another run is at work on it ({who}); wait for it, or end it{more}")


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
