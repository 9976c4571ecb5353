"""A finished result in napari, where that is installed: pyramids as they lie on the disk, read as they are seen."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ConfigError, StoreError
from pipeline.look import OBJECT_COLOURS, class_colours
from pipeline.results import PlateResult, open_result

if TYPE_CHECKING:
    from pathlib import Path

    import xarray

    from pipeline.results import Result

__all__ = ["add_layers", "show"]

log = logging.getLogger(__name__)


def show(path: Path) -> None:
    """Open a window with a result, and wait until it is closed.

    Raises
    ------
    ConfigError
        If napari is not installed.
    StoreError
        If the result is a plate; its fields are results.
    """
    if find_spec("napari") is None:
        raise ConfigError("napari is not installed; install it with: pip install 'napari[all]'")
    import napari

    viewer = napari.Viewer(title=f"{path.name} · seamfree")
    add_layers(viewer, open_result(path))
    napari.run()


def add_layers(viewer: Any, result: Result) -> None:  # noqa: ANN401 (napari is no dependency)
    """Add image, classes and objects to a viewer of napari, with the colours that they have in the report.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    result : Result
        Of an image; of a plate, that of a field.

    Raises
    ------
    StoreError
        If the result is a plate.
    """
    from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

    try:
        image = [result.xarray("image", level) for level in range(max(len(result.image), 1))]
    except StoreError as error:
        if isinstance(result, PlateResult):
            raise
        log.warning("%s", error)
    else:
        channels = list(image[0].dims).index("c") if "c" in image[0].dims else None
        names = "image" if channels is None else [str(name) for name in image[0]["c"].values]
        viewer.add_image(_data(image), multiscale=True, channel_axis=channels, name=names, **_where(image[0]))
    for name, levels, told, opacity in (
        ("semantic", result.semantic, "classes", 0.35), ("instances", result.instances, "objects", 0.5),
    ):  # fmt: skip
        if not levels:
            continue
        arrays = [result.xarray(name, level) for level in range(len(levels))]
        layer = viewer.add_labels(_data(arrays), multiscale=True, name=told, opacity=opacity, **_where(arrays[0]))
        if name == "semantic":
            colours = enumerate(class_colours(len(result.classes) - 1), 1)
            layer.colormap = DirectLabelColormap(
                color_dict={0: NOTHING, None: NOTHING} | {at: _rgba(colour) for at, colour in colours}
            )
            layer.visible = not result.instances
        else:
            # The first colour behind background is that of object 1.
            cycle = (*OBJECT_COLOURS[1:], OBJECT_COLOURS[0])
            layer.colormap = CyclicLabelColormap(colors=np.array([NOTHING, *map(_rgba, cycle)], dtype=np.float32))
            if result.provenance["plan"]["table"]:
                layer.features = result.table.reset_index().rename(columns={"label": "index"})


NOTHING = (0.0, 0.0, 0.0, 0.0)


def _rgba(colour: tuple[int, int, int]) -> tuple[float, float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255, 1.0


def _data(levels: list[xarray.DataArray]) -> list[Any]:
    return [level.data for level in levels]


def _where(array: xarray.DataArray) -> dict[str, list[float]]:
    """Give the size of pixels, and the centre of the first one, of the axes but C."""
    dims = [dim for dim in array.dims if dim != "c"]
    steps = [float(array[dim][1] - array[dim][0]) if array.sizes[dim] > 1 else 1.0 for dim in dims]
    return {"scale": steps, "translate": [float(array[dim][0]) for dim in dims]}
