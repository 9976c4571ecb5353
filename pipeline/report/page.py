"""The page about a result, put together from its parts. All that comes from files is escaped, by markupsafe."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pipeline.printing import printable
from pipeline.report.audited import describe_audit, judge_audit, tabulate
from pipeline.report.charts import bars, timeline
from pipeline.report.figures import draw_figures
from pipeline.report.intensities import look_at
from pipeline.report.objects import class_areas, histogram, read_objects
from pipeline.report.pixels import LabelPixels, open_pixels
from pipeline.report.style import STYLE
from pipeline.report.tiles import describe_map, describe_network, draw_maps
from pipeline.report.words import across, duration, extent, number, plural, share, size_measure
from pipeline.skip_jobs import describe_skipped
from pipeline.stores.publish import noted_damage

if TYPE_CHECKING:
    from pipeline.planning import RunPlan
    from pipeline.report.objects import Objects
    from pipeline.report.pixels import ImagePixels
    from pipeline.results import Result

__all__ = ["draw_page"]

LONGEST = 60_000
"""Letters of the provenance that are shown."""


def draw_page(result: Result, plan: RunPlan) -> str:
    """Draw the page about a result.

    Parameters
    ----------
    result : Result
        A finished one.
    plan : RunPlan
        Its plan.

    Returns
    -------
    str
        HTML that needs nothing beside itself, and may load nothing.

    Raises
    ------
    SeamfreeError
        If the result cannot be read.
    """
    provenance = result.provenance
    objects = read_objects(result.path, plan) if result.objects is not None and plan.table else None
    counted = LabelPixels(result.semantic, plan, classes=True)
    with open_pixels(result, plan) as (pixels, why):
        shown = LabelPixels(result.instances, plan) if result.instances else counted
        what = "outlines of objects" if result.instances else "outlines of classes"
        figures = draw_figures(pixels, shown, plan, provenance["intensity"], what)
        intensities = _intensities(pixels, plan, provenance["intensity"])
    if why is not None:
        figures = Markup('<p class="note">The image is not shown, only the labels: {}.</p>{}').format(
            printable(why), figures
        )
    sections = [
        _section("The image, and what was found in it", figures),
        _section("Objects", _objects(plan, objects)) if objects is not None and objects.count else Markup(""),
        _section("Classes", _classes(counted, plan)),
        _section("Intensities", intensities),
        _section("Seam audit", describe_audit(plan, provenance["audit"], provenance.get("overlap"))),
        _section("Time", _times(plan, provenance)),
        _section("How to open the result", _opening(result)),
        _section("How it came about", _provenance(plan, provenance)),
    ]
    name = printable(result.path.name.removesuffix(".ome.zarr"))
    allowed = b64encode(sha256(STYLE.encode()).digest()).decode()
    page = Markup(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
        "'sha256-{}'; base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        "<title>{} · seamfree</title><style>{}</style></head><body><main>{}{}"
        "<footer>Written by seamfree {}. This page loads nothing and runs nothing.</footer></main></body></html>\n"
    ).format(allowed, name, Markup(STYLE), _head(name, plan, result, objects), Markup("\n").join(sections),
             provenance["seamfree"])  # fmt: skip
    return str(page)


def _section(title: str, content: Markup) -> Markup:
    return Markup("<section><h2>{}</h2>{}</section>").format(title, content)


def _head(name: str, plan: RunPlan, result: Result, objects: Objects | None) -> Markup:
    """Say in a few lines what was found, and whether it can be relied on."""
    kind, word, sentence = judge_audit(plan, result.provenance["audit"])
    facts = [("Image", f"{plan.source.shape[4]:,} × {plan.source.shape[3]:,}", "")]
    if result.objects is not None:
        facts.append(("Objects", f"{result.objects:,}", ""))
    if objects is not None and objects.count:
        each, measure = size_measure(plan, objects.percentile(50))
        facts.append(("Median size", measure(objects.percentile(50) * each), ""))
    facts.append(("Seam audit", word, kind))
    damaged = noted_damage(result.path)
    note = Markup('<p class="note bad">The result is known to be damaged: {}.</p>').format(", ".join(damaged))
    page = Markup('<header><h1><bdi>{}</bdi></h1><p>{}</p><p class="{}">{}</p>{}<dl class="facts">{}</dl></header>')
    return page.format(
        name, _summary(plan, result), kind, sentence, note if damaged else "",
        Markup("").join(
            Markup('<div><dt>{}</dt><dd class="{}">{}</dd></div>').format(title, style, value)
            for title, value, style in facts
        ),
    )  # fmt: skip


def _summary(plan: RunPlan, result: Result) -> str:
    """Say in one or two sentences what was segmented, and how."""
    times, channels, planes, height, width = plan.source.shape
    parts = [plural(count, what) for count, what in ((times, "time point"), (planes, "plane"), (channels, "channel"))
             if count > 1]  # fmt: skip
    truth = extent((width, height), plan.source.pixel_size[:2:-1], plan.source.units[:2:-1])
    image = f"an image of {width:,} × {height:,} pixels"
    image += f" ({truth})" if truth else ""
    image += f", {', '.join(parts)}" if parts else ""
    if result.objects is None:
        return f"The classes {', '.join(plan.classes)} were told apart in {image}, by {printable(plan.model)}."
    named = [plan.classes[at] for at in plan.object_classes if at < len(plan.classes)]
    of = f" of class {' or '.join(named)}" if named else ""
    found = plural(result.objects, "object") if result.objects else "No object"
    verb = "was" if result.objects in (0, 1) else "were"
    each = " Each plane was segmented by itself." if planes * times > 1 and plan.spatial_ndim == 2 else ""
    return f"{found}{of} {verb} found in {image}, by {printable(plan.model)}.{each}"


def _objects(plan: RunPlan, objects: Objects) -> Markup:
    """Draw sizes, and say how they are spread."""
    each, measure = size_measure(plan, objects.percentile(50))
    edges, counts, larger = histogram(objects)
    middle = objects.percentile(50)
    name = "area" if plan.spatial_ndim == 2 else "volume"
    by = each * measure.factor
    plot = bars(
        [edge * by for edge in edges], counts,
        f"Histogram of {name}: {plural(objects.count, 'object')}, median {measure(middle * each)}",
        f"{name} ({measure.sign})", [(middle * by, f"median {number(middle * by)}")],
    )  # fmt: skip
    low, high = (measure(objects.percentile(at) * each) for at in (5, 95))
    wide = across(middle, plan.spatial_ndim)
    round_one = "disk" if plan.spatial_ndim == 2 else "ball"
    lines = [
        f"The median {name} is {measure(middle * each)}, that of a {round_one} {number(float(f'{wide:.3g}'))} pixels "
        f"across; nine in ten objects have {low} to {high}.",
        f"{objects.touching:,} of {objects.count:,} objects touch the edge of the image, and may go on beyond it.",
    ]
    if larger:
        lines.append(f"{plural(larger, 'object')} with more than {number(edges[-1] * by)} {measure.sign} not drawn.")
    content = Markup("").join(Markup("<p>{}</p>").format(line) for line in lines)
    if len(objects.classes) > 1:
        content += tabulate(("class", "objects", "share"), [
            (printable(kind), f"{count:,}", share(count, objects.count))
            for kind, count in objects.classes.most_common(20)
        ])  # fmt: skip
    content += _series(plan, objects)
    return Markup('<div class="pair"><div>{}</div><div>{}</div></div>').format(plot, content)


def _series(plan: RunPlan, objects: Objects) -> Markup:
    """Draw how many objects there are along T and Z."""
    plots = []
    for axis, counts in objects.series.items():
        length = plan.label_shape["tz".index(axis)]
        if length < 2:
            continue
        step = -(-length // 128)
        found = [sum(counts.get(at, 0) for at in range(start, min(start + step, length)))
                 for start in range(0, length, step)]  # fmt: skip
        edges = [start * step - 0.5 for start in range(len(found) + 1)]
        plots.append(bars(edges, found, f"Objects along {axis}", f"objects by {axis}", whole=True))
    return Markup("").join(plots)


def _classes(labels: LabelPixels, plan: RunPlan) -> Markup:
    counts, left_out = class_areas(labels, len(plan.classes))
    total = sum(counts)
    note = (
        "" if left_out <= 1 else Markup('<p class="soft">Estimated from one of {} pixels.</p>').format(f"{left_out:,}")
    )
    rows = [(printable(name), share(count, total), f"{count * max(left_out, 1):,}")
            for name, count in zip(plan.classes, counts, strict=True)]  # fmt: skip
    return tabulate(("class", "share of the image", "pixels"), rows) + note


def _intensities(pixels: ImagePixels | None, plan: RunPlan, intensity: list[dict[str, Any]]) -> Markup:
    """Draw a histogram of each channel that the network saw, and say how intensities were scaled."""
    plots = []
    for channel in plan.channels[:4] if pixels is not None else ():
        assert pixels is not None
        found = look_at(pixels, plan, intensity, channel)
        entry = next(entry for entry in intensity if entry["channel"] == channel)
        if found is None:
            continue
        marks = [(float(value), f"{float(at):g} %") for at, value in entry["percentiles"].items()]
        name = printable(plan.source.channel_names[channel])
        plot = bars(found.edges, found.counts, f"Histogram of intensities, {name}", f"intensity, {name}",
                    marks[:1] + marks[-1:], (marks[0][0], marks[-1][0]), logarithmic=True)  # fmt: skip
        beyond = [
            f"{share(count, found.looked_at)} {how}"
            for count, how in ((found.darker, "darker"), (found.brighter, "brighter"))
            if count
        ]  # fmt: skip
        words = f"{found.looked_at:,} pixels looked at, heights are logarithms"
        words += f"; not drawn: {', '.join(beyond)}" if beyond else ""
        plots.append(Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(plot, words))
    rows = [
        (entry["time"], printable(plan.source.channel_names[entry["channel"]]), number(entry["mean"]),
         number(entry["std"]),
         ", ".join(f"{float(at):g} %: {number(value)}" for at, value in entry["percentiles"].items()),
         f"{entry['left_out']:,}")
        for entry in intensity[:20]
    ]  # fmt: skip
    method = {
        "percentile": "the first percentile as 0 and the last as 1, those of the whole image",
        "mean_std": "the mean as 0 and a standard deviation as 1, those of the whole image",
        "none": "the intensities as they are",
    }.get(plan.intensity.method, plan.intensity.method)
    method = f"The {'function' if plan.instances == 'overlap' else 'network'} was given {method}."
    more = f"{len(intensity) - len(rows):,} more are in seamfree.json." if len(intensity) > len(rows) else ""
    head = ("time", "channel", "mean", "deviation", "percentiles", "not finite")
    return Markup('<p>{}</p><div class="pair">{}</div>{}<p class="soft">{}</p>').format(
        method, Markup("").join(plots), tabulate(head, rows), more
    )


def _times(plan: RunPlan, provenance: dict[str, Any]) -> Markup:
    timings = provenance["timings"]
    stages = [(name, float(seconds)) for name, seconds in timings["stages"].items() if seconds is not None]
    total = sum(seconds for _, seconds in stages)
    line = f"{duration(total)} from the first stage to the last, before publication."
    if len(stages) < len(timings["stages"]):
        line += " Stages without a time were done by an earlier run."
    parts = [Markup("<p>{}</p>").format(line), timeline(stages, duration) if stages else Markup("")]
    maps = draw_maps(plan, timings)
    if maps:
        drawn = maps[0].drawing
        rows = [(found.name, duration(found.seconds), found.low, found.high) for found in maps]
        table = tabulate(("time of tiles for", "in all", "least", "most"), rows)
        parts.append(
            Markup(
                '<h3>Time of each tile</h3><div class="pair"><figure>{}<figcaption>{}</figcaption></figure>{}</div>'
            ).format(
                drawn if drawn is not None else "",
                f"{describe_map(timings['tile_map'])}; the farther from the ground's colour, the slower", table,
            )
        )  # fmt: skip
    lines = describe_network(timings)
    if skipped := provenance.get("skipped"):
        lines.append(f"{describe_skipped(skipped)}.")
    if lines:
        parts.append(Markup("<h3>The network's time</h3><p>{}</p>").format(" ".join(lines)))
    check = provenance["self_check"]
    if "not_made" in check:
        words = f"The self-check before the run was not made: {check['not_made']}."
    else:
        words = (
            f"Before the run, two tiles were held against one larger pass: {check['pixels']:,} pixels, scores differ "
            f"by at most {check['difference']:.1e}; {check['tolerance']:.0e} is what rounding may do."
        )
    parts.append(Markup("<h3>Self-check</h3><p>{}</p>").format(words))
    return Markup("").join(parts)


def _opening(result: Result) -> Markup:
    name = printable(result.path.name)
    quoted = "'" + name.replace("'", "'\\''") + "'"
    lines = [
        ("In napari, with the plugin napari-ome-zarr", f"napari --plugin napari-ome-zarr {quoted}"),
        ("In Python", f"from pipeline import open_result\n\nresult = open_result({name!r})\n"
                      + f"labels = result.{'instances' if result.instances else 'semantic'}[0][:]\n"
                      + ("table = result.table" if (result.path / "tables").is_dir() else "")),
        ("Its metadata, checksums and seams again", f"seamfree verify {quoted}"),
    ]  # fmt: skip
    if result.instances:
        lines.insert(2, ("Outlines for QuPath", f"seamfree export {quoted} --geojson objects.geojson"))
    return Markup("").join(
        Markup("<p>{}:</p><pre><code>{}</code></pre>").format(title, text.strip()) for title, text in lines
    )


def _provenance(plan: RunPlan, provenance: dict[str, Any]) -> Markup:
    rows = [
        ("input", plan.source.path), ("model", plan.model), ("weights", plan.weights_sha256),
        ("method for objects", plan.instances), ("tile", " × ".join(map(str, plan.core[4 - plan.spatial_ndim :]))),
        ("tiles", f"{len(plan.tiles):,}"), ("precision", plan.precision), ("device", plan.device),
        ("plan", provenance["digest"]), ("seamfree", provenance["seamfree"]),
    ]  # fmt: skip
    table = Markup("").join(
        Markup('<tr><td>{}</td><td class="text">{}</td></tr>').format(name, printable(str(value)))
        for name, value in rows
    )
    shown = {name: value for name, value in provenance.items() if name not in ("checksums", "overlap")}
    text = json.dumps(shown, indent=1)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}\n... the rest is in seamfree.json"
    return Markup(
        '<div class="wide"><table><tbody>{}</tbody></table></div>'
        "<details><summary>All that is known of the run</summary><pre>{}</pre></details>"
    ).format(table, text)
