"""Finding and loading models: the right weights or a clear refusal."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save

from pipeline.errors import ModelError
from pipeline.models.architecture import UNetConfig
from pipeline.models.card import CARD_FILE, read_card
from pipeline.models.library import DEFAULT_MODEL, bundled_models, find_model, load_model
from pipeline.models.unet import UNet
from tests.random_models import random_network, save_random_model

CONFIG = UNetConfig(depth=1, base_channels=2, norm="batch")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(save_random_model(tmp_path / "model", CONFIG, seed=3))


def change_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors, and keep the card's hash right."""
    card = yaml.safe_load((model / CARD_FILE).read_text())
    path = model / card["weights"]["file"]
    tensors = load_file(path)
    change(tensors)
    content = save(tensors)
    path.write_bytes(content)
    card["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
    (model / CARD_FILE).write_text(yaml.safe_dump(card))


def change_card(model: Path, **weights: Any) -> None:  # noqa: ANN401 (as YAML gives them)
    card = yaml.safe_load((model / CARD_FILE).read_text())
    card["weights"] |= weights
    (model / CARD_FILE).write_text(yaml.safe_dump(card))


def test_a_saved_model_comes_back_as_it_was(model: Path) -> None:
    loaded = load_model(str(model))
    expected = random_network(CONFIG, seed=3).state_dict()
    found = loaded.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert loaded.card == read_card(model)
    assert loaded.card.weights.sha256 == hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest()
    assert not loaded.network.training
    assert not any(weight.requires_grad for weight in loaded.network.parameters())


def test_saving_twice_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    again = Path(save_random_model(tmp_path / "again" / "model", CONFIG, seed=3))
    for name in (CARD_FILE, "weights.safetensors"):
        assert (model / name).read_bytes() == (again / name).read_bytes()


def test_half_precision_weights_are_read_as_what_they_are(model: Path) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = tensor.half()

    change_weights(model, halve)
    network = load_model(model).network
    assert isinstance(network, UNet)
    assert network.head.weight.dtype == torch.float32
    assert torch.equal(network.head.weight, random_network(CONFIG, seed=3).head.weight.half().float())


@pytest.mark.parametrize("by", [str, Path, lambda folder: folder / CARD_FILE, lambda folder: str(folder / CARD_FILE)])
def test_a_model_is_found_by_its_folder_or_its_card(model: Path, by: Callable[[Path], str | Path]) -> None:
    assert find_model(by(model)) == model


def test_a_relative_reference_becomes_absolute(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert find_model("model") == model
    monkeypatch.chdir(model)
    assert find_model(CARD_FILE) == model


def test_an_unknown_model_is_refused_with_the_bundled_ones_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"no model '{tmp_path}/nowhere'.*{DEFAULT_MODEL}"):
        load_model(str(tmp_path / "nowhere"))


def test_changed_weights_are_refused(model: Path) -> None:
    path = model / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors: these are not the weights that the card describes"):
        load_model(str(model))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tensors: tensors.pop("head.bias"), r"head\.bias: None instead of"),
        (lambda tensors: tensors.update({"extra": torch.zeros(1)}), r"extra: .* instead of None"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(5)}), r"head\.bias: .*\[5\].* instead of .*\[2\]"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(2, dtype=torch.int32)}), r"head\.bias.*int32"),
        (lambda tensors: tensors["head.bias"].fill_(float("nan")), r"head\.bias.*not finite"),
        (lambda tensors: tensors["head.weight"][0].fill_(float("inf")), r"head\.weight.*not finite"),
    ],
    ids=["missing", "superfluous", "shape", "type", "nan", "infinite"],
)
def test_weights_that_do_not_fit_are_refused(
    model: Path, change: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    change_weights(model, change)
    with pytest.raises(ModelError, match=complaint) as caught:
        load_model(str(model))
    assert str(model) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_safetensors_is_refused_and_not_unpickled(model: Path, tmp_path: Path) -> None:
    path = model / "weights.safetensors"
    torch.save(random_network(CONFIG).state_dict(), path)
    change_card(model, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    told = r"not a valid safetensors file .*what torch\.save writes.*safetensors\.torch\.save_file\(network\.state_dict"
    with pytest.raises(ModelError, match=told) as caught:
        load_model(str(model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["../elsewhere.safetensors", "..", ".", "", "/etc/passwd", "nothing.safetensors"])
def test_weights_are_read_from_the_models_folder_only(model: Path, file: str) -> None:
    shutil.copy(model / "weights.safetensors", model.parent / "elsewhere.safetensors")
    change_card(model, file=file)
    with pytest.raises(ModelError, match=r"leaves the model's folder|cannot be read"):
        load_model(str(model))


def test_every_bundled_model_loads_and_is_small() -> None:
    bundled = bundled_models()
    assert DEFAULT_MODEL in bundled
    for name, folder in bundled.items():
        loaded = load_model(name)
        assert loaded.card.name == name
        assert (folder / loaded.card.weights.file).stat().st_size < 8_000_000
        assert loaded.card.training.held_out
        assert {path.suffix for path in folder.iterdir()} == {".yaml", ".safetensors"}
        assert find_model(name) == folder
