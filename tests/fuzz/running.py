"""One target in one process: inputs are made, tried within bounds, and what should not have happened is noted."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.corpus.room import little_room

__all__ = ["SECONDS", "Findings", "fuzz"]

SECONDS = 5.0
"""Of this process, that an input may take; its file has some kilobytes."""
ROOM = 1 << 29
"""Bytes of addresses that an input may take. What has to be in memory at once is refused beyond 38 MiB."""
LONGEST_MESSAGE = 2_000
"""Letters; a configuration in which every setting is wrong has as many complaints."""


class Findings:
    """Bugs, each once, with an input that shows it.

    Parameters
    ----------
    folder : Path
        Gets a file for each input, and ``findings.jsonl``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def note(self, data: bytes, what: str, detail: str) -> None:
        """Note what an input has shown, if no other one has before."""
        if what in self.seen:
            return
        self.seen.add(what)
        path = self.folder / f"{len(self.seen)}.input"
        path.write_bytes(data)
        with (self.folder / "findings.jsonl").open("a") as file:
            file.write(json.dumps({"what": what, "input": str(path), "detail": detail}) + "\n")


def _place(error: BaseException) -> str:
    """Give the last line of this project that an error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/pipeline/" in frame.filename]
    frame = (frames or traceback.extract_tb(error.__traceback__))[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def try_input(attempt: Callable[[bytes, Path], object], data: bytes, folder: Path, findings: Findings) -> bool:
    """Try one input, and say whether it was taken for good."""
    from pipeline.errors import SeamfreeError
    from pipeline.printing import in_one_line

    began, good = time.process_time(), False
    with warnings.catch_warnings(record=True) as warned, little_room(ROOM):
        warnings.simplefilter("always")
        try:
            attempt(data, folder)
            good = True
        except SeamfreeError as error:
            for cause in _chain(error):
                if isinstance(cause, MemoryError):
                    findings.note(data, f"an allocation beyond the bound at {_place(cause)}", str(error)[:500])
            told = in_one_line(str(error))
            if len(told) > LONGEST_MESSAGE:
                findings.note(data, f"a message of {LONGEST_MESSAGE} letters and more at {_place(error)}", told[:500])
        except Exception as error:  # noqa: BLE001 (this is what is looked for)
            findings.note(data, f"{type(error).__name__} at {_place(error)}", traceback.format_exc()[-3000:])
    for warning in warned:
        if not issubclass(warning.category, ResourceWarning):
            where = f"{Path(warning.filename).name}:{warning.lineno}"
            findings.note(data, f"a {warning.category.__name__} at {where}", str(warning.message)[:500])
    took = time.process_time() - began
    if took > SECONDS:
        findings.note(data, "a hang", f"{took:.1f} s")
    return good


def _open_files(folder: Path) -> list[str]:
    """Give the files in a folder that this process has open, and keeps open.

    Where a chunk is damaged, zarr's threads may still be reading others for a moment.
    """
    until = time.monotonic() + 2
    while (found := _open_now(folder)) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def _open_now(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(entry.readlink()))
    return [path for path in found if path.startswith(f"{folder}/")]


def fuzz(name: str, runs: int, seed: int, place: Path, given: list[Path]) -> None:
    """Fuzz a target, in this process, which ends with it.

    Parameters
    ----------
    name : str
        Of the target.
    runs : int
        How many inputs are tried, seeds included; 0 tries those that are given, alone.
    seed : int
        All that is drawn depends on it.
    place : Path
        A folder, for the corpus, findings and, at the end, ``done.json``.
    given : list of Path
        Inputs to be tried instead of seeds.
    """
    import atheris

    with atheris.instrument_imports(include=_watched(name), enable_loader_override=False):
        from tests.fuzz.targets import TARGETS

        if name == "package":
            # Needs what the others do without, and is watched like them.
            import pipeline.models.descriptions  # noqa: F401
    from tests.fuzz.seeds import LONGEST, seeds

    logging.disable(logging.CRITICAL)
    target, findings = TARGETS[name], Findings(place / "findings")
    memory = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(prefix="seamfree-fuzz-", dir=memory if memory.is_dir() else None))
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(given_contents(given) if given else seeds(name)):
        (corpus / f"seed-{number:04}").write_bytes(content)
    counts = {"tried": 0, "good": 0}

    def try_one(data: bytes) -> None:
        folder = scratch / "input"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        counts["good"] += try_input(target.attempt, data, folder, findings)
        counts["tried"] += 1
        if given:
            note()
        if counts["tried"] % 50 == 0:
            gc.collect()
            if left := _open_files(scratch):
                findings.note(data, "files that stay open", ", ".join(left))
            note()

    def note() -> None:
        (place / "done.json").write_text(json.dumps(counts))

    def mutate(data: bytes, most: int, drawn: int) -> bytes:
        draw = Random(drawn)
        changed = data
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            changed = target.mutate(changed, draw, lambda content: bytes(atheris.Mutate(content, most)))
        return changed[:most]

    arguments = [sys.argv[0], f"-runs={runs}", f"-seed={seed}", f"-max_len={LONGEST}", "-timeout=30", "-rss_limit_mb=0",
                 "-print_final_stats=1", "-reload=0", "-len_control=0", "-detect_leaks=0",
                 f"-artifact_prefix={place}/", str(corpus)]  # fmt: skip
    try:
        atheris.Setup(arguments, try_one, custom_mutator=mutate)
        atheris.Fuzz()
    finally:
        note()
        shutil.rmtree(scratch, ignore_errors=True)


def given_contents(given: list[Path]) -> list[bytes]:
    """Read inputs that are files, or lie in folders."""
    files = [each for path in given for each in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return [path.read_bytes() for path in files]


_LIBRARIES = {"tiff": ["tifffile"], "zarr": ["zarr", "ome_zarr_models"]}
"""In which paths through the code count beside seamfree's own; not with the targets, whose module imports them."""


def _watched(name: str) -> list[str]:
    return ["pipeline", *_LIBRARIES.get(name, [])]
