"""The command line in this process: the same path as typed, without the seconds that a start takes."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli import main

__all__ = ["Outcome", "seamfree"]


@dataclass(frozen=True)
class Outcome:
    """What a command has said and how it ended."""

    code: int
    out: str
    err: str


def seamfree(*arguments: str | Path) -> Outcome:
    """Run the command line as typed."""
    root, out, err = logging.getLogger(), io.StringIO(), io.StringIO()
    before = (sys.argv, root.handlers[:], os.environ.pop("COLUMNS", None))
    os.environ["COLUMNS"] = "4096"  # so that no line is folded
    sys.argv = ["seamfree", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv, root.handlers[:] = before[0], before[1]
        del os.environ["COLUMNS"]
        if before[2] is not None:
            os.environ["COLUMNS"] = before[2]
    return Outcome(code, out.getvalue(), err.getvalue())
