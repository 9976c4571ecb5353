"""What may be shown and kept of a text that came from elsewhere: nothing that a terminal obeys, and no password."""

from __future__ import annotations

import logging
import re
import unicodedata
from copy import copy

from pipeline.remote.addresses import without_secrets

__all__ = ["PlainFormatter", "in_one_line", "is_unicode", "printable", "short", "unexpected"]

_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that do something instead of being seen: controls, directions of writing, ends of lines."""

_SEEN = "\u200c\u200d"
"""But these two only shape the letters beside them."""


def printable(text: str) -> str:
    """Make a text fit for one line of a terminal: what it would obey, not show, is written as in Python.

    A file may be called what sets the terminal's title, moves its cursor, or ends the line.
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in _OBEYED and letter not in _SEEN
        else letter
        for letter in without_secrets(text)
    )


def short(name: str) -> str:
    """Give a name as it is shown: one that no file can have for its length is cut."""
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


_LONGEST = 200

_NO_WORD = re.compile(r"(\S{200})\S{4200,}(\S{50})")
"""Longer than any path: what a damaged file has in the place of a name or a number."""


def in_one_line(text: str) -> str:
    """Give a text as a reason is shown and kept: one line, without secrets, and nothing longer than any path."""
    return without_secrets(_NO_WORD.sub(r"\1...\2", " ".join(text.split())))


def unexpected(error: BaseException) -> str:
    """Say in one line what went wrong that nobody had thought of, and ask for a report."""
    reason = in_one_line(str(error))
    return f"unexpected {type(error).__name__}: {reason}; please report this, with the output of --debug"


class PlainFormatter(logging.Formatter):
    """Gives messages of logs as `printable`."""

    def format(self, record: logging.LogRecord) -> str:
        """Give one line, and those of a traceback."""
        shown = copy(record)
        shown.msg, shown.args = printable(record.getMessage()), None
        return super().format(shown)


def is_unicode(name: str) -> bool:
    """Say whether a name can be written as UTF-8, which names of files need not be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
