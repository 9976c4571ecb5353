"""The card: what it accepts, and what it says of a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.errors import ModelError
from pipeline.models.architecture import UNetConfig
from pipeline.models.card import CARD_FILE, ModelCard, describe_footprint, read_card


def values(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 (as YAML gives them)
    card: dict[str, Any] = {
        "name": "m",
        "description": "d",
        "licence": "CC0-1.0",
        "architecture": {"base_channels": 4, "classes": 2},
        "axes": "yx",
        "channels": [{"name": "DNA"}],
        "classes": ["background", "nucleus"],
        "intensity": {"method": "percentile"},
        "instances": {"method": "components", "classes": ["nucleus"]},
        "training": {"data": "none", "licence": "none"},
        "weights": {"sha256": "0" * 64},
    }
    return card | changes


def test_a_card_survives_yaml(tmp_path: Path) -> None:
    card = ModelCard.model_validate(
        values(
            footprint=describe_footprint(UNetConfig(base_channels=4)),
            pixel_size=[0.65, 0.65],
            pixel_size_unit="micrometer",
            scores={"f1": 0.9},
        )
    )
    text = yaml.safe_dump(card.model_dump(mode="json"))
    (tmp_path / CARD_FILE).write_text(text)
    assert read_card(tmp_path) == card
    with pytest.raises(ValidationError):
        card.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"axes": "zyx"}, "axes 'zyx' do not fit an architecture of 2"),
        ({"channels": []}, "0 channels described, the network takes 1"),
        ({"classes": ["background"]}, "1 classes named, the network gives 2"),
        ({"classes": ["nucleus", "nucleus"]}, "classes are named twice"),
        ({"instances": {"method": "components", "classes": ["cell"]}}, "a class 'cell'"),
        ({"instances": {"method": "components", "classes": []}}, "no class"),
        ({"instances": {"method": "polygons", "classes": ["nucleus"]}}, "instances.method"),
        ({"instances": {"method": "watershed", "classes": ["nucleus"], "contact": ["gap"]}}, "a class 'gap'"),
        (
            {"instances": {"method": "watershed", "classes": ["nucleus"], "contact": ["nucleus"]}},
            "both of objects and of contact",
        ),
        ({"instances": {"method": "components", "classes": ["nucleus"], "minimum_size": -1}}, "minimum_size"),
        ({"intensity": {"method": "percentile", "low": 60, "high": 40}}, "60.0 is not below the high one 40.0"),
        ({"intensity": {"method": "per tile"}}, "intensity.method"),
        ({"footprint": describe_footprint(UNetConfig(padding="same"))}, "not what follows from the architecture"),
        ({"pixel_size": [0.65], "pixel_size_unit": "micrometer"}, "pixel_size has 1 entries"),
        ({"pixel_size": [0.65, -0.65], "pixel_size_unit": "micrometer"}, "pixel_size"),
        ({"pixel_size": [0.65, 0.65]}, "pixel_size_unit"),
        (
            {"weights": {"sha256": "abc"}},
            "weights.sha256: 'abc' is not 64 digits from 0 to f; give what sha256sum says",
        ),
        ({"architecture": {"base_channels": 4, "dropout": True}}, "architecture.dropout"),
        ({"format": "seamfree-model/2"}, "format"),
        ({"autor": "me"}, "autor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_card_that_contradicts_itself_is_refused_with_file_and_key(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    (tmp_path / CARD_FILE).write_text(yaml.safe_dump(values(**changes)))
    with pytest.raises(ModelError) as caught:
        read_card(tmp_path)
    assert str(tmp_path / CARD_FILE) in str(caught.value)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"name: [unclosed", "not valid YAML"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"", "card:"),
        (b"- a list", "card:"),
        (b"name: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_card_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / CARD_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=complaint) as caught:
        read_card(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_digest_in_capitals_is_one(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4
    (tmp_path / CARD_FILE).write_text(yaml.safe_dump(values(weights={"sha256": digest.upper()})))
    assert read_card(tmp_path).weights.sha256 == digest


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"card\.yaml: the model's card cannot be read"):
        read_card(tmp_path)
