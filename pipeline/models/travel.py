"""Letting NaN get wherever a pixel is seen: through comparisons, too, and whatever else would swallow it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Travel"]

_CHOOSING = {"aten::where", "aten::masked_fill", "aten::masked_fill_", "aten::copy_", "aten::_to_copy"}
"""What of NaN these leave out was not asked for, or is not said here."""

_BEST = {"aten::argmax", "aten::argmin"}


class Travel(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps NaN from being swallowed.

    What a comparison says of NaN is open: one run takes it for false, another for true, and what differs between the
    two has been seen as well as what is NaN in either. Numbers that are made of NaN stay NaN.

    Parameters
    ----------
    guess : bool, optional
        What comparisons say, and whether the last of several is the best; where it is None, some say this and some
        that.

    Attributes
    ----------
    guessed : bool
        Whether any was met.
    """

    def __init__(self, guess: bool | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._guess, self.guessed = guess, False

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (torch's own)
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Compute one operation, and mend what it makes of NaN."""
        name = func._schema.name
        if name in _BEST and args[0].is_floating_point() and bool((bad := torch.isnan(args[0])).any()):
            return self._best(func, args, kwargs or {}, bad)
        counts = torch.Tag.pointwise in func.tags and name not in _CHOOSING
        cast = name == "aten::_to_copy"
        tensors = [each for each in args if isinstance(each, Tensor) and each.is_floating_point()]
        if not tensors or not (counts or cast) or func._schema.is_mutable:
            return func(*args, **(kwargs or {}))
        given = func(*args, **(kwargs or {}))
        if not isinstance(given, Tensor) or given.device.type == "meta":
            return given
        floating = given.is_floating_point() or given.is_complex()
        if cast and floating:
            return given
        bad = torch.isnan(tensors[0])
        for each in tensors[1:]:
            bad = bad | torch.isnan(each)
        if not bool(bad.any()):
            return given
        mended = torch.where(bad, torch.nan if floating else self._guesses(bad).to(given.dtype), given)
        return mended.contiguous() if given.is_contiguous() else mended

    def _guesses(self, like: Tensor) -> Tensor:
        """Give a guess for each place; the same along axes of which an image does not depend."""
        self.guessed = True
        if self._guess is not None:
            return torch.tensor(self._guess).expand(like.shape)
        number = torch.arange(max(like.shape, default=1))
        found = torch.zeros([1] * like.ndim, dtype=torch.bool)
        for axis, edge in enumerate(like.shape):
            if like.stride(axis):
                shape = [edge if at == axis else 1 for at in range(like.ndim)]
                found = found ^ (number[:edge].reshape(shape) * 7 % 3 == 1)
        return found.expand(like.shape)

    def _best(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], bad: Tensor) -> Any:  # noqa: ANN401
        given = func(*args, **kwargs)
        image = args[0]
        dimension = args[1] if len(args) > 1 else kwargs.get("dim")
        if dimension is None:
            return given
        keep = bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
        unsure = bad.any(dim=dimension, keepdim=keep)
        last = image.shape[dimension] - 1
        return torch.where(unsure, self._guesses(unsure).to(given.dtype) * last, given)
