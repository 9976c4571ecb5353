"""What a worker has open while it works on a plan: the image, the network, the result's arrays."""

from __future__ import annotations

import json
import platform
import weakref
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import numpy as np

from pipeline.audit_windows import tile_samples
from pipeline.detect import Detector, DetectorFunction, open_detector
from pipeline.engine.secrecy import private_folder
from pipeline.engine.slots import take_slot
from pipeline.engine.survey import public_version
from pipeline.errors import ClusterError, ImageError, ModelError
from pipeline.identity import NUMBERS_DEPEND_ON
from pipeline.images.intensity import Scaling
from pipeline.images.opening import open_image
from pipeline.images.source import ImageSource
from pipeline.labels.parting import Crossing
from pipeline.models.context import exchangeable
from pipeline.notes import load_arrays, load_labels
from pipeline.stores.arrays import ResultArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.geometry import Box
    from pipeline.models.architecture import UNetConfig
    from pipeline.models.context import Stitching
    from pipeline.models.network import NetworkFile, NetworkUse
    from pipeline.models.predictor import Predictor
    from pipeline.models.rescaling import Rescaling
    from pipeline.planning import RunPlan
    from pipeline.remote.paths import AnyPath

__all__ = ["OPENING", "Bench", "Unseen", "bench_for", "opened_once"]

T = TypeVar("T")

OPENING = RLock()
"""Held while a bench or a network is looked for: two threads of a worker would make two, on one GPU."""

_KEPT_CORES = 8
"""Classes of so many cores are kept: a byte for each of their pixels."""


class opened_once(cached_property[T]):  # noqa: N801 (as what it stands for)
    """A ``cached_property`` of a bench that is made once, however many threads ask: since Python 3.12 that has no lock.

    One lock for each bench, which a thread may take again: what is opened may need what is opened, too.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        if instance is None:
            return self
        with instance.lock:
            # Whoever waited finds what the other has made.
            return super().__get__(instance, owner)


class Bench:
    """Open handles for one plan, each opened when it is first needed. The threads of a worker share it.

    Parameters
    ----------
    plan : RunPlan
        The plan.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.lock = RLock()
        self._arrays: dict[str, ResultArray] = {}
        self._cores: dict[int, NDArray[np.uint8]] = {}
        self._waking: Thread | None = None

    @property
    def folder(self) -> AnyPath:
        """Where the result's arrays lie."""
        return self.plan.partial

    @opened_once
    def source(self) -> ImageSource:
        """The input.

        Raises
        ------
        ImageError
            If it is not the image that the plan was made for.
        """
        source = open_image(self.plan.source.path, self.plan.series)
        if not source.info.is_still(self.plan.source):
            source.close()
            raise ImageError(f"{self.plan.source.path}: the file has changed since the run was planned; run again")
        weakref.finalize(self, source.close)
        return source

    @opened_once
    def predictor(self) -> Predictor:
        """The network, shared by all plans that use it."""
        plan = self.plan
        assert not isinstance(plan.network, DetectorFunction)  # plans for functions never get here
        loading = _Loading(
            plan.model, plan.weights_sha256, plan.network, plan.factory, plan.trust_model_code, plan.use,
            plan.stitching, exchangeable(plan.footprint), plan.code_sha256, plan.rescaling,
        )  # fmt: skip
        with OPENING:
            return _predictor(loading, _device(plan.device, plan.gpu_bytes), plan.precision)

    def wake_gpu(self) -> None:
        """Have a GPU made ready beside what is done until the network has its turn: its libraries take seconds to load.

        What goes wrong there goes wrong again, and is told, when the network is loaded.
        """
        if self.plan.device == "cuda":
            with self.lock:
                if self._waking is None:
                    self._waking = Thread(target=_wake, args=(self.plan.gpu_bytes,), daemon=True)
                    self._waking.start()

    @opened_once
    def detector(self) -> Detector:
        """The function that takes the network's place.

        Raises
        ------
        ModelError
            If its code is not what the plan was made for.
        """
        assert isinstance(self.plan.network, DetectorFunction)  # nor plans for networks here
        return open_detector(
            self.plan.network, self.plan.weights_sha256, _device(self.plan.device, self.plan.gpu_bytes)
        )

    @opened_once
    def scalings(self) -> dict[tuple[int, int], Scaling]:
        """How intensities are scaled, by time point and channel."""
        noted = json.loads((self.plan.work / "intensity.json").read_text())
        return {(entry["time"], entry["channel"]): Scaling.from_note(entry) for entry in noted}

    @opened_once
    def crossing(self) -> Crossing:
        """The components that cross from core to core."""
        return Crossing(**load_arrays(self.plan.work / "crossing.npz"))

    @opened_once
    def batches(self) -> list[NDArray[np.int64]]:
        """Their numbers, as they are parted together."""
        return self.crossing.batches(self.plan.tiles, self.plan.parting.largest)

    @opened_once
    def places(self) -> NDArray[np.int32]:
        """The batch of each crossing component, from 0 on, and its place in there: shape (n, 2); -1 in no batch."""
        places = np.full((self.crossing.first.size, 2), -1, dtype=np.int32)
        for batch, numbers in enumerate(self.batches):
            places[numbers - 1] = np.stack([np.full(numbers.size, batch), np.arange(numbers.size)], axis=1)
        return places

    @opened_once
    def samples(self) -> dict[int, dict[str, Box]]:
        """The parts of tiles whose scores the audit will want, by tile and by name."""
        return tile_samples(self.plan)

    def noted(self, name: str) -> NDArray[Any]:
        """Map an array that an earlier stage has left."""
        # As a plain array: each slice of a memmap is one, and takes ten times as long.
        return np.asarray(np.load(self.plan.work / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    def array(self, path: str) -> ResultArray:
        """Give one of the result's arrays."""
        with self.lock:
            if path not in self._arrays:
                self._arrays[path] = ResultArray(self.folder, self.plan.array_specs[path])
            return self._arrays[path]

    def classes(self, index: int) -> NDArray[np.uint8]:
        """Give the classes of a core of which objects are made: its semantic labels, with holes filled if wanted."""
        owned = self.plan.tiles[index].owned
        if self.plan.fill_holes:
            return load_labels(self.plan.work / "filled" / f"{index}.blosc", owned.shape, np.uint8)
        return self.array("labels/semantic/0").read(owned)

    def classes_in(self, box: Box) -> NDArray[np.uint8]:
        """Give `classes` of a box. The last few cores are kept: boxes that follow lie close together."""
        tiles = self.plan.tiles
        found = np.empty(box.shape, dtype=np.uint8)
        for index in tiles.touching(box):
            owned = tiles[index].owned
            core = self._kept_classes(index)
            shared = box.intersect(owned)
            found[shared.relative_to(box.start).slices] = core[shared.relative_to(owned.start).slices]
        return found

    def _kept_classes(self, index: int) -> NDArray[np.uint8]:
        """Give `classes`, as kept or read. Reading holds up no other thread: two may read one core, and keep one."""
        with self.lock:
            core = self._cores.pop(index, None)
            if core is not None:
                self._cores[index] = core
                return core
        core = self.classes(index)
        with self.lock:
            self._cores[index] = core
            if len(self._cores) > _KEPT_CORES:
                del self._cores[next(iter(self._cores))]
        return core

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a TCZYX region of the image: of its copy, where there is one."""
        return self.array("0").read(box) if self.plan.copy_image else self.source.read(box)


@lru_cache(maxsize=4)
def _bench(output: str, digest: str, begun: int, plan: Unseen) -> Bench:  # noqa: ARG001 (the key)
    # A worker may have joined after all were asked.
    for name in NUMBERS_DEPEND_ON:
        planned, here = plan.plan.versions.get(name), public_version(name)
        if planned is not None and planned.partition("+")[0] != here:
            raise ClusterError(
                f"{name} is {planned} where the run was planned and {here or 'missing'} on a worker on "
                f"{platform.node()}; install the same version there, and run again: what is done is kept"
            )
    return Bench(plan.plan)


class Unseen:
    """Carries a plan past a cache that must not look at it."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unseen)


def bench_for(plan: RunPlan) -> Bench:
    """Give this process' bench for a plan; kept for the few plans used last, and never from one run to the next."""
    try:
        begun = (plan.work / "plan.json").stat().st_mtime_ns
    except FileNotFoundError as error:
        raise ClusterError(
            f"{plan.work}: a worker on {platform.node()} does not see the unfinished result; put it where all machines "
            "see it under one path, and run again: what is done is kept"
        ) from error
    with OPENING:
        return _bench(str(plan.held), plan.digest, begun, Unseen(plan))


def _device(kind: str, share: int | None) -> str:
    """Choose this process' device: the workers of one host share its GPUs evenly, whoever has started them.

    What it takes of a GPU is bounded by its share: else cuDNN may choose what needs all that is free.
    """
    if kind != "cuda":
        return kind
    import torch

    # By what they are: a worker may see other ones than the next, or the same in another order.
    names = [str(torch.cuda.get_device_properties(at).uuid) for at in range(torch.cuda.device_count())]
    number = take_slot(names, Path(private_folder())) if names else 0
    if share is not None:
        whole = torch.cuda.get_device_properties(number).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share / whole), number)
    return f"cuda:{number}"


def _wake(share: int | None) -> None:
    from pipeline.models.predictor import wake

    wake(_device("cuda", share))


@dataclass(frozen=True, slots=True)
class _Loading:
    """What a predictor is made of."""

    model: str
    sha256: str
    design: UNetConfig | NetworkFile
    factory: str | None
    trust: bool
    use: NetworkUse
    stitching: Stitching | None
    exchange: bool
    code: str | None
    rescaling: Rescaling | None

    def __hash__(self) -> int:
        # A network's arguments may be lists, which have no hash.
        return hash((self.model, self.sha256, self.factory, self.trust, self.use, self.code))


@lru_cache(maxsize=1)
def _predictor(loading: _Loading, device: str, precision: Any) -> Predictor:  # noqa: ANN401 (a Literal)
    from pipeline.models.library import load_model
    from pipeline.models.passes import symmetries
    from pipeline.models.predictor import Predictor, limit_threads

    limit_threads(1)
    loaded = load_model(loading.model, factory=loading.factory, trust=loading.trust, use=loading.use)
    if (loaded.card.weights.sha256, loaded.card.design) != (loading.sha256, loading.design):
        raise ModelError(f"{loading.model}: the model has changed since the run was planned; run again")
    if loading.code is not None and loaded.code_sha256 != loading.code:
        raise ModelError(f"{loading.factory or loading.model}: the code of the network has changed since the run was "
                         "planned; run again")  # fmt: skip
    averaged = symmetries(loaded.card.dims, exchange=loading.exchange) if loading.use.tta else ()
    return Predictor(loaded, device, precision, loading.stitching, averaged, loading.rescaling)
