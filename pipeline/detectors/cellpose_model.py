"""Cellpose as a function that finds objects. Needs cellpose, which is installed by itself."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.models.predictor import limit_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["cellpose"]


def cellpose(
    image: NDArray[np.float32], *, weights: str, device: str = "cpu", **options: object
) -> NDArray[np.integer[Any]]:
    """Find cells with Cellpose 4. Intensities are those of the whole image's scaling, not of the window's.

    Parameters
    ----------
    image : ndarray of float32, CYX or CZYX
        At most three channels. Volumes are segmented in 3-D.
    weights : str
        Path of a Cellpose model. Nothing is fetched.
    device : str, optional
        Torch's name of it; seamfree gives it.
    **options
        Of ``CellposeModel.eval``, such as ``flow_threshold``, ``cellprob_threshold``, ``min_size``, ``anisotropy``.

    Returns
    -------
    ndarray of int
        Labels, of the image's shape without C.

    Raises
    ------
    ModelError
        If Cellpose is not installed, or the weights are missing.
    """
    path = Path(weights)
    if not path.is_file():
        # Cellpose would fetch another model instead.
        raise ModelError(f"{weights}: there are no such weights; give the path of a Cellpose model")
    # What is large for a window need not be so for the image.
    settings = {"max_size_fraction": 1.0, **options}
    if image.ndim == 4:
        settings |= {"do_3D": True, "z_axis": 1}
    labels, *_ = _load(weights, path.stat().st_mtime_ns, device).eval(
        image, channel_axis=0, normalize=False, **settings
    )
    return np.asarray(labels).astype(np.int64)


@lru_cache(maxsize=1)
def _load(weights: str, modified_ns: int, device: str) -> Any:  # noqa: ANN401, ARG001 (untyped; the key)
    try:
        from cellpose.models import CellposeModel
    except ImportError as error:
        raise ModelError(f"Cellpose cannot be imported ({error}); pip install cellpose") from error
    import torch

    limit_threads(1)
    return CellposeModel(pretrained_model=weights, device=torch.device(device), use_bfloat16=device != "cpu")
