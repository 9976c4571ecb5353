"""The pictures on the page: the image, the outlines above it, frames and a scale bar, in one drawing each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from pipeline.report.choosing import choose_plane, choose_strip, choose_zooms
from pipeline.report.pictures import draw_picture, draw_thumbnail, frame_parts

if TYPE_CHECKING:
    from typing import Any

    from pipeline.planning import RunPlan
    from pipeline.report.pictures import Picture
    from pipeline.report.pixels import ImagePixels, LabelPixels

__all__ = ["draw_figures"]

NAMES = {1: ("The whole plane",), 2: ("The whole plane", "Close up"), 3: ("The whole plane", "A part", "Close up")}


def draw_figures(
    pixels: ImagePixels | None, labels: LabelPixels, plan: RunPlan, intensity: list[dict[str, Any]], what: str
) -> Markup:
    """Draw the plane with most objects at up to three zooms, and a strip of others where there are some.

    Parameters
    ----------
    pixels : ImagePixels or None
        None draws the labels alone.
    labels : LabelPixels
        Of objects, or of classes.
    plan : RunPlan
        The result's.
    intensity : list of dict
        What the provenance says of intensities.
    what : str
        What the labels are.
    """
    time, plane = choose_plane(labels, plan)
    views = choose_zooms(labels, plan, time, plane)
    pictures = [draw_picture(name, view, pixels, labels, plan, intensity)
                for name, view in zip(NAMES[len(views)], views, strict=True)]  # fmt: skip
    frame_parts(pictures)
    where = _where(plan, time, plane)
    first, *rest = [_figure(picture, where, what) for picture in pictures]
    strip = Markup("")
    if chosen := choose_strip(plan, time, plane):
        axis = "z" if plan.source.shape[2] > plan.source.shape[0] else "t"
        small = [
            draw_thumbnail(view, pixels, labels, plan, intensity, f"{axis} {view.plane if axis == 'z' else view.time}")
            for view in chosen
        ]
        strip = Markup('<h3>Along {}</h3><div class="strip">{}</div>').format(
            axis.upper(),
            Markup("").join(
                Markup('<figure><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>').format(
                    thumbnail.image, f"{what} at {thumbnail.caption}", thumbnail.caption
                )
                for thumbnail in small
            ),
        )
    return Markup(
        '<input type="checkbox" id="outlines" checked> <label for="outlines">show {}</label>'
        '<div>{}<div class="pair">{}</div></div>{}'
    ).format(what, first, Markup("").join(rest), strip)


def _where(plan: RunPlan, time: int, plane: int) -> str:
    times, _, planes, *_ = plan.source.shape
    return "".join([f"t {time}, " if times > 1 else "", f"z {plane}, " if planes > 1 else ""])


def _figure(picture: Picture, where: str, what: str) -> Markup:
    width, height = picture.width, picture.height
    image = (
        Markup('<image width="{}" height="{}" preserveAspectRatio="none" href="{}"/>').format(
            width, height, picture.image
        )
        if picture.image
        else Markup("")
    )
    frames = Markup("").join(
        Markup('<rect class="frame" x="{}" y="{}" width="{}" height="{}"/>').format(
            *(f"{share * of:.1f}" for share, of in zip(frame, (width, height, width, height), strict=True))
        )
        for frame in picture.frames
    )
    length, words = picture.bar
    bar = Markup('<line class="scale" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        f"{0.03 * width:.1f}", f"{height - 0.03 * width:.1f}", f"{(0.03 + length) * width:.1f}",
        f"{height - 0.03 * width:.1f}",
    )  # fmt: skip
    place = f"{where}{picture.place}"
    return Markup(
        '<figure><svg class="picture{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}<g class="over">{}</g>{}{}'
        "</svg><figcaption>{}: {}; the bar is {}</figcaption></figure>"
    ).format(
        " exact" if picture.exact else "", width, height, f"{picture.name}, {place}, with {what}", image,
        picture.labels, frames, bar, picture.name, place, words,
    )  # fmt: skip
