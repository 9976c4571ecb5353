"""Bad input: each case through the command line, with the one line that a user reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import tifffile

from tests.corpus.room import little_room
from tests.corpus.running import CASES, run, small_model, told
from tests.corpus.tiffs import TIFFS
from tests.images.reading import pixels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_model(tmp_path_factory.mktemp("models") / "small")


def test_there_are_cases_enough_and_each_has_a_name_of_its_own() -> None:
    assert len(CASES) >= 130


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_user_is_told_what_where_and_what_to_do(name: str, model: str, tmp_path: Path) -> None:
    case = CASES[name]
    outcome, output = run(case, model, tmp_path)
    statuses, reasons = told(outcome, output)
    assert outcome.code == case.code, (outcome, reasons)
    assert (case.status in statuses) or (case.status == "refused" and not statuses), reasons
    assert "Traceback" not in outcome.err + outcome.out
    assert "geheim" not in outcome.err + outcome.out
    assert not any("unexpected" in reason for reason in reasons), reasons
    if case.status == "done" and not case.message:
        assert reasons == []
    else:
        assert len(reasons) == 1, reasons
        assert re.search(case.message, reasons[0]), reasons[0]
        assert len(reasons[0].splitlines()) == 1
        assert len(reasons[0]) < 600
    # Nothing that a terminal would obey, in what a user sees.
    for letter in (outcome.out + outcome.err).replace("\n", ""):
        assert unicodedata.category(letter) not in ("Cc", "Cf"), repr(letter)
    left = {path.name for path in output.rglob("*") if path.name.endswith((".partial", ".lock", ".tmp"))}
    assert left == set()
    assert output.exists() == (case.status != "refused")
    if case.status == "failed":
        assert statuses.count("done") == sum(path.name.endswith(".ome.zarr") for path in output.rglob("*.ome.zarr"))


def test_the_seal_against_great_allocations_holds() -> None:
    import numpy as np

    with little_room(), pytest.raises(MemoryError):
        np.empty(4 << 30, dtype=np.uint8)


@pytest.mark.slow
def test_a_bad_image_never_stops_the_others(model: str, tmp_path: Path) -> None:
    """All TIFF cases in one folder, through a process of its own."""
    given, output = tmp_path / "in", tmp_path / "out"
    for number, case in enumerate(TIFFS):
        if case.options or case.status not in ("failed", "done"):
            continue
        (given / f"{number}").mkdir(parents=True)
        case.make(given / f"{number}")
    command: list[str | Path] = [
        Path(sys.executable).parent / "seamfree",
        "run",
        given,
        "-o",
        output,
        "--direct",
        "-m",
        model,
    ]
    ended = subprocess.run(
        [*command, "-c", Path(model) / "settings.yaml"], capture_output=True, text=True, check=False, timeout=250
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    entries = json.loads((output / "run-summary.json").read_text())["images"]
    for entry in entries:
        case = TIFFS[int(entry["name"].partition("/")[0])]
        assert entry["status"] == case.status, (case.name, entry["reason"])
    assert len(entries) > 50


WITHOUT_RIGHTS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what lets root read whatever it likes
    libc.prctl(24, right, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command with no more rights on files than their owner has."""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["file", "zarr", "folder", "output", "config", "model"])
def test_what_must_not_be_read_or_written_is_named(model: str, tmp_path: Path, what: str) -> None:
    given, output = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    tifffile.imwrite(given / "good.tif", pixels((40, 50)))
    config = tmp_path / "settings.yaml"
    config.write_text((Path(model) / "settings.yaml").read_text())
    command = ["run", str(given), "-o", str(output), "--direct", "-m", model, "-c", str(config)]
    code, message = 2, ""
    if what == "file":
        tifffile.imwrite(given / "shut.tif", pixels((40, 50)))
        (given / "shut.tif").chmod(0)
        code, message = 1, r"shut\.tif: cannot be read \(Permission denied\)"
    elif what == "zarr":
        (given / "shut.zarr").mkdir()
        (given / "shut.zarr").chmod(0)
        code, message = 1, r"shut\.zarr.*: cannot be read \(Permission denied\)"
    elif what == "folder":
        (given / "shut").mkdir()
        (given / "shut").chmod(0)
        message = r"shut: this folder cannot be searched for images \(Permission denied\); make it readable"
    elif what == "output":
        output.mkdir()
        output.chmod(0o500)
        code, message = 1, r"Permission denied.*-o"
    elif what == "config":
        config.chmod(0)
        message = r"settings\.yaml: the configuration cannot be read \(Permission denied\)"
    else:
        (tmp_path / "model").mkdir()
        for path in Path(model).iterdir():
            (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
        (tmp_path / "model" / "card.yaml").chmod(0)
        command[command.index("-m") + 1] = str(tmp_path / "model")
        message = r"card\.yaml: the model's card cannot be read \(Permission denied\)"
    program = [sys.executable, "-c", WITHOUT_RIGHTS, str(Path(sys.executable).parent / "seamfree"), *command]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    for path in (given / "shut", given / "shut.zarr", output):
        if path.is_dir():
            path.chmod(0o700)
    if os.getuid() == 0 and ended.returncode == 0:
        pytest.skip("the rights of root cannot be dropped here")
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    said = ended.stderr
    if (output / "run-summary.json").exists():
        said += " ".join(
            entry["reason"] or "" for entry in json.loads((output / "run-summary.json").read_text())["images"]
        )
    assert re.search(message, said), said
