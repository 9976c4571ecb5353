"""Patches as other microscopes would have seen them: scale, blur, noise, gamma, background, bit depth.

Everything is drawn from a random generator that the caller seeds, so a patch is a function of its seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from pipeline.training.data import Field

__all__ = ["change_appearance", "cut_patch"]

DIAMETERS = (8.0, 80.0)
"""Nuclei of these diameters, in pixels, are what the network is to know."""


def _smooth_noise(shape: tuple[int, int], knots: int, random: Generator) -> NDArray[np.float32]:
    """Give a field that varies slowly, within about -1 to 1."""
    coarse = random.uniform(-1, 1, (knots, knots)).astype(np.float32)
    zoomed = ndimage.zoom(coarse, (shape[0] / knots, shape[1] / knots), order=1, grid_mode=True, mode="nearest")
    field: NDArray[np.float32] = zoomed[: shape[0], : shape[1]]
    return field


def cut_patch(field: Field, size: int, random: Generator) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Cut a patch at a random place, turned, flipped, scaled and sheared.

    Parameters
    ----------
    field : Field
        Where to cut.
    size : int
        Edge of the patch, in pixels.
    random : Generator
        Source of chance.

    Returns
    -------
    image : ndarray of float32
        YX, mirrored beyond the field's edges as at inference.
    mask : ndarray of int32
        YX.
    """
    low, high = (edge / field.diameter for edge in DIAMETERS)
    if random.random() < 0.6:
        scale = float(np.exp(random.normal(0, 0.25)))
    else:
        scale = float(np.exp(random.uniform(np.log(max(low, 0.35)), np.log(min(high, 3.0)))))
    scale = float(np.clip(scale, low, high))
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(random.normal(0, 0.08))
    shape = np.array([[stretch, random.normal(0, 0.06)], [0.0, 1 / stretch]])
    flip = np.diag([1.0 if random.random() < 0.5 else -1.0, 1.0])
    matrix = (turn @ shape @ flip) / scale
    centre = np.array([random.uniform(0, edge) for edge in field.image.shape])
    offset = centre - matrix @ np.array([size / 2, size / 2])
    image = field.image
    if scale < 0.9:
        image = ndimage.gaussian_filter(image, 0.45 * (1 / scale - 1) + 0.2)
    patch = ndimage.affine_transform(image, matrix, offset, (size, size), order=1, mode="mirror")
    mask = ndimage.affine_transform(field.mask, matrix, offset, (size, size), order=0, mode="mirror")
    return patch.astype(np.float32, copy=False), mask.astype(np.int32, copy=False)


def change_appearance(image: NDArray[np.float32], mask: NDArray[np.int32], random: Generator) -> NDArray[np.float32]:
    """Change a patch's intensities as another stain, another cell line and another camera would.

    Parameters
    ----------
    image : ndarray of float32
        YX, background near 0, bright nuclei near 1.
    mask : ndarray of int32
        YX.
    random : Generator
        Source of chance.

    Returns
    -------
    ndarray of float32
        YX, on about the same scale.
    """
    shape = (image.shape[0], image.shape[1])
    patch: NDArray[np.floating] = image
    inside = mask > 0
    if random.random() < 0.4:  # nuclei of unequal brightness
        gains = np.exp(random.normal(0, 0.45, int(mask.max()) + 1)).astype(np.float32).clip(0.25, 2.0)
        gains[0] = 1.0
        patch = patch * ndimage.gaussian_filter(gains[mask], 1.0).astype(np.float32)
    if random.random() < 0.4:  # chromatin texture
        texture = ndimage.gaussian_filter(random.normal(0, 1, shape).astype(np.float32), random.uniform(1, 3))
        texture *= random.uniform(0.05, 0.25) / max(float(texture.std()), 1e-6)
        patch = np.where(inside, patch * np.clip(1 + texture, 0.2, 2.0), patch)
    if random.random() < 0.6:
        power = np.float32(np.exp(random.normal(0, 0.35)))
        patch = (np.sign(patch) * np.abs(patch) ** power).astype(np.float32)
    if random.random() < 0.5:
        patch = ndimage.gaussian_filter(patch, abs(random.normal(0, 1.3)))
    if random.random() < 0.5:  # uneven light, and background that is not dark
        patch = patch * (1 + random.uniform(0, 0.4) * _smooth_noise(shape, 3, random))
        patch = patch + random.uniform(0, 0.3) * (1 + _smooth_noise(shape, int(random.integers(2, 7)), random)) / 2
    if random.random() < 0.7:
        photons = np.exp(random.uniform(np.log(15), np.log(2000)))
        noisy = random.poisson(np.clip(patch, 0, 3) * photons) / photons
        patch = noisy.astype(np.float32) + random.normal(0, abs(random.normal(0, 0.03)), shape).astype(np.float32)
    if random.random() < 0.2:  # few grey levels
        levels = np.float32(np.exp(random.uniform(np.log(12), np.log(200))))
        patch = np.round(patch * levels) / levels
    # The percentiles of a whole image depend on what else is in it.
    gain = np.exp(random.normal(0, 0.35))
    return (patch * np.float32(gain) + np.float32(random.normal(0, 0.06))).astype(np.float32)
