"""A result in napari, where that is installed: layers as `seamfree view --napari` adds them, without a window."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import open_result
from pipeline.look import OBJECT_COLOURS
from pipeline.viewer.in_napari import add_layers

pytestmark = pytest.mark.filterwarnings("ignore")  # those of napari


def test_layers_have_pixels_places_colours_and_measurements(nuclei: Path) -> None:
    components = pytest.importorskip("napari.components", reason="napari is not installed: pip install 'napari[all]'")
    result = open_result(nuclei)
    viewer = components.ViewerModel()
    add_layers(viewer, result)
    objects = viewer.layers["objects"]
    assert not viewer.layers["classes"].visible
    for layer, levels in ((objects, result.instances), (viewer.layers["classes"], result.semantic)):
        assert len(layer.data) == len(levels)
        for found, level in zip(layer.data, levels, strict=True):
            np.testing.assert_array_equal(np.asarray(found), level[:])
    finest = result.xarray("instances")
    for axis, (step, place) in enumerate(zip(objects.scale, objects.translate, strict=True)):
        at = finest[finest.dims[axis]].to_numpy()
        assert place == at[0]
        assert step == pytest.approx(at[1] - at[0])
    assert objects.features["index"].tolist() == result.table.index.tolist()
    assert objects.features["area"].tolist() == result.table["area"].tolist()
    # The colours of the report; background has none.
    for label in (1, 2, len(OBJECT_COLOURS) + 1):
        colour = np.array(OBJECT_COLOURS[label % len(OBJECT_COLOURS)]) / 255
        np.testing.assert_allclose(objects.get_color(label)[:3], colour, atol=1e-6)
    assert objects.colormap.map(0)[3] == 0


def test_the_example_of_the_readme_runs(nuclei: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the window, which needs OpenGL: the viewer's model takes its place."""
    pytest.importorskip("napari", reason="napari is not installed: pip install 'napari[all]'")
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import napari" in each)
    shutil.copytree(nuclei, tmp_path / "results" / "a.ome.zarr")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace("napari.Viewer()", "napari.components.ViewerModel()").replace("napari.run()", ""), names)
    assert names["viewer"].layers["objects"].contour == 2
