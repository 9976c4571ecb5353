"""One look: what the terminal, the report and the viewer show of a result has the same colours and the same words."""

from __future__ import annotations

import io
import re
from itertools import combinations
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from skimage.color import deltaE_ciede2000, rgb2lab

from pipeline import open_result
from pipeline.display import STATUS_STYLES, report_table
from pipeline.look import CLASS_COLORS, OBJECT_COLOURS, TERMINAL_STYLES, THEME
from pipeline.report.style import STYLE
from pipeline.report.writing import write_report
from pipeline.run import ImageReport
from pipeline.viewer.site import Site
from tests.viewer.conftest import serving

STATIC = Path(__file__).parents[2] / "pipeline" / "viewer" / "static"

PURE = {"green": (0, 1, 0), "red": (1, 0, 0), "yellow": (1, 1, 0), "bright_black": (0.5, 0.5, 0.5)}

SIGHT = {
    "all": np.eye(3),
    "without red": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                             [-0.003882, -0.048116, 1.051998]]),
    "without green": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                               [-0.011820, 0.042940, 0.968881]]),
    "without blue": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                              [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
"""What eyes make of linear RGB: Machado, Oliveira and Fernandes (2009), in full severity."""


def seen(colours: NDArray[np.float64], sight: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    changed = np.clip(linear @ sight.T, 0, 1)
    return np.where(changed <= 0.0031308, changed * 12.92, 1.055 * changed ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("colours", [OBJECT_COLOURS, CLASS_COLORS])
def test_colours_of_labels_are_told_apart_by_the_colour_blind(
    colours: tuple[tuple[int, int, int], ...], sight: str
) -> None:
    """A difference of 2 is seen when one looks for it, one of 10 at a glance."""
    lab = rgb2lab(seen(np.array(colours) / 255, SIGHT[sight])[None])[0]
    assert min(deltaE_ciede2000(one, other) for one, other in combinations(lab, 2)) > 10


@pytest.mark.parametrize("kind", TERMINAL_STYLES)
def test_verdicts_have_one_hue_on_the_terminal_and_on_pages(kind: str) -> None:
    light, dark = (
        np.array([int(text[at : at + 2], 16) for at in (0, 2, 4)])
        for text in re.findall(rf"--{kind}:#(\w{{6}})", THEME)
    )
    pure = np.array(PURE[TERMINAL_STYLES[kind]])
    for colour in (light, dark):
        grey = np.ptp(colour) / colour.max() < 0.25
        assert grey == (kind == "soft")
        assert grey or np.corrcoef(colour, pure)[0, 1] > 0.85


def test_pages_have_no_colours_of_their_own_for_verdicts() -> None:
    assert STYLE.startswith(THEME)
    for sheet in (STYLE.removeprefix(THEME), (STATIC / "viewer.css").read_text(encoding="utf-8")):
        for kind in ("good", "bad", "care"):
            assert re.search(rf"\.{kind}[^{{]*{{[^}}]*color:\s*var\(--{kind}\)", sheet)
    assert set(STATUS_STYLES.values()) <= set(TERMINAL_STYLES.values())


def test_report_viewer_and_terminal_say_the_same_of_a_result(nuclei: Path, tmp_path: Path) -> None:
    report = write_report(nuclei, tmp_path / "a.html").read_text(encoding="utf-8")
    facts, result = Site(nuclei).facts(), open_result(nuclei)
    audit = facts["audit"]
    assert f'<p class="{audit["kind"]}">{audit["sentence"]}</p>' in report
    assert f'<dt>Seam audit</dt><dd class="{audit["kind"]}">{audit["word"]}</dd>' in report
    for finding in facts["findings"]:
        assert finding["title"] in report
    stated = [each["colour"] for each in facts["classes"]["named"] if each["colour"]]
    for colours, given in ((OBJECT_COLOURS, facts["objects"]["colours"]), (CLASS_COLORS, stated)):
        for colour, shown in zip(colours, given, strict=False):
            assert list(colour) == list(shown)
            assert "#{:02x}{:02x}{:02x}".format(*colour) in report
    with serving(nuclei) as server, urlopen(f"{server.url}look.css") as answer:
        assert answer.read().decode() == THEME
    told = io.StringIO()
    reports = [ImageReport("a", "a.tif", "done", str(nuclei), objects=result.objects, notes=("seams are possible",))]
    Console(file=told, width=200, force_terminal=True, color_system="standard").print(report_table(reports))
    assert "\x1b[32mdone" in told.getvalue()
    assert "\x1b[33mseams are possible" in told.getvalue()
    assert f"{result.objects:,}" in told.getvalue()
    assert f"{result.objects:,}" in report
