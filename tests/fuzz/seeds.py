"""What the fuzzer starts from: the corpus of bad input, and files as they should be."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
import zarr

from pipeline.config import RunConfig
from pipeline.models.library import bundled_models
from tests.corpus.case import Case
from tests.corpus.tiffs import TIFFS
from tests.corpus.zarrs import ZARRS
from tests.fuzz.packing import pack, pack_folder
from tests.images.reading import pixels
from tests.images.test_tiff import cases
from tests.images.zarrs import ome

__all__ = ["LONGEST", "packages", "seeds"]

LONGEST = 1 << 15
"""Bytes of an input; what is longer tells nothing more and takes longer."""


def seeds(target: str) -> Iterator[bytes]:
    """Give what a target starts from."""
    found = {"tiff": _tiffs, "zarr": _zarrs, "card": _cards, "config": _configs, "package": _packages}
    for content in found[target]() if target in found else [b"seed"]:
        if len(content) <= LONGEST:
            yield content


def _made(corpus: list[Case]) -> Iterator[Path]:
    for case in corpus:
        with tempfile.TemporaryDirectory() as name:
            path = case.make(Path(name))
            if isinstance(path, Path) and path.exists():
                yield path


def _tiffs() -> Iterator[bytes]:
    for path in _made(TIFFS):
        yield path.read_bytes()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.tif"
        for number, (write, _) in enumerate(cases().values()):
            # Many of them differ in a type alone.
            if number % 5 == 0:
                write(path)
                yield path.read_bytes()


def _zarrs() -> Iterator[bytes]:
    for path in _made(ZARRS):
        yield pack_folder(path)
    flat, stack = pixels((40, 50)), pixels((2, 40, 50))
    with tempfile.TemporaryDirectory() as name:
        for version in ("0.4", "0.5"):
            labels: dict[str, Any] = {"omero": {"channels": [{"label": "DAPI"}, {}]}}
            yield pack_folder(ome(Path(name) / version, stack, "cyx", version, units={"x": "micrometer"}, **labels))
            one = ome(Path(name) / f"{version} one", flat, "yx", version)
            files = {f"0/{path.relative_to(one).as_posix()}": path.read_bytes()
                     for path in sorted(one.rglob("*")) if path.is_file()}  # fmt: skip
            several = zarr.open_group(
                Path(name) / f"{version} several", mode="w", zarr_format=2 if "4" in version else 3
            )
            several.attrs.update({"bioformats2raw.layout": 3} if "4" in version else {"ome": {"version": version,
                                 "bioformats2raw.layout": 3}})  # fmt: skip
            listed = several.create_group("OME")
            listed.attrs.update({"series": ["0"]} if "4" in version else {"ome": {"version": version, "series": ["0"]}})
            head = {path.relative_to(Path(name) / f"{version} several").as_posix(): path.read_bytes()
                    for path in sorted((Path(name) / f"{version} several").rglob("*")) if path.is_file()}  # fmt: skip
            yield pack(head | files)


def _cards() -> Iterator[bytes]:
    (path,) = bundled_models().values()
    text = (path / "card.yaml").read_text()
    yield text.encode()
    described = yaml.safe_load(text)
    del described["architecture"]
    described.pop("footprint", None)
    steps = [{"kind": "linear", "first": [2], "second": [1]}, {"kind": "clip", "first": [0], "second": [None]}]
    described |= {
        "network": {"format": "onnx", "output": "0", "window": [65, 65], "order": "bcyx", "steps": steps},
        "activation": "sigmoid", "pixel_type": "uint8",
    }  # fmt: skip
    described["intensity"] |= {"before": steps, "after": steps[:1], "eps": 0.5, "together": True}
    yield yaml.safe_dump(described).encode()


def _configs() -> Iterator[bytes]:
    yield (Path(__file__).parents[2] / "configs" / "default.yaml").read_bytes()
    whole = RunConfig().model_dump(mode="json")
    yield yaml.safe_dump(whole).encode()
    whole |= {"tile": 64, "precision": "auto", "channels": [0], "series": 0, "tta": True}
    whole["instances"] |= {"method": "watershed", "classes": ["object"], "minimum_size": 5, "depth": 1.5,
                           "fill_holes": True, "border": "drop"}  # fmt: skip
    whole["output"] |= {"image": "copy", "probabilities": "float16", "chunk": 64}
    whole["audit"] |= {"windows": 3}
    whole["execution"] |= {"scheduler": "tcp://127.0.0.1:8786"}
    yield yaml.safe_dump(whole).encode()
    yield b"tile: [64, 64]\ninstances: watershed\n"


@cache
def packages() -> list[dict[str, bytes]]:
    """Give the files of two packages, the first without a step after the network."""
    from zipfile import ZipFile

    from tests.models.packaged import Wish, save_package

    wish = Wish(preprocessing=(("scale_range", {"min_percentile": 1.0, "max_percentile": 99.0, "axes": ["y", "x"]}),))
    found = []
    with tempfile.TemporaryDirectory() as place:
        for number, each in enumerate((wish, replace(wish, preprocessing=(), postprocessing=(("sigmoid", {}),)))):
            with ZipFile(save_package(Path(place) / f"{number}.zip", each)) as archive:
                found.append({name: archive.read(name) for name in archive.namelist()})
    return found


def _packages() -> Iterator[bytes]:
    for files in packages():
        yield next(content for name, content in files.items() if name.endswith("yaml"))
