"""From a configuration and data to a model's folder that says what it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import load_config
from pipeline.errors import ConfigError, ImageError
from pipeline.models.card import ModelCard, describe_footprint, read_card
from pipeline.models.library import DEFAULT_MODEL, find_model, load_model
from pipeline.models.unet import UNet
from pipeline.training.data import load_fields, split
from pipeline.training.evaluate import Agreement
from pipeline.training.publish import make_card, train_model
from pipeline.training.train import TrainConfig, agreement_by_group, train_network
from tests.benchmarks.accuracy import held_out_agreement, summarise
from tests.training.fields import HELD_OUT, write_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Long enough for it to find some of the discs and not all: a score of 0 or 1 would say little.
    return write_config(tmp_path_factory.mktemp("config") / "discs.yaml", steps=40, learning_rate=1e-2, seed=2)


@pytest.fixture(scope="module")
def model(config: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelCard]:
    folder = tmp_path_factory.mktemp("models") / "deep" / "discs"
    return folder, train_model(config, data, folder)


def test_the_card_says_what_was_trained_on_what(model: tuple[Path, ModelCard], config: Path) -> None:
    folder, card = model
    assert read_card(folder) == card
    assert (card.name, card.licence) == ("discs", "MIT")
    assert card.training.model_dump() == {
        "data": "drawn discs",
        "licence": "none",
        "held_out": (HELD_OUT,),
        "steps": 40,
        "seed": 2,
        "configuration": config.as_posix(),
    }
    assert (card.intensity.low, card.intensity.high) == (1.0, 99.8)
    assert (card.instances.classes, card.instances.minimum_size) == (("nucleus",), 20)
    assert card.architecture is not None
    assert card.footprint == describe_footprint(card.architecture)
    assert card.footprint["margin"] == (20, 20)


def test_the_card_holds_the_hash_of_the_weights_beside_it(model: tuple[Path, ModelCard]) -> None:
    folder, card = model
    assert sorted(path.name for path in folder.iterdir()) == ["card.yaml", "weights.safetensors"]
    assert card.weights.sha256 == hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_model_loads_and_gives_the_scores_of_the_trained_network(
    model: tuple[Path, ModelCard], config: Path, data: Path
) -> None:
    settings = TrainConfig.model_validate(load_config(config))
    learn, test = split(load_fields(data, settings.low, settings.high), settings.held_out)
    trained, loaded = train_network(settings, learn), load_model(model[0]).network
    assert isinstance(loaded, UNet)
    assert trained.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(trained.state_dict()[name], tensor) for name, tensor in loaded.state_dict().items())
    image = torch.from_numpy(test[0].image[:60, :60][None, None])
    # The order of sums, and so their rounding, depends on how the weights lie in memory.
    loaded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        assert torch.equal(trained(image), loaded(image))
    assert agreement_by_group(loaded, test) == agreement_by_group(trained, test)


def test_the_card_states_the_scores_on_the_groups_held_out(model: tuple[Path, ModelCard], data: Path) -> None:
    folder, card = model
    _, test = split(load_fields(data, 1.0, 99.8), [HELD_OUT])
    network = load_model(folder).network
    assert isinstance(network, UNet)
    total = sum(agreement_by_group(network, test).values(), start=Agreement())
    assert 0 < total.matched < total.annotated
    assert card.scores == {
        "f1_iou50_held_out": round(total.f1, 4),
        "precision": round(total.precision, 4),
        "recall": round(total.recall, 4),
        "nuclei": sum(np.unique(field.mask).size - 1 for field in test),
        f"f1_iou50 {HELD_OUT}": round(total.f1, 4),
    }


def test_the_pipeline_reaches_the_scores_that_the_card_states(
    model: tuple[Path, ModelCard], data: Path, tmp_path: Path
) -> None:
    folder, card = model
    assert summarise(held_out_agreement(data, str(folder), tmp_path, scheduler="serial")) == card.scores


def test_the_shipped_card_is_what_the_shipped_configuration_gives() -> None:
    settings = TrainConfig.model_validate(load_config(CONFIGS / "train-nuclei.yaml"))
    shipped = read_card(find_model(DEFAULT_MODEL))
    made = make_card(settings, shipped.scores, "configs/train-nuclei.yaml")
    assert made.model_copy(update={"weights": shipped.weights}) == shipped


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater"),
        ({"architecture": {"depth": 9}}, "architecture.depth: Input should be less"),
        ({"low": 50, "high": 20}, "configuration: Value error, the low percentile"),
        ({"held_out": []}, "held_out leaves 5 images to learn from and 0 to test with"),
        ({"held_out": ["80x80-1", "64x80-1"]}, "held_out leaves 0 images to learn from"),
        ({"held_out": ["64x80-1", "8Ox80-1"]}, "there is no group '8Ox80-1'; there are 64x80-1, 80x80-1"),
    ],
)
def test_a_wrong_configuration_is_named_and_nothing_is_written(
    data: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    config = write_config(tmp_path / "wrong.yaml", **changes)
    with pytest.raises(ConfigError) as caught:
        train_model(config, data, tmp_path / "out")
    assert str(caught.value).startswith(f"{config}: ")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_data_is_refused(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no images"):
        train_model(config, tmp_path, tmp_path / "out")


def test_a_place_that_cannot_be_written_is_refused_before_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*arguments: object) -> None:
        raise AssertionError("trained for nothing")

    monkeypatch.setattr("pipeline.training.train.train_network", train)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"file/out: cannot be used as the model's folder \(Not a directory\)"):
        train_model(write_config(tmp_path / "c.yaml"), data, tmp_path / "file" / "out")
