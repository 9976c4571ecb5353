"""A network at work: windows in, scores or classes out, on a device and in a precision."""

from __future__ import annotations

import re
from functools import reduce
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import torch

from pipeline.errors import ModelError
from pipeline.models.constants import MOST_BYTES, Constants, value_of
from pipeline.models.fusing import InRange, fold_normalisation, fuses_rectification, growth, rectified
from pipeline.models.passes import Symmetry, rescale, stitch
from pipeline.models.streaming import StreamedUNet
from pipeline.models.transfer import Transfer
from pipeline.models.unet import PairwisePool, UNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pipeline.models.architecture import Precision
    from pipeline.models.context import Stitching
    from pipeline.models.library import LoadedModel
    from pipeline.models.rescaling import Rescaling
    from pipeline.models.transfer import Received

__all__ = ["Prediction", "Predictor", "fastest_layout", "keep_digits", "limit_threads", "wake"]

_TYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


_MIXED = re.compile("should be the same|same dtype|same type|scalar type|not implemented for")
"""What torch says where a network makes numbers of a type of its own, or a type is not known to an operation."""


def limit_threads(number: int) -> None:
    """Let torch use so many threads within one operation, in this process.

    One for each Dask thread makes the result independent of the machine's load and number of cores.
    """
    torch.set_num_threads(number)


def wake(device: str) -> None:
    """Load what computes on a GPU, by a first convolution there."""
    with torch.inference_mode():
        torch.nn.functional.conv2d(torch.zeros(1, 1, 8, 8, device=device), torch.zeros(1, 1, 3, 3, device=device))
    torch.cuda.synchronize(device)


def fastest_layout(device: str, dtype: torch.dtype, dims: int) -> torch.memory_format:
    """Give the order in memory in which convolutions are the fastest: channels last, but for cuDNN's wide numbers."""
    if device == "cuda" and dtype.itemsize > 2:
        return torch.contiguous_format
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def keep_digits() -> None:
    """Have GPUs compute with all digits of a type, and the same each time, in this process."""
    # TensorFloat-32 rounds to 10 bits: not what float32 promises.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


class Prediction(NamedTuple):
    """What a network says of a window; without its margins.

    Parameters
    ----------
    classes : ndarray of uint8
        The likeliest class of each pixel, YX or ZYX; the lowest of several equal ones.
    scores : ndarray of float32 or float64, or None
        The probabilities, classes first; float64 where the precision is.
    samples : list of ndarray
        Parts of them, in the order in which they were asked for.
    reused : bool
        Whether an equal window was computed before, and its result taken.
    """

    classes: NDArray[np.uint8]
    scores: NDArray[np.floating] | None
    samples: list[NDArray[np.floating]]
    reused: bool = False


class Predictor:
    """Runs a model's network. Several threads may share one: forward passes take turns.

    On a GPU a turn is over when all is asked for, so that the next window's pass follows at once; each thread waits for
    its own.

    Parameters
    ----------
    model : LoadedModel
        The network and its card. The network is taken over and changed.
    device : str
        A torch device, such as ``"cpu"`` or ``"cuda:0"``.
    precision : str
        Arithmetic of the network; scores are float64 where it is, else float32.
    stitching : Stitching, optional
        How a coarser output becomes one at each pixel; as it is where absent.
    symmetries : sequence of Symmetry, optional
        Those that scores are averaged over; all that there are, as `pipeline.models.passes.symmetries` gives them.
    rescaling : Rescaling, optional
        How the network is run at another pixel size than the image's; not with a stitching.
    """

    def __init__(
        self,
        model: LoadedModel,
        device: str,
        precision: Precision,
        stitching: Stitching | None = None,
        symmetries: Sequence[Symmetry] = (),
        rescaling: Rescaling | None = None,
    ) -> None:
        self.card = model.card
        self.device = torch.device(device)
        self.dtype = _TYPES[precision]
        self._precision = precision
        self._stitching, self._symmetries, self._rescaling = stitching, symmetries, rescaling
        self._layout = layout = fastest_layout(self.device.type, self.dtype, model.card.dims)
        # Folded in float64, so that folding costs no precision.
        network = model.network.double()
        own = network if isinstance(network, UNet) else None
        if own is not None:
            fold_normalisation(own)
            bounds = growth(own)
            if self.device.type == "cpu":
                own.pool = PairwisePool()
        network = network.to(device=self.device, dtype=self.dtype, memory_format=layout)  # type: ignore[call-overload]
        if own is not None:
            slabs = own.config.in_slabs(self.device.type)
            network = StreamedUNet(own) if slabs else own
            if fuses_rectification(self.device.type, self.dtype):
                faster = rectified(own)
                network = InRange(network, StreamedUNet(faster) if slabs else faster, bounds)
        self._network = network
        self._guard = network if isinstance(network, InRange) else None
        self._transfer = Transfer(self.device)
        self._turn = Lock()
        self._constants: Constants[tuple[Tensor, Tensor]] = Constants()
        if self.device.type == "cuda":
            keep_digits()

    def _run(self, image: Tensor) -> Tensor:
        try:
            given: Tensor = self._network(image.contiguous(memory_format=self._layout))
        except RuntimeError as error:
            text = " ".join(str(error).rpartition("RuntimeError: ")[2].split())[:200]
            if self._precision == "float32" or _MIXED.search(text) is None:
                raise
            raise ModelError(
                f"{self.card.name}: the network does not compute in {self._precision} ({text}); say --precision float32"
            ) from error
        return given

    def _forward(self, image: Tensor, finite: list[Tensor]) -> Tensor:
        """Give what the network says of an image: (1, channels, [Z,] Y, X); and note whether all of it is finite.

        The largest of several scores would be any class where one is no number. Both stay on the device.
        """
        if self._rescaling is not None:
            raw = rescale(self._run, image, self._rescaling)
        else:
            raw = self._run(image) if self._stitching is None else stitch(self._run, image, self._stitching)
        # In one pass over memory: the extremes are NaN where anything is.
        finite.append(torch.isfinite(torch.stack(torch.aminmax(raw))).all())
        return raw

    def _compute(
        self, window: NDArray[np.floating], parts: Sequence[tuple[slice, ...]], *, plain: bool
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Give scores, before the softmax if `plain`, and classes on the device; and what `_send_back` has of them.

        Raises
        ------
        ModelError
            If something is not finite.
        """
        for careful in (False, True):
            sent = self._transfer.send(window)
            finite: list[Tensor] = []
            with self._turn:
                image = sent.arrived().to(device=self.device, dtype=self.dtype)
                if self._guard is not None:
                    self._guard.careful = careful
                    # Those of a pass that failed.
                    self._guard.doubts()
                raw = self._forward(image, finite)[0] if plain else self._average(image, finite)[0]
                doubts = self._guard.doubts() if self._guard is not None else []
                classes = raw.argmax(dim=0).to(torch.uint8)
                verdict = torch.stack([~torch.stack(finite).all(), *doubts])
                received = self._send_back(raw, classes, parts, verdict, plain=plain)
            *here, verdicts = received.wait()
            infinite, *again = verdicts.tolist()
            if any(again):
                continue
            if infinite:
                wider = "float64" if self._precision == "float32" else "float32"
                raise ModelError(
                    f"{self.card.name}: scores are not finite in {self._precision}: the image's intensities are far "
                    f"from those that the model knows, or the range is too small; look at the image, or try precision "
                    f"{wider}"
                )
            return raw, classes, here
        raise AssertionError

    def _send_back(
        self, raw: Tensor, classes: Tensor, parts: Sequence[tuple[slice, ...]], *others: Tensor, plain: bool
    ) -> Received:
        """Have the classes sent back, the probabilities of parts, and other tensors: all at once.

        Each wait by itself would be for what other processes compute on the same GPU meanwhile.
        """
        wanted = [raw[(slice(None), *part)] for part in parts]
        if plain:
            wanted = [self._probabilities(each[None])[0] for each in wanted]
        return self._transfer.receive(classes, *wanted, *others)

    def _probabilities(self, raw: Tensor) -> Tensor:
        """Give the probabilities of all classes, in float32 or, where the network computes in it, float64."""
        wide = raw.to(torch.float64 if self.dtype == torch.float64 else torch.float32)
        if self.card.activation == "softmax":
            return wide.softmax(dim=1)
        if self.card.activation == "none":
            return wide
        # Each class has a probability of its own; background is what is left beside the likeliest.
        each = wide.sigmoid()
        return torch.cat([1 - each.amax(dim=1, keepdim=True), each], dim=1)

    @torch.inference_mode()
    def predict(
        self,
        window: NDArray[np.floating],
        *,
        scores: bool = False,
        samples: Sequence[tuple[slice, ...]] = (),
        reuse: bool = False,
    ) -> Prediction:
        """Give the likeliest class of each pixel, and, if wanted, the probabilities of all.

        Parameters
        ----------
        window : ndarray of float32 or float64
            Channels, then YX or ZYX; of a legal size, intensities scaled as the card says.
        scores : bool
            Whether the probabilities are wanted; without them only the classes leave the device.
        samples : sequence of tuple of slice
            Parts of the output whose probabilities are wanted in any case, along its spatial axes.
        reuse : bool
            Whether a window in which each channel has one value only may get what an equal one got before: the same to
            the bit, for equal windows give equal scores. The last few are kept, on the device.

        Returns
        -------
        Prediction
            Of the window's shape less the margins, in pixels of the output.

        Raises
        ------
        ModelError
            If a score is not finite.
        """
        # The softmax changes no order, so that it is taken only of what is wanted.
        plain = self.card.activation == "softmax" and not self._symmetries
        parts: list[tuple[slice, ...]] = [*([()] if scores else []), *samples]
        value = value_of(window) if reuse else None
        known = None
        if value is not None:
            with self._turn:
                known = self._constants.find((value, window.shape))
        if known is None:
            raw, classes, found = self._compute(window, parts, plain=plain)
            if value is not None and raw.nbytes <= MOST_BYTES:
                with self._turn:
                    self._constants.keep((value, window.shape), (raw, classes))
        else:
            raw, classes = known
            with self._turn:
                received = self._send_back(raw, classes, parts, plain=plain)
            found = list(received.wait())
        if value is not None:
            # What is kept is nobody's to write into.
            found = [each.clone() for each in found]
        here, *given = (each.numpy() for each in found)
        return Prediction(here, given.pop(0) if scores else None, given, known is not None)

    def release(self) -> None:
        """Give back the memory of what is kept beside the network."""
        with self._turn:
            self._constants = Constants()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _average(self, image: Tensor, finite: list[Tensor]) -> Tensor:
        """Give the mean of the probabilities over the symmetries, always added in one order."""
        if not self._symmetries:
            return self._probabilities(self._forward(image, finite))
        turned = (each.undo(self._probabilities(self._forward(each.apply(image), finite))) for each in self._symmetries)
        return reduce(torch.add, turned) / len(self._symmetries)
