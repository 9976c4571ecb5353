"""Mask R-CNN of torchvision: boxes, scores and small masks become masks in the image. Needs seamfree[detection]."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch.nn import functional

from pipeline.errors import ModelError
from pipeline.models.predictor import limit_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["detect", "mask_rcnn", "paste"]

Network: TypeAlias = "Callable[[list[torch.Tensor]], list[dict[str, torch.Tensor]]]"
"""Takes images CYX; gives ``boxes`` (n, 4: x, y, x, y), ``labels`` and ``scores`` (n), ``masks`` (n, 1, m, m)."""

Placed: TypeAlias = "tuple[tuple[int, int], NDArray[np.bool_]]"


def mask_rcnn(
    image: NDArray[np.float32],
    *,
    weights: str,
    classes: int = 2,
    object_class: int = 1,
    score: float = 0.5,
    mask: float = 0.5,
    most: int = 2000,
    device: str = "cpu",
) -> tuple[list[Placed], NDArray[np.float64]]:
    """Find objects with torchvision's ``maskrcnn_resnet50_fpn_v2``. Images are not resized, whatever the window.

    Parameters
    ----------
    image : ndarray of float32, CYX
        One channel, which is taken three times, or three.
    weights : str
        Path of the network's state as safetensors. Nothing is fetched.
    classes : int, optional
        With background.
    object_class : int, optional
        The one whose objects are wanted.
    score, mask : float, optional
        Thresholds of an object's score and of its mask's pixels.
    most : int, optional
        Objects in a window, at most.
    device : str, optional
        Torch's name of it; seamfree gives it.

    Returns
    -------
    masks, scores
        As `pipeline.detect_objects.find_objects` takes them.

    Raises
    ------
    ModelError
        If torchvision is not installed, or the weights are missing or do not fit.
    """
    path = Path(weights)
    if not path.is_file():
        raise ModelError(f"{weights}: there are no such weights; give the path of a safetensors file")
    network = _load(weights, path.stat().st_mtime_ns, classes, score, most, device)
    return detect(network, image, object_class=object_class, score=score, mask=mask, device=device)


@lru_cache(maxsize=1)
def _load(weights: str, modified_ns: int, classes: int, score: float, most: int, device: str) -> Network:  # noqa: ARG001 (the key)
    try:
        from torchvision.models.detection import maskrcnn_resnet50_fpn_v2
    except ImportError as error:
        raise ModelError(
            f"Mask R-CNN needs torchvision, which cannot be imported ({error}); pip install 'seamfree[detection]'"
        ) from error
    limit_threads(1)
    network = maskrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=classes, box_score_thresh=score, box_detections_per_img=most,
        _skip_resize=True,
    )  # fmt: skip
    try:
        network.load_state_dict(load_file(weights))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{weights}: not the weights of this network ({' '.join(str(error).split())[:200]})"
        ) from error
    # It would paste every mask into an array as large as the window.
    network.transform.postprocess = lambda found, *_: found
    loaded: Network = network.eval().to(device)
    return loaded


def detect(
    network: Network,
    image: NDArray[np.float32],
    *,
    object_class: int = 1,
    score: float = 0.5,
    mask: float = 0.5,
    device: str = "cpu",
) -> tuple[list[Placed], NDArray[np.float64]]:
    """Find objects with any network that answers as torchvision's detectors do before masks are pasted.

    Parameters
    ----------
    network : callable
        See `Network`.
    image : ndarray of float32, CYX
        One channel or three.
    object_class, score, mask, device
        As for `mask_rcnn`.

    Raises
    ------
    ModelError
        If the image has another number of channels.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ModelError(f"Mask R-CNN takes planes of 1 or 3 channels, got {image.shape}; choose with --channel")
    colours = torch.from_numpy(np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:]))))
    with torch.inference_mode():
        (found,) = network([colours.clamp(0, 1).to(device)])
        kept = (found["labels"] == object_class) & (found["scores"] >= score)
        boxes, masks = found["boxes"][kept].cpu(), found["masks"][kept, 0].float().cpu()
        scores = found["scores"][kept].double().cpu().numpy()
        return [paste(one, box, mask) for one, box in zip(masks, boxes, strict=True)], scores


def paste(probabilities: torch.Tensor, box: torch.Tensor, threshold: float) -> Placed:
    """Bring a small mask to the size of its box, as ``torchvision.models.detection.roi_heads`` does.

    Parameters
    ----------
    probabilities : Tensor, shape (m, m)
        Of the object, across its box.
    box : Tensor, shape (4,)
        x, y, x, y, in pixels.
    threshold : float
        Above it a pixel belongs to the object.

    Returns
    -------
    start : tuple of int
        Row and column of the mask's first pixel; may lie outside the image.
    mask : ndarray of bool
    """
    edge = probabilities.shape[-1]
    padded = functional.pad(probabilities, (1, 1, 1, 1))
    x0, y0, x1, y1 = box.tolist()
    # A pixel of nothing around it, which the box grows by.
    half_width, half_height = ((high - low) / 2 * (edge + 2) / edge for low, high in ((x0, x1), (y0, y1)))
    left, right = int((x0 + x1) / 2 - half_width), int((x0 + x1) / 2 + half_width)
    top, bottom = int((y0 + y1) / 2 - half_height), int((y0 + y1) / 2 + half_height)
    shape = (max(bottom - top + 1, 1), max(right - left + 1, 1))
    large = functional.interpolate(padded[None, None], size=shape, mode="bilinear", align_corners=False)[0, 0]
    return (top, left), (large > threshold).numpy()
