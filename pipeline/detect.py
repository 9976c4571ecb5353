"""Functions that find objects in a window, in the network's place: named by the user, loaded, identified.

Such a function is code, and runs because the user has named it on the command line or in the configuration. No file of
a model, and nothing that is found somewhere, can name one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points, packages_distributions, version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from pipeline.errors import ConfigError, ModelError
from pipeline.models.card import Channel, InstanceRule, IntensityRule
from pipeline.models.context import ModelContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pipeline.config import RunConfig
    from pipeline.images.source import ImageInfo
    from pipeline.models.architecture import Precision

__all__ = [
    "GROUP",
    "Detector",
    "DetectorCard",
    "DetectorFacts",
    "DetectorFunction",
    "check_detector",
    "check_same_function",
    "identify",
    "learn_detector",
    "load_detector",
    "open_detector",
]

GROUP = "seamfree.detectors"
"""Entry points of this group are functions that find objects."""

HALO = 2
"""Diameters around a core: an object of one diameter with a pixel in it is a whole one away from the window's edge."""

PIXEL_BYTES = 200
"""What a function is taken to allocate for each pixel of a window and each channel; a guess, for nothing tells."""


class DetectorFunction(BaseModel):
    """A function that finds objects, as a plan names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    function: str
    """``module:function``, ``file.py:function``, or an entry point's name."""
    options: dict[str, Any]
    """What else it is called with, by name."""
    diameter: tuple[int, ...]
    """Largest extent of an object in pixels, along the axes that the function takes at once."""


@dataclass(frozen=True, slots=True)
class _Code:
    """What takes the place of the weights: the files that the function and its options name."""

    sha256: str


@dataclass(frozen=True, slots=True)
class DetectorCard:
    """What a model's card says, of a function.

    Parameters
    ----------
    name : str
        As the user wrote it.
    design : DetectorFunction
        What to call, and how.
    weights : object
        Its ``sha256`` identifies the code.
    dims : {2, 3}
        Spatial axes that the function takes at once.
    channels : tuple of Channel
        As many as it is given.
    intensity : IntensityRule
        How intensities are scaled.
    """

    name: str
    design: DetectorFunction
    weights: _Code
    dims: Literal[2, 3]
    channels: tuple[Channel, ...]
    intensity: IntensityRule
    classes: tuple[str, ...] = ("background", "object")
    instances: InstanceRule = InstanceRule(method="components", classes=("object",))  # noqa: RUF009 (immutable)


@dataclass(frozen=True, slots=True)
class DetectorFacts:
    """A function that finds objects, as far as a plan must know it; stands beside `pipeline.models.facts.ModelFacts`.

    Parameters
    ----------
    card : DetectorCard
        What it is.
    context : ModelContext
        How far around a core its windows reach.
    versions : dict
        Of the distribution that it comes from.
    """

    card: DetectorCard
    context: ModelContext
    versions: dict[str, str]

    def window_bytes(self, window: tuple[int, ...], precision: Precision, device: str) -> int:  # noqa: ARG002
        """Guess what a call on one window allocates, in bytes."""
        return PIXEL_BYTES * len(self.card.channels) * prod(window)

    def flops(self, window: tuple[int, ...]) -> int:
        """Say how much there is to do, in proportion: nobody knows what a function computes."""
        return prod(window)


def check_detector(config: RunConfig) -> bool:
    """Say whether a function takes the network's place, and make sure that it is there and all is said that it needs.

    Raises
    ------
    ConfigError
        If there is no such function, or settings contradict each other.
    """
    wish = config.instances
    if wish.method != "overlap":
        fields = type(wish).model_fields
        for name in ("function", "diameter", "options", "dimensions", "intensity"):
            if (given := getattr(wish, name)) and given != fields[name].default:
                raise ConfigError(
                    f"instances.{name} is for the method overlap; add --instances overlap, or leave it out"
                )
        return False
    if wish.function is None or wish.diameter is None:
        missing = "function" if wish.function is None else "diameter"
        raise ConfigError(
            f"the method overlap needs instances.{missing}; give --function NAME, a module:function that finds "
            "objects, and --diameter N, their largest extent in pixels"
        )
    if isinstance(wish.diameter, tuple) and len(wish.diameter) != wish.dimensions:
        raise ConfigError(
            f"instances.diameter has {len(wish.diameter)} entries; the function takes {wish.dimensions} axes at once "
            "(instances.dimensions)"
        )
    if config.model != type(config).model_fields["model"].default:
        raise ConfigError(f"a function takes the network's place; leave out the model {config.model!r}")
    for name in ("classes", "depth", "largest"):
        if getattr(wish, name) != type(wish).model_fields[name].default:
            raise ConfigError(f"a function finds objects of one class, which nothing parts; leave out instances.{name}")
    if wish.fill_holes or wish.border != "keep":
        raise ConfigError("a function's objects stay as they are; leave out instances.fill_holes and instances.border")
    if config.output.probabilities != "none":
        raise ConfigError("a function gives no probabilities; leave out output.probabilities")
    if config.skip_below is not None:
        raise ConfigError("skip_below: skips the network, and a function takes its place; leave out one of them")
    if config.precision not in ("auto", "float32"):
        raise ConfigError(f"functions take float32; leave out the precision {config.precision!r}")
    load_detector(wish.function)
    return True


def check_same_function(network: object, function: str, result: str) -> None:
    """Refuse a function that has not found a result's objects.

    Parameters
    ----------
    network : object
        What the result's plan has in the network's place.
    function : str
        As the user names it.
    result : str
        What to call the result in messages.

    Raises
    ------
    ConfigError
        If it is another one, or there is none.
    """
    made = network.function if isinstance(network, DetectorFunction) else None
    if made is None:
        raise ConfigError(f"{result}: a network has made it, and no function; leave out --function")
    if _absolute(function) != made:
        raise ConfigError(f"{result}: the function {made!r} has found its objects, not {function!r}")


def learn_detector(config: RunConfig, info: ImageInfo) -> DetectorFacts:
    """Learn what a plan needs of the function that a configuration names.

    Parameters
    ----------
    config : RunConfig
        The user's wishes; `check_detector` has been content with them.
    info : ImageInfo
        The facts of the image.

    Raises
    ------
    ConfigError
        If there is no such function, or a file that its options name cannot be read.
    """
    wish = config.instances
    assert wish.function is not None
    assert wish.diameter is not None
    ndim: Literal[2, 3] = wish.dimensions
    diameter = (wish.diameter,) * ndim if isinstance(wish.diameter, int) else wish.diameter
    name = _absolute(wish.function)
    sha256, versions = identify(name, wish.options)
    zeros, ones = (0,) * ndim, (1,) * ndim
    context = ModelContext(
        local=True,
        reason="a function; what it finds in overlapping windows is matched",
        margin=zeros,
        reach=(),
        halo=tuple(HALO * extent for extent in diameter),
        stride=ones,
        phase=zeros,
        smallest=ones,
        scale=ones,
        method="arithmetic",
    )
    card = DetectorCard(
        name=wish.function,
        design=DetectorFunction(function=name, options=wish.options, diameter=diameter),
        weights=_Code(sha256),
        dims=ndim,
        channels=tuple(
            Channel(name=str(channel)) for channel in (config.channels if config.channels else range(info.shape[1]))
        ),
        intensity=IntensityRule(method=wish.intensity),
    )
    return DetectorFacts(card, context, versions)


@dataclass(frozen=True, slots=True)
class Detector:
    """A function, loaded.

    Parameters
    ----------
    name : str
        What to call it in messages.
    function : callable
        As for `pipeline.detect_objects.find_objects`.
    options : dict
        What it is called with beside the image.
    diameter : tuple of int
        Largest extent of an object, in pixels.
    """

    name: str
    function: Callable[..., Any]
    options: dict[str, Any]
    diameter: tuple[int, ...]


def open_detector(design: DetectorFunction, sha256: str, device: str) -> Detector:
    """Load the function that a plan names.

    Parameters
    ----------
    design : DetectorFunction
        What the plan says of it.
    sha256 : str
        What its code had when the plan was made.
    device : str
        Torch's name of this process' device. A function with a parameter ``device`` gets it, unless its options say
        otherwise.

    Raises
    ------
    ModelError
        If its code has changed.
    """
    function = load_detector(design.function)
    if identify(design.function, design.options)[0] != sha256:
        raise ModelError(
            f"{design.function}: the code, or a file that its options name, has changed since the run was planned; run "
            "again, after a restart of workers that have loaded it"
        )
    options = dict(design.options)
    if "device" in _parameters(function):
        options.setdefault("device", device)
    return Detector(design.function, function, options, design.diameter)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Give the names of a function's parameters; none of those that tell nobody."""
    try:
        return tuple(inspect.signature(function).parameters)
    except ValueError:
        return ()


def _absolute(name: str) -> str:
    """Let workers that were started in another folder find a function's file."""
    module, _, attribute = name.rpartition(":")
    return f"{Path(module).absolute()}:{attribute}" if module.endswith(".py") else name


@lru_cache(maxsize=16)
def load_detector(name: str) -> Callable[..., Any]:
    """Load a function by its name.

    Parameters
    ----------
    name : str
        ``package.module:function``, ``path/to/file.py:function``, or the name of an entry point of the group
        ``seamfree.detectors``.

    Returns
    -------
    callable
        See `pipeline.detect_objects.find_objects`.

    Raises
    ------
    ConfigError
        If there is none, or its module cannot be imported, whatever that raises.
    """
    module, colon, attribute = name.rpartition(":")
    if colon and not (module and attribute):
        raise ConfigError(f"{name!r} names no function; wanted are module:function, file.py:function or a known name")
    if colon:
        loaded = _imported(name, lambda: _load_file(Path(module)) if module.endswith(".py") else import_module(module))
        function = getattr(loaded, attribute, None)
        if function is None:
            raise ConfigError(f"there is no function {attribute!r} in {module}")
    else:
        found = tuple(entry_points(group=GROUP, name=name))
        if not found:
            known = ", ".join(sorted({entry.name for entry in entry_points(group=GROUP)})) or "none"
            raise ConfigError(
                f"there is no function {name!r} that finds objects; installed are: {known}; others are named "
                "module:function or file.py:function"
            )
        function = _imported(name, found[0].load)
    if not callable(function):
        raise ConfigError(f"{name!r} is a {type(function).__name__} and cannot be called; name a function")
    callable_function: Callable[..., Any] = function
    return callable_function


def _imported(name: str, load: Callable[[], Any]) -> Any:  # noqa: ANN401 (a module, or what stands in it)
    """Import what a function's name names: code of the user's, which may do anything meanwhile."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"the function {name!r} cannot be loaded ({told})") from error


def _load_file(path: Path) -> ModuleType:
    """Import a file that is no part of a package."""
    name = f"seamfree_detector_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def identify(name: str, options: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Identify a function's code: of what it imports elsewhere, only the version of its own distribution is known.

    Parameters
    ----------
    name : str
        As for `load_detector`.
    options : dict
        What it is called with. Those that are names of files stand for these files' content.

    Returns
    -------
    sha256 : str
        Of the file of its module, that of the function itself, and those that the options name.
    versions : dict
        Of the distributions that it comes from.

    Raises
    ------
    ConfigError
        If there is no such function, or a file cannot be read.
    """
    code, versions = _identify_code(name)
    named = sorted(value for value in options.values() if isinstance(value, str) and Path(value).is_file())
    files = [(path, Path(path).stat()) for path in named]
    weights = [_digest(path, stat.st_mtime_ns, stat.st_size) for path, stat in files]
    return hashlib.sha256(b"".join([code, *weights])).hexdigest(), versions


@lru_cache(maxsize=16)
def _identify_code(name: str) -> tuple[bytes, dict[str, str]]:
    """Digest a function's code, once in a process: like the function, which stays the one that was loaded."""
    function = load_detector(name)
    target = inspect.unwrap(getattr(function, "func", function))
    module = getattr(target, "__module__", "")
    named = name.rpartition(":")[0]
    files = {getattr(sys.modules.get(each), "__file__", None) for each in (module, named)}
    if named.endswith(".py"):
        files.add(named)
    digests = sorted(_digest(path, 0, 0) for path in files if path)
    top = module.partition(".")[0]
    distributions = packages_distributions().get(top, []) if top not in ("pipeline", "__main__") else []
    return b"".join(digests), {each: version(each) for each in sorted(set(distributions))}


@lru_cache(maxsize=64)
def _digest(path: str, modified_ns: int, size: int) -> bytes:  # noqa: ARG001 (the key)
    """Digest a file, again when it has changed."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
