"""What is found where a finished result is checked: one line for each thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Check", "draw_some"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was verified.

    Parameters
    ----------
    what : str
        What it is.
    passed : bool
        Whether it is as it should be; also where the check could not be made.
    detail : str
        What was found.
    made : bool
        Whether the check could be made; the detail says why not.
    """

    what: str
    passed: bool
    detail: str = ""
    made: bool = True


def draw_some(count: int, most: int, seed: int | list[int]) -> list[int]:
    """Draw some of so many things, by their numbers from 0 on, ascending; all where there are few."""
    if count <= most:
        return list(range(count))
    return sorted(np.random.default_rng(seed).choice(count, most, replace=False).tolist())
