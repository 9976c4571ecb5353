"""A training that is killed goes on, and gives the weights of one that was not."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import StoreError
from pipeline.models.unet import UNet
from pipeline.training.checkpoint import CHECKPOINT_FILE, Checkpoint, describe_training
from pipeline.training.data import Field, load_fields
from pipeline.training.train import TrainConfig, train_network
from tests.training.fields import write_config

BIN = Path(sys.executable).parent / "seamfree"


@pytest.fixture(scope="module")
def fields(data: Path) -> list[Field]:
    return load_fields(data, 1, 99)


def make_config(tmp_path: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {"steps": 9, "report_every": 2, "bfloat16": False, **changes}
    return TrainConfig.model_validate(load_config(write_config(tmp_path / "made.yaml", **settings)))


def weights(network: UNet) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


class StoppedError(Exception):
    """What ends a training at a step."""


def train_until(step: int, config: TrainConfig, fields: list[Field], path: Path) -> list[int]:
    """Train until a report at this step, and give the steps that were reported."""
    seen: list[int] = []

    def report(reported: int, _loss: float, _network: UNet) -> None:
        seen.append(reported)
        if reported == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_network(config, fields, report, Checkpoint(path, describe_training(config, fields)))
    return seen


@pytest.mark.parametrize("bfloat16", [True, False])
def test_ended_twice_it_gives_the_same_weights(fields: list[Field], tmp_path: Path, bfloat16: bool) -> None:
    config, path = make_config(tmp_path, bfloat16=bfloat16), tmp_path / "state"
    assert train_until(4, config, fields, path) == [2, 4]
    assert train_until(8, config, fields, path) == [6, 8]
    gone_on = train_network(config, fields, None, Checkpoint(path, describe_training(config, fields)))
    assert weights(gone_on) == weights(train_network(config, fields))


def test_after_the_last_step_nothing_is_trained(fields: list[Field], tmp_path: Path) -> None:
    config, path = make_config(tmp_path), tmp_path / "state"
    assert train_until(9, config, fields, path) == [2, 4, 6, 8, 9]
    seen: list[int] = []
    again = train_network(
        config, fields, lambda step, *_: seen.append(step), Checkpoint(path, describe_training(config, fields))
    )
    assert not seen
    assert not again.training
    assert weights(again) == weights(train_network(config, fields))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "name"), [({"learning_rate": 1e-3}, "configuration"), ({"steps": 10}, "configuration"), ({}, "data")]
)
def test_what_belongs_to_another_training_is_not_used(
    fields: list[Field], tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, object], name: str
) -> None:
    path = tmp_path / "state"
    train_until(4, make_config(tmp_path), fields, path)
    config, others = make_config(tmp_path, **changes), fields if changes else fields[:-1]
    with caplog.at_level(logging.WARNING):
        network = train_network(config, others, None, Checkpoint(path, describe_training(config, others)))
    assert f"is of another training ({name} differs): begun anew" in caplog.text
    assert weights(network) == weights(train_network(config, others))


def test_how_often_it_is_noted_may_change(fields: list[Field], tmp_path: Path) -> None:
    path = tmp_path / "state"
    train_until(4, make_config(tmp_path), fields, path)
    assert train_until(9, make_config(tmp_path, report_every=3), fields, path) == [6, 9]


def test_a_damaged_file_is_told(fields: list[Field], tmp_path: Path) -> None:
    config, path = make_config(tmp_path), tmp_path / "state"
    train_until(4, config, fields, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"state: cannot be read .*; remove it to begin the training anew"):
        train_network(config, fields, None, Checkpoint(path, describe_training(config, fields)))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_the_command_goes_on_where_it_was(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    config = write_config(tmp_path / "config.yaml", steps=40, report_every=2, threads=1)
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    command: list[str | Path] = [BIN, "train", config, data, "-o"]
    subprocess.run([*command, whole], check=True, capture_output=True, timeout=200)
    process = subprocess.Popen([*command, ended], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (ended / CHECKPOINT_FILE).exists():
        assert process.poll() is None
        threading.Event().wait(0.01)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on where it was" in said
        assert "Traceback" not in said
    assert not (ended / "card.yaml").exists()
    subprocess.run([*command, ended], check=True, capture_output=True, timeout=200)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in ended.iterdir()
    }
    assert sorted(path.name for path in ended.iterdir()) == ["card.yaml", "weights.safetensors"]
