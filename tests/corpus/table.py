"""Prints the corpus of bad input as a table: each case, and what a user is told."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.printing import printable
from tests.corpus.running import CASES, run, small_model, told


def main() -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("case", "exit", "what a user is told"):
        table.add_column(column, overflow="fold")
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        model = small_model(Path(folder) / "model")
        for number, (name, case) in enumerate(CASES.items()):
            place = Path(folder) / f"{number}"
            place.mkdir()
            outcome, output = run(case, model, place)
            _, reasons = told(outcome, output)
            text = "; ".join(reasons).replace(f"{place}/in/", "").replace("seamfree: ", "") or "segmented"
            table.add_row(escape(name), str(outcome.code), escape(printable(text)))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
