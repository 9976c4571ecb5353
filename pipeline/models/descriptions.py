"""A package's description, format 0.4 or 0.5 of bioimage.io, as a model card. Nothing is fetched or imported."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import ValidationError

from pipeline.errors import ModelError
from pipeline.models.card import ModelCard
from pipeline.models.network import Architecture, NetworkFile, NetworkFormat, usual_order
from pipeline.models.packages import LARGEST_TEXT, Package
from pipeline.models.processing import map_preprocessing
from pipeline.models.readings import map_postprocessing, read_scores
from pipeline.models.tensors import TensorAxes, declared_footprint, read_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.models.pixels import PixelRule

__all__ = ["PackagedModel", "described", "make_network", "read_array", "read_package"]

_MOST_NODES = 100_000
"""Values in a description, what is repeated by reference counted again: a small text can grow without end."""

_LARGEST_ARRAY = 2**30
"""Bytes of a test tensor."""

_BETWEEN = ("background", "boundar", "border", "contact", "edge", "membrane")
"""What the names of classes have in them that are no objects, but lie between them."""


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A package, as far as its description tells.

    Parameters
    ----------
    card : ModelCard
        What people say of it.
    tests : tuple of (str, str or None)
        File and digest of the test input and of the test output; empty where there are none.
    tolerance : tuple of float
        By how much the test output may be missed: relative, absolute, and how many pixels in a million by more.
    postprocessing : tuple of PixelRule
        All that is done to the output to make it the test output.
    reading : str
        How it was found out what the output's numbers mean.
    version : str
        Of the description's format.
    """

    card: ModelCard
    tests: tuple[tuple[str, str | None], ...]
    tolerance: tuple[float, float, float]
    postprocessing: tuple[PixelRule, ...]
    reading: str
    version: str


def read_package(path: Path, *, trust: bool = False) -> PackagedModel:
    """Read a package's description and check the files that it names.

    Parameters
    ----------
    path : Path
        As `find_package` gives it.
    trust : bool
        Whether weights may be taken that need code of the package's.

    Raises
    ------
    ModelError
        If it is no valid description of a model that this program can run, or its files are not those described.
    """
    package = Package(path)
    return _read(package, package.stamp(), trust)


@lru_cache(maxsize=4)
def _read(package: Package, _stamp: object, trust: bool) -> PackagedModel:
    with described(package) as description:
        try:
            return _as_card(package, description, trust)
        except ModelError as error:
            text = str(error)
            raise ModelError(text if text.startswith(str(package.path)) else f"{package.path}: {text}") from error


@contextmanager
def described(package: Package) -> Iterator[Any]:
    """Give a package's description as an object of bioimageio.spec, whose files can be read meanwhile.

    Raises
    ------
    ModelError
        If bioimageio.spec is not installed, or the description is not a valid one.
    """
    try:
        from bioimageio.spec import InvalidDescr, ValidationContext, build_description
        from bioimageio.spec.utils import read_yaml
    except ImportError as error:
        raise ModelError(
            f"{package.path}: packages of bioimage.io need bioimageio.core: pip install 'seamfree[bioimageio]'"
        ) from error
    with package.open() as (root, name), warnings.catch_warnings():
        # What may be improved in a package is its author's business.
        warnings.simplefilter("ignore")
        try:
            text = package.read(name, LARGEST_TEXT).decode("utf-8")
            content = read_yaml(text)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{package.path}: {name} is not valid YAML ({_in_one_line(error)})") from error
        _check_content(package, content)
        context = ValidationContext(root=root, file_name=name, perform_io_checks=False, log_warnings=False)
        # The context holds for what is read later on, too.
        with context:
            try:
                description = build_description(cast("dict[str, Any]", content), context=context)
            except Exception as error:  # of some descriptions it cannot even say what is wrong
                raise ModelError(f"{package.path}: {name}: not a valid description ({_in_one_line(error)})") from error
            if isinstance(description, InvalidDescr):
                raise ModelError(f"{package.path}: {name}: {_first_fault(description)}")
            yield description


def _in_one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]


def _first_fault(description: Any) -> str:  # noqa: ANN401
    for detail in description.validation_summary.details:
        for entry in detail.errors:
            place = ".".join(str(part) for part in entry.loc)
            return f"{place or 'description'}: {_in_one_line(entry.msg)}"
    return "not a valid description"


_LONGEST_VERSION = 40
"""Letters of a format's version that are repeated."""


def _check_content(package: Package, content: Any) -> None:  # noqa: ANN401 (as YAML gives it)
    """Refuse what must not even be validated: no model, a text that grows without end, a reference elsewhere."""
    if not isinstance(content, dict) or content.get("type") != "model":
        raise ModelError(f"{package.path}: this describes no model; give the package of a model")
    version = str(content.get("format_version", ""))
    if not version.startswith(("0.4", "0.5")):
        told = version if len(version) <= _LONGEST_VERSION else f"{version[:_LONGEST_VERSION]}..."
        raise ModelError(
            f"{package.path}: its format is {told or 'not said'}, and 0.4 and 0.5 are read; update the package with "
            "bioimageio.spec"
        )
    waiting, seen = [content], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise ModelError(f"{package.path}: the description repeats itself beyond measure; do not use this package")
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    inputs = content.get("inputs")
    for tensor in inputs if isinstance(inputs, list) else ():
        if isinstance(tensor, dict) and tensor.get("output_of") is not None:
            raise ModelError(
                f"{package.path}: an input is the output of another model, {tensor['output_of']}; give a package that "
                "stands for itself"
            )


def _as_card(package: Package, description: Any, trust: bool) -> PackagedModel:  # noqa: ANN401
    """Tell what a description says, as a card does."""
    wanted = [each for each in description.inputs if not getattr(each, "optional", False)]
    if len(wanted) != 1 or wanted[0] is not description.inputs[0]:
        raise ModelError(
            f"the network takes {len(wanted)} inputs, and one image goes in; package a network of one input"
        )
    given, made = wanted[0], description.outputs[0]
    taken, left = read_axes(given), read_axes(made)
    if not taken.spatial or left.spatial not in (taken.spatial, ""):
        raise ModelError(f"an input along {taken.spatial!r} gives an output along {left.spatial!r}; package a network "
                         "that gives an image for an image")  # fmt: skip
    if not taken.channels:
        raise ModelError(f"the number of channels of the input {taken.name!r} is not said; say it in the description")
    scaling = map_preprocessing(given.preprocessing, taken.order, len(taken.channels))
    form, weights, sha256 = _choose_weights(package, description, trust)
    tests = _tests(description)
    steps = map_postprocessing(made.postprocessing, left.order, len(left.channels))
    sample = read_array(package, *tests[1]) if tests else None
    if sample is not None and "c" in left.order and sample.ndim == len(left.order):
        sample = np.moveaxis(sample, left.order.index("c"), 0)
    channels = left.channels if left.channels or sample is None else tuple(f"channel {at}" for at in range(len(sample)))
    reading = read_scores(steps, len(channels), sample, _declared_range(made))
    design = NetworkFile(
        format=form,
        order=taken.order if taken.order != usual_order(taken.spatial) else None,
        output_order=left.order if left.order != usual_order(taken.spatial) else None,
        architecture=_architecture(package, description) if form == "state-dict" else None,
        steps=reading.steps,
        background=reading.background,
    )
    names = _name_classes(channels, alone=reading.background or reading.activation == "sigmoid")
    things = tuple(name for name in names[1:] if not any(word in name.lower() for word in _BETWEEN))
    try:
        card = ModelCard.model_validate(
            {
                "name": str(description.name),
                "description": _in_one_line(description.description),
                "licence": str(description.license) if description.license is not None else "not said",
                "network": design,
                "axes": taken.spatial,
                "channels": [{"name": name} for name in taken.channels],
                "classes": names,
                "activation": reading.activation,
                "intensity": scaling.intensity,
                "pixel_type": scaling.pixel_type,
                **_pixel_size(taken),
                "instances": {"method": "components", "classes": things}
                if things
                else {"method": "none", "classes": ()},
                "training": {"data": _training_data(description), "licence": "not said"},
                "footprint": declared_footprint(taken, left),
                "weights": {"file": weights, "sha256": sha256},
            }
        )
    except ValidationError as error:
        found = error.errors()[0]
        raise ModelError(f"{'.'.join(map(str, found['loc']))}: {found['msg']}") from error
    return PackagedModel(card, tests, _tolerance(description), steps, reading.why, str(description.format_version))


def _choose_weights(package: Package, description: Any, trust: bool) -> tuple[NetworkFormat, str, str]:  # noqa: ANN401
    """Choose among a package's weights: format, file and digest, which is checked."""
    weights = description.weights
    safe: list[tuple[NetworkFormat, Any]] = [("torchscript", weights.torchscript), ("onnx", weights.onnx)]
    code: list[tuple[NetworkFormat, Any]] = [("state-dict", weights.pytorch_state_dict)]
    present = [(form, entry) for form, entry in (code if trust else []) + safe if entry is not None]
    if not present:
        if weights.pytorch_state_dict is not None:
            made = _architecture(package, description)
            raise ModelError(
                f"its network is made by {made.source}:{made.callable}, code that may do anything; if you trust who "
                "made it, say --trust-model-code, or package the network as TorchScript or ONNX, too"
            )
        named = ", ".join(name for name in type(weights).model_fields if getattr(weights, name, None) is not None)
        raise ModelError(f"its weights are {named}; package them as torchscript, onnx or pytorch_state_dict")
    form, entry = present[0]
    if getattr(entry, "external_data", None) is not None:
        raise ModelError("the ONNX weights lie in a second file; package them in one, with external_data=False")
    content = package.read(str(entry.source), sha256=entry.sha256)
    return form, str(entry.source), hashlib.sha256(content).hexdigest()


def _architecture(package: Package, description: Any) -> Architecture:  # noqa: ANN401
    """Tell what code makes the network, without running it."""
    entry = description.weights.pytorch_state_dict
    made = entry.architecture
    arguments = dict(made.kwargs if hasattr(made, "kwargs") else entry.kwargs)
    # Format 0.4 writes both in one word, and the digest beside it.
    source = getattr(made, "source", None) or getattr(made, "source_file", None)
    name = str(getattr(made, "callable", None) or made.callable_name)
    if source is None:
        module = str(getattr(made, "import_from", None) or made.module_name)
        return Architecture(source=module, callable=name, arguments=arguments)
    wanted = getattr(made, "sha256", None) or getattr(entry, "architecture_sha256", None)
    content = package.read(str(source), LARGEST_TEXT, wanted)
    found = hashlib.sha256(content).hexdigest()
    return Architecture(source=str(source), callable=name, arguments=arguments, sha256=found)


def make_network(path: Path) -> Any:  # noqa: ANN401 (whatever the code gives)
    """Import and call the code of a package that makes its network. Only where the user trusts it.

    Parameters
    ----------
    path : Path
        The package.

    Raises
    ------
    ModelError
        If the code cannot be run.
    """
    package = Package(path)
    with described(package) as description:
        made = _architecture(package, description)
        from bioimageio.core.digest_spec import import_callable

        entry = description.weights.pytorch_state_dict
        try:
            return import_callable(entry.architecture, sha256=cast("Any", made.sha256))(**made.arguments)
        except Exception as error:
            cause = error.__cause__ or error
            raise ModelError(
                f"{path}: the network cannot be made by {made.source}:{made.callable} ({type(cause).__name__}: "
                f"{_in_one_line(cause)}); it may need a library that is not installed"
            ) from error


def read_array(package: Package, name: str, sha256: str | None) -> NDArray[np.generic]:
    """Read a test tensor; no pickle is taken.

    Raises
    ------
    ModelError
        If it is no whole .npy file of numbers.
    """
    content = package.read(name, _LARGEST_ARRAY, sha256)
    try:
        opened = io.BytesIO(content)
        version = np.lib.format.read_magic(opened)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(opened)
        # Of objects, numpy makes no array of a buffer, nor does it take a pickle here.
        values = np.frombuffer(content, dtype, offset=opened.tell())
        return values.reshape(shape, order="F" if fortran else "C")
    except (ValueError, KeyError, EOFError) as error:
        raise ModelError(
            f"{package.path}: {name} is not a whole .npy file of numbers ({_in_one_line(error)})"
        ) from error


def _tests(description: Any) -> tuple[tuple[str, str | None], ...]:  # noqa: ANN401
    """Name the test input and output, where both are there."""
    if hasattr(description, "test_inputs"):
        given, made = description.test_inputs, description.test_outputs
        return ((str(given[0]), None), (str(made[0]), None)) if given and made else ()
    first, last = description.inputs[0].test_tensor, description.outputs[0].test_tensor
    return tuple((str(each.source), each.sha256) for each in (first, last)) if first and last else ()


def _tolerance(description: Any) -> tuple[float, float, float]:  # noqa: ANN401
    """Give by how much the test output may be missed, by the author's word or bioimage.io's."""
    said = getattr(getattr(description.config, "bioimageio", None), "reproducibility_tolerance", None) or ()
    for entry in said:
        if not entry.output_ids or description.outputs[0].id in entry.output_ids:
            return (
                float(entry.relative_tolerance),
                float(entry.absolute_tolerance),
                float(entry.mismatched_elements_per_million),
            )
    return 1e-3, 1e-3, 100.0


def _declared_range(tensor: Any) -> tuple[Any, Any]:  # noqa: ANN401
    data = getattr(tensor, "data", None)
    data = data[0] if isinstance(data, list | tuple) else data
    found = getattr(data, "range", None) if data is not None else getattr(tensor, "data_range", None)
    return tuple(found) if found is not None else (None, None)


def _name_classes(channels: tuple[str, ...], *, alone: bool) -> tuple[str, ...]:
    """Name the classes: those of the output's channels, after the background, where that has no channel."""
    if not alone:
        return channels
    if channels == ("channel 0",):
        return ("background", "foreground")
    return ("nothing" if "background" in channels else "background", *channels)


def _pixel_size(taken: TensorAxes) -> dict[str, Any]:
    """Give the pixel size that the network was trained at, where one is said with its unit."""
    said = [taken.spacing.get(axis, (1.0, None)) for axis in taken.spatial]
    units = {unit for _, unit in said}
    if len(units) != 1 or None in units:
        return {}
    return {"pixel_size": [size for size, _ in said], "pixel_size_unit": units.pop()}


def _training_data(description: Any) -> str:  # noqa: ANN401
    data = getattr(description, "training_data", None)
    return str(getattr(data, "id", None) or getattr(data, "name", None) or "not said")
