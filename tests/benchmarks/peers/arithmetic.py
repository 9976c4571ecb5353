"""What a machine can do at most: a network's arithmetic without any context, and the rate of a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter, thread_time
from typing import Any

import torch

from pipeline.models.architecture import UNetConfig

__all__ = ["TYPES", "flops_per_pixel", "rate_limit", "synchronise"]

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SIDES = (1024, 2048, 4096)
"""Of square matrices."""

WIDTHS = (64, 128, 256)
"""Channels of convolutions."""

PASSES = 3


def flops_per_pixel(architecture: UNetConfig) -> float:
    """Give the floating-point operations of an output pixel where nothing is computed for context.

    That is what a same-padded network of the same layers does: each level has as many pixels as the poolings leave.
    """
    padded = architecture.model_copy(update={"padding": "same"})
    edge = 2**padded.depth
    return padded.flops((edge,) * padded.dims) / float(edge) ** padded.dims


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was told; a CPU always has."""
    if device != "cpu":
        torch.cuda.synchronize()


def rate_limit(
    precision: str, device: str, sides: tuple[int, ...] = SIDES, widths: tuple[int, ...] = WIDTHS, pixels: int = 256**2
) -> dict[str, Any]:
    """Measure how much arithmetic this machine does: large square matrix products, and convolutions that suit it.

    Parameters
    ----------
    precision : str
        A key of `TYPES`.
    device : str
        A torch device.
    sides, widths : tuple of int
        What is tried.
    pixels : int
        Of the convolutions' images.

    Returns
    -------
    dict
        ``flops_per_second`` of the best, ``by``, what it was, and ``tried``, all of them in GFLOP/s. On a CPU also
        ``flops_per_core_second``: of the best with one thread, by the time that a core was at it, which other programs
        hardly change.
    """
    tried: dict[str, float] = {}
    by_core: list[float] = []
    threads = torch.get_num_threads()
    with torch.inference_mode():
        products, convolutions = _products(precision, device, sides), _convolutions(precision, device, widths, pixels)
        for name, flops, work in (*products, *convolutions):
            tried[name] = flops / _least(work, device, perf_counter)
            if device == "cpu":
                torch.set_num_threads(1)
                # Of this thread: the time of others is noted at the system's ticks only, too seldom for short passes.
                by_core.append(flops / _least(work, device, thread_time))
                torch.set_num_threads(threads)
    by = max(tried, key=lambda name: tried[name])
    rounded = {name: round(each / 1e9, 1) for name, each in tried.items()}
    found = {"flops_per_second": tried[by], "by": by, "tried": rounded}
    return found | ({"flops_per_core_second": max(by_core)} if device == "cpu" else {})


def _least(work: Callable[[], Any], device: str, clock: Callable[[], float]) -> float:
    """Give the seconds of the fastest of some passes."""
    work()
    seconds = []
    for _ in range(PASSES):
        synchronise(device)
        began = clock()
        work()
        synchronise(device)
        seconds.append(clock() - began)
    return min(seconds)


def _products(precision: str, device: str, sides: tuple[int, ...]) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    for side in sides:
        one, other = (torch.rand(side, side, device=device).to(TYPES[precision]) for _ in range(2))
        yield f"product of {side}", 2 * side**3, partial(torch.mm, one, other, out=torch.empty_like(one))


def _convolutions(
    precision: str, device: str, widths: tuple[int, ...], pixels: int
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    edge = round(pixels**0.5)
    for width in widths:
        layer = torch.nn.Conv2d(width, width, 3, padding=1).to(device=device, dtype=TYPES[precision])
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = torch.rand(1, width, edge, edge, device=device).to(TYPES[precision])
        image = image.contiguous(memory_format=torch.channels_last)
        yield f"convolution of {width} channels", 2 * 9 * width**2 * edge**2, partial(layer, image)
