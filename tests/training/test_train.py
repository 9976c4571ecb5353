"""The training itself: the same twice, other with another seed, and it learns."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.config import load_config
from pipeline.models.architecture import UNetConfig
from pipeline.models.unet import UNet
from pipeline.training.augment import change_appearance
from pipeline.training.data import Field, load_fields
from pipeline.training.evaluate import Agreement
from pipeline.training.train import TrainConfig, agreement_by_group, train_network
from tests.fields import DATA
from tests.training.fields import write_config

BIN = Path(sys.executable).parent / "seamfree"


def make_config(tmp_path: Path, **changes: object) -> TrainConfig:
    return TrainConfig.model_validate(load_config(write_config(tmp_path / "made.yaml", **changes)))


def weights(network: UNet) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


@pytest.mark.slow
def test_two_trainings_of_one_configuration_give_the_same_bytes_and_another_seed_gives_others(
    data: Path, tmp_path: Path
) -> None:
    content = []
    for name, seed in (("first", 5), ("second", 5), ("third", 6)):
        config = write_config(tmp_path / "config.yaml", seed=seed)
        output = tmp_path / name
        command: list[str | Path] = [BIN, "train", config, data, "-o", output]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        assert "discs" in done.stdout
        content.append([(output / file).read_bytes() for file in ("weights.safetensors", "card.yaml")])
    assert content[0] == content[1]
    assert content[0][0] != content[2][0]


def test_the_order_of_the_patches_does_not_depend_on_reports(data: Path, tmp_path: Path) -> None:
    """Reports look at the network in between; the training must not notice."""
    fields = load_fields(data, 1, 99)
    seen = []

    def report(step: int, loss: float, network: UNet) -> None:
        seen.append(step)
        torch.rand(3)
        np.random.default_rng().random()
        agreement_by_group(network, fields)

    watched = train_network(make_config(tmp_path, steps=5, report_every=2), fields, report)
    alone = train_network(make_config(tmp_path, steps=5, report_every=2), fields)
    assert seen == [2, 4, 5]
    assert weights(watched) == weights(alone)


@pytest.mark.parametrize("change", [{"steps": 5}, {"batch": 1}, {"learning_rate": 1e-3}, {"averaging": 0.0}])
def test_settings_reach_the_training(data: Path, tmp_path: Path, change: dict[str, float]) -> None:
    fields = load_fields(data, 1, 99)
    base = {"steps": 4, "batch": 2, "learning_rate": 2e-3, "averaging": 0.998}
    one, other = (train_network(make_config(tmp_path, **settings), fields) for settings in (base, base | change))
    assert weights(one) != weights(other)


@pytest.mark.slow
@pytest.mark.parametrize("real", [True, False], ids=["a real field", "drawn discs"])
def test_a_small_network_learns_one_field_by_heart(data: Path, tmp_path: Path, real: bool) -> None:
    if real and not (DATA / "images").is_dir():
        pytest.skip("the data set of nuclei is not at hand")
    if real:
        whole = next(found for found in load_fields(DATA, 1, 99.8) if found.group == "520x696-1")
        part = np.s_[:256, :256]
        field = Field("a", "b", whole.image[part], whole.mask[part], whole.diameter)
    else:
        field = load_fields(data, 1, 99)[0]
    losses: list[float] = []

    def report(_step: int, loss: float, _network: UNet) -> None:
        losses.append(loss)

    config = make_config(
        tmp_path,
        architecture={"depth": 2, "base_channels": 8, "classes": 3, "norm": "batch"},
        steps=90, patch=156, batch=2, learning_rate=1e-2, warm_up=10, averaging=0.9, report_every=10,
    )  # fmt: skip
    network = train_network(config, [field], report)
    assert not network.training
    assert len(losses) == 9
    assert min(losses[-3:]) < 0.5 * losses[0]
    (agreement,) = agreement_by_group(network, [field]).values()
    assert agreement.f1 > 0.7


def test_each_patch_is_another_and_another_seed_gives_others(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches: list[bytes] = []

    def record(image: NDArray[np.float32], mask: NDArray[np.int32], random: np.random.Generator) -> object:
        changed = change_appearance(image, mask, random)
        patches.append(changed.tobytes())
        return changed

    monkeypatch.setattr("pipeline.training.train.change_appearance", record)
    fields = load_fields(data, 1, 99)
    seen = []
    for seed in (5, 5, 6):
        patches.clear()
        train_network(make_config(tmp_path, steps=3, batch=2, seed=seed), fields)
        assert len(patches) >= 6
        assert len(set(patches)) == len(patches)
        seen.append(set(patches))
    assert seen[0] == seen[1]
    assert not seen[0] & seen[2]


class Reading(UNet):
    """A network that finds in each pixel the class that the picture says."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        margin = self.config.footprint.margin[0]
        classes = image[:, 0, margin:-margin, margin:-margin].round().long()
        return torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()


def test_found_objects_are_components_by_edges_and_not_too_small() -> None:
    mask = np.zeros((37, 41), np.int32)
    mask[:5, :5], mask[5:10, 5:10], mask[20, 5:24], mask[30, 5:25], mask[36, 20:] = 1, 2, 3, 4, 5
    mask[12:15, 30:35], mask[15:18, 35:40] = 6, 7
    field = Field("a", "b", (mask > 0).astype(np.float32), mask, 6.0)
    network = Reading(UNetConfig(depth=2, base_channels=1, classes=3)).eval()
    # 1 and 2 touch at a corner, so do 6 and 7; 3, 6 and 7 have fewer pixels than an object must have.
    assert agreement_by_group(network, [field]) == {"b": Agreement(4, 4, 7)}
    contact = field.image.copy()
    contact[5:10, 5:10] = 2
    assert agreement_by_group(network, [replace(field, image=contact)]) == {"b": Agreement(3, 3, 7)}


def test_agreement_is_counted_by_group_over_all_fields(data: Path, tmp_path: Path) -> None:
    fields = load_fields(data, 1, 99)
    network = train_network(make_config(tmp_path, steps=1), fields)
    counts = agreement_by_group(network, fields)
    assert set(counts) == {"80x80-1", "64x80-1"}
    for group, found in counts.items():
        alone = [agreement_by_group(network, [field])[group] for field in fields if field.group == group]
        assert found == sum(alone, start=Agreement())
        assert found.annotated == sum(np.unique(field.mask).size - 1 for field in fields if field.group == group)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 93}, "an input of 93 is not legal"),
        ({"patch": 4}, "an input of 4 is not legal"),
        ({"architecture": {"classes": 2}}, r"classes 3 \(background, nucleus, contact\)"),
        ({"architecture": {"classes": 3, "dims": 3}}, "dims 2"),
        ({"architecture": {"classes": 3, "in_channels": 2}}, "in_channels 1"),
        ({"architecture": {"classes": 3, "padding": "same"}}, "padding valid"),
        ({"low": 60, "high": 40}, "the low percentile 60.0 is not below"),
        ({"step": 3}, "Extra inputs"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config(tmp_path, **changes)
