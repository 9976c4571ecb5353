"""Windows on their way to a device, and what comes back: on a GPU nobody waits for them who has anything to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Received", "Sent", "Transfer"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A window on its way."""

    image: Tensor
    """Of one image: a batch of 1."""
    arrival: torch.cuda.Event | None

    def arrived(self) -> Tensor:
        """Give it to what is computed next; that waits for it, not the caller."""
        if self.arrival is not None:
            current = torch.cuda.current_stream(self.image.device)
            current.wait_event(self.arrival)
            # Its memory is another stream's to give away, which does not know who still reads.
            self.image.record_stream(current)
        return self.image


@dataclass(frozen=True, slots=True)
class Received:
    """Tensors on their way back."""

    tensors: tuple[Tensor, ...]
    arrival: torch.cuda.Event | None

    def wait(self) -> tuple[Tensor, ...]:
        """Give them, as soon as they are there; other threads of Python go on meanwhile."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return self.tensors


class Transfer:
    """The way to a device and back.

    On a GPU, windows are copied from page-locked memory beside what is computed, and results into such memory behind
    it. On a CPU nothing is copied.

    Parameters
    ----------
    device : torch.device
        The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copying: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(self, window: NDArray[np.floating]) -> Sent:
        """Send a window.

        Parameters
        ----------
        window : ndarray of float32 or float64
            Channels, then YX or ZYX.
        """
        image = torch.from_numpy(window)[None]
        if self._copying is None:
            return Sent(image, None)
        with torch.cuda.stream(self._copying):
            sent = image.pin_memory().to(self._device, non_blocking=True)
            return Sent(sent, self._copying.record_event(_event()))

    def receive(self, *tensors: Tensor) -> Received:
        """Have tensors sent back, as soon as they are computed."""
        if self._copying is None:
            return Received(tensors, None)
        copies = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors]
        for copy, each in zip(copies, tensors, strict=True):
            copy.copy_(each, non_blocking=True)
        return Received(tuple(copies), torch.cuda.current_stream(self._device).record_event(_event()))


def _event() -> torch.cuda.Event:
    # Else whoever waits keeps a core busy, which others could use.
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
