"""What a model is: what its author declares of it, beside what was derived from its network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.models.context import compare_declared
from pipeline.models.facts import learn_heads
from pipeline.models.library import find_model
from pipeline.models.packages import find_package
from pipeline.package_check import check_package

if TYPE_CHECKING:
    from pipeline.models.facts import ModelFacts

__all__ = ["describe_facts", "is_model"]


def is_model(reference: str) -> bool:
    """Tell whether something is a model: a bundled one's name, a folder with a card, a package, or a network's file."""
    from pipeline.models.card import CARD_FILE
    from pipeline.models.library import bundled_models, is_network_file

    path = Path(reference)
    named = reference in bundled_models() or path.name == CARD_FILE or (path / CARD_FILE).exists()
    return named or find_package(path) is not None or is_network_file(path)


_OF_A_HEAD = ("local", "margin", "halo", "stride", "scale", "reason")


def describe_facts(
    reference: str,
    facts: ModelFacts,
    *,
    factory: str | None = None,
    trust: bool = False,
    fully_convolutional: bool = False,
) -> dict[str, Any]:
    """Give what `seamfree inspect` shows of a model, in plain types.

    Parameters
    ----------
    reference : str
        The model.
    facts : ModelFacts
        What was learnt of it.
    factory, trust, fully_convolutional
        As for `learn_heads`.

    Raises
    ------
    ModelError
        If it is a package whose test output its network does not give.
    """
    card = facts.card
    found = {
        "name": card.name,
        **facts.context.describe(),
        "declared": {name: list(value) for name, value in card.footprint.items()},
        "differences": [str(each) for each in compare_declared(card.footprint, facts.context)],
        **card.model_dump(mode="json", exclude={"name", "footprint"}),
    }
    if heads := learn_heads(reference, facts, factory=factory, trust=trust, fully_convolutional=fully_convolutional):
        found["heads"] = {
            name: {field: told for field, told in context.describe().items() if field in _OF_A_HEAD}
            for name, context in heads.items()
        }
    path = find_model(reference)
    if not path.is_dir():
        from pipeline.models.descriptions import read_package

        package, check = read_package(path, trust=trust), check_package(reference, trust=trust)
        found["package"] = {
            "format": package.version,
            "classes": package.reading,
            "test": "none in the package" if check is None else check.describe(),
        }
    return found
