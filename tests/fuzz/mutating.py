"""Mutations that keep a file's form, so that they get past the parser: of TIFF's entries, of JSON's and YAML's trees.

A mutation is drawn from the number that the fuzzer gives; what it gives again makes the same.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import yaml

from tests.fuzz.packing import pack, unpack

__all__ = ["Plain", "mutate_folder", "mutate_json", "mutate_tiff", "mutate_yaml"]

Plain = Callable[[bytes], bytes]
"""The fuzzer's own mutation, which knows nothing of any form."""

_NUMBERS = (0, 1, 2, 3, 5, 7, 8, 16, 255, 256, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**60,
            2**63, 2**64, 2**200, -1, -2, -(2**31), -(2**63))  # fmt: skip
_ODD: tuple[Any, ...] = (
    None, True, False, 0.0, -0.0, 0.5, 1e-308, 1e308, float("nan"), float("inf"), -float("inf"), "", "0", "-1", "nan",
    "x", "yx", "tczyx", "..", "../x", "/x", "a/b", "a\0b", "a\nb", "\u202e", "\ud800", "9" * 5000, "y" * 300, [], {},
    [[]], [None], {"": None},
)  # fmt: skip

_TYPES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 0, 19, 255)
_CODES = (254, 255, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 282, 283, 284, 292, 296, 305, 306, 317,
          320, 322, 323, 324, 325, 330, 333, 338, 339, 340, 341, 347, 512, 513, 514, 530, 700, 32997, 32998, 33628,
          33629, 34118, 34361, 34412, 50838, 50839, 51023, 65420, 65426, 65439)  # fmt: skip
_VALUES: dict[int, tuple[int, ...]] = {
    258: (1, 4, 8, 12, 16, 24, 32, 64, 128), 259: (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 33003, 34712, 34887, 34892,
    50000, 50001, 50002, 65000), 262: (0, 1, 2, 3, 4, 5, 6, 8, 9, 32803, 34892), 284: (1, 2), 317: (1, 2, 3, 34892),
    339: (1, 2, 3, 4, 5, 6), 277: (1, 2, 3, 4, 5), 266: (1, 2),
}  # fmt: skip
"""What has a meaning as a value of some tags."""


def mutate_tiff(data: bytes, draw: Random, plain: Plain) -> bytes:
    """Change an entry of a page, the order of pages, or what its description says."""
    entries = list(_entries(data))
    kind = draw.random()
    if not entries or kind < 0.2:
        return plain(data)
    if kind < 0.35 and (texts := list(re.finditer(rb'="([^"<]{0,80})"|>([^<]{1,80})<|\n(\w+=[^\n\0]*)', data))):
        return _mutate_text(data, draw.choice(texts), draw)
    changed = bytearray(data)
    order, wide, at = draw.choice(entries)
    count, offset = ("Q", 8) if wide else ("I", 4)
    limit = 2**64 if wide else 2**32
    code = struct.unpack_from(f"{order}H", data, at)[0]
    match draw.randrange(8):
        case 0:
            struct.pack_into(f"{order}H", changed, at, draw.choice(_CODES))
        case 1:
            struct.pack_into(f"{order}H", changed, at + 2, draw.choice(_TYPES))
        case 2 | 3:
            struct.pack_into(f"{order}{count}", changed, at + 4, _number(data, draw) % limit)
        case 4:
            other = draw.choice(entries)[2]
            size = 4 + 2 * offset
            changed[at : at + size] = data[other : other + size]
        case _:
            value = draw.choice(_VALUES[code]) if code in _VALUES and draw.random() < 0.7 else _number(data, draw)
            short = struct.unpack_from(f"{order}H", data, at + 2)[0] == 3 and order == ">"
            struct.pack_into(f"{order}H" if short else f"{order}{count}", changed, at + 4 + offset,
                             value % (2**16 if short else limit))  # fmt: skip
    return bytes(changed)


def _number(data: bytes, draw: Random) -> int:
    """Give a number that something may hang on."""
    near = (len(data), 8, draw.randrange(len(data) + 1), draw.randrange(1, 70))
    return draw.choice((*_NUMBERS, *near)) + draw.choice((0, 0, 0, -1, 1))


def _entries(data: bytes, most: int = 200) -> Iterator[tuple[str, bool, int]]:
    """Give the byte order, whether it is a BigTIFF, and the place of each entry of each page."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return
    wide = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    number, tags, size = ("Q", "Q", 20) if wide else ("I", "H", 12)
    place, seen, found = 8 if wide else 4, set[int](), 0
    while True:
        if place + 8 > len(data):
            return
        at = struct.unpack_from(f"{order}{number}", data, place)[0]
        if at in seen or not 0 < at <= len(data) - 8:
            return
        seen.add(at)
        start, held = at + struct.calcsize(f"={tags}"), struct.unpack_from(f"{order}{tags}", data, at)[0]
        for entry in range(min(held, most - found)):
            if start + size * (entry + 1) > len(data):
                return
            found += 1
            yield order, wide, start + size * entry
        place = start + size * held


def _mutate_text(data: bytes, found: re.Match[bytes], draw: Random) -> bytes:
    """Change an attribute, a text, or a line of a description in place: what lies behind stays where it is."""
    start, stop = next(found.span(group) for group in (1, 2, 3) if found.group(group) is not None)
    texts = ("", "0", "-1", "1", "2", "4294967296", "9" * 70, "NaN", "1e400", "x", "XYZTC", "uint8", "float", "µm",
             "../b", "&a;", "images=9", "channels=0", "slices=-3", "min=", "unit=\\u00B5m", "spacing=nan")  # fmt: skip
    text = draw.choice(texts).encode()[: stop - start] if draw.random() < 0.8 else b""
    return data[:start] + text.ljust(stop - start) + data[stop:]


def mutate_json(data: bytes, draw: Random, plain: Plain) -> bytes:
    """Change a node of a tree."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return plain(data)
    return json.dumps(_mutate_tree(tree, draw)).encode()


def mutate_yaml(data: bytes, draw: Random, plain: Plain) -> bytes:
    """Change a node of a tree, or now and then a line."""
    try:
        tree = yaml.safe_load(data)
        if draw.random() < 0.2:
            return plain(data)
        text: str = yaml.safe_dump(_mutate_tree(tree, draw), sort_keys=False, allow_unicode=True)
        return text.encode()
    except (ValueError, RecursionError, yaml.YAMLError):
        return plain(data)


def mutate_folder(data: bytes, draw: Random, plain: Plain) -> bytes:
    """Change one of several files, or leave it out, or give it another one's name."""
    files = unpack(data)
    if not files:
        return plain(data)
    name = draw.choice(sorted(files))
    kind = draw.random()
    if kind < 0.05:
        del files[name]
    elif kind < 0.1:
        files[draw.choice(sorted(files))] = files[name]
    elif name.rpartition("/")[2].startswith((".z", "zarr.json")) and kind < 0.9:
        files[name] = mutate_json(files[name], draw, plain)
    else:
        files[name] = plain(files[name])
    return pack(files)


def _mutate_tree(tree: Any, draw: Random) -> Any:  # noqa: ANN401 (as JSON has it)
    """Change one node of a tree: replace, leave out, double, or exchange it."""
    places = list(_places(tree, ()))
    if not places:
        return draw.choice(_ODD)
    holder, key = draw.choice(places)
    value = holder[key]
    match draw.randrange(8):
        case 0:
            del holder[key]
        case 1:
            other, there = draw.choice(places)
            holder[key] = json.loads(json.dumps(other[there], default=str))
        case 2 if isinstance(holder, list):
            holder.insert(key, value)
        case 2 if isinstance(holder, dict):
            other, there = draw.choice(places)
            holder[str(there)] = value
        case 3 | 4:
            holder[key] = draw.choice(_NUMBERS)
        case 5 if isinstance(value, int) and not isinstance(value, bool):
            holder[key] = value + draw.choice((-1, 1, value, -2 * value))
        case 5 if isinstance(value, str) and value:
            at = draw.randrange(len(value))
            holder[key] = value[:at] + draw.choice(("", "x", "0", "/", "\0", value)) + value[at + 1 :]
        case _:
            holder[key] = json.loads(json.dumps(draw.choice(_ODD)))
    return tree


def _places(tree: Any, above: tuple[int, ...]) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """Give all nodes of a tree, each by what holds it and its place there."""
    if len(above) > 20 or id(tree) in above:
        return
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key], (*above, id(tree)))
