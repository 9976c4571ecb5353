"""The seam audit on the page: what was computed again, how objects end at seams, and what is in doubt, by place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pipeline.audit import describe_report
from pipeline.audit_plot import why_no_plot
from pipeline.labels.components import AXES
from pipeline.report.charts import seam_profile
from pipeline.report.words import number, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.planning import RunPlan

__all__ = ["TITLES", "describe_audit", "judge_audit", "tabulate"]

SHOWN = 25
"""Entries of a list; the provenance has more."""


TITLES = {
    "faults": "Faults",
    "ambiguous": "Pairs of objects in doubt",
    "too_large_to_part": "Components too large to be parted into objects",
}
"""Of the lists of places, by their names in the provenance."""


def tabulate(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Draw a table that scrolls where it is too wide."""
    return Markup('<div class="wide"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        Markup("").join(Markup("<th>{}</th>").format(name) for name in head),
        Markup("").join(
            Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
            for row in rows
        ),
    )


def judge_audit(plan: RunPlan, audit: dict[str, Any]) -> tuple[str, str, str]:
    """Give the kind of the verdict, a word for it, and a sentence."""
    if plan.seams is not None:
        return "care", "seams possible", (
            f"{_sentence(plan.seams.replace(': not local: ', ': '))}. The run was told to tile this network "
            "nevertheless, with --allow-nonlocal."
        )  # fmt: skip
    if "windows" not in audit:
        return "care", "not made", "No audit was made: the run was told to leave it out."
    if audit["passed"] is False:
        return "bad", "failed", "The audit failed: parts of the result depend on the tiles."
    if audit["passed"] is None:
        return "care", "undecided", f"The audit found no fault, but could not decide: {describe_report(audit)}."
    windows = audit["windows"]
    if "ambivalent" in windows:
        where = f"around {plural(windows['number'], 'place')} on the seams of tiles"
        return "good", "passed", f"The audit passed: called again {where}, the function finds what the result holds."
    return "good", "passed", (
        f"The audit passed: {plural(windows['number'], 'window')} on the seams of tiles, {windows['pixels']:,} pixels, "
        "were computed again and are as without tiles."
    )  # fmt: skip


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def describe_audit(plan: RunPlan, audit: dict[str, Any], matched: dict[str, Any] | None = None) -> Markup:
    """Draw the section about the audit.

    Parameters
    ----------
    plan : RunPlan
        The result's.
    audit, matched : dict
        What the provenance says under ``audit`` and, where a function found the objects, under ``overlap``.
    """
    kind, _, sentence = judge_audit(plan, audit)
    parts = [Markup('<p class="{}">{}</p>').format(kind, sentence)]
    if "windows" in audit:
        parts.append(Markup('<p class="soft">{}.</p>').format(_sentence(describe_report(audit))))
    if matched is not None:
        parts.append(
            Markup('<p class="soft">Where windows overlap, {} made one; {} kept apart, {} in doubt.</p>').format(
                plural(matched["merged"], "pair of views of an object was", "pairs of views of an object were"),
                plural(matched["apart"], "was", "were"),
                plural(matched["ambiguous"], "is", "are"),
            )
        )
    if (why := why_no_plot(audit)) is None:
        seams = audit["seams"]
        halfway = {row["axis"]: row["straight"] for row in seams["table"] if row["where"] == "halfway"}
        plots = [seam_profile(axis, found["offset"], found["straight"], halfway[axis])
                 for axis, found in sorted(seams["profile"].items())]  # fmt: skip
        parts.append(
            Markup(
                '<h3>Objects that end at seams</h3><p class="soft">Of the planes between pixels with an object on a '
                "side, the share where it ends. Were tiles to cut objects, the bar at 0 would stand out.</p>"
                '<div class="pair">{}</div>'
            ).format(Markup("").join(plots))
        )
        parts.append(_table(seams["table"]))
        if seams["chance"] is not None:
            parts.append(
                Markup(
                    '<p class="soft">So many ends at seams, or more, are found by chance in {} % of images.</p>'
                ).format(number(100 * float(f"{seams['chance']:.2g}")))
            )
    elif "windows" in audit:
        parts.append(Markup('<p class="soft">There is no plot of seams: {}.</p>').format(why))
    parts += [_faults(audit), _doubts(audit), _too_large(audit)]
    return Markup("").join(parts)


def _table(rows: list[dict[str, Any]]) -> Markup:
    places = {"seams": "on seams", "halfway": "half a tile away"}
    return tabulate(
        ("along", "where", "pixels of plane", "objects cut by it", "boundaries", "ends"),
        [(row["axis"], places.get(row["where"], row["where"]), f"{row['pixels']:,}", f"{row['objects']:,}",
          f"{number(100 * row['straight'])} %", f"{number(100 * row['ending'])} %") for row in rows],
    )  # fmt: skip


def _listed(title: str, found: dict[str, Any], head: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Draw a list of places, folded; nothing where there is none."""
    if not found.get("total"):
        return Markup("")
    more = found["total"] - min(len(rows), SHOWN)
    rest = Markup('<p class="soft">and {} more; seamfree.json lists the first hundred</p>').format(f"{more:,}")
    return Markup("<details open><summary>{}: {}</summary>{}{}</details>").format(
        title, f"{found['total']:,}", tabulate(head, rows[:SHOWN]), rest if more > 0 else ""
    )


def _at(place: Sequence[int] | dict[str, int]) -> str:
    named = dict(zip(AXES, place, strict=True)) if not isinstance(place, dict) else place
    return ", ".join(f"{axis.lower()} {at:,}" for axis, at in named.items())


def _faults(audit: dict[str, Any]) -> Markup:
    found = audit.get("faults", {})
    rows = [
        (fault["what"], _at(fault["at"]), f"{fault['seam'][1]} {fault['seam'][2]:,}" if fault.get("seam") else "")
        for fault in found.get("listed", [])
    ]
    return _listed(TITLES["faults"], found, ("what differs", "at", "nearest seam"), rows)


def _doubts(audit: dict[str, Any]) -> Markup:
    found = audit.get("ambiguous", {})
    rows = [
        (_at(pair["at"]), number(round(pair["iou"], 3)), number(round(pair["containment"], 3)), pair["decision"])
        for pair in found.get("listed", [])
    ]
    return _listed(TITLES["ambiguous"], found, ("at", "overlap (IoU)", "containment", "decision"), rows)


def _too_large(audit: dict[str, Any]) -> Markup:
    found = audit.get("too_large_to_part", {})
    rows = [(_at(box["start"]), _at(box["stop"])) for box in found.get("listed", [])]
    return _listed(TITLES["too_large_to_part"], found, ("from", "to"), rows)
