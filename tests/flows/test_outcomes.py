"""What a flow has found is not lost with the server's answer to its last state."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from prefect.exceptions import MissingResult

from flows import segment
from flows.outcomes import keep, outcome_of
from pipeline.config import RunConfig
from pipeline.images.discover import InputImage
from pipeline.run import ImageReport


def lost(*found: object) -> object:
    for each in found:
        keep(each)
    raise MissingResult("State data is missing.")


def test_what_is_kept_goes_to_who_called() -> None:
    keep("nobody asked")

    def outer() -> object:
        assert outcome_of(lambda: lost(1, 2)) == 2
        return lost()

    with pytest.raises(MissingResult):
        outcome_of(outer)
    assert outcome_of(lambda: lost(3)) == 3
    assert outcome_of(lambda: 4) == 4


@pytest.mark.parametrize("known", [True, False])
def test_an_image_is_done_where_prefect_has_lost_what_its_run_gave(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = InputImage(str(tmp_path / "a.tif"), "a")
    report = ImageReport("a", image.path, "done", objects=3)

    monkeypatch.setattr(segment, "segment_image", lambda *_: lost(*([report] if known else [])))
    # There is no run to log for.
    monkeypatch.setattr(segment, "get_run_logger", logging.getLogger)
    if known:
        assert segment._attempt(image, str(tmp_path), RunConfig(), fresh=False) is report
    else:
        told = segment._attempt(image, str(tmp_path), RunConfig(), fresh=False)
        assert (told.status, "MissingResult" in str(told.reason)) == ("failed", True)
