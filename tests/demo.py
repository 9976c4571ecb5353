"""The demo: real nuclei, one image large, through the command line; leaves a picture of the result."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import tifffile
from PIL import Image, ImageDraw

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[1]))

from pipeline import open_result
from pipeline.overlay import overlay
from tests.fields import DATA, FIELD, compose, load_fields, write_tiled

EDGE = 4160
CROP = (slice(2860, 3380), slice(2060, 2756))
ZOOM = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    given = parser.parse_args()
    inputs, results = given.output / "input", given.output / "results"
    inputs.mkdir(parents=True, exist_ok=True)
    fields = load_fields(given.data)
    large = inputs / "mosaic.ome.tif"
    if not large.exists():
        write_tiled(large, compose(fields, (EDGE, EDGE)))
        for number, field in enumerate(fields[:4]):
            tifffile.imwrite(inputs / f"field-{number}.tif", field)
    used = min(len(fields), -(-EDGE // FIELD[0]) * -(-EDGE // FIELD[1]))
    print(f"a mosaic of {used} real fields, {EDGE} x {EDGE} pixels, and four fields by themselves")
    command = [str(Path(sys.executable).parent / "seamfree"), "run", str(inputs), "-o", str(results)]
    print("$ seamfree", *command[1:], flush=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        return code
    result = open_result(results / "mosaic.ome.zarr")
    level = 2
    whole = Image.fromarray(overlay(result, slice(None), slice(None), level))
    rows, columns = CROP
    frame = [at // 2**level for at in (columns.start, rows.start, columns.stop, rows.stop)]
    ImageDraw.Draw(whole).rectangle(frame, outline=(86, 180, 233), width=3)
    part = Image.fromarray(overlay(result, rows, columns, zoom=ZOOM))
    picture = Image.new("RGB", (whole.width + 8 + part.width, max(whole.height, part.height)), "white")
    picture.paste(whole, (0, 0))
    picture.paste(part, (whole.width + 8, 0))
    place = given.output / "overlay.png"
    picture.save(place)
    print(f"\nresults:  {results.resolve()}\noverlay:  {place.resolve()}")
    print(f"the mosaic holds {result.objects:,} nuclei; open it with `pipeline.open_result` or drop it into napari")
    return 0


if __name__ == "__main__":
    sys.exit(main())
