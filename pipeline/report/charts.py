"""Plots as SVG in the page: colours come from its style sheet, so that they suit light, dark and paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, log10

from markupsafe import Markup

from pipeline.report.words import nice_step, number, short

__all__ = ["Heat", "bars", "heat_map", "seam_profile", "timeline"]

WIDTH, HEIGHT = 400, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 22, 40

LETTER = 6.5
"""Width of a digit."""

SHADES = 8
"""Of a heat map."""


def _svg(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        f"{width:g}", f"{height:g}", label, Markup("").join(parts)
    )


def _text(x: float, y: float, text: str, kind: str = "") -> Markup:
    return Markup('<text x="{}" y="{}"{}>{}</text>').format(
        f"{x:.1f}", f"{y:.1f}", Markup(' class="{}"').format(kind) if kind else "", text
    )


def _rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> Markup:
    inside = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}">{}</rect>').format(
        f"{x:.2f}", f"{y:.2f}", f"{max(width, 0):.2f}", f"{max(height, 0):.2f}", kind, inside
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(
        f"{x1:.1f}", f"{y1:.1f}", f"{x2:.1f}", f"{y2:.1f}", kind
    )


def _axes(
    values: Sequence[float], y_of: Callable[[float], float], x_label: str, y_text: Callable[[float], str]
) -> list[Markup]:
    """Draw horizontal lines at some values, and the words below."""
    parts = []
    for value in values:
        y = y_of(value)
        parts += [
            _line(LEFT, y, WIDTH - RIGHT, y, "grid" if value else "base"),
            _text(LEFT - 6, y + 4, y_text(value), "end"),
        ]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "mid soft"))
    return parts


def _round_values(top: float, least: float = 0.0) -> list[float]:
    """Give some round values up to a highest one, not closer to each other than the least distance."""
    step = max(nice_step(top, 3), least)
    return [at * step for at in range(int(top / step + 1e-9) + 1)]


def _tick_step(span: float, largest: float, width: float) -> float:
    """Give the distance of the numbers below a plot: as near to each other as leaves room between them."""
    for pieces in (5, 4, 3, 2):
        step = nice_step(span, pieces)
        letters = max(len(number(step)), len(number(largest // step * step)))
        if (span / step + 1) * (LETTER * letters + LETTER) <= width:
            return step
    return nice_step(span, 1)


def bars(
    edges: Sequence[float],
    counts: Sequence[int],
    label: str,
    x_label: str,
    marks: Sequence[tuple[float, str]] = (),
    shaded: tuple[float, float] | None = None,
    *,
    whole: bool = False,
    logarithmic: bool = False,
) -> Markup:
    """Draw a histogram.

    Parameters
    ----------
    edges, counts : sequence
        Of the bins; one edge more than counts.
    label : str
        What is read to who cannot see it.
    x_label : str
        Stands below.
    marks : sequence of (float, str)
        Places that are marked by a line, with words above.
    shaded : tuple of float, optional
        A range behind the bars.
    whole : bool
        Whether only whole numbers make sense on the axis below.
    logarithmic : bool
        Whether heights are logarithms, so that few beside very many are seen.
    """
    first, last = edges[0], edges[-1]
    span, top = (last - first) or 1.0, max(max(counts, default=0), 1)
    logarithmic = logarithmic and top > 100
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_of(value: float) -> float:
        return LEFT + inner_width * (min(max(value, first), last) - first) / span

    def y_of(value: float) -> float:
        height = log10(1 + value) / log10(1 + top) if logarithmic else value / top
        return TOP + inner_height * (1 - height)

    parts = []
    if shaded is not None:
        parts.append(_rect(x_of(shaded[0]), TOP, x_of(shaded[1]) - x_of(shaded[0]), inner_height, "shade"))
    # Counts are whole, and so are their lines.
    lines = [0.0, *(10.0**at for at in range(1, ceil(log10(top))))] if logarithmic else _round_values(top, 1.0)
    parts += _axes(lines, y_of, x_label, short)
    # One path for all bars keeps the page small.
    steps = [f"M{x_of(low) + 0.4:.1f} {y_of(0):.1f}V{y_of(count):.1f}H{x_of(high) - 0.4:.1f}V{y_of(0):.1f}z"
             for low, high, count in zip(edges, edges[1:], counts, strict=False) if count]  # fmt: skip
    parts.append(Markup('<path class="bar" d="{}"/>').format("".join(steps)))
    step = _tick_step(span, max(abs(first), abs(last)), inner_width)
    step = max(step, 1.0) if whole else step
    at = ceil(first / step - 1e-9)
    while at * step <= last + 1e-9 * span:
        text = number(at * step)
        # The last one ends with the plot where it would be cut off.
        x = min(x_of(at * step), WIDTH - LETTER * len(text) / 2)
        parts.append(_text(x, HEIGHT - 24, text, "mid"))
        at += 1
    for place, text in marks:
        x = x_of(place)
        kind = "end" if x > WIDTH * 0.6 else ""
        parts += [
            _line(x, TOP - 4, x, y_of(0), "mark"),
            _text(x + (-5 if kind else 5), TOP - 8, text, f"{kind} strong"),
        ]
    return _svg(WIDTH, HEIGHT, label, parts)


def seam_profile(axis: str, offsets: Sequence[int], shares: Sequence[float], elsewhere: float) -> Markup:
    """Draw how often planes between pixels are boundaries of objects, by their distance to the seam.

    Parameters
    ----------
    axis : str
        Along which tiles meet.
    offsets : sequence of int
        Pixels from the seam.
    shares : sequence of float
        Of the planes with an object on a side, how many end one.
    elsewhere : float
        The share half a tile away from seams.
    """
    top = max(1.15 * max(*shares, elsewhere), 0.01)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = inner_width / len(offsets)

    def y_of(value: float) -> float:
        return TOP + inner_height * (1 - value / top)

    parts = _axes(
        _round_values(top), y_of, f"pixels from the seam, along {axis}", lambda value: f"{number(100 * value)} %"
    )
    for at, (offset, value) in enumerate(zip(offsets, shares, strict=True)):
        x, kind = LEFT + at * step, "here" if offset == 0 else "bar"
        title = f"{offset} pixels from the seam: {number(100 * value)} %"
        parts.append(_rect(x + 0.1 * step, y_of(value), 0.8 * step, y_of(0) - y_of(value), kind, title))
        if offset % 4 == 0:
            parts.append(_text(x + step / 2, HEIGHT - 24, str(offset), "mid"))
    parts += [_line(LEFT, y_of(elsewhere), WIDTH - RIGHT, y_of(elsewhere), "mark dashed"),
              _text(WIDTH - RIGHT, TOP - 8, "dashed: half a tile from any seam", "end soft")]  # fmt: skip
    label = (
        f"Share of boundaries by distance to the seam along {axis}: {number(100 * shares[list(offsets).index(0)])} % "
        f"on it, {number(100 * elsewhere)} % half a tile away"
    )
    return _svg(WIDTH, HEIGHT, label, parts)


def timeline(stages: Sequence[tuple[str, float]], text: Callable[[float], str]) -> Markup:
    """Draw stages one after the other, each in a row of its own.

    Parameters
    ----------
    stages : sequence of (str, float)
        Names and seconds.
    text : callable
        Gives a time in words.
    """
    row, left, right = 18, 76, 58
    total = sum(seconds for _, seconds in stages) or 1.0
    width, height = WIDTH - left - right, row * len(stages)
    parts, begun = [], 0.0
    for at, (name, seconds) in enumerate(stages):
        x, wide = left + width * begun / total, max(width * seconds / total, 1.5)
        middle = at * row + row / 2
        parts += [_text(left - 8, middle + 4, name, "end"), _line(left, middle, x, middle, "grid"),
                  _rect(x, middle - 5, wide, 10, "bar"),
                  _text(x + wide + 5, middle + 4, text(seconds), "soft")]  # fmt: skip
        begun += seconds
    longest = max(stages, key=lambda stage: stage[1])
    label = f"{len(stages)} stages in {text(total)}; the longest is {longest[0]}, {text(longest[1])}"
    return _svg(WIDTH, height, label, parts)


class Heat:
    """Values of a map as shades, from the lowest to the highest.

    Parameters
    ----------
    values : sequence of float
        What there is.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.low, self.high = min(values), max(values)

    def shade(self, value: float) -> int:
        """Give one of `SHADES`."""
        if self.high <= self.low:
            return SHADES // 2
        return min(int((value - self.low) / (self.high - self.low) * SHADES), SHADES - 1)


def heat_map(
    rows: Sequence[Sequence[float]],
    y_edges: Sequence[int],
    x_edges: Sequence[int],
    label: str,
    title: Callable[[int, int], str],
) -> Markup:
    """Draw a map of rectangles, in the proportions of the image.

    Parameters
    ----------
    rows : sequence of sequence of float
        A value for each.
    y_edges, x_edges : sequence of int
        Where they end, in pixels of the labels; one more than values.
    label : str
        What is read to who cannot see it.
    title : callable
        Gives what is told of the one in a row and column, where they are few enough to point at.
    """
    heat = Heat([value for row in rows for value in row])
    by = 320 / max(x_edges[-1], y_edges[-1])
    cells = [
        (
            x_edges[x] * by,
            y_edges[y] * by,
            (x_edges[x + 1] - x_edges[x]) * by,
            (y_edges[y + 1] - y_edges[y]) * by,
            heat.shade(value),
            y,
            x,
        )
        for y, row in enumerate(rows)
        for x, value in enumerate(row)
    ]
    gap = 1.0 if len(cells) <= 400 else 0.0
    if len(cells) <= 400:
        parts = [_rect(x, y, wide - gap, high - gap, f"q{shade}", title(row, column))
                 for x, y, wide, high, shade, row, column in cells]  # fmt: skip
    else:
        paths: dict[int, list[str]] = {}
        for x, y, wide, high, shade, *_ in cells:
            paths.setdefault(shade, []).append(f"M{x:.1f} {y:.1f}h{wide:.1f}v{high:.1f}h-{wide:.1f}z")
        parts = [
            Markup('<path class="q{}" d="{}"/>').format(shade, "".join(steps)) for shade, steps in sorted(paths.items())
        ]
    return _svg(x_edges[-1] * by, y_edges[-1] * by, label, parts)
