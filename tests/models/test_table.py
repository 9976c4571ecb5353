"""All architectures in one table: what is derived, against what changing single pixels shows; and what is refused.

`python -m tests.models.test_table` prints it; a part of it stands in README.md, and is held to it.
"""

from __future__ import annotations

from ast import literal_eval
from pathlib import Path

import pytest
import torch

from tests.models.test_derive import derive, farthest
from tests.models.zoo import ZOO

Row = tuple[str, ...]

README_HEADER = "| network | margin | stride | halo | sees, as derived | as single pixels show |"

HEADER: Row = ("architecture", "margin", "stride", "halo", "derived reach", "true reach", "found by, or refused for")


def _short(values: object) -> str:
    return str(values).replace(" ", "")


def row(name: str) -> Row:
    """Examine one architecture."""
    exhibit = ZOO[name]
    network, context = derive(exhibit)
    if not context.local:
        return (name, "", "", "", "refused", "", context.reason)
    derived = [tuple(each) for each in context.reach]
    true = farthest(network.double(), context, exhibit)
    facts = (context.margin, context.stride, context.halo, derived, true)
    return (name, *map(_short, facts), context.method)


def table() -> list[Row]:
    """Examine all."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row(name) for name in ZOO]
    finally:
        torch.set_num_threads(threads)


def draw(rows: list[Row]) -> str:
    """Write a table for a terminal."""
    lines = [HEADER, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER) - 1)]
    return "\n".join(
        "  ".join([*(f"{text:{width}}" for text, width in zip(line, widths, strict=False)), line[-1]]) for line in lines
    )


def as_markdown(line: Row) -> str:
    """Write a row as README.md has it: what is alike along all axes once."""
    name, *facts, told = line
    if "refused" in facts:
        # The layer, without what is said of it.
        layer = told.split(": ")[-1].removeprefix("after ").split(", ")[0]
        return f"| {name} | refused: `{layer}` | | | | |"
    return f"| {name} | {' | '.join(map(_alike, facts))} |"


def _alike(axes: str) -> str:
    values = []
    for each in literal_eval(axes):
        ends = each if isinstance(each, tuple) else (each,)
        values.append(str(ends[0]) if len(set(ends)) == 1 else f"{ends[0]} before, {ends[1]} behind")
    return values[0] if len(set(values)) == 1 else " x ".join(values)


@pytest.mark.slow
def test_the_table_of_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table()
    with capsys.disabled():
        print(f"\n{draw(rows)}")
    accepted = [each for each in rows if each[4] != "refused"]
    assert len(accepted) >= 12
    assert all(derived == true for _, _, _, _, derived, true, _ in accepted)
    assert {each[0] for each in rows if each not in accepted} == {
        name for name, exhibit in ZOO.items() if exhibit.refused is not None
    }
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    shown = text.split(README_HEADER)[1].split("\n\n")[0].splitlines()[2:]
    assert len(shown) >= 12
    assert set(shown) <= {as_markdown(line) for line in rows}


if __name__ == "__main__":
    print(draw(table()))
