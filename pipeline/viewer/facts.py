"""What the viewer's page is told before it reads pixels: where pyramids lie, how they are drawn, and what was found."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from pipeline.audit import FAULTS
from pipeline.errors import StoreError
from pipeline.images.source import AXES as IMAGE_AXES
from pipeline.labels.components import AXES
from pipeline.look import OBJECT_COLOURS, class_colours
from pipeline.printing import printable
from pipeline.report.audited import TITLES, judge_audit
from pipeline.report.pictures import contrast
from pipeline.report.words import plural, unit_sign
from pipeline.stores.metadata import ome_of
from pipeline.stores.tables import first_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.planning import RunPlan
    from pipeline.results import FieldResult, PlateResult, Result

__all__ = ["describe", "describe_plate", "place_in"]

CHANNEL_COLOURS = ("#00ffff", "#ff00ff", "#ffff00", "#ff0000", "#00ff00", "#0000ff")
"""Of channels whose metadata say none, where there are several."""

MOST_SHOWN = 4
"""Channels that are shown at first, those of the model before others."""

MOST_LISTED = 500
"""Places of each kind that can be jumped to."""


def describe_plate(plate: PlateResult) -> dict[str, Any]:
    """Give the wells of a plate, and their fields."""
    wells = [
        {"row": fields[0].row, "column": fields[0].column, "name": printable(well),
         "fields": [_field(plate, field) for field in fields]}
        for well, fields in plate.wells.items()
    ]  # fmt: skip
    return {"kind": "plate", "name": printable(plate.path.name.removesuffix(".ome.zarr")), "wells": wells}


def place_in(plate: PlateResult, field: FieldResult) -> str:
    """Give the path of a field in its plate, such as ``A/1/0``."""
    return Path(str(field.path)).relative_to(str(plate.path)).as_posix()


def _field(plate: PlateResult, field: FieldResult) -> dict[str, Any]:
    name = printable(field.name)
    if field.acquisition is not None:
        name += f" (acquisition {field.acquisition})"
    return {"path": place_in(plate, field), "name": name}


def describe(
    result: Result, plan: RunPlan, place: str, shapes: Sequence[tuple[int, ...]], why: str | None
) -> dict[str, Any]:
    """Give the facts of a result, or of a field.

    Parameters
    ----------
    result : Result
        With pixels of its own.
    plan : RunPlan
        Its plan.
    place : str
        Path of a field in its plate, with a slash at the end; empty for what is none.
    shapes : sequence of tuple of int
        TCZYX, of the levels of the image that was read, where it is shown in the place of a copy.
    why : str, optional
        Why there is neither.

    Raises
    ------
    StoreError
        If it is damaged.
    """
    provenance = result.provenance
    source = plan.source
    kind, word, sentence = judge_audit(plan, provenance["audit"])
    sizes = [source.pixel_size[at] for at in (0, 2, 3, 4)]
    units = [source.units[at] for at in (0, 2, 3, 4)]
    image: dict[str, Any] | None = None
    if shapes:
        levels = [
            {"path": f"input/{place}{at}", "zarr": 3, "shape": list(shape),
             "scale": [coarser(first, length) for first, length in zip(shapes[0], shape, strict=True)]}
            for at, shape in enumerate(shapes)
        ]  # fmt: skip
        image = {"axes": IMAGE_AXES, "levels": levels}
    elif result.image:
        image = _pyramid(result, place, "", result.image, source.axes)
    if image is not None:
        image |= {"start": [0.0] * 5, "dtype": source.dtype, "channels": _channels(result, plan)}
    return {
        "kind": "result",
        "name": printable(result.path.name.removesuffix(".ome.zarr")),
        "shape": [source.shape[at] for at in (0, 2, 3, 4)],
        "pixel": sizes,
        "units": [None if unit is None else unit_sign(unit) for unit in units],
        "model": printable(plan.model),
        "audit": {"kind": kind, "word": word, "sentence": sentence},
        "image": image,
        "why": None if why is None else f"The image is not shown, only the labels: {printable(why)}.",
        "classes": _classes(result, place, plan),
        "objects": _objects(result, place, plan),
        "tiles": {
            "core": [edge * scale for edge, scale in zip(plan.core, plan.footprint.scale, strict=True)],
            "start": _start(plan),
            "counts": list(plan.tiles.counts),
        },
        "findings": _findings(plan, provenance["audit"]),
    }


def coarser(finest: int, length: int) -> float:
    """Give by how much an axis of so many pixels is coarser than one of `finest`: a whole number, if that may be."""
    whole = max(1, round(finest / length))
    return float(whole) if length in (finest // whole, -(-finest // whole)) else finest / length


def _start(plan: RunPlan) -> list[float]:
    """Give where the first pixel of the labels begins, in pixels of the image, TZYX."""
    return [at + (1 - scale) / 2 for at, scale in zip(plan.centre, plan.footprint.scale, strict=True)]


def _pyramid(result: Result, place: str, group: str, arrays: Sequence[zarr.Array[Any]], axes: str) -> dict[str, Any]:
    """Give the levels of a pyramid by their paths, and how much coarser each is than the first."""
    try:
        multiscale = ome_of(zarr.open_group(result.path / group, mode="r"))["multiscales"][0]
        paths = [str(level["path"]) for level in multiscale["datasets"]]
        scales = [
            next(entry["scale"] for entry in level["coordinateTransformations"] if entry["type"] == "scale")
            for level in multiscale["datasets"]
        ]
        levels = [
            {
                "path": PurePosixPath("data", place, group, path).as_posix(),
                "zarr": array.metadata.zarr_format,
                "shape": list(array.shape),
                "scale": [float(size) / float(first) for size, first in zip(scale, scales[0], strict=True)],
            }
            for path, scale, array in zip(paths, scales, arrays, strict=True)
        ]
    except (OSError, KeyError, IndexError, TypeError, ValueError, StopIteration, ZeroDivisionError) as error:
        raise StoreError(
            f"{result.path / group}: the OME-Zarr metadata do not describe a pyramid ({type(error).__name__}: {error})"
        ) from error
    return {"axes": axes, "levels": levels}


def _labels(result: Result, place: str, plan: RunPlan, name: str, arrays: Sequence[zarr.Array[Any]]) -> dict[str, Any]:
    found = _pyramid(result, place, f"labels/{name}", arrays, plan.source.axes.replace("C", ""))
    return found | {"start": _start(plan), "size": list(plan.footprint.scale)}


def _channels(result: Result, plan: RunPlan) -> list[dict[str, Any]]:
    """Give names, colours and contrast: what the metadata say, but black and white as in the report."""
    names, stated = plan.source.channel_names, _omero(result)
    one = len(names) == 1
    shown = (plan.channels + tuple(at for at in range(len(names)) if at not in plan.channels))[:MOST_SHOWN]
    known = {entry["channel"] for entry in result.provenance["intensity"] if entry["time"] == 0}
    channels = []
    for at, name in enumerate(names):
        said = stated[at] if at < len(stated) and isinstance(stated[at], dict) else {}
        colour, window = str(said.get("color", "")), said.get("window")
        channel = {
            "name": printable(name),
            "colour": f"#{colour.lower()}" if len(colour) == 6 else "#ffffff" if one
            else CHANNEL_COLOURS[at % len(CHANNEL_COLOURS)],
            "shown": at in shown,
            "window": None,
        }  # fmt: skip
        if at in known:
            channel["window"] = list(contrast(result.provenance["intensity"], 0, at))
        elif isinstance(window, dict) and {"start", "end"} <= window.keys() and not _whole(window):
            channel["window"] = [float(window["start"]), float(window["end"])]
        channels.append(channel)
    return channels


def _whole(window: dict[str, Any]) -> bool:
    """Say whether a contrast is merely all that the type can hold."""
    return bool((window["start"], window["end"]) == (window.get("min"), window.get("max")))


def _omero(result: Result) -> list[Any]:
    try:
        channels = ome_of(zarr.open_group(result.path, mode="r"))["omero"]["channels"]
    except (OSError, KeyError, TypeError, ValueError):
        return []
    return channels if isinstance(channels, list) else []


def _classes(result: Result, place: str, plan: RunPlan) -> dict[str, Any] | None:
    if not result.semantic:
        return None
    colours = [None, *(list(colour) for colour in class_colours(len(plan.classes) - 1))]
    named = [{"name": printable(name), "colour": colour} for name, colour in zip(plan.classes, colours, strict=True)]
    return _labels(result, place, plan, "semantic", result.semantic) | {"named": named}


def _objects(result: Result, place: str, plan: RunPlan) -> dict[str, Any] | None:
    if not result.instances:
        return None
    found = _labels(result, place, plan, "instances", result.instances) | {
        "count": result.objects, "told": plural(result.objects or 0, "object"),
        "colours": [list(colour) for colour in OBJECT_COLOURS], "columns": [], "across": 0.0,
    }  # fmt: skip
    if plan.table:
        areas = first_values(result.path, "area")
        # Of a ball's plane, or a disk, in pixels of the labels: below some pixels on the screen, outlines hide what
        # they enclose.
        across = float(np.median(areas)) ** (1 / plan.spatial_ndim) if areas.size else 0.0
        found |= {
            "columns": [name for name in result.columns if name not in ("label", "class")], "across": across,
            "ndim": plan.spatial_ndim,
        }  # fmt: skip
    return found


def _findings(plan: RunPlan, audit: dict[str, Any]) -> list[dict[str, Any]]:
    """List the places that the report lists, too, in pixels of the image."""
    found = []
    for name, title in TITLES.items():
        held = audit.get(name) or {}
        if held.get("total"):
            places = [_place(plan, entry) for entry in held.get("listed", [])[:MOST_LISTED]]
            kind = "bad" if name == "faults" else "care"
            found.append({"title": title, "kind": kind, "total": held["total"], "places": places})
    return found


def _place(plan: RunPlan, entry: dict[str, Any]) -> dict[str, Any]:
    """Give where an entry lies, of a box its middle, and what is said of it."""
    if "start" in entry:
        box = entry["start"], entry["stop"]
        at = [(start + stop - 1) / 2 for start, stop in zip(*box, strict=True)]
        sizes = " × ".join(f"{stop - start:,}" for start, stop in zip(*box, strict=True) if stop - start > 1)
        return {"at": _in_image(plan, at), "text": f"{sizes} pixels"}
    if "decision" in entry:
        return {"at": _in_image(plan, entry["at"]), "text": f"overlap (IoU) {entry['iou']:.2f}, {entry['decision']}"}
    return {"at": _in_image(plan, entry["at"]), "text": FAULTS.get(entry["what"], entry["what"])}


def _in_image(plan: RunPlan, at: Sequence[float] | dict[str, float]) -> list[float]:
    """Give where the centre of a pixel of the labels lies, TZYX, counted from the image's edge."""
    named = [float(at.get(axis.upper(), 0)) for axis in AXES] if isinstance(at, dict) else [float(each) for each in at]
    named = [0.0] * (4 - len(named)) + named
    return [
        (where + 0.5) * scale + start
        for where, scale, start in zip(named, plan.footprint.scale, _start(plan), strict=True)
    ]
