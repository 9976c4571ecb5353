"""What the viewer's page is told of a result."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline import open_result
from pipeline.errors import StoreError
from pipeline.look import OBJECT_COLOURS
from pipeline.viewer import server
from pipeline.viewer.facts import coarser
from pipeline.viewer.site import Site


def test_facts_say_where_pixels_lie_and_what_was_found(nuclei: Path) -> None:
    facts, result = Site(nuclei).facts(), open_result(nuclei)
    assert (facts["shape"], facts["pixel"][2:], facts["units"][2:]) == ([1, 1, 400, 500], [0.5, 0.5], ["µm", "µm"])
    for name, levels, path in (("image", result.image, ""), ("classes", result.semantic, "labels/semantic/"),
                               ("objects", result.instances, "labels/instances/")):  # fmt: skip
        assert [level["path"] for level in facts[name]["levels"]] == [f"data/{path}{at}" for at in range(len(levels))]
        assert [level["scale"] for level in facts[name]["levels"]] == [[2.0**at] * 2 for at in range(len(levels))]
        assert [tuple(level["shape"]) for level in facts[name]["levels"]] == [level.shape for level in levels]
    assert facts["objects"]["count"] == result.objects
    assert facts["objects"]["colours"] == [list(colour) for colour in OBJECT_COLOURS]
    assert facts["objects"]["across"] == pytest.approx(result.table["area"].median() ** 0.5)
    assert facts["image"]["channels"][0]["window"] == list(result.provenance["intensity"][0]["percentiles"].values())
    label = json.loads((nuclei / "labels/semantic/zarr.json").read_text())["attributes"]["ome"]["image-label"]
    stated = [entry["rgba"][:3] for entry in label["colors"] if entry["label-value"]]
    assert [entry["colour"] for entry in facts["classes"]["named"]] == [None, *stated]
    assert facts["audit"]["word"] == "passed"
    assert facts["tiles"] == {"core": [1, 1, 128, 128], "start": [0, 0, 0, 0], "counts": [1, 1, 4, 4]}
    fault, doubts = facts["findings"]
    assert (fault["kind"], fault["total"], fault["places"][0]["at"]) == ("bad", 1, [0.5, 0.5, 256.5, 77.5])
    assert (doubts["total"], [place["at"][2:] for place in doubts["places"]]) == (3, [[128.5, 250.5], [30.5, 384.5]])


def test_rows_of_objects_and_their_order(nuclei: Path) -> None:
    site, table = Site(nuclei), open_result(nuclei).table
    for label in (1, 7, len(table)):
        given = site.object(str(label))
        assert given["row"] == {"label": label} | table.loc[label].to_dict()
        assert given["units"]["area_physical"] == "micrometer²"
    for wrong in ("0", str(len(table) + 1), "-1", "x", "", "1" * 99):
        with pytest.raises(StoreError, match="there is no object"):
            site.object(wrong)
    for order, ascending in (("largest", False), ("smallest", True)):
        expected = table["area"].reset_index().sort_values(["area", "label"], ascending=[ascending, True])[:100]
        assert site.objects("area", order)["rows"] == expected[["label", "area"]].to_dict("records")
    with pytest.raises(StoreError, match="no column 'nothing'"):
        site.objects("nothing")


def test_an_image_of_others_is_read_for_the_page(bare: Path, plate: Path) -> None:
    """A TIFF without a copy in the result, and the image that labels have become a part of."""
    image = tifffile.imread(bare.parents[1] / "b.tif")
    fields = {path: np.asarray(open_result(plate / path).image[0]) for path in ("A/01/0", "B/03/0", "B/11/0")}
    for path, field, expected in ((bare, "", image), *((plate, name, pixels) for name, pixels in fields.items())):
        site = Site(path)
        shown = site.facts(field)["image"]
        assert shown["levels"][0]["scale"] == [1] * 5
        for level in shown["levels"]:
            name = level["path"].removeprefix("input/")
            meta = json.loads(site.piece(f"{name}/zarr.json") or b"")
            assert meta["shape"] == level["shape"]
            chunk = meta["chunk_grid"]["configuration"]["chunk_shape"]
            content = site.piece(f"{name}/c/0/0/0/0/0") or b""
            pixels = np.frombuffer(content, meta["data_type"]).reshape(chunk)[0, 0, 0]
            if level is shown["levels"][0]:
                assert np.array_equal(pixels[: expected.shape[0], : expected.shape[1]], expected)
            for none in ("c/0/0/0/0/9", "c/0/0/0/0", "c/0/0/0/0/-1", "c", "zarr", "c/0/0/0/0/x", ""):
                assert site.piece(f"{name}/{none}") is None
    assert Site(bare).piece("0/zarr.json") is None


def test_without_the_image_labels_are_shown_and_why(bare: Path, tmp_path: Path) -> None:
    shutil.copytree(bare.parents[1], tmp_path / "moved")
    result = tmp_path / "moved" / bare.relative_to(bare.parents[1])
    facts = json.loads((result / "seamfree.json").read_text())
    facts["plan"]["source"]["path"] = str(tmp_path / "gone.tif")
    (result / "seamfree.json").write_text(json.dumps(facts))
    told = Site(result).facts()
    assert told["image"] is None
    assert told["why"].startswith(f"The image is not shown, only the labels: {tmp_path / 'gone.tif'}: ")
    assert told["objects"]["count"]


def test_a_plate_is_its_fields(plate: Path, nuclei: Path) -> None:
    site = Site(plate)
    told = site.facts()
    assert [(well["name"], [field["path"] for field in well["fields"]]) for well in told["wells"]] == [
        ("A01", ["A/01/0"]), ("B03", ["B/03/0"]), ("B11", ["B/11/0"]),
    ]  # fmt: skip
    facts = site.facts("B/03/0")
    assert facts["objects"]["levels"][0]["path"] == "data/B/03/0/labels/instances/0"
    assert site.file("B/03/0/labels/instances/0/zarr.json") is not None
    for field in ("B/03", "../P.zarr/B/03/0", "C/1/0"):
        with pytest.raises(StoreError, match="no field"):
            site.facts(field)
    with pytest.raises(StoreError, match="no plate"):
        Site(nuclei).facts("B/03/0")


def test_how_much_coarser_a_level_is() -> None:
    assert [coarser(521, length) for length in (521, 261, 260, 131, 130)] == [1, 2, 2, 4, 4]
    assert coarser(100, 67) == pytest.approx(100 / 67)


def test_the_page_is_built_of_its_sources_and_says_what_it_contains() -> None:
    """Where this fails, `make viewer` is to be run."""
    static = Path(server.__file__).parent / "static"
    source = Path(__file__).parents[2] / "pipeline/viewer/src"
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        if path.suffix in (".js", ".json"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    bundle = (static / "viewer.js").read_text(encoding="utf-8")
    assert f"seamfree {digest.hexdigest()};" in bundle[:200]
    for name in ("index.html", "viewer.css"):
        # Nothing of elsewhere; what scripts may load, the policy says.
        assert "//" not in (static / name).read_text(encoding="utf-8")
    licences = (static / "licences.txt").read_text(encoding="utf-8")
    for name, version in json.loads((source / "package.json").read_text())["dependencies"].items():
        assert f"\n{name} {version}, " in licences
    assert len(bundle) < 400_000
