"""One look for pictures, the report, the viewer and the terminal: which colours mean what."""

from __future__ import annotations

from pipeline.stores.metadata import CLASS_COLORS

__all__ = ["CLASS_COLORS", "OBJECT_COLOURS", "TERMINAL_STYLES", "THEME", "class_colours"]

OBJECT_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
"""Of objects, by the remainder of their number, which alone decides: at all levels of a pyramid and in all views, an
object has one colour. The palette of Okabe and Ito (2008), told apart by the colour-blind, too.
"""

TERMINAL_STYLES = {"good": "green", "bad": "red", "care": "yellow", "soft": "bright_black"}
"""What the terminal knows of the colours below, by the same names."""

THEME = """
:root{color-scheme:light dark;--ground:#f6f7f9;--card:#fff;--ink:#1a2029;--soft:#5a6472;--rule:#dde1e7;--bar:#8aa0b8;
--here:#c2410c;--mark:#1d4ed8;--shade:#dbe6f5;--good:#12703f;--bad:#b42318;--care:#8a5a00;
--q0:#e6eef6;--q1:#cbdcec;--q2:#abc6e0;--q3:#86abcf;--q4:#628fbb;--q5:#4473a4;--q6:#2b5888;--q7:#163d66}
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--card:#1b212a;--ink:#e8ecf1;--soft:#a0abb9;--rule:#323b48;
--bar:#71879f;--here:#fb923c;--mark:#7aa7ff;--shade:#22324a;--good:#5fd394;--bad:#ff8a80;--care:#f0c060;
--q0:#1f2c3b;--q1:#26405a;--q2:#2f5578;--q3:#3d6b94;--q4:#5284b0;--q5:#709ec8;--q6:#97bbdf;--q7:#c5dcf3}}
"""
"""Colours of pages, as CSS, light and dark: good, bad and care are verdicts."""


def class_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Give the colours of so many classes, from 1 on, as they stand in the metadata of the labels."""
    return tuple(CLASS_COLORS[at % len(CLASS_COLORS)] for at in range(count))
