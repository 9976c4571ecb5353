"""The viewer's page in a real browser: what is drawn are the result's pixels, and what is asked for is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import open_result
from pipeline.look import OBJECT_COLOURS
from tests.browser import BROWSER, WHY_NOT, Page, open_page
from tests.viewer.conftest import serving
from tests.viewer.large import CHUNK, SIZE, open_at, open_whole, write_large

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_page() as page:
        yield page


def show(page: Page, url: str, **place: float) -> None:
    """Open a result at a place, and wait until it is drawn."""
    page.errors.clear()
    page.open("about:blank")
    page.open(f"{url}#{'&'.join(f'{name}={value}' for name, value in place.items())}", 900, 700)
    page.wait_for("document.getElementById('name').textContent && document.querySelector('[aria-busy=false]')")
    page.settle()


def stage(page: Page) -> NDArray[np.uint8]:
    """Photograph the part of the page that shows the image."""
    page.settle()
    box = page.evaluate("(box => [box.top, box.bottom, box.left, box.right])(map.getBoundingClientRect())")
    top, bottom, left, right = (round(edge) for edge in box)
    return page.picture()[top:bottom, left:right]


def set_value(page: Page, selector: str, value: object) -> None:
    """Set a control, as a hand would."""
    page.evaluate(f"(it => {{ it.value = '{value}'; it.dispatchEvent(new Event('input')); }})({selector})")


def place_of(page: Page) -> dict[str, float]:
    pairs = re.findall(r"(\w+)=([-\d.e]+)", page.evaluate("location.hash"))
    return {name: float(value) for name, value in pairs}


def wait_at(page: Page, **place: float) -> None:
    """Wait until the map has come to a place: it moves there in a quarter of a second."""
    for name, value in place.items():
        page.wait_for(f"Math.abs(new URLSearchParams(location.hash.slice(1)).get('{name}') - {value}) < 0.1")


def grey(image: NDArray[np.generic], window: tuple[float, float]) -> NDArray[np.floating]:
    """Give how bright pixels are drawn: the square root between black and white, as in the report."""
    low, high = window
    return 255 * np.clip((image.astype(float) - low) / (high - low), 0, 1) ** 0.5


def test_pixels_are_drawn_as_they_are_and_objects_in_their_colours(page: Page, nuclei: Path) -> None:
    result = open_result(nuclei)
    image, labels = np.asarray(result.image[0]), np.asarray(result.instances[0])
    low, *_, high = result.provenance["intensity"][0]["percentiles"].values()
    with serving(nuclei) as server:
        # One pixel for each, and the image's corner at a whole pixel of the screen.
        show(page, server.url, x=250, y=200, resolution=1, t=0, z=0)
        seen = stage(page)
        top, left = seen.shape[0] // 2 - 200, seen.shape[1] // 2 - 250
        # Not where buttons, bar and overview lie.
        part = np.s_[60:330, 60:360]
        shifted = (slice(top + 60, top + 330), slice(left + 60, left + 360))

        page.key("f")
        page.key("o")
        expected = grey(image[part], (low, high))
        assert np.abs(stage(page)[shifted] - expected[..., None]).max() <= 1.5
        page.key("i")
        assert not stage(page)[shifted].any()
        page.key("o")
        page.evaluate("outlines.click()")
        set_value(page, "document.querySelectorAll('.slide input[type=range]')[1]", 1)
        colours = np.array(OBJECT_COLOURS)[labels[part] % 6] * (labels[part] > 0)[..., None]
        assert np.array_equal(stage(page)[shifted], colours)

        # The same colours from farther away: most objects are seen there, each in its own.
        for _ in range(2):
            page.key("-")
            page.settle()
        far = stage(page)
        drawn = {tuple(pixel) for pixel in far[far.any(axis=2)].reshape(-1, 3).tolist()}
        assert set(OBJECT_COLOURS) <= drawn
        assert not page.errors


def test_an_object_is_picked_and_its_row_is_seen(page: Page, nuclei: Path) -> None:
    result = open_result(nuclei)
    image, labels, table = np.asarray(result.image[0]), np.asarray(result.instances[0]), result.table
    label = int(labels[100:300, 150:350][labels[100:300, 150:350] > 0][0])
    ys, xs = np.nonzero(labels == label)
    y, x = int(ys[len(ys) // 2]), int(xs[len(xs) // 2])
    with serving(nuclei) as server:
        show(page, server.url, x=x + 0.5, y=y + 0.5, resolution=0.5, t=0, z=0)
        centre = page.evaluate(
            "(box => [(box.left + box.right) / 2, (box.top + box.bottom) / 2])(map.getBoundingClientRect())"
        )
        page.click(*centre)
        told = page.wait_for("document.querySelector('#row table') && document.getElementById('row').innerText")
        assert f"Object {label}" in told
        assert re.search(rf"^area\s+{table['area'].to_dict()[label]:,} pixel", told, re.MULTILINE)
        assert place_of(page)["object"] == label
        status = page.wait_for("document.getElementById('pointer').textContent")
        assert status.startswith(f"x {x}, y {y}")
        assert f"DNA {int(image[y, x])}" in status or f" {int(image[y, x])} " in status
        assert status.endswith(f"object {label}")

        # The largest, by the keyboard.
        page.evaluate("largest.click()")
        page.wait_for(f"document.querySelectorAll('#list button').length === {min(100, len(table))}")
        page.key("n")
        largest = int(table["area_physical"].to_numpy().argmax()) + 1
        page.wait_for(f"document.querySelector('#row table') && row.innerText.startsWith('Object {largest}')")
        middle = table.loc[largest]
        wait_at(
            page,
            x=float(np.mean([middle["bbox-1"], middle["bbox-3"]])),
            y=float(np.mean([middle["bbox-0"], middle["bbox-2"]])),
        )
        page.key("Escape")
        page.wait_for("!document.querySelector('#row table')")

        # Places of the audit, and the grid.
        buttons = page.evaluate("[...document.querySelectorAll('#findings button')].map(button => button.innerText)")
        assert len(buttons) == 3
        page.evaluate("document.querySelectorAll('#findings button')[1].click()")
        wait_at(page, x=250.5, y=128.5)
        page.settle()
        before = stage(page)
        page.key("g")
        grid = stage(page)
        rows = np.flatnonzero((grid != before).any(axis=2).mean(axis=1) > 0.5)
        # The seam at y 128 is half a pixel above the centre.
        resolution = place_of(page)["resolution"]
        assert rows.size == 1
        assert abs(rows[0] - (grid.shape[0] / 2 - 0.5 / resolution)) <= 1
        assert not page.errors


def test_planes_channels_and_contrast(page: Page, series: Path) -> None:
    """OME-Zarr 0.4: Zarr v2, Blosc, a file for each chunk."""
    result = open_result(series)
    image = np.asarray(result.image[0])
    with serving(series) as server:
        show(page, server.url, x=60, y=45, resolution=0.25, t=0, z=0)
        page.key("o")
        page.evaluate("document.querySelectorAll('.channel input[type=checkbox]')[1].click()")
        # Not at the edge, where other things are drawn.
        y, x = np.array(np.unravel_index(int(image[0, 0, 0, 20:70, 20:100].argmax()), (50, 80))) + 20
        for keys, (time, plane) in (("", (0, 0)), (".", (1, 0)), ("PageUp", (1, 1))):
            if keys:
                page.key(keys)
            low, *_, high = next(
                entry for entry in result.provenance["intensity"] if (entry["time"], entry["channel"]) == (0, 0)
            )["percentiles"].values()
            seen = stage(page)
            at = seen[int(seen.shape[0] / 2 + (y + 0.5 - 45) * 4), int(seen.shape[1] / 2 + (x + 0.5 - 60) * 4)]
            value = grey(image[time, 0, plane, y, x], (low, high))
            assert np.abs(at - [0, value, value]).max() <= 2
        assert (place_of(page)["t"], place_of(page)["z"]) == (1, 1)
        # Black and white, moved by hand: what is above white is white, in the channel's colour.
        set_value(page, "document.querySelectorAll('.window input')[1]", int(image[1, 0, 1].mean()))
        set_value(page, "document.querySelector('input[type=color]')", "#ff8000")
        seen = stage(page)
        assert (seen.reshape(-1, 3) == (255, 128, 0)).all(axis=1).any()
        assert not page.errors


def test_a_plate_offers_its_wells_and_the_input_is_shown(page: Page, plate: Path, bare: Path) -> None:
    with serving(plate) as server:
        show(page, server.url)
        assert page.evaluate("[...document.querySelectorAll('.plate button')].map(button => button.title)") == [
            "A01", "B03", "B11",
        ]  # fmt: skip
        for well, path in (("B11", "B/11/0"), ("B03", "B/03/0")):
            page.evaluate(f"document.querySelector('.plate button[title={well}]').click()")
            page.wait_for(f"decodeURIComponent(location.hash).includes('field={path}')")
            page.key("o")
            result = open_result(plate / path)
            image, (low, *_, high) = (
                np.asarray(result.image[0]),
                result.provenance["intensity"][0]["percentiles"].values(),
            )
            page.evaluate("document.getElementById('exact').click()")
            seen = stage(page)
            top, left = seen.shape[0] // 2 - image.shape[0] // 2, seen.shape[1] // 2 - image.shape[1] // 2
            expected = grey(image[10:-10, 10:-10], (low, high))
            part = seen[top + 10 : top + image.shape[0] - 10, left + 10 : left + image.shape[1] - 10]
            assert np.abs(part - expected[..., None]).max() <= 1.5
        assert not page.errors
    with serving(bare) as server:
        show(page, server.url)
        page.key("o")
        assert stage(page).max() > 200
        assert not page.errors


def test_of_100_gigapixels_only_what_is_seen_is_read(page: Page, tmp_path: Path, model: str) -> None:
    large, edge = write_large(tmp_path, 100, model=model, execution={"scheduler": "serial"})
    assert edge**2 > 1e11
    # Chunks that a screen can touch, of image, classes and objects; and as much again, for indices of shards, metadata
    # of levels, and the overview. At full resolution alone, the image has a million and a half.
    most = 2 * 3 * (SIZE[0] // CHUNK + 2) * (SIZE[1] // CHUNK + 2)
    page.errors.clear()
    with serving(large) as server:
        page.open("about:blank")
        for read in (open_whole(page, server.url), open_at(page, edge // 3, edge // 5)):
            assert 10 < read["requests"] <= most
            assert 0 < read["megabytes"] <= 4
            assert stage(page).std() > 10
        assert place_of(page)["resolution"] == 1
        assert not page.errors
