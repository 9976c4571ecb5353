"""What is fuzzed: each target takes bytes, and does with them what a run does with a file before work starts.

Import this where modules are to be watched by the fuzzer: what it imports is what is fuzzed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import yaml

from pipeline.config import RunConfig, load_config, make_config
from pipeline.geometry import Box
from pipeline.images.discover import InputImage
from pipeline.images.opening import open_coarser, open_image
from pipeline.models.architecture import UNetConfig
from pipeline.models.card import Channel, InstanceRule, IntensityRule, ModelCard, Training, Weights, read_card
from pipeline.models.facts import ModelFacts, unet_context
from pipeline.models.packages import Package
from pipeline.planning import Intent, RunPlan, make_plan
from tests.fuzz.mutating import Plain, mutate_folder, mutate_tiff, mutate_yaml
from tests.fuzz.packing import write_folder

__all__ = ["TARGETS", "Target"]

INTENT = Intent(device="cpu", worker_memory=2**26)
"""What has to be read at once must fit into 38 MiB, or is refused."""


@dataclass(frozen=True)
class Target:
    """Something that is fuzzed.

    Parameters
    ----------
    attempt : callable
        Takes bytes and an empty folder. Whatever it raises but errors of seamfree's own is a bug.
    mutate : callable
        Makes other bytes of some.
    """

    attempt: Callable[[bytes, Path], object]
    mutate: Callable[[bytes, Random, Plain], bytes]


@cache
def small_network() -> ModelFacts:
    """Give the facts of a network that takes one channel of whatever there is."""
    architecture = UNetConfig(depth=1, base_channels=1)
    card = ModelCard(
        name="small", description="", licence="", architecture=architecture, axes="yx",
        channels=(Channel(name="any"),), classes=("background", "object"),
        intensity=IntensityRule(method="percentile"), instances=InstanceRule(method="components", classes=("object",)),
        training=Training(data="", licence=""), weights=Weights(sha256="0" * 64),
    )  # fmt: skip
    return ModelFacts(card, unet_context(architecture))


def plan_for(path: Path, config: RunConfig) -> RunPlan:
    """Plan the run of an image."""
    source = open_image(path, config.series)
    try:
        image = InputImage(str(path), path.name.partition(".")[0])
        return make_plan(config, image, source.info, small_network(), path.parent / "out", INTENT)
    finally:
        source.close()


def look_at(path: Path) -> None:
    """Open an image, plan its run, and read the first and the last of what is read at once."""
    plan = plan_for(path, RunConfig(tile=64, channels=(0,)))
    source = open_image(path)
    try:
        assert source.info == plan.source, "an image that is opened twice is another one"
        assert all("\n" not in note and str(path) in note for note in source.notes), source.notes
        for index in {0, len(plan.regions) - 1}:
            check_block(source.info.dtype, plan.regions[index].owned, source.read)
        assert len(plan.tiles) > 0
        assert path in source.files() or path.is_dir()
    finally:
        source.close()
    for level in open_coarser(path):
        level.close()


def check_block(dtype: str, box: Box, read: Callable[[Box], object]) -> None:
    block = read(box)
    found = (getattr(block, "shape", None), str(getattr(block, "dtype", None)))
    assert found == (box.shape, dtype), f"{box} is {found}, and was said to be {dtype}"


def tiff(data: bytes, folder: Path) -> None:
    """Look at a TIFF file."""
    (folder / "a.tif").write_bytes(data)
    look_at(folder / "a.tif")


def zarrs(data: bytes, folder: Path) -> None:
    """Look at a Zarr of several files."""
    (folder / "a.zarr").mkdir()
    write_folder(data, folder / "a.zarr")
    look_at(folder / "a.zarr")


def card(data: bytes, folder: Path) -> None:
    """Read a model's card, and what follows from it without its weights."""
    (folder / "card.yaml").write_bytes(data)
    found = read_card(folder)
    if found.architecture is not None:
        facts = ModelFacts(found, unet_context(found.architecture))
        facts.window_bytes(facts.context.smallest, "float32", "cpu")


def package(data: bytes, folder: Path) -> None:
    """Read the description of a package of bioimage.io, beside the files of a good one."""
    from pipeline.models.descriptions import read_package
    from tests.fuzz.seeds import packages

    for name, content in packages()[-1].items():
        (folder / name).write_bytes(content)
    (folder / "rdf.yaml").write_bytes(data)
    read_package(Package(folder / "rdf.yaml").path)


def config(data: bytes, folder: Path) -> None:
    """Read a configuration, and plan a run with it."""
    (folder / "settings.yaml").write_bytes(data)
    found = make_config(load_config(folder / "settings.yaml"), str(folder / "settings.yaml"))
    if found.instances.method == "overlap" or found.instances.function is not None:
        return  # it names code, which is imported
    plan_for(_flat(), found)
    yaml.safe_dump(found.model_dump(mode="json"))


@cache
def _flat() -> Path:
    """Give an image that lies where it stays."""
    import tempfile

    import numpy as np
    import tifffile

    path = Path(tempfile.mkdtemp(prefix=f"seamfree-flat-{os.getpid()}-")) / "a.tif"
    tifffile.imwrite(path, np.zeros((40, 50), np.uint8))
    return path


TARGETS = {
    "tiff": Target(tiff, mutate_tiff),
    "zarr": Target(zarrs, mutate_folder),
    "card": Target(card, mutate_yaml),
    "config": Target(config, mutate_yaml),
    "package": Target(package, mutate_yaml),
}
