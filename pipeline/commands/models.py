"""`seamfree inspect`, `seamfree models` and `seamfree train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import Factory, FullyConvolutional, Head, Resolution, Sequence, Trust, settings_of
from pipeline.errors import ConfigError
from pipeline.printing import printable, short


def inspect(
    subject: Annotated[str, typer.Argument(metavar="MODEL|IMAGE", help="A model or an image.")],
    factory: Factory = None,
    trust_model_code: Trust = False,
    head: Head = None,
    fully_convolutional: FullyConvolutional = False,
    resolution: Resolution = None,
    sequence: Sequence = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a model or an image is."""
    from pipeline.images.sequences import as_sequence
    from pipeline.inspection import describe_facts, describe_image, draw_plate, find_sequence, is_model
    from pipeline.model_words import tell_context
    from pipeline.models.context import draw_footprint
    from pipeline.models.facts import learn_facts
    from pipeline.models.library import bundled_models
    from pipeline.remote.paths import is_url, to_path

    facts: dict[str, Any]
    known, drawn = None, list[str]()
    try:
        path = to_path(subject) if sequence is None else find_sequence(subject, sequence)
        is_a_model = sequence is None and not is_url(subject) and is_model(subject)
        is_there = path.exists() or is_url(subject) or as_sequence(path) is not None
    except OSError as error:
        raise ConfigError(f"{short(subject)}: cannot be looked at ({error.strerror or error})") from error
    if is_a_model:
        use = settings_of(None, head=head, fully_convolutional=fully_convolutional, resolution=resolution).network_use
        known = learn_facts(subject, factory=factory, trust=trust_model_code, use=use)
        facts = describe_facts(
            subject, known, factory=factory, trust=trust_model_code, fully_convolutional=fully_convolutional
        )
    elif is_there:
        facts = describe_image(path)
        drawn = draw_plate(facts) if "wells" in facts else []
    else:
        raise ConfigError(f"{subject}: neither a model ({', '.join(bundled_models())}) nor an image")
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        if drawn:
            # Beside the drawing, the lists of what is in it say nothing.
            facts = {name: value for name, value in facts.items() if name not in ("rows", "columns")}
            facts["wells"] = f"{len(facts['wells'])}, with {sum(map(len, facts['wells'].values()))} fields"
            facts |= {f"image {name}": value for name, value in facts.pop("image", {}).items() if name != "path"}
        if known is not None:
            # In words, where JSON has the numbers.
            told = tell_context(known.context)
            said = {name: value for name, value in facts.items() if name not in known.context.describe()}
            facts = {"name": facts["name"], **told, **said}
        if unfit := facts.get("other TIFF files"):
            facts["other TIFF files"] = f"{len(unfit)}, such as {unfit[0]}"
        width = max(len(name) for name in facts) + 2
        for name, value in facts.items():
            # A head of several to a line, under each other.
            parts = [f"{head}: {told}" for head, told in value.items()] if name == "heads" else [value]
            for at, part in enumerate(parts):
                typer.echo(printable(f"{name if at == 0 else '':<{width}}{part}"))
        for line in drawn:
            typer.echo(printable(line))
        if known is not None:
            typer.echo(draw_footprint(known.context))


def models() -> None:
    """List the models at hand."""
    from pipeline.models.card import read_card
    from pipeline.models.library import bundled_models

    for name, folder in bundled_models().items():
        typer.echo(f"{name}: {read_card(folder).description}")


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Training configuration, as YAML.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with images/*.tif and masks/*.tif.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the model.")],
) -> None:
    """Train a model of nuclei from images with instance masks."""
    from rich.console import Console

    from pipeline.display import show_progress
    from pipeline.interrupt import ending_at_signals
    from pipeline.training.publish import train_model

    with ending_at_signals(), show_progress(Console(stderr=True), 0):
        card = train_model(config, data, output)
    typer.echo(f"{output}: {card.name}, {card.scores}")
