"""What a function that finds objects may give, brought into one form: a label image and a score for each object."""

from __future__ import annotations

import reprlib
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["find_objects", "flatten"]

Placed = tuple["Sequence[int]", "NDArray[np.bool_]"]
"""Where a mask begins, [Z,] Y, X, and the mask."""


def find_objects(
    function: Callable[..., Any], image: NDArray[np.float32], name: str = "the function", **options: object
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Call a function that finds objects.

    Parameters
    ----------
    function : callable
        Takes the image and gives either a label array (0 is background) of the image's shape without C; or that and a
        sequence of scores for 1, 2, ...; or masks and as many scores. Masks are a bool array, one more axis first, or a
        list of masks of the image's shape, or of (start, mask): of each object's box, and where it begins, [Z,] Y, X.
    image : ndarray of float32, CYX or CZYX
        The image, or a window of it.
    name : str, optional
        What to call the function in messages.
    **options
        What else the function is called with.

    Returns
    -------
    labels : ndarray of int64, YX or ZYX
        Objects 1 to n, 0 for background.
    scores : ndarray of float64, shape (n,)
        How sure the function is of each; 1 where it gives none.

    Raises
    ------
    ModelError
        If the function gives something else.
    """
    shape = image.shape[1:]
    try:
        answer = function(image, **options)
    except SystemExit as error:
        # It would end the process, and with it the images that come after.
        raise ModelError(f"{name} ended with SystemExit({error.code!r}) where it should give objects") from error
    if not isinstance(answer, tuple):
        return _take_labels(answer, None, shape, name)
    if len(answer) != 2:
        raise ModelError(f"{name} gave a tuple of {len(answer)}; wanted are labels, or masks and scores")
    objects, given = answer
    scores = _take_scores(given, name)
    if isinstance(objects, np.ndarray) and objects.dtype.kind in "iu" and objects.ndim != len(shape) + 1:
        return _take_labels(objects, scores, shape, name)
    if isinstance(objects, np.ndarray) and (objects.dtype != np.bool_ or objects.shape[1:] != shape):
        raise ModelError(
            f"{name} gave masks of shape {objects.shape} and type {objects.dtype}; wanted are bool masks of shape "
            f"(n, {', '.join(map(str, shape))})"
        )
    try:
        placed = [_take_mask(each, shape, name) for each in objects]
    except TypeError as error:
        told = "wanted are a bool array, a list of masks, or one of (start, mask)"
        raise ModelError(f"{name} gave {type(objects).__name__} for masks; {told}") from error
    if len(placed) != scores.size:
        raise ModelError(f"{name} gave {len(placed)} masks and {scores.size} scores")
    return flatten(placed, scores, shape)


def _take_scores(given: object, name: str) -> NDArray[np.float64]:
    """Check scores."""
    try:
        scores = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name} gave scores that are no numbers ({error})") from error
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise ModelError(f"{name} gave scores of shape {scores.shape}; wanted is one finite number for each object")
    return scores


def _take_mask(given: Any, shape: tuple[int, ...], name: str) -> Placed:  # noqa: ANN401 (whatever a function gives)
    """Check a mask: one of the image's shape, or that of a box, and where it begins."""
    wanted = f"wanted is a bool array of shape {shape}, or (start, mask), where start is {len(shape)} whole numbers"
    if isinstance(given, np.ndarray):
        start, mask = (0,) * len(shape), given
        if mask.shape != shape:
            raise ModelError(f"{name} gave a mask of shape {mask.shape}; {wanted}")
    else:
        try:
            begins, mask = given
            start = tuple(index(each) for each in begins)
            mask = np.asarray(mask)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{name} gave {reprlib.repr(given)} for a mask ({error}); {wanted}") from error
    if mask.dtype != np.bool_:
        raise ModelError(f"{name} gave a mask of type {mask.dtype}; {wanted}")
    if len(start) != len(shape) or mask.ndim != len(shape):
        raise ModelError(f"{name} gave a mask of shape {mask.shape} at {start}; {wanted}")
    return start, mask


def _take_labels(
    answer: object, scores: NDArray[np.float64] | None, shape: tuple[int, ...], name: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Check labels, and number them without gaps."""
    labels = np.asarray(answer)
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise ModelError(
            f"{name} gave an array of shape {labels.shape} and type {labels.dtype} for an image of {shape}; wanted are "
            "labels of that shape, whole numbers, 0 for background"
        )
    if labels.size and labels.min() < 0:
        raise ModelError(f"{name} gave a label {labels.min()}; wanted are 0 for background and numbers above")
    present, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(shape).astype(np.int64) + int(present.size > 0 and present[0] > 0)
    present = present[present > 0]
    if scores is None:
        return compact, np.ones(present.size, dtype=np.float64)
    if present.size and present[-1] > scores.size:
        raise ModelError(f"{name} gave labels up to {present[-1]} and {scores.size} scores")
    return compact, scores[present.astype(np.int64) - 1]


def flatten(
    masks: Sequence[Placed], scores: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Make one label image of masks that may overlap: a pixel goes to the higher score, the larger one, the first.

    Parameters
    ----------
    masks : sequence of (start, mask)
        What lies outside the image is left out.
    scores : ndarray of float64, shape (n,)
        As many.
    shape : tuple of int
        Of the image, YX or ZYX.

    Returns
    -------
    labels : ndarray of int64
        Objects 1 to n, in the order given, without those of which nothing is left.
    scores : ndarray of float64
        Theirs.
    """
    cropped = [_crop(start, mask, shape) for start, mask in masks]
    sizes = [int(np.count_nonzero(mask)) for _, mask in cropped]
    firsts = [_first(start, mask) for start, mask in cropped]
    # From the weakest to the best, which is painted over the others.
    order = sorted(range(len(cropped)), key=lambda at: (-scores[at], -sizes[at], firsts[at]), reverse=True)
    labels = np.zeros(shape, dtype=np.int64)
    for at in order:
        start, mask = cropped[at]
        view = labels[tuple(slice(low, low + edge) for low, edge in zip(start, mask.shape, strict=True))]
        view[mask] = at + 1
    present, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(shape).astype(np.int64) + int(present.size > 0 and present[0] > 0)
    return compact, scores[present[present > 0] - 1]


def _crop(
    start: Sequence[int], mask: NDArray[np.bool_], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], NDArray[np.bool_]]:
    """Leave the part of a mask that lies in the image."""
    low = [min(max(0, -int(at)), edge) for at, edge in zip(start, mask.shape, strict=True)]
    high = [
        max(first, min(edge, length - int(at)))
        for at, edge, length, first in zip(start, mask.shape, shape, low, strict=True)
    ]
    inside = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return tuple(int(at) + first for at, first in zip(start, low, strict=True)), inside


def _first(start: Sequence[int], mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Give the place of the first pixel; the same order in every window."""
    if not mask.any():
        return tuple(start)
    inside = np.unravel_index(int(mask.argmax()), mask.shape)
    return tuple(int(at) + int(offset) for at, offset in zip(start, inside, strict=True))
