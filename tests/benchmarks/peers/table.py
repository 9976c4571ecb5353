"""What was measured, as medians over rounds, and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

__all__ = ["Row", "draw", "summarise"]

Entry = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One contender in one case and precision."""

    name: str
    rounds: int
    rate: float | None
    """Pixels per second, the median."""
    of_limit: float | None
    """Of the limit of the same round, the median."""
    of_core_limit: float | None
    """The same, of pixels for each second of a core."""
    peak_bytes: float | None
    """The most in any round."""
    differing: float | None
    """Share of pixels whose label is not that of a float32 pass over the whole image."""
    behind: float | None
    """How many times faster seamfree was in the same round, the median."""
    note: str = ""


def summarise(entry: Entry) -> list[Row]:
    """Give a row for each contender, in the order in which they ran; ratios are of one round each."""
    names = list(dict.fromkeys(name for one in entry["rounds"] for name in one))
    return [_row(name, entry) for name in names]


def _row(name: str, entry: Entry) -> Row:
    found = [(one, one[name]) for one in entry["rounds"] if name in one]
    measured = [(one, each) for one, each in found if "pixels_per_second" in each]
    notes = {each[kind] for _, each in found for kind in ("failed", "left_out") if kind in each}
    settings = [each["settings"] for _, each in measured if each.get("settings") is not None]
    if settings:
        notes.add(_words(settings[-1]))
    rates = [each["pixels_per_second"] for _, each in measured]
    ours = [(one["seamfree"], each) for one, each in measured if name != "limit" and "seamfree" in one]
    others = [own["pixels_per_second"] / each["pixels_per_second"] for own, each in ours if "pixels_per_second" in own]
    peaks = [each["peak_bytes"] for _, each in measured if "peak_bytes" in each]
    differences = [each["differing"] for _, each in measured if "differing" in each]
    return Row(
        name=name,
        rounds=len(measured),
        rate=median(rates) if rates else None,
        of_limit=_of_limit(measured, "pixels_per_second"),
        of_core_limit=_of_limit(measured, "pixels_per_core_second"),
        peak_bytes=max(peaks, default=None),
        differing=max(differences, default=None),
        behind=median(others) if others else None,
        note="; ".join(sorted(notes)),
    )


def _of_limit(measured: list[tuple[Entry, Entry]], unit: str) -> float | None:
    ratios = [
        each[unit] / one["limit"][unit] for one, each in measured if unit in each and unit in one.get("limit", {})
    ]
    return median(ratios) if ratios else None


def _words(settings: Any) -> str:  # noqa: ANN401 (whatever a contender has settled on)
    if isinstance(settings, dict):
        return ", ".join(f"{name} {value}" for name, value in settings.items())
    if isinstance(settings, list):
        return f"windows of {settings[0]}, batch {settings[1]}, overlap {settings[2]}"
    return f"windows of {settings}"


def draw(entry: Entry) -> Table:
    """Draw the table of one case and precision."""
    shape = " x ".join(map(str, entry["shape"]))
    table = Table(
        title=f"{entry['case']}, {entry['precision']}, {shape} pixels, {entry['flops_per_pixel'] / 1e3:.0f} kFLOP per "
        f"pixel at least, {entry['device']}",
        title_justify="left",
    )
    table.add_column("")
    for name in ("Mpx/s", "of the limit", "by cores", "GiB", "labels differ", "seamfree / it", "rounds"):
        table.add_column(name, justify="right")
    table.add_column("with")
    for row in summarise(entry):
        table.add_row(
            row.name,
            "" if row.rate is None else f"{row.rate / 1e6:.3f}",
            "" if row.of_limit is None else f"{row.of_limit:.2f}",
            "" if row.of_core_limit is None else f"{row.of_core_limit:.2f}",
            "" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f}",
            "" if row.differing is None else "none" if row.differing == 0 else f"{row.differing:.1e}",
            "" if row.behind is None else f"{row.behind:.2f} x",
            str(row.rounds),
            row.note,
        )
    return table
