"""Opens a result of many gigapixels in a real browser, and tells how long that takes and how much is read for it.

    python tests/benchmarks/viewer.py [--gigapixels 100] [--picture FILE.png]

The result is a real one of a mosaic of fields, repeated until it is so large: its shards are links to a few files, so
that it takes hardly any room on the disk. All levels of all pyramids are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from pipeline.viewer.server import ViewerServer
from pipeline.viewer.site import Site
from tests.browser import BROWSER, WHY_NOT, open_page
from tests.viewer.large import open_at, open_whole, write_large


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigapixels", type=float, default=100)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if BROWSER is None:
        sys.exit(WHY_NOT)
    with tempfile.TemporaryDirectory(prefix="seamfree-viewer-") as folder:
        large, edge = write_large(Path(folder), options.gigapixels)
        with open_page() as page:
            began = time.perf_counter()
            with ViewerServer(Site(large)) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                read = open_whole(page, server.url)
                seconds = round(time.perf_counter() - began, 2)
                print("opened", json.dumps({"gigapixels": edge**2 / 1e9, "seconds": seconds, **read}))
                began = time.perf_counter()
                read = open_at(page, edge // 3, edge // 5)
                seconds = round(time.perf_counter() - began, 2)
                print("at full resolution", json.dumps({"seconds": seconds, **read}))
                if options.picture:
                    open_at(page, edge // 3, edge // 5, resolution=5)
                    page.key("g")
                    page.settle()
                    page.picture(options.picture)
                assert not page.errors, page.errors
                server.shutdown()


if __name__ == "__main__":
    main()
