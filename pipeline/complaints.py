"""What is wrong with settings, in the words of who writes YAML."""

from __future__ import annotations

import re
import reprlib
from itertools import accumulate
from typing import TYPE_CHECKING

from pipeline.printing import short
from pipeline.remote.addresses import without_secrets

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["complain"]

_TRIED = re.compile(r"^(int|str|float|constrained-\w+|function-.*|tuple\[.*)$")
"""How pydantic tells, in a path, which of several types a complaint is about."""

_MOST_TOLD = 1500
"""Letters of complaints that are shown at once: whoever has mended these sees the others."""


def complain(error: ValidationError, settings: type[BaseModel]) -> str:
    """Tell all that pydantic has found, by the path of each setting; at some length only.

    Parameters
    ----------
    error : ValidationError
        What it has found.
    settings : type of BaseModel
        The settings: what there is in the place of a key that nobody knows.
    """
    by_place: dict[str, list[str]] = {}
    for found in error.errors():
        by_place.setdefault(_place(found), []).append(_complaint(found, settings))
    complaints = [f"{short(place)}: {' or '.join(texts)}" for place, texts in by_place.items()]
    ends = list(accumulate(map(len, complaints)))
    shown = max(1, sum(end <= _MOST_TOLD for end in ends))
    more = f"; and {len(complaints) - shown} more" if shown < len(complaints) else ""
    return f"{'; '.join(complaints[:shown])}{more}"


def _complaint(found: ErrorDetails, settings: type[BaseModel]) -> str:
    """Say what is wrong with one setting."""
    asked = found["input"]
    given = without_secrets(reprlib.repr(without_secrets(asked) if isinstance(asked, str) else asked))
    if found["type"] == "value_error" and found["loc"][-1:] in (("scheduler",), ("options",)):
        return found["msg"].removeprefix("Value error, ")
    match found["type"]:
        case "bool_type":
            return f"true or false is wanted, got {given}"
        case "too_short":
            return f"a list of {found['ctx']['min_length']} or more is wanted, got {given}"
        case "literal_error" if isinstance(found["input"], bool | int | float):
            # YAML takes off and no for false, and 0.4 for a number.
            return f"{found['msg']}, got {given}; write it in quotes"
        case "extra_forbidden":
            section = settings
            for part in found["loc"][:-1]:
                section = type(section.model_fields[str(part)].default)
            return f"there is no such setting; there are {', '.join(section.model_fields)}"
        case "tuple_type":
            listed = f", such as [{given}]" if isinstance(found["input"], str | int | float) else ""
            return f"a list is wanted{listed.replace(chr(39), '')}, got {given}"
        case "model_type" | "dict_type":
            return f"a mapping of settings is wanted, got {given}"
        case "missing":
            return found["msg"]
    return f"{found['msg'].removeprefix('Value error, ')}, got {given}"


def _place(found: ErrorDetails) -> str:
    """Give a setting's path as YAML has it, without what tells which of several types was tried."""
    parts = [str(part) for part in found["loc"]]
    return ".".join(part for at, part in enumerate(parts) if at == 0 or not _TRIED.search(part))
