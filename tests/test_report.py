"""The report of a result: whole, self-contained, harmless, and never worth a result."""

from __future__ import annotations

import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from pipeline import RunConfig, open_result, segment
from pipeline.cli import app
from pipeline.config import make_config
from pipeline.models.architecture import UNetConfig
from pipeline.report import page
from pipeline.report.writing import report_path
from tests.fields import load_fields
from tests.random_models import save_random_model

VOID = {"meta", "img", "input", "br"}

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "h1", "h2", "h3", "p",
    "bdi", "dl", "dt", "dd", "div", "figure", "figcaption", "img", "input", "label", "svg", "g", "path", "rect", "line",
    "text", "image", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre", "code",
}  # fmt: skip
"""All that the page is made of."""


class Page(HTMLParser):
    """Reads a page, and refuses what is not well formed, could run, or is loaded from elsewhere."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.open, self.uris, self.words = path, list[str](), list[str](), list[str]()
        self.policy = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
                self.uris.append(value)
        given = dict(attrs)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(given["content"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def pictures(self) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        return [imagecodecs.imread(b64decode(uri.partition(",")[2])) for uri in self.uris]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return make_config({"tile": 128, "execution": {"scheduler": "serial"}})


def run(image: Path, output: Path, config: RunConfig, *, fresh: bool = False) -> Path:
    (report,) = segment(image, output, config, fresh=fresh)
    assert report.status == "done", report.reason
    assert report.result is not None
    return Path(report.result)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> Path:
    """Nuclei of known pixel size."""
    folder = tmp_path_factory.mktemp("report")
    place = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(folder / "a.ome.tif", load_fields()[0][:400, :500], metadata=place)
    return run(folder / "a.ome.tif", folder / "out", config)


def test_a_page_says_what_was_found(result: Path) -> None:
    page, opened = Page(report_path(result)), open_result(result)
    assert opened.objects
    median = opened.table["area_physical"].median()
    found = f"{opened.objects:,} objects of class nucleus were found in an image of 500 × 400 pixels (0.25 × 0.2 mm)"
    assert found in page.text
    told = re.search(r"Median size ([\d,.]+) µm²", page.text)
    assert told is not None
    assert float(told[1].replace(",", "")) == pytest.approx(median, rel=5e-3)
    assert "The audit passed: 4 windows" in page.text
    for words in ("Classes", "Intensities", "Time of each tile", "Self-check", "How to open the result", "tiles 16"):
        assert words in page.text
    assert "default-src 'none'" in page.policy
    assert report_path(result).stat().st_size < 2e6


def test_pictures_show_the_image_and_its_objects(result: Path) -> None:
    """The close-up is the image's own pixels, and the outlines of objects are drawn around them, pixel by pixel."""
    page, opened = Page(report_path(result)), open_result(result)
    close = re.search(r"Close up: x ([\d,]+) to ([\d,]+), y ([\d,]+) to ([\d,]+)", page.text)
    assert close is not None
    left, right, top, bottom = (int(number.replace(",", "")) for number in close.groups())
    assert np.asarray(opened.instances[0][top:bottom, left:right]).any()
    image = np.asarray(opened.image[0][top:bottom, left:right])
    shown = next(found for found in page.pictures()[::-1] if found.shape == image.shape)
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(shown.ravel()[order].astype(int)) >= 0).all()
    assert shown.max() == 255


def test_it_can_be_made_again_and_is_the_same(result: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in result.rglob("*") if path.is_file()}
    told = CliRunner().invoke(app, ["report", str(result), "-o", str(tmp_path / "again.html")])
    assert told.exit_code == 0, told.output
    assert (tmp_path / "again.html").read_bytes() == report_path(result).read_bytes()
    assert {path: path.read_bytes() for path in result.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "'\"&amp;{}%s", "\u202egnp.exe", "a\x1b]0;x\x07b\n"])
def test_hostile_names_are_only_text(name: str, tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / f"{name}.tif", load_fields()[0][:100, :120], description="<script>alert(1)</script>")
    page = Page(report_path(run(tmp_path / f"{name}.tif", tmp_path / "out", config)))
    if name.startswith("<"):
        assert name in page.text
    assert "\u202e" not in page.path.read_text(encoding="utf-8")


def test_an_image_without_objects_and_one_without_instances(tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / "flat.tif", np.full((150, 170), 7, dtype=np.uint8))
    page = Page(report_path(run(tmp_path / "flat.tif", tmp_path / "out", config)))
    assert "No object of class nucleus was found" in page.text
    only = config.model_copy(update={"instances": config.instances.model_copy(update={"method": "none"})})
    tifffile.imwrite(tmp_path / "a.tif", load_fields()[0][:200, :300])
    page = Page(report_path(run(tmp_path / "a.tif", tmp_path / "out", only)))
    assert "The classes background, nucleus, contact were told apart in an image of 300 × 200 pixels" in page.text
    assert "outlines of classes" in page.text
    # In the colours that the labels' metadata say.
    text = page.path.read_text(encoding="utf-8")
    assert '<path class="k0"' in text
    assert ".k0{stroke:#009e73}" in text


@pytest.mark.slow
def test_of_ome_zarr_the_input_is_shown_and_labels_alone_where_it_has_gone(
    result: Path, tmp_path: Path, config: RunConfig
) -> None:
    source = (tmp_path / "b.ome.zarr").resolve()
    again = run(result, tmp_path / "first", config)
    assert not open_result(again).image
    assert "The image is not shown" not in Page(report_path(again)).text
    shutil.copytree(result, source)
    found = run(source, tmp_path / "out", config)
    shutil.rmtree(source)
    told = CliRunner().invoke(app, ["report", str(found)])
    assert told.exit_code == 0, told.output
    page = Page(report_path(found))
    assert "The image is not shown, only the labels" in page.text
    assert page.pictures()


def test_planes_and_channels_and_numbers_that_are_none(tmp_path: Path) -> None:
    """A stack with three channels in floating point, of which one plane is not a number."""
    model = save_random_model(
        tmp_path / "model", UNetConfig(depth=2, base_channels=2, in_channels=2, classes=3), seed=7
    )
    config = make_config({"model": model, "tile": 64, "channels": [0, 2], "execution": {"scheduler": "serial"}})
    image = np.random.default_rng(0).gamma(2.0, 200.0, (4, 3, 90, 110)).astype(np.float32)
    image[1] = np.nan
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata={"axes": "ZCYX"})
    page = Page(report_path(run(tmp_path / "a.ome.tif", tmp_path / "out", config)))
    assert "Along Z" in page.text
    assert "4 planes, 3 channels" in page.text


def test_a_failed_report_loses_nothing_and_is_made_later(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", load_fields()[0][:100, :120])
    out = tmp_path / "out"
    (out / ".a.report.html.tmp" / "in the way").mkdir(parents=True)
    finished = run(tmp_path / "a.tif", out, config)
    assert "its report could not be made" in caplog.text
    assert sorted(path.name for path in out.iterdir()) == [".a.report.html.tmp", "a.ome.zarr", "run-summary.json"]
    (out / ".a.report.html.tmp" / "in the way").rmdir()
    (out / ".a.report.html.tmp").rmdir()
    (report,) = segment(tmp_path / "a.tif", out, config)
    assert report.status == "skipped"
    assert "How it came about" in Page(report_path(finished)).text
    # That of a result which is replaced goes with it.
    monkeypatch.setattr(page, "draw_page", lambda *_: 1 / 0)
    run(tmp_path / "a.tif", out, config, fresh=True)
    assert "ZeroDivisionError" in caplog.text
    assert not report_path(finished).exists()


def test_it_can_be_left_out(tmp_path: Path, config: RunConfig) -> None:
    tifffile.imwrite(tmp_path / "a.tif", load_fields()[0][:100, :120])
    without = config.model_copy(update={"output": config.output.model_copy(update={"report": False})})
    run(tmp_path / "a.tif", tmp_path / "out", without)
    (report,) = segment(tmp_path / "a.tif", tmp_path / "out", without)
    assert report.status == "skipped"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.ome.zarr", "run-summary.json"]
