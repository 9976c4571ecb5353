"""Small results of all kinds that can be looked at."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline import segment
from pipeline.config import make_config
from pipeline.viewer.server import ViewerServer
from pipeline.viewer.site import Site
from tests.fields import load_fields
from tests.plates import write_plate
from tests.random_models import save_threshold_model


def run(given: Path, into: Path, /, **settings: Any) -> Path:  # noqa: ANN401
    config = make_config({"tile": 128, "execution": {"scheduler": "serial"}} | settings)
    report = segment(given, into, config)[-1]
    assert report.status == "done", report.reason
    assert report.result is not None
    return Path(report.result)


@contextmanager
def serving(result: Path) -> Iterator[ViewerServer]:
    with ViewerServer(Site(result)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_threshold_model(tmp_path_factory.mktemp("model"), dims=2)


@pytest.fixture(scope="session")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real nuclei, with a pair of objects that the audit is made to doubt, and a fault."""
    folder = tmp_path_factory.mktemp("nuclei")
    place = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(folder / "a.ome.tif", load_fields()[0][:400, :500], metadata=place)
    result = run(folder / "a.ome.tif", folder / "out")
    facts = json.loads((result / "seamfree.json").read_text())
    doubt = {
        "at": {"Y": 128, "X": 250},
        "iou": 0.4,
        "containment": 0.6,
        "larger_than_diameter": False,
        "decision": "apart",
    }
    facts["audit"]["ambiguous"] = {"total": 3, "listed": [doubt, doubt | {"at": {"Y": 30, "X": 384}}]}
    facts["audit"]["faults"] = {"total": 1, "listed": [{"what": "class", "at": [0, 0, 256, 77], "seam": [1, "Y", 256]}]}
    (result / "seamfree.json").write_text(json.dumps(facts))
    return result


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """Two time points, three planes, two channels; each of its own brightness. As OME-Zarr 0.4."""
    folder = tmp_path_factory.mktemp("series")
    plane = load_fields()[0][:90, :120].astype(np.uint16)
    image = np.stack([np.stack([[plane * (t + 2 * z + 1), plane * 3] for z in range(3)]) for t in range(2)])
    tifffile.imwrite(folder / "s.ome.tif", image, metadata={"axes": "TZCYX", "Channel": {"Name": ["DAPI", "Actin"]}})
    return run(folder / "s.ome.tif", folder / "out", model=model, channels=["DAPI"], output={"ome_zarr": "0.4"})


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """Without a copy of the image, which is a TIFF."""
    folder = tmp_path_factory.mktemp("bare")
    tifffile.imwrite(folder / "b.tif", load_fields()[1][:300, :260], tile=(64, 64))
    return run(folder / "b.tif", folder / "out", model=model, output={"image": "none"})


@pytest.fixture(scope="session")
def plate(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """A plate of three fields, of which labels have become a part."""
    folder = tmp_path_factory.mktemp("plate")
    fields = [field[:80, :100] for field in load_fields()[:3]]
    source = write_plate(folder / "P.zarr", fields, wells=("A/01", "B/03", "B/11"), per_well=1)
    run(source, folder / "out", model=model, output={"in_place": True})
    return source
