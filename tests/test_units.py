"""Axes of different units: what objects are depends on the size of a pixel, not on how it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from pipeline import open_result, segment
from pipeline.config import make_config
from tests.fields import compose, load_fields


def test_the_watershed_parts_the_same_objects_whatever_units_the_axes_have(tmp_path: Path) -> None:
    image = compose(load_fields(), (380, 420), seed=2)
    found = []
    for name, size, unit in (("one", 0.65, "µm"), ("mixed", 650.0, "nm")):
        metadata = {"axes": "YX", "PhysicalSizeY": size, "PhysicalSizeYUnit": unit, "PhysicalSizeX": 0.65,
                    "PhysicalSizeXUnit": "µm"}  # fmt: skip
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", image, ome=True, metadata=metadata)
        config = make_config({"instances": {"method": "watershed"}, "execution": {"scheduler": "serial"}})
        (report,) = segment(tmp_path / f"{name}.ome.tif", tmp_path / "out", config)
        assert report.result is not None, report.reason
        result = open_result(report.result)
        assert result.provenance["plan"]["spacing"] == [1, 1]
        found.append(result)
    assert (found[0].objects or 0) > 20
    np.testing.assert_array_equal(np.asarray(found[0].instances[0]), np.asarray(found[1].instances[0]))
    np.testing.assert_allclose(found[0].table["area_physical"], found[1].table["area_physical"])
