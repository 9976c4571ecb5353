"""Functions that find objects, as users write them: named as ``tests.detectors:nuclei`` and the like."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure, segmentation

from pipeline.detectors.mask_rcnn import detect

__all__ = ["SmallDetector", "blobs", "bright", "nuclei", "nuclei_with_scores", "patches", "small_detector"]


def bright(image: NDArray[np.float32], neighbourhood: float = 12.0) -> NDArray[np.bool_]:
    """What is brighter than its surroundings. A pixel depends on 36 pixels around."""
    channel = image[0].astype(np.float64)
    smoothed = ndimage.gaussian_filter(channel, 1.5, truncate=3)
    around = ndimage.gaussian_filter(channel, neighbourhood, truncate=3)
    mask: NDArray[np.bool_] = (smoothed > 0.12) & (smoothed > around * 0.9)
    return mask


def patches(image: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
    """Connected components of what is bright."""
    labels: NDArray[np.integer[Any]] = measure.label(bright(image), connectivity=1)
    return labels


def nuclei(image: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
    """The same, parted where it narrows: by a watershed, whose outcome may hang on pixels far away in a patch."""
    mask = bright(image)
    # Distances alone are often equal, and a watershed breaks ties by what came first in its queue, anywhere.
    shade = ndimage.gaussian_filter(image[0].astype(np.float64), 2, truncate=3)
    depth = ndimage.gaussian_filter(np.minimum(ndimage.distance_transform_edt(mask), 20), 2, truncate=3)
    peaks = (depth == ndimage.maximum_filter(depth, 11)) & mask
    labels: NDArray[np.integer[Any]] = segmentation.watershed(
        -depth - shade, measure.label(peaks, connectivity=2), mask=mask
    )
    return labels


def nuclei_with_scores(image: NDArray[np.float32]) -> tuple[list[tuple[Any, Any]], list[float]]:
    """The same as masks in boxes, the brighter the surer."""
    regions = measure.regionprops(nuclei(image), image[0])
    return [(region.bbox[:2], region.image) for region in regions], [region.intensity_mean for region in regions]


def blobs(image: NDArray[np.float32], above: float = 0.5) -> NDArray[np.integer[Any]]:
    """Connected components, in planes or volumes."""
    labels: NDArray[np.integer[Any]] = measure.label(image[0] > above, connectivity=1)
    return labels


class SmallDetector:
    """A detector in plain torch that answers as torchvision's do: bright rectangles, their brightness the score."""

    def __call__(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [self._find(image) for image in images]

    def _find(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        regions = measure.regionprops(measure.label(image[0].numpy() > 0.3, connectivity=1), image[0].numpy())
        boxes = [(left, top, right, bottom) for top, left, bottom, right in (region.bbox for region in regions)]
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.ones(len(regions), dtype=torch.int64),
            "scores": torch.tensor([float(region.intensity_max) for region in regions]),
            "masks": torch.ones(len(regions), 1, 28, 28),
        }


def small_detector(image: NDArray[np.float32]) -> Any:  # noqa: ANN401
    """The small detector as a function that finds objects."""
    return detect(SmallDetector(), image)
