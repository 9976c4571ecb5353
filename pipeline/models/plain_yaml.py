"""YAML as data: no objects, no aliases, no key twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_yaml"]

_MOST_BYTES = 2**20
"""Of a file. What people write has some kilobytes."""


_MOST_BITS = 1024
"""Of an integer. Python refuses to write out one of more than some thousand digits."""


class _PlainLoader(yaml.SafeLoader):
    """Makes plain values, and refuses what would be taken for something else than it is.

    An alias stands for a value elsewhere; nine lines of aliases stand for more than any memory holds.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 (as the base has it)
        """Refuse an alias where it stands."""
        if self.check_event(yaml.events.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"line {line}: aliases (*) are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: ANN401 (as the base has it)
        """Refuse a key that is there twice, of which one would be dropped."""
        seen = set[str]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value!r} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: ANN401 (as the base has it)
        """Refuse a value that is not of the type that it is said to be, or longer than any number."""
        try:
            made = super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            said = node.tag.rpartition(":")[2]
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {node.value!r:.50} is no {said}") from error
        if isinstance(made, int) and made.bit_length() > _MOST_BITS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a number of {made.bit_length()} bits")
        return made


def read_yaml(path: Path) -> Any:  # noqa: ANN401 (whatever the file holds)
    """Read a YAML file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    object
        Mappings, lists, texts, numbers and dates.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no YAML of the plain kind; says why in one line.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES >> 20} MiB, which is no settings")
    try:
        return yaml.load(content.decode("utf-8"), _PlainLoader)
    except UnicodeDecodeError as error:
        raise ValueError("the file is no text in UTF-8") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
