"""Networks that a function of the user's makes, and the code that they are made of."""

from __future__ import annotations

import hashlib
import inspect
import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["call_factory", "digest_code"]

_LISTED = 5
"""Names that are told where one is not there."""

_VERSIONED = {"builtins", "pipeline", "torch"}
"""Packages whose versions are known anyway."""


def _find_factory(factory: str) -> Any:  # noqa: ANN401 (whatever the user names)
    """Import what makes a network.

    Raises
    ------
    ModelError
        If it cannot be had; says what was named wrongly, and how to name it.
    """
    said = f"--factory {factory}"
    module, _, function = factory.partition(":")
    file = Path(module)
    if file.suffix == ".py" or len(file.parts) > 1:
        raise ModelError(
            f"{said}: {module} is a file, where a module is to be named: say --factory "
            f"{file.stem}:{function or 'function'}, with PYTHONPATH={file.parent} before the command"
        )
    if not module or not function:
        raise ModelError(f"{said}: a module and a function of it are to be named, as package.module:function")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ModelError(f"{said}: {module} imports {error.name}, which is not installed; install it") from error
        raise ModelError(
            f"{said}: there is no module {error.name}; install it, or name the folder in which it lies as PYTHONPATH "
            "before the command"
        ) from error
    except Exception as error:
        raise ModelError(f"{said}: {module} cannot be imported ({_in_short(error)}); mend it") from error
    if not hasattr(found, function):
        own = [name for name, value in vars(found).items() if getattr(value, "__module__", "") == found.__name__]
        raise ModelError(
            f"{said}: {getattr(found, '__file__', None) or module} has no {function}; it has "
            f"{', '.join(own[:_LISTED]) or 'no function'}"
        )
    return getattr(found, function)


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def call_factory(path: Path, factory: str | None, arguments: dict[str, Any]) -> nn.Module:
    """Import and call what makes a network.

    Parameters
    ----------
    path : Path
        The weights, for messages.
    factory : str, optional
        ``package.module:function``, by the user's own word.
    arguments : dict
        What it is called with.

    Raises
    ------
    ModelError
        If none is named, or it cannot be imported, or it makes none.
    """
    if factory is None:
        raise ModelError(
            f"{path.parent}: this model's network is made by a function of yours; name it with "
            "--factory package.module:function, for seamfree imports no code that a model file names"
        )
    make = _find_factory(factory)
    try:
        network = make(**arguments)
    except Exception as error:
        raise ModelError(
            f"--factory {factory}: the network cannot be made ({_in_short(error)}); what it is called with are "
            f"network.arguments of the card, {arguments}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"--factory {factory}: gives a {type(network).__name__}, not a torch.nn.Module")
    return network


def digest_code(network: nn.Module, factory: str | None) -> str:
    """Digest the code of a network: the files of the modules that its factory and its layers are written in.

    What these import beside, and do not make layers of, is not known.

    Parameters
    ----------
    network : nn.Module
        As it was made.
    factory : str, optional
        What made it.

    Returns
    -------
    str
        SHA-256, of the files' content and not of where they lie.

    Raises
    ------
    ModelError
        If a file cannot be read.
    """
    names = {type(layer).__module__ for layer in network.modules()}
    if factory is not None:
        named = _find_factory(factory)
        # What a partial calls, and what a decorator wraps.
        made = inspect.unwrap(getattr(named, "func", named))
        names |= {factory.partition(":")[0], getattr(made, "__module__", "")}
    wanted = (each for each in names if each.partition(".")[0] not in _VERSIONED)
    return hashlib.sha256(b"".join(sorted(_digest_module(sys.modules.get(name)) for name in wanted))).hexdigest()


@lru_cache(maxsize=1024)
def _digest_module(module: ModuleType | None) -> bytes:
    """Digest a module's file, once in a process: like the module, which stays the one that was loaded."""
    file = getattr(module, "__file__", None)
    if file is None:
        return b""
    try:
        return hashlib.sha256(Path(file).read_bytes()).digest()
    except OSError as error:
        raise ModelError(f"{file}: the code of the network cannot be read ({error.strerror or error})") from error
