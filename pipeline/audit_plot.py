"""A picture of the seam audit: the share of objects' boundaries on planes near seams. An SVG, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["draw_audit", "why_no_plot", "write_plot"]

WIDTH, HEIGHT = 420, 240
"""Of one panel."""

LEFT, RIGHT, TOP, BOTTOM = 56, 12, 48, 44


def why_no_plot(report: dict[str, Any]) -> str | None:
    """Say why there is nothing to draw, if so.

    Parameters
    ----------
    report : dict
        The ``audit`` of a provenance.
    """
    if "seams" not in report:
        return "the run made no audit"
    if report["seams"] is None:
        return "the result has no objects"
    if not report["seams"]["profile"]:
        return "the image is a single tile and has no seams"
    return None


def draw_audit(report: dict[str, Any], title: str) -> str:
    """Draw how often planes between pixels are boundaries of objects, by their distance to the seam.

    Parameters
    ----------
    report : dict
        The ``audit`` of a provenance.
    title : str
        Stands above.

    Returns
    -------
    str
        An SVG with a panel for each axis that has seams: bars by distance, the one on the seam in another colour, and
        a dashed line for planes half a core away.

    Raises
    ------
    StoreError
        If the report has nothing about seams between objects.
    """
    if (why := why_no_plot(report)) is not None:
        raise StoreError(f"{title}: there is nothing to draw: {why}")
    seams = report["seams"]
    halfway = {row["axis"]: row["straight"] for row in seams["table"] if row["where"] == "halfway"}
    top = max([*halfway.values(), *(max(found["straight"]) for found in seams["profile"].values())])
    panels = [
        _panel(axis, found["offset"], found["straight"], halfway[axis], top or 1.0, number * WIDTH)
        for number, (axis, found) in enumerate(sorted(seams["profile"].items()))
    ]
    width = WIDTH * len(panels)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
            f'height="{HEIGHT}" font-family="sans-serif" font-size="11" fill="#333">',
            f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>',
            f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(title)}</text>',
            *panels,
            "</svg>",
            "",
        ]
    )


def _panel(axis: str, offsets: list[int], shares: list[float], elsewhere: float, top: float, shift: int) -> str:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = width / len(offsets)

    def level(share: float) -> float:
        return TOP + height * (1 - share / top)

    lines = [f'<g transform="translate({shift} 0)">', f'<text x="{LEFT}" y="38">seams along {axis}</text>']
    for share in (0.0, top / 2, top):
        lines.append(f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{level(share):.1f}" y2="{level(share):.1f}" '
                     'stroke="#ddd"/>')  # fmt: skip
        lines.append(f'<text x="{LEFT - 6}" y="{level(share) + 4:.1f}" text-anchor="end">{100 * share:.2g} %</text>')
    for number, (offset, share) in enumerate(zip(offsets, shares, strict=True)):
        colour = "#c2410c" if offset == 0 else "#94a3b8"
        lines.append(f'<rect x="{LEFT + (number + 0.1) * step:.2f}" y="{level(share):.2f}" width="{0.8 * step:.2f}" '
                     f'height="{TOP + height - level(share):.2f}" fill="{colour}"/>')  # fmt: skip
        if offset in (offsets[0], 0, offsets[-1]):
            lines.append(f'<text x="{LEFT + (number + 0.5) * step:.2f}" y="{TOP + height + 14}" '
                         f'text-anchor="middle">{offset}</text>')  # fmt: skip
    lines.append(f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{level(elsewhere):.2f}" y2="{level(elsewhere):.2f}" '
                 'stroke="#1d4ed8" stroke-dasharray="5 3"/>')  # fmt: skip
    lines.append(f'<text x="{LEFT + width / 2}" y="{HEIGHT - 10}" text-anchor="middle">pixels from the seam; share of '
                 'planes with an object that end one; dashed: far from seams</text>')  # fmt: skip
    return "\n".join([*lines, "</g>"])


def write_plot(path: Path, report: dict[str, Any], title: str) -> None:
    """Write `draw_audit` to a file.

    Raises
    ------
    StoreError
        If there is nothing to draw, the file has another suffix than ``.svg``, or the disk refuses.
    """
    if path.suffix.lower() != ".svg":
        raise StoreError(f"{path}: plots are drawn as SVG; give a file name that ends in .svg")
    drawn = draw_audit(report, title)
    try:
        path.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from error
