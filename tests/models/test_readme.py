"""What README.md says under "Bring your own model", word by word: each way of export, its card, and a run with it."""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from pathlib import Path

import pytest
import tifffile
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

from pipeline import open_result
from pipeline.cli import app
from tests.test_seams import real_looking

SECTION = (
    (Path(__file__).parents[2] / "README.md")
    .read_text(encoding="utf-8")
    .split("## Bring your own model\n")[1]
    .split("\n### ")[0]
)

EXPORTING, SLIDING = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)

EXPORTS = re.split(r"# network: \{format: (\S+)\}.*\n", EXPORTING)
WAYS = dict(zip(EXPORTS[1::2], EXPORTS[2::2], strict=True))

OPTIONS = {"torch-export": ["--trust-model-code"], "factory": ["--factory", "readme_network:make"]}

NETWORK = """
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1),
                         nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 2, 1))
"""


def test_every_format_that_is_named_is_shown() -> None:
    assert set(WAYS) == {"torchscript", "onnx", "torch-export", "factory"}


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.slow) if form == "onnx" else form for form in WAYS]
)
def test_a_network_that_is_exported_as_shown_is_examined_and_run(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "readme_network", raising=False)
    Path("readme_network.py").write_text(NETWORK)
    folder = Path("my-cells")
    folder.mkdir()
    names: dict[str, object] = {}
    exec(NETWORK, names)
    torch.manual_seed(2)
    network = names["make"]()  # type: ignore[operator]
    assert isinstance(network, nn.Module)
    names |= {"network": network.eval(), "example": torch.rand(1, 1, 64, 64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # `free` is said once, for the two formats that need it.
        shared = "\n".join(line for line in "".join(WAYS.values()).splitlines() if line.startswith("free = "))
        exec(f"{EXPORTS[0]}\n{shared}\n{WAYS[form]}", names)
    (file,) = folder.iterdir()
    card = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)[0])
    card["network"]["format"] = form
    card["weights"] = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    tifffile.imwrite("a.tif", real_looking((70, 90)), photometric="minisblack")

    told = CliRunner().invoke(app, ["inspect", "my-cells", *OPTIONS.get(form, [])])
    assert told.exit_code == 0, told.output
    assert re.search(r"^stride +2 pixels ", told.stdout, re.MULTILINE)
    assert re.search(r"^legal sizes +(2, )?4, 6, .*\.\.\. pixels ", told.stdout, re.MULTILINE)
    command = ["run", "a.tif", "-o", "out", "-m", "my-cells", "--direct", "--scheduler", "serial", "--tile", "32"]
    told = CliRunner().invoke(app, [*command, *OPTIONS.get(form, [])])
    assert told.exit_code == 0, told.output
    assert open_result("out/a.ome.zarr").provenance["plan"]["classes"] == ["background", "cell"]


def test_a_classifier_slides_as_shown() -> None:
    torch.manual_seed(3)
    names: dict[str, torch.Tensor] = {}
    exec(SLIDING, names)
    scores, one = names["scores"], names["one"]
    shape = re.findall(r"scores = .*# \((.*?)\):", SLIDING)[0]
    assert tuple(scores.shape) == tuple(map(int, shape.split(", ")))
    row, column = map(int, re.findall(r"one = .*scores\[\.\.\., (\d+), (\d+)\]", SLIDING)[0])
    assert float((scores[..., row, column] - one).abs().max()) <= 1e-6
    # Of another window, other scores.
    assert float((scores[..., row, column + 1] - one).abs().max()) > 1e-6
