"""Which of an image's channels feed the model: by name, else by number."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import make_config
from pipeline.errors import ConfigError, PlanError
from pipeline.images.discover import InputImage
from pipeline.planning import Intent
from pipeline.run import prepare


def named(path: Path, *names: str) -> Path:
    tifffile.imwrite(
        path, np.zeros((len(names), 40, 50), np.uint8), ome=True, photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": list(names)}},
    )  # fmt: skip
    return path


def chosen(path: Path, wish: object) -> tuple[int, ...]:
    config = make_config({"channels": [wish]})
    intent = Intent(device="cpu", worker_memory=2**32)
    return prepare(config, InputImage(str(path), "a"), path.parent / "out", intent).channels


@pytest.mark.parametrize(
    ("wish", "number"), [("488", 1), ("1", 0), (1, 1), ("2", 2), ("0", 0), (0, 0), ("DNA", 2), ("02", 2)]
)
def test_a_text_is_a_name_before_it_is_a_number(tmp_path: Path, wish: object, number: int) -> None:
    assert chosen(named(tmp_path / "a.ome.tif", "1", "488", "DNA"), wish) == (number,)


@pytest.mark.parametrize("wish", ["3", 3, "-1", "561", "dna", "", "²"])
def test_a_channel_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, wish: object) -> None:
    message = re.escape(f"there is no channel {wish!r}; the image has 0 ('1'), 1 ('488'), 2 ('DNA')")
    with pytest.raises(PlanError, match=message):
        chosen(named(tmp_path / "a.ome.tif", "1", "488", "DNA"), wish)


def test_a_negative_number_is_no_channel(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("channels.0: Input should be greater than or equal to 0, got -1")):
        chosen(named(tmp_path / "a.ome.tif", "1", "488", "DNA"), -1)


def test_a_name_that_several_channels_have_is_refused_with_their_numbers(tmp_path: Path) -> None:
    path = named(tmp_path / "a.ome.tif", "GFP", "DNA", "GFP")
    with pytest.raises(PlanError, match="the channels 0, 2 are all named 'GFP'; choose by number"):
        chosen(path, "GFP")
    assert chosen(path, "2") == chosen(path, 2) == (2,)
    assert chosen(path, "DNA") == (1,)


def test_the_command_line_takes_digits_for_a_name_where_there_is_one(tmp_path: Path) -> None:
    path = named(tmp_path / "a.ome.tif", "405", "488")
    for wish, number in (("488", 1), ("0", 0)):
        run = CliRunner().invoke(app, ["plan", str(path), "--channel", wish, "--json"])
        assert run.exit_code == 0, run.output
        assert json.loads(run.stdout)[0]["plan"]["channels"] == [number]
