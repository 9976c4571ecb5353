from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.geometry import Box
from pipeline.stores.arrays import ArraySpec, ResultArray, create_array
from pipeline.stores.publish import (
    PROVENANCE,
    checksum,
    is_complete,
    leftovers,
    publish,
    read_provenance,
    recover,
    write_provenance,
)

ARRAY = ArraySpec("0", "TZYX", "YX", (1, 1, 512, 512), (1, 1, 256, 256), (1, 1, 512, 512), "uint32")
LEFTOVER = f"0.{'0123456789abcdef' * 2}.partial"


def make(folder: Path, content: str, notes: bool = True) -> Path:
    """Make a small result that knows what it is."""
    (folder / "0" / "c").mkdir(parents=True)
    (folder / "0" / "c" / "0").write_text(content)
    write_provenance(folder, {"plan": {}, "content": content})
    if notes:
        (folder / ".work" / "deep").mkdir(parents=True)
        (folder / ".work" / "deep" / "note").write_text("of the run")
    return folder


def content(result: Path) -> str:
    """Give what a whole result says it is; fails on anything else."""
    said = str(read_provenance(result)["content"])
    assert (result / "0" / "c" / "0").read_text() == said
    return said


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_complete_result_gets_its_name_without_the_notes_of_the_run(tmp_path: Path) -> None:
    publish(make(tmp_path / "a.partial", "new"), tmp_path / "a", replace=False)
    assert content(tmp_path / "a") == "new"
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["0", PROVENANCE]


def test_a_result_that_is_there_is_refused_or_replaced(tmp_path: Path) -> None:
    make(tmp_path / "a", "old", notes=False)
    make(tmp_path / "a.partial", "new")
    with pytest.raises(StoreError, match="there is a result already"):
        publish(tmp_path / "a.partial", tmp_path / "a", replace=False)
    assert content(tmp_path / "a") == "old"
    publish(tmp_path / "a.partial", tmp_path / "a", replace=True)
    assert content(tmp_path / "a") == "new"
    assert names(tmp_path) == ["a"]


def test_a_result_without_provenance_is_not_complete(tmp_path: Path) -> None:
    make(tmp_path / "a.partial", "new")
    (tmp_path / "a.partial" / PROVENANCE).unlink()
    with pytest.raises(StoreError, match="not complete"):
        publish(tmp_path / "a.partial", tmp_path / "a", replace=False)
    assert not recover(tmp_path / "a.partial", tmp_path / "a")
    assert names(tmp_path) == ["a.partial"]


def test_an_unfinished_result_is_left_for_the_run_to_resume(tmp_path: Path) -> None:
    partial = make(tmp_path / "a.partial", "new")
    assert not is_complete(partial, ".work")
    assert not recover(partial, tmp_path / "a")
    assert (partial / ".work" / "deep" / "note").exists()


KILLED = """
import os, sys
from pathlib import Path
from pipeline.stores.publish import publish

left = int(sys.argv[1])

def watch(event, arguments):
    global left
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)

sys.addaudithook(watch)
publish(Path("a.partial"), Path("a"), replace=True)
"""


@pytest.mark.parametrize("old", [True, False], ids=["replacing", "first"])
def test_publication_killed_before_any_of_its_steps_is_finished_by_the_next_run(tmp_path: Path, old: bool) -> None:
    for step in range(100):
        place = tmp_path / str(step)
        partial, final = make(place / "a.partial", "new"), place / "a"
        (partial / "0" / "c" / LEFTOVER).write_text("half")
        if old:
            make(final, "old", notes=False)
        done = subprocess.run([sys.executable, "-c", KILLED, str(step)], cwd=place, check=False)
        if final.exists():
            assert content(final) in ("old", "new")
            assert not list(final.rglob("*.partial"))
        published = recover(partial, final)
        if not published and partial.exists():
            assert (partial / ".work" / "deep" / "note").exists()
            publish(partial, final, replace=True)
        assert content(final) == "new"
        assert names(place) == ["a"]
        assert names(final) == ["0", PROVENANCE]
        if done.returncode == 0:
            assert step > 4
            return
        assert done.returncode == -signal.SIGKILL
    pytest.fail("the publication never came to its end")


WRITER = """
import sys
from pathlib import Path
import numpy as np
from pipeline.geometry import Box
from pipeline.stores.arrays import ArraySpec, ResultArray

spec = ArraySpec("0", "TZYX", "YX", (1, 1, 512, 512), (1, 1, 256, 256), (1, 1, 512, 512), "uint32")
array, box = ResultArray(Path(sys.argv[1]), spec), Box.whole(spec.shape)
rng = np.random.default_rng(0)
print("ready", flush=True)
while True:
    array.write(box, rng.integers(0, 2**31, box.shape, dtype=np.uint32) * 2 + 1)
"""


@pytest.mark.slow
def test_a_shard_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    create_array(tmp_path, ARRAY)
    array, found = ResultArray(tmp_path, ARRAY), 0
    for attempt in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            until = monotonic() + 0.15 + 0.037 * attempt
            # Looking while it writes: what is there is always odd everywhere, or nothing.
            while monotonic() < until:
                block = array.read(Box.whole(ARRAY.shape))
                assert (block % 2 == 1).all() or not block.any()
                found += bool(block.any())
            os.kill(writer.pid, signal.SIGKILL)
        block = array.read(Box.whole(ARRAY.shape))
        assert (block % 2 == 1).all() or not block.any()
    assert found


def test_half_written_files_of_killed_processes_are_found_and_do_not_count(tmp_path: Path) -> None:
    create_array(tmp_path, ARRAY)
    ResultArray(tmp_path, ARRAY).write(Box.whole(ARRAY.shape), np.ones(ARRAY.shape, dtype=np.uint32))
    before = checksum(tmp_path / "0")
    half = tmp_path / "0" / "c" / "0" / LEFTOVER
    half.write_bytes(b"half")
    (tmp_path / "of-a-user.partial").mkdir()
    assert leftovers(tmp_path) == [half]
    assert checksum(tmp_path / "0") == before


@pytest.mark.parametrize("change", ["flip", "rename", "remove", "add"])
def test_a_checksum_notices_any_change_of_an_arrays_files(tmp_path: Path, change: str) -> None:
    create_array(tmp_path, ARRAY)
    ResultArray(tmp_path, ARRAY).write(Box.whole(ARRAY.shape), np.ones(ARRAY.shape, dtype=np.uint32))
    before = checksum(tmp_path / "0")
    assert checksum(tmp_path / "0") == before
    shard = tmp_path / "0" / "c" / "0" / "0"
    if change == "flip":
        content = bytearray(shard.read_bytes())
        content[3] ^= 1
        shard.write_bytes(bytes(content))
    elif change == "rename":
        shard.rename(shard.with_name("1"))
    elif change == "remove":
        shard.unlink()
    else:
        shard.with_name("1").write_bytes(b"")
    assert checksum(tmp_path / "0") != before


def test_provenance_is_read_as_it_was_written(tmp_path: Path) -> None:
    facts = {"plan": {}, "name": "Müller 42 µm", "numbers": [1, 0.1, None], "nested": {"deep": True}}
    write_provenance(tmp_path, facts)
    assert read_provenance(tmp_path) == facts
    assert names(tmp_path) == [PROVENANCE]


def test_provenance_is_json_that_everyone_can_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds what JSON cannot"):
        write_provenance(tmp_path, {"mean": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "not a result of seamfree"),
        ("{", "cannot be read"),
        ("[1]", "not a mapping"),
        ("{}", "damaged, its plan is no mapping"),
        ('{"plan": null}', "damaged, its plan is no mapping"),
        ('{"plan": [1]}', "damaged, its plan is no mapping"),
    ],
)
def test_folders_without_provenance_are_refused_saying_why(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / PROVENANCE).write_text(text)
    with pytest.raises(StoreError, match=reason):
        read_provenance(tmp_path)


def test_provenance_without_change_has_the_same_bytes(tmp_path: Path) -> None:
    write_provenance(tmp_path, {"b": 1, "a": 2})
    first = (tmp_path / PROVENANCE).read_bytes()
    write_provenance(tmp_path, json.loads(first))
    assert (tmp_path / PROVENANCE).read_bytes() == first
