"""Pictures of a result: what the network saw, and over it the outlines of what was found, in layers."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from markupsafe import Markup
from scipy import ndimage
from skimage.segmentation import find_boundaries

from pipeline.look import CLASS_COLORS
from pipeline.measure.outlines import outline
from pipeline.overlay import COLOURS
from pipeline.report.words import Measure, nice_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.planning import RunPlan
    from pipeline.report.pixels import ImagePixels, LabelPixels, View

__all__ = ["Picture", "Thumbnail", "contrast", "draw_picture", "draw_thumbnail", "frame_parts"]

QUALITY = 82
"""Of JPEG."""

PNG_LEVEL = 7
"""Beyond it PNGs get a twelfth smaller and take five times as long."""

MOST_TRACED, MOST_PATH = 1500, 300_000
"""Objects that are drawn as lines, and bytes that these may take; what is more is drawn as pixels."""

FILLED = 0.6
"""Where more of the objects' pixels are outlines than this, objects are filled instead, so that the image is seen."""

CLASS_COLOURS = np.array(CLASS_COLORS, dtype=np.uint8)

ALPHA = 110
"""Of what is filled, of 255."""

DUO = np.array([(0, 1, 0), (1, 0, 1)], dtype=np.float32)
"""Two channels as green and magenta, which the colour-blind tell apart, too."""


@dataclass
class Picture:
    """A drawing in layers.

    Parameters
    ----------
    name : str
        What part of the image it is.
    view : View
        What is shown.
    width, height : int
        As it is displayed, in proportion to the truth.
    image : str
        A data URI, empty where the image is not at hand.
    labels : Markup
        The layer above, as SVG.
    exact : bool
        Whether pixels are shown as they are.
    bar : tuple of float, str
        Length of a scale bar in widths of the picture, and what it stands for.
    frames : list of tuple of float
        Left, top, width and height of the parts that the next pictures show, as shares of this one.
    """

    name: str
    view: View
    width: int
    height: int
    image: str
    labels: Markup
    exact: bool
    bar: tuple[float, str]
    frames: list[tuple[float, float, float, float]] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Say which pixels are shown."""
        return f"x {self.view.left:,} to {self.view.right:,}, y {self.view.top:,} to {self.view.bottom:,}"


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of one plane of a series."""

    view: View
    image: str
    caption: str


def _uri(kind: str, content: bytes | bytearray) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def contrast(intensity: list[dict[str, Any]], time: int, channel: int) -> tuple[float, float]:
    """Give what is shown as black and white: percentiles of the whole image at a time point."""
    entry = next(entry for entry in intensity if (entry["time"], entry["channel"]) == (time, channel))
    low, *_, high = entry["percentiles"].values()
    return float(low), float(high)


def _paint(pixels: ImagePixels, view: View, plan: RunPlan, intensity: list[dict[str, Any]]) -> NDArray[np.uint8] | None:
    """Draw what the network saw: one channel in grey, two in green and magenta, three as red, green and blue."""
    channels = plan.channels if len(plan.channels) in (2, 3) else plan.channels[:1]
    planes = []
    for channel in channels:
        plane = pixels.at(view, channel)
        if plane is None:
            return None
        black, white = contrast(intensity, view.time, channel)
        if len(channels) == 3 and plan.source.dtype == "uint8":
            black, white = 0.0, 255.0
        # Halves, for the difference of two numbers that are hardly finite is not.
        scaled = np.clip((plane / 2 - black / 2) / max(white / 2 - black / 2, 5e-7), 0, 1)
        # The square root lets dim objects be seen; colours are left as they are.
        planes.append(np.sqrt(scaled) if len(channels) < 3 else scaled)
    if len(planes) == 1:
        return np.asarray(np.rint(planes[0] * 255), dtype=np.uint8)
    colours = np.tensordot(np.stack(planes, axis=-1), DUO, 1) if len(planes) == 2 else np.stack(planes, axis=-1)
    return np.asarray(np.rint(np.clip(colours, 0, 1) * 255), dtype=np.uint8)


def _colours(labels: NDArray[np.integer[Any]], classes: bool) -> NDArray[np.integer[Any]]:
    """Give which colour each label has, of those of objects or of classes."""
    return (labels - 1) % len(CLASS_COLOURS) if classes else labels % len(COLOURS)


def _rgb(labels: NDArray[np.integer[Any]], classes: bool) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = (CLASS_COLOURS if classes else COLOURS)[_colours(labels, classes)]
    return found


def _layer(labels: NDArray[np.integer[Any]], classes: bool, *, alone: bool) -> bytes:
    """Draw outlines, or what they enclose where that is hardly more, as PNG."""
    drawn = np.zeros((*labels.shape, 4), dtype=np.uint8)
    inside, outlines = labels > 0, find_boundaries(labels, mode="inner")
    if alone:
        drawn[inside, :3], drawn[inside, 3] = _rgb(labels[inside], classes) // 2, 255
    elif np.count_nonzero(outlines) > FILLED * np.count_nonzero(inside):
        drawn[inside, :3], drawn[inside, 3] = _rgb(labels[inside], classes), ALPHA
        return bytes(imagecodecs.png_encode(drawn, level=PNG_LEVEL))
    elif 4 * np.count_nonzero(outlines) < FILLED * np.count_nonzero(inside):
        # Large objects bear a line that is seen from afar.
        outlines = find_boundaries(labels, mode="thick")
        named = ndimage.maximum_filter(labels, 3)
        drawn[outlines, :3], drawn[outlines, 3] = _rgb(named[outlines], classes), 255
        return bytes(imagecodecs.png_encode(drawn, level=PNG_LEVEL))
    drawn[outlines, :3], drawn[outlines, 3] = _rgb(labels[outlines], classes), 255
    return bytes(imagecodecs.png_encode(drawn, level=PNG_LEVEL))


def _traced(labels: NDArray[np.integer[Any]], classes: bool) -> dict[int, str] | None:
    """Give outlines along the edges of pixels as paths, by the number of their colour; None if they are too many."""
    numbers, packed = np.unique(labels, return_inverse=True)
    packed = packed.reshape(labels.shape).astype(np.int32) + (0 if numbers[0] == 0 else 1)
    named = numbers[numbers > 0].tolist()
    if len(named) > MOST_TRACED:
        return None
    paths: dict[int, str] = {}
    for at, place in enumerate(ndimage.find_objects(packed), 1):
        top, left = place[0].start, place[1].start
        steps = []
        for polygon in outline(packed[place] == at):
            for ring in polygon:
                (x, y), *corners = ring
                steps.append(f"M{x + left} {y + top}")
                for to_x, to_y in corners[:-1]:
                    steps.append(f"h{to_x - x}" if to_y == y else f"v{to_y - y}")
                    x, y = to_x, to_y
                steps.append("z")
        colour = int(_colours(np.array(named[at - 1]), classes))
        paths[colour] = paths.get(colour, "") + "".join(steps)
    return paths if sum(map(len, paths.values())) <= MOST_PATH else None


def draw_picture(
    name: str,
    view: View,
    pixels: ImagePixels | None,
    labels: LabelPixels,
    plan: RunPlan,
    intensity: list[dict[str, Any]],
) -> Picture:
    """Draw a view.

    Parameters
    ----------
    name : str
        What part of the image it is.
    view : View
        The view.
    pixels : ImagePixels or None
        None draws the labels alone.
    labels : LabelPixels
        Of objects, or of classes.
    plan : RunPlan
        The result's.
    intensity : list of dict
        What the provenance says of intensities.
    """
    painted = None if pixels is None else _paint(pixels, view, plan, intensity)
    found = labels.at(view)
    exact = (view.height, view.width) == (view.bottom - view.top, view.right - view.left)
    aspect = 1.0
    if exact and plan.subject.unit is not None:
        aspect = plan.subject.spacing[-2] / plan.subject.spacing[-1]
        aspect = aspect if 1 / 8 <= aspect <= 8 else 1.0
    width, height = view.width, max(1, round(view.height * aspect))
    image = ""
    if painted is not None:
        grey = painted.ndim == 2 and exact and painted.size <= 2**17
        image = (_uri("png", imagecodecs.png_encode(painted, level=PNG_LEVEL)) if grey
                 else _uri("jpeg", imagecodecs.jpeg8_encode(painted, level=QUALITY)))  # fmt: skip
    traced = _traced(found, labels.classes) if exact and painted is not None and found.any() else None
    if traced is not None:
        lines = [
            Markup('<path class="{}{}" d="{}"/>').format("k" if labels.classes else "c", colour, path)
            for colour, path in sorted(traced.items())
        ]
        layer = Markup('<g class="lines" transform="scale(1 {})">{}</g>').format(
            f"{height / view.height:.6g}", Markup("").join(lines)
        )
    else:
        uri = _uri("png", _layer(found, labels.classes, alone=painted is None))
        layer = Markup('<image width="{}" height="{}" preserveAspectRatio="none" href="{}"/>').format(
            width, height, uri
        )
    return Picture(name, view, width, height, image, layer, exact, _bar(view, plan))


def _bar(view: View, plan: RunPlan) -> tuple[float, str]:
    """Choose a scale bar of about a quarter of the width."""
    unit = plan.subject.unit
    each = plan.subject.spacing[-1] / plan.footprint.scale[-1] if unit is not None else 1.0
    width = (view.right - view.left) * each
    measure = Measure(width / 4, unit, 1)
    length = nice_step(width * measure.factor, 4)
    return length / (width * measure.factor), measure(length / measure.factor)


def frame_parts(pictures: list[Picture]) -> None:
    """Mark in each picture where the next ones lie."""
    for at, picture in enumerate(pictures):
        view = picture.view
        high, wide = view.bottom - view.top, view.right - view.left
        for other in pictures[at + 1 :]:
            part = other.view
            picture.frames.append(
                ((part.left - view.left) / wide, (part.top - view.top) / high, (part.right - part.left) / wide,
                 (part.bottom - part.top) / high)
            )  # fmt: skip


def draw_thumbnail(
    view: View,
    pixels: ImagePixels | None,
    labels: LabelPixels,
    plan: RunPlan,
    intensity: list[dict[str, Any]],
    caption: str,
) -> Thumbnail:
    """Draw a view small, all in one layer."""
    painted = None if pixels is None else _paint(pixels, view, plan, intensity)
    base = np.zeros((view.height, view.width), dtype=np.uint8) if painted is None else painted
    drawn = np.repeat(base[..., None], 3, axis=2) if base.ndim == 2 else base.copy()
    found = labels.at(view)
    outlines = find_boundaries(found, mode="inner")
    drawn[outlines] = _rgb(found[outlines], labels.classes)
    return Thumbnail(view, _uri("jpeg", imagecodecs.jpeg8_encode(drawn, level=QUALITY)), caption)
