"""Draws the stages of a finished run, as its report does, as a picture for the README.

python tests/benchmarks/stages.py results/a.ome.zarr picture.svg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from pipeline.look import THEME
from pipeline.report.charts import timeline
from pipeline.report.style import STYLE
from pipeline.report.words import duration
from pipeline.stores.publish import read_provenance


def picture(provenance: dict[str, Any]) -> str:
    """Give the timeline of the report as a file of its own, light or dark as the reader's screen."""
    stages = provenance["timings"]["stages"]
    missing = [name for name, seconds in stages.items() if seconds is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} were done by an earlier run, which was interrupted; run it afresh")
    drawing = str(timeline([(name, float(seconds)) for name, seconds in stages.items()], duration))
    rules = THEME + "\n".join(line for line in STYLE.splitlines() if line.startswith(".plot"))
    start, end = drawing.split(">", 1)
    start = start.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" width="800" font-family="sans-serif"', 1)
    return f"{start}><style>{rules}</style>{end}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    given.picture.write_text(picture(read_provenance(given.result)), encoding="utf-8")


if __name__ == "__main__":
    main()
