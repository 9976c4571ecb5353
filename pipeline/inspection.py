"""What a model is, declared and derived, and what a plate is: for `seamfree inspect`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, ImageError
from pipeline.images.opening import open_image
from pipeline.images.patterns import AXIS_NAMES, parse_pattern
from pipeline.images.plates import is_plate, read_plate
from pipeline.images.sequences import as_sequence, list_files, sequences_below
from pipeline.models.context import compare_declared
from pipeline.models.facts import learn_heads
from pipeline.models.library import find_model
from pipeline.models.packages import find_package
from pipeline.package_check import check_package

if TYPE_CHECKING:
    from pipeline.models.facts import ModelFacts
    from pipeline.remote.paths import AnyPath

__all__ = ["describe_facts", "describe_image", "describe_plate", "draw_plate", "find_sequence", "is_model"]


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


def find_sequence(folder: str, pattern: str) -> Path:
    """Give the path of the images of many files that lie in or below a folder.

    Raises
    ------
    ConfigError
        If it is no pattern, no file fits it, or such files lie in several folders.
    """
    try:
        fitting = parse_pattern(pattern)
        found = sequences_below(Path(folder), fitting)
    except (ValueError, ImageError) as error:
        raise ConfigError(str(error)) from error
    if len(found) > 1:
        raise ConfigError(f"{folder}: such files lie in {len(found)} folders, such as {found[0]}; name one of them")
    return found[0] / fitting.shown


def describe_image(path: AnyPath) -> dict[str, Any]:
    """Give what `seamfree inspect` shows of an image or a plate, in plain types.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    if is_plate(path):
        return describe_plate(path)
    sequence, opened = as_sequence(path), path
    found: dict[str, Any] = {}
    if sequence is not None:
        found = _describe_files(path)
        images = list(list_files(sequence.folder, sequence.pattern).images)
        if not sequence.inside and len(images) > 1:
            found["images"] = ["/".join(image) for image in images]
            opened = path / found["images"][0]
    source = open_image(opened)
    found = asdict(source.info) | found | ({"notes": list(source.notes)} if source.notes else {})
    source.close()
    return found


def _describe_files(path: AnyPath) -> dict[str, Any]:
    """Give how many files fit a pattern and what their names tell, and which do not; nothing for other images."""
    sequence = as_sequence(path)
    if sequence is None:
        return {}
    listing = list_files(sequence.folder, sequence.pattern)
    axes = zip(AXIS_NAMES.values(), listing.axes, strict=True)
    return {
        "pattern": sequence.pattern.text,
        "files": sum(map(len, listing.images.values())),
        **{f"{name} in names": list(values) for name, values in axes if name in sequence.pattern.names},
        **({"other TIFF files": list(listing.unfit)} if listing.unfit else {}),
    }


def describe_plate(path: AnyPath) -> dict[str, Any]:
    """Give what `seamfree inspect` shows of a plate, in plain types: its layout, and what an image of it is.

    Parameters
    ----------
    path : Path or RemotePath
        The plate.

    Raises
    ------
    ImageError
        If its metadata, or its first image, cannot be read.
    """
    layout = read_plate(path)
    wells: dict[str, list[str]] = {}
    for field in layout.fields:
        wells.setdefault(field.well, []).append(field.name)
    found: dict[str, Any] = {
        "path": str(path),
        "kind": "ome-zarr plate" if as_sequence(path) is None else "plate of files",
        "rows": _names(layout.described.get("rows"), [field.row for field in layout.fields]),
        "columns": _names(layout.described.get("columns"), [field.column for field in layout.fields]),
        "wells": wells,
        "acquisitions": sorted({field.acquisition for field in layout.fields if field.acquisition is not None}),
        "unreadable": list(layout.unreadable),
        **_describe_files(path),
    }
    if layout.fields:
        source = open_image(path / layout.fields[0].path)
        found["image"] = asdict(source.info)
        source.close()
    return found


def _names(listed: object, used: list[str]) -> list[str]:
    """Give the names of all rows or columns: as the metadata list them, and whatever else is used."""
    told = [str(each.get("name")) for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return list(dict.fromkeys([*told, *used]))


def draw_plate(found: dict[str, Any]) -> list[str]:
    """Draw the layout of a plate for a terminal: so many fields lie in each well.

    Parameters
    ----------
    found : dict
        As `describe_plate` gives it.

    Returns
    -------
    list of str
        A line for the columns, and one for each row.
    """
    rows, columns, wells = found["rows"], found["columns"], found["wells"]
    side = max(map(len, rows), default=0)
    cells = {(row, column): wells.get(f"{row}/{column}", []) for row in rows for column in columns}
    width = max([3, *map(len, columns), *(len(str(len(fields))) for fields in cells.values())]) + 1
    lines = [" " * side + "".join(f"{column:>{width}}" for column in columns)]
    for row in rows:
        shown = (
            len(cells[row, column]) or ("?" if f"{row}/{column}" in found["unreadable"] else "·") for column in columns
        )
        lines.append(f"{row:<{side}}" + "".join(f"{each:>{width}}" for each in shown))
    return lines
