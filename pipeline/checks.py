"""What is found where a finished result is checked: one line for each thing."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Check"]


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
