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

_VERSIONED = {"builtins", "pipeline", "torch"}
"""Packages whose versions are known anyway."""


def _find_factory(factory: str) -> Any:  # noqa: ANN401 (whatever the user names)
    module, _, function = factory.partition(":")
    return getattr(import_module(module), function)


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
        If none is named, or it cannot make one.
    """
    if factory is None:
        raise ModelError(
            f"{path.parent}: this model's network is made by a function of yours; name it with "
            "--factory package.module:function, for seamfree imports no code that a model file names"
        )
    try:
        network = _find_factory(factory)(**arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"--factory {factory}: the network cannot be made ({error}); the module must be installed or on PYTHONPATH"
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
