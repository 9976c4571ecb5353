"""What an acquisition is segmented with, as one digest: another model, or other settings, are another recipe."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ModelError
from pipeline.models.card import read_card
from pipeline.models.library import bundled_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config import RunConfig

__all__ = ["recipe_of"]

_WITHOUT_EFFECT = {"execution", "audit", "device", "identify", "trust_model_code", "tile", "precision_tolerance"}
"""Settings that change where and how the work is done, and nothing in the labels."""


_FOR_PEOPLE = {"name", "description", "licence", "training", "scores", "footprint"}
"""What a model's card says, and the labels do not depend on; the digest of the weights is in the rest."""


def recipe_of(config: RunConfig) -> str:
    """Give a digest of the model's files and of the settings that the labels depend on.

    Parameters
    ----------
    config : RunConfig
        All settings.

    Returns
    -------
    str
        Hexadecimal.

    Raises
    ------
    ModelError
        If the model's files cannot be read.
    """
    digest = hashlib.sha256(
        json.dumps(config.model_dump(mode="json", exclude=_WITHOUT_EFFECT), sort_keys=True).encode()
    )
    if config.instances.method == "overlap":
        file = Path(str(config.instances.function).rsplit(":", 1)[0])
        for path in [file] if file.is_file() else []:
            digest.update(_sha256(path))
        return digest.hexdigest()
    folder = bundled_models().get(config.model, Path(config.model))
    if (folder / "card.yaml").is_file():
        card = read_card(folder).model_dump(mode="json", exclude=_FOR_PEOPLE)
        digest.update(json.dumps(card, sort_keys=True).encode())
    else:
        for path in _files(folder):
            digest.update(_sha256(path))
    return digest.hexdigest()


def _files(place: Path) -> Iterator[Path]:
    """Give the files of a package, in the order of their names."""
    if place.is_file():
        # A package's description stands for the folder that it is in.
        yield from _files(place.parent) if place.suffix in (".yaml", ".yml") else (place,)
    elif place.is_dir():
        yield from sorted(path for path in place.rglob("*") if path.is_file())
    else:
        raise ModelError(f"{place}: no such model; `seamfree models` lists those at hand")


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
