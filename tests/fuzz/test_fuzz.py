"""A short run of `make fuzz`, the same one each time; and that the fuzzer finds what it is to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz_apart
from tests.fuzz.running import Findings, try_input

pytest.importorskip("atheris", reason="the fuzzer has no wheel for this machine")


@pytest.mark.slow
@pytest.mark.parametrize(("target", "runs"), [("tiff", 400), ("zarr", 400), ("card", 200), ("config", 200)])
def test_whatever_a_file_holds_a_user_is_told_in_words(target: str, runs: int, tmp_path: Path) -> None:
    outcome = fuzz_apart(target, runs, 7, tmp_path / target)
    assert outcome.findings == []
    assert outcome.tried >= runs
    # Some inputs are good, and mutations have found what the seeds had not.
    assert outcome.good > 0
    assert outcome.paths[1] > outcome.paths[0] > 0


def complain(data: bytes, _folder: Path) -> None:
    """Do what no target may."""
    import warnings

    match data:
        case b"raise":
            raise KeyError("not for users")
        case b"take":
            try:
                bytearray(1 << 40)
            except MemoryError as error:
                from pipeline.errors import ImageError

                raise ImageError("a.tif: damaged") from error
        case b"warn":
            warnings.warn("not for users", RuntimeWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("data", "what"), [(b"raise", "KeyError at "), (b"take", "an allocation beyond"), (b"warn", "a RuntimeWarning at ")]
)
def test_what_should_not_happen_is_noted_once_with_its_input(data: bytes, what: str, tmp_path: Path) -> None:
    findings = Findings(tmp_path / "findings")
    for each in (b"fine", data, data):
        try_input(complain, each, tmp_path, findings)
    (found,) = findings.seen
    assert found.startswith(what)
    assert (tmp_path / "findings" / "1.input").read_bytes() == data
