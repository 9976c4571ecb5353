"""Scans that do not wait for their turn: the system tells of changes in a folder, where it does.

It tells nothing of what other machines write to a network drive, and nothing at all where it cannot keep so many
folders in view. So this only ever comes on top of the scans that are scheduled.
"""

from __future__ import annotations

import logging
from pathlib import Path
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any

from pipeline.acquisitions.ledger import AcquisitionLedger
from pipeline.acquisitions.place import ledger_of
from pipeline.errors import StoreError
from pipeline.stores.hold import is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from watchfiles import Change

__all__ = ["next_look", "wake"]

log = logging.getLogger(__name__)

_QUIET = 1.0
"""Seconds without a change, after which a folder is looked at."""

_PAUSE = 5.0
"""Seconds between two scans at least; each is a process."""


_BREATH = 0.5
"""Seconds between two looks for a folder that is away."""


def wake(folder: Path, output: Path, settle: float, deployment: str) -> None:
    """Have a folder scanned soon after it has changed, and again when what has changed has been still for long enough.

    Goes on for as long as the process does; ends, and says so, where the system does not tell of changes.

    Parameters
    ----------
    folder, output : Path
        The folder that is watched, and that of the results; what changes in the latter does not count.
    settle : float
        Seconds for which files must have been still.
    deployment : str
        The deployment that scans, as flow/name.
    """

    def counts(_change: Change, path: str) -> bool:
        return output not in Path(path).parents

    due: float | None = monotonic()
    asked: UUID | None = None
    known = 0
    try:
        for has_changed in _changes(folder, counts):
            if has_changed:
                due = monotonic() + _QUIET
            if is_held(ledger_of(output).with_name("scan")) or (asked is not None and not _has_ended(asked)):
                continue
            asked = None
            # Of any scan, also of one that was scheduled.
            if (noted := _noted(output)) != known:
                known, wait = noted, next_look(output, settle, time())
                if wait is not None and due is None:
                    due = monotonic() + max(wait, _PAUSE)
            if due is not None and monotonic() >= due:
                asked = _ask(deployment)
                # The server may be starting again, or the deployment not be there yet.
                due = None if asked is not None else monotonic() + _PAUSE
    except OSError as error:
        log.warning(
            "%s: the system does not tell of changes in it (%s); it is looked through as scheduled", folder, error
        )


def _changes(folder: Path, counts: Callable[[Change, str], bool]) -> Iterator[bool]:
    """Say twice a second whether anything in a folder that counts has changed."""
    from watchfiles import Change, watch
    from watchfiles._rust_notify import WatchfilesRustInternalError

    while True:
        watched = _place(folder)
        try:
            for changes in watch(
                folder, watch_filter=counts, step=100, debounce=1000, rust_timeout=500, yield_on_timeout=True,
                force_polling=False, ignore_permission_denied=True, raise_interrupt=False,
            ):  # fmt: skip
                yield bool(changes)
                if _place(folder) != watched or (Change.deleted, str(folder)) in changes:
                    break
            else:
                return
        except FileNotFoundError:
            sleep(_BREATH)
        except WatchfilesRustInternalError as error:
            # Of a name that is not UTF-8, it tells so, and nothing more after that.
            log.info("%s: a change in it cannot be told (%s)", folder, ascii(str(error)))
            yield True
            sleep(_PAUSE)
            continue
        # It is away, or another one by now: of what comes into that, the system tells whoever asks again.
        while _place(folder) is None:
            yield False
            sleep(_BREATH)
        yield True


def _place(folder: Path) -> tuple[int, int] | None:
    """Give what tells a folder from another one of its path, after a disk was mounted there for instance."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _noted(output: Path) -> int:
    """Give when the ledger was last written to, 0 where there is none yet."""
    try:
        return ledger_of(output).stat().st_mtime_ns
    except OSError:
        return 0


def next_look(output: Path, settle: float, now: float) -> float | None:
    """Give the seconds until the first of the files that were growing will have been still for long enough.

    None where no file was.
    """
    try:
        with AcquisitionLedger(ledger_of(output), read_only=True) as ledger:
            growing = [sighting.since for sighting in ledger.sightings().values() if sighting.state == "growing"]
    except StoreError:
        return None  # the scans tell of that
    return max(min(growing) + settle - now, 0.0) if growing else None


def _ask(deployment: str) -> UUID | None:
    """Have the folder scanned now; None where the server cannot be asked."""
    found: UUID | None = _of_server(lambda: _run(deployment))
    return found


def _run(deployment: str) -> UUID:
    from prefect.deployments import run_deployment

    # Outside of an event loop it is no coroutine.
    run: Any = run_deployment(deployment, timeout=0, as_subflow=False, tags=["seamfree"])
    found: UUID = run.id
    return found


def _has_ended(run: UUID) -> bool:
    from prefect.client.orchestration import get_client

    def look() -> bool:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run).state
        return state is None or state.is_final()

    return _of_server(look) is not False


def _of_server(ask: Callable[[], Any]) -> Any:  # noqa: ANN401 (whatever is asked)
    """Ask the server, which may just be starting again."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    try:
        return ask()
    except (HTTPError, PrefectException) as error:
        log.info("the server could not be asked (%s)", type(error).__name__)
        return None
