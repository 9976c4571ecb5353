"""Processes that shall not outlive the one that started them, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["dies_with_parent"]

_PR_SET_PDEATHSIG = 1
"""From Linux's prctl.h."""


def dies_with_parent(parent: str | None = None) -> None:
    """Let the system kill this process when its parent has ended. To be called in the child; Linux only, else nothing.

    Elsewhere a killed parent leaves its children to find out by themselves.

    Parameters
    ----------
    parent : str, optional
        The parent's number, where it is known: should it have ended before this was called, this process ends here.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != int(parent):
        os._exit(128 + signal.SIGKILL)
