"""Names of files that tell what is in them: which well, field, channel, time point and plane.

A pattern is such a name, or a path below a folder, with ``{channel}`` and so on in the place of what differs from file
to file. ``{channel:2}`` is two characters long, ``*`` is any text and ``{:36}`` any of 36 characters, and what stands
in brackets may be absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["AXIS_NAMES", "FIELDS", "PRESETS", "FilePattern", "parse_pattern", "row_letters"]

FIELDS = ("well", "row", "column", "field", "channel", "time", "z")
"""What a pattern may find in a name."""

AXIS_NAMES = {"T": "time", "C": "channel", "Z": "z"}
"""Which of them are an axis of the image."""

PRESETS = {
    # Opera Phenix and Operetta CLS, as Harmony exports them.
    "phenix": "r{row}c{column}f{field}p{z}-ch{channel}sk{time}fk1fl1.tiff",
    # MetaXpress; thumbnails have "_thumb" between wavelength and identifier, and do not fit.
    "imagexpress": "[TimePoint_{time}/][ZStep_{z}/]*_{well}[_s{field}][_w{channel:1}][{:36}].tif",
    # Micro-Manager 2, one file for each plane.
    "micromanager": "img_channel{channel}_position{field}_time{time}_z{z}.tif",
}
"""Patterns by name; in the place of a pattern, the name will do."""

SUFFIXES = (".tif", ".tiff", ".btf")

_NUMBER = r"\d"
_KINDS = {
    "well": r"[A-Za-z]{1,2}\d{1,3}",
    "row": r"(?:[A-Za-z]{1,2}|\d+)",
    "column": _NUMBER,
    "field": _NUMBER,
    "channel": r"[^/]",
    "time": _NUMBER,
    "z": _NUMBER,
}

_TOKEN = re.compile(
    r"\{(?P<name>[^{}:]*)(?P<width>:[^{}]*)?\}|(?P<star>\*)|(?P<edge>[\[\]])|(?P<stray>[{}])|[^{}\[\]*]+"
)

_LONGEST = 200
"""Characters of a pattern."""

_MOST_STARS = 3
"""The time that matching a name takes grows with their number."""


@dataclass(frozen=True)
class FilePattern:
    """A pattern that was understood.

    Parameters
    ----------
    shown : str
        What stands for it in a path: the name of a preset in braces, or the pattern itself.
    text : str
        The pattern.
    regex : re.Pattern
        Matches paths below the folder, with ``/``; its groups are the fields.
    names : tuple of str
        The fields that it finds.
    prefix : str
        Letters before the channel, such as ``"ch"``: a channel that is a number is called with them.
    """

    shown: str
    text: str
    regex: re.Pattern[str]
    names: tuple[str, ...]
    prefix: str

    @property
    def depth(self) -> int:
        """So many folders may lie between the folder and a file."""
        return self.text.count("/")

    @property
    def has_wells(self) -> bool:
        """Whether the files are those of a plate."""
        return "well" in self.names or "row" in self.names


@lru_cache(maxsize=64)
def parse_pattern(text: str) -> FilePattern:
    """Understand a pattern.

    Parameters
    ----------
    text : str
        A pattern, or the name of one of `PRESETS`.

    Raises
    ------
    ValueError
        If it is none: says what is wrong, and what there could be.
    """
    name = text.strip("{}")
    if name in PRESETS and text in (name, f"{{{name}}}"):
        return _parse(PRESETS[name], f"{{{name}}}")
    return _parse(text, text)


def _parse(text: str, shown: str) -> FilePattern:
    _check_place(text)
    pieces: list[str] = []
    names: list[str] = []
    prefix, optional, before = "", False, ""
    for token in _TOKEN.finditer(text):
        name, width = token["name"], token["width"]
        if token["stray"]:
            raise ValueError(f"a brace is open in {text!r}; fields are written like {{channel}}")
        if token["edge"]:
            if (token["edge"] == "[") == optional:
                raise ValueError(
                    f"brackets in {text!r} do not go together; what may be absent is written like [_w{{z}}]"
                )
            optional = not optional
            pieces.append("(?:" if optional else ")?")
            continue
        if token["star"]:
            pieces.append("[^/]*?")
        elif name is None:
            pieces.append(re.escape(token[0]))
        else:
            length = _width(width, token[0])
            if not name:
                if length is None:
                    raise ValueError(f"{token[0]} in {text!r} says nothing; name a field ({_listed()}) or a length")
                pieces.append(f"[^/]{{{length}}}")
            else:
                _check_name(name, names, text)
                if before:
                    raise ValueError(
                        f"where {{{before}}} ends and {{{name}}} begins cannot be told; give a length, such as "
                        f"{{{before}:2}}, or the text between them"
                    )
                if name == "channel":
                    prefix = re.search(r"[A-Za-z]*$", text[: token.start()])[0]  # type: ignore[index]
                pieces.append(_group(name, length))
                names.append(name)
        before = name if name and width is None else ""
    _check_fields(names, text)
    if optional:
        raise ValueError(f"a bracket is open in {text!r}")
    if text.count("*") > _MOST_STARS:
        raise ValueError(f"{text!r} has more than {_MOST_STARS} stars; write out more of the name")
    return FilePattern(shown, text, re.compile("".join(pieces), re.IGNORECASE), tuple(names), prefix)


def _check_place(text: str) -> None:
    if not text or len(text) > _LONGEST:
        raise ValueError(f"a pattern of 1 to {_LONGEST} characters is wanted, or one of {', '.join(PRESETS)}")
    if not text.lower().endswith(SUFFIXES):
        what = "" if "{" in text or "." in text else f", or one of {', '.join(PRESETS)}"
        raise ValueError(f"{text!r} is no name of TIFF files; a pattern that ends in .tif or .tiff is wanted{what}")
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError(f"{text!r} must name files below the folder, without '..'")


def _width(width: str | None, token: str) -> int | None:
    if width is None:
        return None
    if not re.fullmatch(r":[1-9]\d{0,2}", width):
        raise ValueError(f"{token}: after the colon comes how many characters long it is, such as :2")
    return int(width[1:])


def _check_name(name: str, seen: list[str], text: str) -> None:
    if name not in FIELDS:
        raise ValueError(f"there is no field {{{name}}}; there are {_listed()}")
    if name in seen:
        raise ValueError(f"{{{name}}} stands twice in {text!r}")


def _group(name: str, length: int | None) -> str:
    if name in ("well", "row"):
        return f"(?P<{name}>{_KINDS[name] if length is None else f'[A-Za-z0-9]{{{length}}}'})"
    often = f"{{{length}}}" if length is not None else "+?" if name == "channel" else "+"
    return f"(?P<{name}>{_KINDS[name]}{often})"


def _check_fields(names: list[str], text: str) -> None:
    if not names:
        raise ValueError(f"{text!r} finds nothing in names; write fields where they stand: {_listed()}")
    if "well" in names and ("row" in names or "column" in names):
        raise ValueError(f"{{well}} is row and column together; leave one or the other out of {text!r}")
    if ("row" in names) != ("column" in names):
        raise ValueError(f"a plate needs both {{row}} and {{column}}, or {{well}}; {text!r} has one of them")


def _listed() -> str:
    return ", ".join(f"{{{name}}}" for name in FIELDS)


def row_letters(number: int) -> str:
    """Give the letters of a row, which is counted from 1: A, B, ..., Z, AA.

    Raises
    ------
    ValueError
        If there is no such row.
    """
    if not 1 <= number <= 702:
        raise ValueError(f"there is no row {number}")
    first, second = divmod(number - 1, 26)
    return (chr(64 + first) if first else "") + chr(65 + second)
