"""One case of the corpus: an input, how it is given, and what a user is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case", "done", "failed", "refused"]

Make = Callable[[Path], "Path | str"]


@dataclass(frozen=True)
class Case:
    """A case.

    Parameters
    ----------
    name : str
        What is the matter.
    make : callable
        Makes the input in an empty folder, and gives what is named on the command line.
    status : str
        ``"done"``, ``"failed"``, or ``"refused"`` where no work starts at all.
    message : str
        A pattern that is in the one line that tells of it.
    options : tuple of str
        More of the command line.
    """

    name: str
    make: Make
    status: str
    message: str = ""
    options: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """The exit code."""
        return {"done": 0, "failed": 1, "refused": 2}[self.status]


def done(name: str, make: Make, says: str = "", options: tuple[str, ...] = ()) -> Case:
    """Give a case that is segmented; a pattern of what is said about it nevertheless."""
    return Case(name, make, "done", says, options)


def failed(name: str, make: Make, message: str, options: tuple[str, ...] = ()) -> Case:
    """Give a case of an image that fails while others go on."""
    return Case(name, make, "failed", message, options)


def refused(name: str, make: Make, message: str, options: tuple[str, ...] = ()) -> Case:
    """Give a case in which no work starts."""
    return Case(name, make, "refused", message, options)
