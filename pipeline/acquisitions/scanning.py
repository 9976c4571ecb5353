"""One look at a folder: what is finished there and was not segmented yet is handed to whoever runs it, once.

Every decision is in the ledger before it is carried out. A scan that dies between "claimed" and "started" leaves a
claim, and the next scan asks for the same run again, which an orchestrator recognises by its key. A run that dies is
started again, and goes on with what the one before has left.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Literal, Protocol

from pipeline.acquisitions.ledger import Acquisition, AcquisitionLedger, Sighting
from pipeline.acquisitions.outcome import why_no_result
from pipeline.acquisitions.place import check_folders
from pipeline.acquisitions.postponing import next_delay, why_not_writable
from pipeline.acquisitions.readiness import Broken, Ready, examine, fingerprint, why_held_back
from pipeline.errors import ImageError, SeamfreeError
from pipeline.images.discover import check_name, images_below
from pipeline.printing import in_one_line, is_unicode, unexpected
from pipeline.stores.hold import is_held
from pipeline.stores.publish import count_objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.acquisitions.rules import WatchRules
    from pipeline.images.discover import InputImage

__all__ = ["Found", "RunState", "Runs", "Scan", "scan"]

log = logging.getLogger(__name__)

_REFUSALS = 3
"""Whoever could not be asked for so many runs in one scan is not asked for more."""


@dataclass(frozen=True, slots=True)
class RunState:
    """What has become of a run.

    Parameters
    ----------
    kind : str
        ``"alive"`` (it waits or runs), ``"done"``, ``"failed"`` (it will not get better by itself), ``"cancelled"`` by
        a person, ``"replaced"`` (the content that it was to segment was not there any more), ``"postponed"`` (the
        place of its result was full, away, or held by another run), ``"interrupted"`` (its watcher has ended, and it
        with that), or ``"dead"``: its process has died, or nobody knows of it any more.
    reason : str, optional
        Why it failed, or how it died.
    """

    kind: Literal["alive", "done", "failed", "cancelled", "replaced", "postponed", "interrupted", "dead"]
    reason: str | None = None


class Runs(Protocol):
    """Whoever runs acquisitions."""

    def start(self, acquisition: Acquisition, key: str) -> str:
        """Start a run, or find the one that was started with the same key, and give its name.

        The run leaves a finished result of the same image and settings alone, goes on with an unfinished one, and
        replaces what is of another image or other settings.
        """
        ...

    def look(self, run: str) -> RunState:
        """Say what has become of a run."""
        ...


@dataclass(slots=True)
class Found:
    """What a scan has found and done, for people: paths, or names of results, with a reason where there is one."""

    growing: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    queued: int = 0
    running: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    news: dict[str, str] = field(default_factory=dict)
    """Of what is waited for, in quarantine or failed, what was not told before."""

    @property
    def notable(self) -> bool:
        """Whether anything is worth telling people that they have not been told."""
        return bool(self.news or self.started or self.done)

    @property
    def summary(self) -> str:
        """The numbers, in one line."""
        counts = {
            name: value if isinstance(value := getattr(self, name), int) else len(value)
            for name in self.__dataclass_fields__
            if name != "news"
        }
        told = [f"{count} {name}" for name, count in counts.items() if count]
        return ", ".join(told) if told else "nothing new"


@dataclass(frozen=True, slots=True)
class Scan:
    """Where a scan looks, and by which rules.

    Parameters
    ----------
    folder, output : Path
        The folder that is watched, and that of the results. Results inside the watched folder are not looked at.
    recipe : str
        Digest of what acquisitions are segmented with.
    rules : WatchRules
        When an acquisition is finished.
    series : int, optional
        Which image of a file that holds several.
    queue : int
        So many runs are started and not finished at most; what else is claimed has its turn later.
    clock : callable
        Gives the time in seconds since 1970.
    """

    folder: Path
    output: Path
    recipe: str
    rules: WatchRules
    series: int | None = None
    queue: int = 16
    clock: Callable[[], float] = time


def scan(order: Scan, ledger: AcquisitionLedger, runs: Runs) -> Found:
    """Look at a folder once.

    Parameters
    ----------
    order : Scan
        Where to look, and how.
    ledger : AcquisitionLedger
        What is known from former scans.
    runs : Runs
        Who starts runs.

    Returns
    -------
    Found

    Raises
    ------
    ConfigError
        If the folder is not there or cannot be searched: what is known of its files stays.
    StoreError
        If the ledger cannot be written.
    """
    check_folders(order.folder, order.output)
    found = Found()
    known = ledger.sightings()
    images = [image for image in images_below(order.folder) if order.output not in Path(image.path).absolute().parents]
    here = {str(Path(image.path).absolute()): image for image in images}
    ledger.forget([path for path in known if path not in here])
    _follow(order, ledger, runs, found)
    marks = {path: _fingerprint(path) for path in here}
    for path, image in here.items():
        noted = _Look(order, ledger, found, known, marks).at(path, image)
        changed = {each.path: each for each in noted if each != known.get(each.path)}
        ledger.note(*changed.values())
        known.update(changed)
    _start(order, ledger, runs, found)
    return found


def _fingerprint(path: str) -> str:
    """Give a file's fingerprint; one that no file has, where it has gone."""
    try:
        return fingerprint(Path(path))
    except ImageError:
        return ""


def _examined(path: str, order: Scan) -> Ready | Broken:
    """Examine a file or folder, whatever is wrong with it: the others are not concerned."""
    try:
        return examine(Path(path), order.rules, order.series)
    except Exception as error:
        log.debug("%s cannot be examined", path, exc_info=True)
        return Broken(in_one_line(str(error)) if isinstance(error, SeamfreeError) else unexpected(error))


@dataclass(frozen=True, slots=True)
class _Look:
    """A look at one file or folder after the other.

    Parameters
    ----------
    order, ledger, found
        As for `scan`.
    known : dict
        All sightings, by path; those of this scan as soon as they are noted.
    marks : dict
        The fingerprints of all that is there, by path, taken before anything was read.
    """

    order: Scan
    ledger: AcquisitionLedger
    found: Found
    known: dict[str, Sighting]
    marks: dict[str, str]

    def at(self, path: str, image: InputImage) -> list[Sighting]:
        """Say what is to be thought now of a file or folder, and of what else has to do with it."""
        now, mark, before = self.order.clock(), self.marks[path], self.known.get(path)
        if before is None or before.fingerprint != mark or not mark:
            return self._has_grown(path, before, mark, now)
        if before.state == "part":
            return [before]
        if before.state == "known" and self._is_taken_care_of(str(before.content)):
            return [before]
        if before.state == "quarantined" and not self._is_name_free(path, image, before.content):
            self.found.quarantined[path] = str(before.reason)
            return [before]
        if now - before.since < self.order.rules.settle:
            self.found.growing.append(path)
            # A clock that was put back would have it wait until it is what it was.
            return [replace(before, since=min(before.since, now))]
        if reason := _why_unnameable(path, image):
            return [self._put_off(before, reason)]
        if reason := why_held_back(Path(path), self.order.rules):
            # For as long as it takes: that it is over changes nothing in the file, so nothing would end a quarantine.
            return [self._wait(before, reason)]
        return self._examine(path, image, before)

    def _is_name_free(self, path: str, image: InputImage, content: str | None) -> bool:
        """Say whether an acquisition is kept in quarantine for its name alone, and that has come free."""
        return content is not None and _why_name_is_taken(self.ledger, path, image, content) is None

    def _is_taken_care_of(self, content: str) -> bool:
        held = self.ledger.find(content, self.order.recipe)
        return held is not None and held.state != "replaced"

    def _has_grown(self, path: str, before: Sighting | None, mark: str, now: float) -> list[Sighting]:
        """Begin to wait for stillness; where it is part of another acquisition, that one is looked at again, too."""
        self.found.growing.append(path)
        noted = [Sighting(path, mark, now, "growing")]
        return noted + self._anew(str(before.reason)) if before is not None and before.state == "part" else noted

    def _anew(self, path: str) -> list[Sighting]:
        """Look at an acquisition again once it has been still, for a file of it has changed or come."""
        first = self.known.get(path)
        if first is None or first.state == "growing":
            return []
        return [replace(first, state="growing", since=self.order.clock(), reason=None, content=None)]

    def _examine(self, path: str, image: InputImage, before: Sighting) -> list[Sighting]:
        seen = _examined(path, self.order)
        if (mark := _fingerprint(path)) != before.fingerprint:
            self.found.growing.append(path)
            return [Sighting(path, mark, self.order.clock(), "growing")]
        if isinstance(seen, Broken):
            return [self._wait(before, seen.reason) if seen.waits else self._put_off(before, seen.reason)]
        if seen.files[0] != path and seen.files[0] in self.marks:
            return [replace(before, state="part", reason=seen.files[0]), *self._anew(seen.files[0])]
        if any(self._is_growing(file) for file in seen.files if file != path):
            self.found.growing.append(path)
            return [before]
        if reason := _why_name_is_taken(self.ledger, path, image, seen.content):
            return [self._put_off(replace(before, content=seen.content), reason)]
        if self.ledger.claim(seen.content, self.order.recipe, path, image.name, self.order.clock()) is None:
            first = self.ledger.find(seen.content, self.order.recipe)
            self.found.duplicates[path] = first.path if first is not None else ""
        parts = [
            replace(self.known[file], state="part", reason=path) for file in seen.files
            if file != path and file in self.known
        ]  # fmt: skip
        return [replace(before, state="known", reason=None, content=seen.content), *parts]

    def _is_growing(self, file: str) -> bool:
        """Say whether a file of several, that is looked at by itself, too, has not been still for long enough."""
        if file not in self.marks:
            return False
        sighting = self.known.get(file)
        return (
            sighting is None
            or _fingerprint(file) != sighting.fingerprint
            or self.order.clock() - sighting.since < self.order.rules.settle
        )

    def _wait(self, before: Sighting, reason: str) -> Sighting:
        """Wait for something outside of the acquisition."""
        self.found.waiting[before.path] = reason
        if before.reason != reason:
            self.found.news[before.path] = f"waited for: {reason}"
        return replace(before, state="waiting", reason=reason)

    def _put_off(self, before: Sighting, reason: str) -> Sighting:
        """Wait for something as long as patience allows, then put the acquisition into quarantine."""
        rules, found = self.order.rules, self.found
        if self.order.clock() - before.since < rules.settle + rules.patience:
            return self._wait(before, reason)
        found.quarantined[before.path] = reason
        found.news[before.path] = f"put in quarantine until it changes: {reason}"
        return replace(before, state="quarantined", reason=reason)


def _why_unnameable(path: str, image: InputImage) -> str | None:
    """Say that there can be no result of a file's name; it was not tried, so that renamed it is segmented."""
    if not is_unicode(path):
        return f"{path}: a name that is not UTF-8 cannot be recorded; rename it"
    try:
        check_name(image)
    except ImageError as error:
        return str(error)
    return None


def _why_name_is_taken(ledger: AcquisitionLedger, path: str, image: InputImage, content: str) -> str | None:
    """Say which other file, that is still there, has the result's name."""
    occupant = ledger.occupant(image.name)
    if occupant is None or occupant.path == path or occupant.content == content:
        return None
    other = ledger.sightings().get(occupant.path)
    if other is None or other.content != occupant.content:
        return None
    return f"{path} and {occupant.path} would share the result {image.name}.ome.zarr; rename one"


def _follow(order: Scan, ledger: AcquisitionLedger, runs: Runs, found: Found) -> None:
    """See what has become of the runs that were started, and claim again what died."""
    for held in ledger.acquisitions("started"):
        state = runs.look(str(held.run))
        now = order.clock()
        if state.kind == "alive":
            found.running.append(held.name)
        elif state.kind == "done":
            _note_done(order, ledger, held, found)
        elif state.kind == "replaced":
            ledger.change(held, replace(held, state="replaced", reason=state.reason, since=now))
        elif state.kind == "postponed":
            _postpone(order, ledger, held, str(state.reason), found)
        elif state.kind == "interrupted":
            _claim_again(order, ledger, held, str(state.reason), found, counts=False)
        elif state.kind == "dead":
            _claim_again(order, ledger, held, str(state.reason), found)
        else:
            ledger.change(held, replace(held, state=state.kind, reason=state.reason, since=now))
            found.failed[held.path] = found.news[held.path] = state.reason or state.kind


def _postpone(order: Scan, ledger: AcquisitionLedger, held: Acquisition, reason: str, found: Found) -> None:
    """Have a run started again after a while, each time a longer one, that could not go on for no fault of its own."""
    later = replace(
        held, state="claimed", attempt=held.attempt + 1, run=None, reason=reason, since=order.clock(),
        delay=next_delay(held.delay),
    )  # fmt: skip
    ledger.change(held, later)
    found.news[held.path] = f"postponed: {reason}"


def _claim_again(
    order: Scan, ledger: AcquisitionLedger, held: Acquisition, reason: str, found: Found, *, counts: bool = True
) -> None:
    """Have a run started again that has ended too early, or whose result is not there; give up after some that count.

    A watcher may be ended as often as people like while a large image is at work, which says nothing of that.
    """
    now, died = order.clock(), held.died + counts
    if counts and died >= order.rules.attempts:
        reason = f"given up after {died} runs that died ({reason})"
        ledger.change(held, replace(held, state="failed", reason=reason, since=now, died=died))
        found.failed[held.path] = found.news[held.path] = reason
    else:
        log.warning("%s: its run is started again (%s)", held.path, reason)
        ledger.change(held, replace(held, state="claimed", attempt=held.attempt + 1, run=None, since=now, died=died))


def _note_done(order: Scan, ledger: AcquisitionLedger, held: Acquisition, found: Found) -> None:
    """Note a result, and that those whose place it has taken are there no more."""
    result, now = order.output / f"{held.name}.ome.zarr", order.clock()
    if reason := why_no_result(result, held.content):
        _claim_again(order, ledger, held, reason, found)
        return
    # Before the other is noted: a scan that dies in between has noted nothing that is not so.
    told = f"its result has given way to that of what {held.path} is now"
    ledger.displace(held.name, told, now, content=held.content, recipe=held.recipe)
    done = replace(
        held,
        state="done",
        reason=None,
        result=str(result),
        since=now,
        objects=count_objects(result),
        died=0,
        delay=0.0,
    )
    ledger.change(held, done)
    found.done.append(held.name)


def _start(order: Scan, ledger: AcquisitionLedger, runs: Runs, found: Found) -> None:
    """Ask for runs of what is claimed, the oldest first: one at a time for each result, while these have a place."""
    claimed, busy = ledger.acquisitions("claimed"), {held.name for held in ledger.acquisitions("started")}
    reason = why_not_writable(order.output) if claimed else None
    if reason is not None:
        _wait_for_place(ledger, claimed, reason, found)
        return
    free, refused = order.queue - len(busy), 0
    for held in claimed:
        if is_held(order.output / f"{held.name}.ome.zarr"):
            # By a run that somebody has started by hand, most often.
            found.waiting[held.path] = f"another run is at work on the result {held.name}.ome.zarr"
            if held.delay:
                ledger.change(held, replace(held, delay=0.0))
        elif 0 <= order.clock() - held.since < held.delay:
            found.waiting[held.path] = str(held.reason)
        elif free <= 0 or held.name in busy:
            found.queued += 1
        else:
            # A ledger that was removed is one of another identity: what it asks for is not what was asked for before.
            key = f"{ledger.identity}:{held.content}:{held.recipe}:{held.attempt}"
            try:
                run = runs.start(held, key)
            except Exception as error:
                refused += 1
                if refused == _REFUSALS:
                    raise
                found.waiting[held.path] = f"its run cannot be asked for ({type(error).__name__}: {error})"
                continue
            ledger.change(held, replace(held, state="started", run=run, reason=None, since=order.clock()))
            found.started.append(held.name)
            busy.add(held.name)
            free -= 1


def _wait_for_place(ledger: AcquisitionLedger, claimed: list[Acquisition], reason: str, found: Found) -> None:
    """Start nothing while results have no place; and everything at once when they have."""
    for held in claimed:
        found.waiting[held.path] = reason
        if held.reason != reason:
            found.news[held.path] = f"waited for: {reason}"
        if held.reason != reason or held.delay:
            ledger.change(held, replace(held, reason=reason, delay=0.0))
