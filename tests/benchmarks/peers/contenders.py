"""Those who are compared, each in a process of its own, in the environment that has it: image in, labels out.

What is timed is the work alone, on an image in memory, after a first pass over a small part: not what a program takes
to start. Where a program leaves a choice that matters, what is fastest on a part of the image is taken, and noted.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.benchmarks.peers.arithmetic import TYPES, rate_limit, synchronise
from tests.benchmarks.peers.cases import Case

__all__ = ["CONTENDERS", "Task", "pass_over"]

Labels = NDArray[np.uint8]

PART = {2: 2048, 3: 192}
"""Edge of the part that choices are tried on, by number of axes."""

Run = Callable[[NDArray[np.float32], Any], Labels]


@dataclass(frozen=True)
class Task:
    """What a contender is asked for."""

    case: Case
    precision: str
    device: str
    settings: Any
    """What was found best before; None where nothing was tried."""

    def network(self, precision: str | None = None, *, last: bool = True) -> nn.Module:
        """Give the network on the device, in the best order of memory unless told otherwise."""
        network = self.case.network().to(device=self.device, dtype=TYPES[precision or self.precision])
        if not last:
            return network
        layout = torch.channels_last if self.case.architecture.dims == 2 else torch.channels_last_3d
        return network.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def best_network(self) -> nn.Module:
        """Give the network in the form that seamfree runs it in: its ReLUs a part of its convolutions."""
        from pipeline.models.fusing import fuses_rectification, rectified
        from pipeline.models.predictor import fastest_layout, keep_digits

        network, dtype = self.case.network(), TYPES[self.precision]
        if fuses_rectification(self.device, dtype):
            network = rectified(network)
        layout = fastest_layout(self.device, dtype, self.case.architecture.dims)
        if self.device != "cpu":
            keep_digits()
        return network.to(device=self.device, dtype=dtype, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def tensor(self, image: NDArray[np.float32], precision: str | None = None) -> Tensor:
        """Give an image on the device, with a batch and a channel."""
        made = torch.from_numpy(np.ascontiguousarray(image))[None, None]
        return made.to(device=self.device, dtype=TYPES[precision or self.precision])

    def timed(self, run: Run, choices: Sequence[Any]) -> dict[str, Any]:
        """Find the best choice if that is not known, run with it, and time that."""
        image = self.case.image
        part = image[tuple(slice(0, PART[image.ndim]) for _ in image.shape)]
        best = self.settings
        if best is None:
            tried = []
            for choice in choices:
                run(part, choice)
                tried.append((self._seconds(run, part, choice)[0], choice))
            best = min(tried, key=lambda each: each[0])[1]
        else:
            run(image[tuple(slice(0, length // 2 // 16 * 16) for length in image.shape)], best)
        busy = process_time()
        seconds, labels = self._seconds(run, image, best)
        found = {"seconds": seconds, "settings": best, "labels": labels}
        return found | ({"core_seconds": process_time() - busy} if self.device == "cpu" else {})

    def _seconds(self, run: Run, image: NDArray[np.float32], choice: Any) -> tuple[float, Labels]:  # noqa: ANN401
        synchronise(self.device)
        began = perf_counter()
        labels = run(image, choice)
        synchronise(self.device)
        return perf_counter() - began, labels


def fitting(edges: Sequence[int], image: NDArray[np.float32]) -> list[int]:
    """Give the edges of windows that an image is large enough for; its own where it is for none."""
    return [edge for edge in edges if edge <= min(image.shape)] or [min(image.shape)]


def classes_of(scores: Tensor) -> Labels:
    """Give the likeliest class of each pixel of one image."""
    found: Labels = scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return found


def pass_over(task: Task, network: nn.Module, image: NDArray[np.float32], bands: int = 1) -> Labels:
    """Run the network over a whole image, mirrored beyond its edges; or in bands with all their context."""
    footprint = task.case.footprint
    mirrored = np.pad(image, footprint.surrounding(image.shape), mode="reflect")
    labels = np.empty(image.shape, dtype=np.uint8)
    rows = -(-image.shape[0] // bands // footprint.stride[0]) * footprint.stride[0]
    for start in range(0, image.shape[0], rows):
        core = (min(rows, image.shape[0] - start), *image.shape[1:])
        scores = network(task.tensor(mirrored[start : start + footprint.window_shape(core)[0]]))
        inner = tuple(slice(at, at + length) for at, length in zip(footprint.inset, core, strict=True))
        labels[start : start + core[0]] = classes_of(scores[(..., *inner)])
    return labels


def limit(task: Task) -> dict[str, Any]:
    return rate_limit(task.precision, task.device)


def bare(task: Task) -> dict[str, Any]:
    from tests.benchmarks.peers.bare import bare_network

    case = task.case
    return bare_network(case.folder, case.padding, task.precision, task.device, case.image.shape, task.settings)


def whole(task: Task) -> dict[str, Any]:
    """In one pass, or in as many bands as the settings say."""
    network, bands = task.network(), task.settings or 1
    found = replace(task, settings=bands).timed(lambda image, _: pass_over(task, network, image, bands), [])
    return {name: each for name, each in found.items() if name != "settings"}


def monai_defaults(task: Task) -> dict[str, Any]:
    """As its documentation begins: a float32 network, and all that `SlidingWindowInferer` leaves to its defaults."""
    from monai.inferers import SlidingWindowInferer

    network = task.network("float32", last=False)
    windows = 512 if task.case.image.ndim == 2 else 96

    def run(image: NDArray[np.float32], edge: int) -> Labels:
        inferer = SlidingWindowInferer(roi_size=(edge,) * image.ndim)
        return classes_of(inferer(task.tensor(image, "float32"), network))

    return task.timed(run, [min(windows, *task.case.image.shape)])


def monai_tuned(task: Task) -> dict[str, Any]:
    """The fastest of several windows and batches, with as little overlap as the context, in the network's best form."""
    from monai.inferers import SlidingWindowInferer

    network, dims = task.network(), task.case.image.ndim
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d

    def run(image: NDArray[np.float32], choice: list[Any]) -> Labels:
        edge, batch, overlap = choice
        inferer = SlidingWindowInferer(roi_size=(edge,) * dims, sw_batch_size=batch, overlap=overlap)
        given = task.tensor(image)
        return classes_of(inferer(given, lambda windows: network(windows.contiguous(memory_format=layout))))

    edges = fitting((512, 1024, 2048) if dims == 2 else (96, 128, 192), task.case.image)
    several = 4 if dims == 2 else 2
    choices = [
        [edge, batch, round(min(0.25, 2 * task.case.footprint.context[0] / edge), 4)]
        for edge in edges
        for batch in (1, several)
        if batch == 1 or edge == edges[0] or task.device != "cpu"
    ]
    return task.timed(run, choices)


def bioimageio_core(task: Task) -> dict[str, Any]:
    """In blocks of the best of several sizes, with the halo that the network needs."""
    from bioimageio.core import create_prediction_pipeline
    from bioimageio.core.digest_spec import create_sample_for_model
    from loguru import logger

    from tests.benchmarks.peers.described import describe

    logger.remove()
    dims = task.case.image.ndim
    with tempfile.TemporaryDirectory(prefix="seamfree-peers-") as folder:
        description = describe(Path(folder), task.case, TYPES[task.precision])
        with create_prediction_pipeline(description, devices=[task.device]) as pipeline:

            def run(image: NDArray[np.float32], edge: int) -> Labels:
                sample = create_sample_for_model(description, inputs={"raw": image[None, None]})
                block = {"batch": 1, "channel": 1} | dict.fromkeys("zyx"[-dims:], edge)
                outcome = pipeline.predict_sample_with_fixed_blocking(sample, {"raw": block})
                (scores,) = outcome.members.values()
                return classes_of(torch.from_numpy(np.asarray(scores.data)))

            edges = (512, 1024, 2048) if dims == 2 else (144, 176, 208)
            return task.timed(run, fitting(edges, task.case.image))


def patchworks(task: Task) -> dict[str, Any]:
    """From a Zarr array to a Zarr array, objects joined across tiles; the labels are those of its objects' class."""
    import dask.array as da
    from patchworks import tile_process
    from scipy import ndimage

    logging.getLogger("patchworks").setLevel(logging.ERROR)
    network, dims, context = task.network(), task.case.image.ndim, task.case.footprint.context[0]

    def objects(tile: NDArray[np.float32]) -> NDArray[np.int32]:
        with torch.inference_mode():
            classes = classes_of(network(task.tensor(tile)))
        found: NDArray[np.int32] = ndimage.label(classes == task.case.objects)[0]
        return found

    with tempfile.TemporaryDirectory(prefix="seamfree-peers-") as name:
        folder, image = Path(name), task.case.image

        @cache
        def written(shape: tuple[int, ...]) -> Path:
            part = image[tuple(slice(0, length) for length in shape)]
            path = folder / f"{'x'.join(map(str, shape))}.zarr"
            da.from_array(part, chunks=(512,) * 2 if dims == 2 else (64,) * 3).to_zarr(path)
            return path

        def run(part: NDArray[np.float32], edge: int) -> Labels:
            made = tile_process(
                da.from_zarr(written(part.shape)), objects, tile_shape=(edge,) * dims, overlap=context, progress=False,
                use_gpu=task.device != "cpu", write_to=folder / "labels.zarr",
            )  # fmt: skip
            return (np.asarray(made) > 0).astype(np.uint8)

        written(image.shape)
        return task.timed(run, fitting((512, 1024, 2048) if dims == 2 else (64, 96, 128), image))


CONTENDERS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "limit": limit,
    "bare": bare,
    "whole": whole,
    "monai-defaults": monai_defaults,
    "monai-tuned": monai_tuned,
    "bioimageio.core": bioimageio_core,
    "patchworks": patchworks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("outcome", type=Path, help="Folder for outcome.json, and for labels.npy where there are such.")
    parser.add_argument("--padding", default="same")
    parser.add_argument("--precision", choices=TYPES, default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--settings", type=json.loads, default=None)
    given = parser.parse_args()
    task = Task(Case(given.folder, given.padding), given.precision, given.device, given.settings)
    with torch.inference_mode():
        found = CONTENDERS[given.name](task)
    if "labels" in found:
        np.save(given.outcome / "labels.npy", found.pop("labels"))
    if given.device != "cpu":
        found["device_mib"] = round(torch.cuda.max_memory_reserved() / 2**20)
    (given.outcome / "outcome.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
