"""Files made to do harm: packages of another content, pickles and scripts that write a file, and complaints."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bioimageio.spec.utils import read_yaml, write_yaml
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.facts import learn_facts
from pipeline.package_check import check_package
from tests.models.packaged import Wish, save_package

__all__ = ["Change", "Script", "Writes", "altered", "complaint", "saved", "scripted", "whole_package"]

Change = Callable[[dict[str, Any]], object]


def whole_package(folder: Path) -> Path:
    """Write the package that is altered."""
    wish = Wish(weights=("pytorch_state_dict", "torchscript"), postprocessing=(("sigmoid", {}),))
    return save_package(folder / "package.zip", wish)


def altered(package: Path, target: Path, files: dict[str, bytes] | None = None, change: Change | None = None) -> Path:
    """Copy a package with other files; the description says their digests."""
    files = dict(files or {})
    with zipfile.ZipFile(package) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        description: Any = read_yaml(archive.read("rdf.yaml").decode())
        for entry in (*description["weights"].values(), description["weights"]["pytorch_state_dict"]["architecture"]):
            if entry["source"] in files:
                entry["sha256"] = hashlib.sha256(files[entry["source"]]).hexdigest()
        for tensor in (description["inputs"][0]["test_tensor"], description["outputs"][0]["test_tensor"]):
            if tensor["source"] in files:
                tensor["sha256"] = hashlib.sha256(files[tensor["source"]]).hexdigest()
        if change is not None:
            change(description)
        text = io.StringIO()
        write_yaml(description, text)
        files["rdf.yaml"] = text.getvalue().encode()
        for name in archive.namelist():
            if name not in files:
                out.writestr(name, archive.read(name))
        for name, content in files.items():
            out.writestr(name, content)
    return target


def complaint(path: Path, *, trust: bool = False) -> str:
    """Give the one line with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        _look_at(path, trust)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert len(text) < 700
    return text


def _look_at(path: Path, trust: bool) -> None:
    learn_facts(path, trust=trust)
    check_package(path, trust=trust)


class Writes:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:  # noqa: ANN401 (as pickle wants it)
        return os.system, (f"echo written > {self.path}",)


class Script(nn.Module):
    """A network that writes a file when it runs."""

    def __init__(self, path: str, channels: int = 1) -> None:
        super().__init__()
        self.path = path
        self.layer = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        torch.save(image, self.path)
        outcome: torch.Tensor = self.layer(image)
        return outcome


def scripted(network: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), buffer)
    return buffer.getvalue()


def saved(what: Any) -> bytes:  # noqa: ANN401 (whatever torch.save takes)
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()
