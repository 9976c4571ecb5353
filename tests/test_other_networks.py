"""P1 for networks that are not seamfree's own, in each format; and what is refused before anything is computed."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from pipeline import open_result, segment
from pipeline.bench import Bench
from pipeline.cli import app
from pipeline.config import make_config
from pipeline.display import report_table
from pipeline.errors import ModelError
from pipeline.identity import differences
from pipeline.images.discover import InputImage
from pipeline.models.facts import _derive, learn_facts
from pipeline.models.library import load_model
from pipeline.models.network import NetworkFormat
from pipeline.planning import Intent, RunPlan
from pipeline.run import prepare
from pipeline.summary import SUMMARY
from tests.models.foreign import FACTORY, exported, save_foreign
from tests.models.zoo import ZOO, Net
from tests.test_seams import TOLERANCE, real_looking, tiled, whole_pass

QUICK = (
    "classic U-Net, valid", "3-D U-Net, anisotropic", "poolings of 2 by 4", "bilinear upsampling", "attention gates",
    "pixels that are skipped", "two heads, the second", "NaN swallowed",
)  # fmt: skip
TILED = [name for name, exhibit in ZOO.items() if exhibit.refused is None and exhibit.scale == 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TILED]
)
def test_tiled_scores_of_any_network_equal_one_pass(tmp_path: Path, name: str) -> None:
    exhibit = ZOO[name]
    torch.manual_seed(3)
    network = exhibit.make().eval()
    with torch.inference_mode():
        given = network(torch.zeros(1, 1, *(60,) * exhibit.dims))
    classes = (given[exhibit.output] if exhibit.output else given).shape[1]
    arguments = {"arguments": {"name": name}} | ({"output": exhibit.output} if exhibit.output else {})
    model = save_foreign(
        tmp_path / "model", exported(network, "factory"), "factory", classes, exhibit.dims, **arguments
    )
    image = real_looking((1, 1, 83, 71) if exhibit.dims == 2 else (1, 11, 22, 19))
    expected = whole_pass(image, model, "float64", FACTORY)
    scores, _ = tiled(image, model, tmp_path / "run", 32 if exhibit.dims == 2 else 8, "float64", FACTORY,
                      scheduler="serial")  # fmt: skip
    assert np.abs(scores - expected).max() <= TOLERANCE["float64"]
    assert classes == 1 or expected.std() > 1e-4  # scores that vary: the comparison says something


class Small(nn.Sequential):
    """A network that every exporter takes."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 2, 3, padding=1),
        )  # fmt: skip


def saved(folder: Path, form: NetworkFormat, **said: Any) -> str:  # noqa: ANN401
    torch.manual_seed(1)
    with warnings.catch_warnings():
        # The exporters deprecate each other.
        warnings.simplefilter("ignore")
        return save_foreign(folder, exported(Small().eval(), form), form, **said)


@pytest.mark.parametrize(
    ("form", "trust"),
    [("torchscript", False), ("torch-export", True), pytest.param("onnx", False, marks=pytest.mark.slow)],
)
def test_each_format_is_examined_and_tiled(tmp_path: Path, form: NetworkFormat, trust: bool) -> None:
    model = saved(tmp_path / "model", form)
    context = learn_facts(model, trust=trust).context
    assert context.local, context.reason
    assert (context.margin, context.stride, context.scale) == ((0, 0), (2, 2), (1, 1))
    # By hand: 1 of the last, 2 of the pooled one, 1 of the first, and the other pixel of the block.
    assert context.halo == ((5, 5) if form != "onnx" else context.halo)
    assert all(5 <= halo <= 6 for halo in context.halo)
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, real_looking((90, 77)), photometric="minisblack")
    whole: list[np.ndarray] = []
    for tile in (32, 128):
        settings = {
            "model": model, "tile": tile, "trust_model_code": trust, "execution": {"scheduler": "serial"},
            "output": {"probabilities": "float32"},
        }  # fmt: skip
        (report,) = segment(image, tmp_path / str(tile), make_config(settings))
        assert report.status == "done", report.reason
        whole.append(np.asarray(open_result(tmp_path / str(tile) / "a.ome.zarr").probabilities[0]))
    assert np.abs(whole[0] - whole[1]).max() <= TOLERANCE["float32"]


def made_by_code(folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """Give an image, and settings with one of the zoo's networks, which a factory makes."""
    content = exported(ZOO[name].make(), "factory")
    model = save_foreign(folder / "model", content, "factory", arguments={"name": name})
    tifffile.imwrite(folder / "a.tif", real_looking((50, 60)), photometric="minisblack")
    return folder / "a.tif", {"model": model, "factory": FACTORY, "execution": {"scheduler": "serial"}}


def test_the_seams_of_a_network_that_code_makes_are_verified_once_it_is_named(tmp_path: Path) -> None:
    image, settings = made_by_code(tmp_path, "classic U-Net, same")
    settings["tile"] = 32
    (report,) = segment(image, tmp_path / "out", make_config(settings))
    assert report.status == "done", report.reason
    command = ["verify", str(tmp_path / "out" / "a.ome.zarr")]
    # What a result says of code is no permission to run it.
    untold = CliRunner().invoke(app, command)
    assert "not made seams" in untold.output
    assert "--factory" in untold.output
    told = CliRunner().invoke(app, [*command, "--factory", FACTORY])
    assert told.exit_code == 0, told.output
    assert "not made" not in told.output
    assert "ok     seams: " in told.output
    another = CliRunner().invoke(app, [*command, "--factory", "tests.benchmarks.many_images:make"])
    assert "ok     seams" not in another.output


def test_a_network_that_sees_everything_is_refused_unless_the_user_insists(tmp_path: Path) -> None:
    image, settings = made_by_code(tmp_path, "instance norm")
    (report,) = segment(image, tmp_path / "out", make_config(settings))
    assert report.status == "failed"
    assert report.reason is not None
    assert "down.0.body.1 (InstanceNorm2d)" in report.reason
    assert "--allow-nonlocal" in report.reason
    assert not list((tmp_path / "out").glob("*.zarr*"))
    (report,) = segment(image, tmp_path / "out", make_config(settings | {"allow_nonlocal": True}))
    assert report.status == "done", report.reason
    provenance = json.loads((tmp_path / "out" / "a.ome.zarr" / "seamfree.json").read_text())
    assert "seams are possible" in provenance["plan"]["seams"]
    # And whoever runs it is told, in the table and in the summary, not only who opens the result.
    assert report.notes == (provenance["plan"]["seams"],)
    (entry,) = json.loads((tmp_path / "out" / SUMMARY).read_text())["images"]
    assert entry["notes"] == [provenance["plan"]["seams"]]
    shown = StringIO()
    Console(width=10_000, file=shown).print(report_table([report]))
    assert "down.0.body.1 (InstanceNorm2d)" in shown.getvalue()
    page = (tmp_path / "out" / "a.report.html").read_text()
    assert "seams possible" in page
    assert "down.0.body.1 (InstanceNorm2d)" in page


def test_a_declared_halo_that_is_too_small_is_told_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = saved(tmp_path / "model", "torchscript", footprint={"halo": [2, 2]})
    with caplog.at_level(logging.WARNING):
        context = learn_facts(model).context
    assert context.halo == (5, 5)
    assert "the declared halo [2, 2] is too small" in caplog.text


def test_no_code_runs_unless_the_user_names_it(tmp_path: Path) -> None:
    content = exported(Net(), "factory")
    model = save_foreign(tmp_path / "model", content, "factory", arguments={"name": "classic U-Net, same"})
    with pytest.raises(ModelError, match=r"name it with --factory package\.module:function"):
        learn_facts(model)
    with pytest.raises(ModelError, match=r"gives a list, not a torch\.nn\.Module"):
        load_model(save_foreign(tmp_path / "list", content, "factory"), factory="builtins:list")
    with pytest.raises(ModelError, match=r"may hold pickles.*--trust-model-code"):
        learn_facts(save_foreign(tmp_path / "export", b"", "torch-export"))


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("net.py:make", r"net\.py is a file, .* say --factory net:make, with PYTHONPATH=\. before the command"),
        ("some/net.py", r"some/net\.py is a file, .* say --factory net:function, with PYTHONPATH=some before"),
        ("odd_net", r"a module and a function of it are to be named, as package\.module:function"),
        ("nowhere:make", r"there is no module nowhere; install it, or name the folder .* PYTHONPATH"),
        ("odd_net:nosuch", r".*odd_net\.py has no nosuch; it has make, Other"),
        ("odd_net:make", r"the network cannot be made \(KeyError: 'width'\).*network\.arguments .*, \{'name': 'a'\}"),
        ("lacking_net:make", r"lacking_net imports nowhere, which is not installed"),
        ("broken_net:make", r"broken_net cannot be imported \(SyntaxError: "),
    ],
)
def test_what_is_wrong_with_a_factorys_name_or_code_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, told: str
) -> None:
    (tmp_path / "odd_net.py").write_text("def make(**said):\n    return said['width']\n\n\nclass Other:\n    pass\n")
    (tmp_path / "lacking_net.py").write_text("import nowhere\n")
    (tmp_path / "broken_net.py").write_text("def make(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = save_foreign(tmp_path / "model", exported(Net(), "factory"), "factory", arguments={"name": "a"})
    with pytest.raises(ModelError, match=f"--factory {factory}: {told}") as caught:
        load_model(model, factory=factory)
    assert "\n" not in str(caught.value)


def test_edited_code_of_a_factory_is_another_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "own_factory.py": "from own_layers import Net\n\n\ndef make():\n    return Net(1, 2, 3, padding=1)\n",
        "own_layers.py": "from torch import nn\n\n\nclass Net(nn.Conv2d):\n    pass\n",
    }
    edited = {
        "own_factory.py": files["own_factory.py"].replace("return", "# Edited.\n    return"),
        "own_layers.py": files["own_layers.py"]
        + "\n    def forward(self, image):\n        return -super().forward(image)\n",
    }
    model = save_foreign(tmp_path / "model", exported(nn.Conv2d(1, 2, 3, padding=1), "factory"), "factory")
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, real_looking((50, 60)), photometric="minisblack")
    config = make_config({"model": model, "factory": "own_factory:make"})

    def planned(folder: str, code: dict[str, str]) -> RunPlan:
        """Plan as a process of its own would, in which these files are the factory's."""
        (tmp_path / folder).mkdir()
        for name, text in code.items():
            (tmp_path / folder / name).write_text(text)
            sys.modules.pop(name.removesuffix(".py"), None)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        _derive.cache_clear()
        return prepare(config, InputImage(str(image), "a"), tmp_path / "out", Intent(device="cpu", worker_memory=2**30))

    first, copied = planned("first", files), planned("copied", files)
    assert first.digest == copied.digest
    for name, text in edited.items():
        other = planned(f"edited {name}", files | {name: text})
        assert other.digest != first.digest
        (found,) = differences(first.identity, other.identity)
        assert "code of the network differs" in found
    # The last one's files are still those that would be imported.
    with pytest.raises(ModelError, match="own_factory:make: the code of the network has changed since the run was"):
        _ = Bench(first).predictor


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, form: NetworkFormat) -> None:
    model = save_foreign(tmp_path / "model", b"no network", form)
    with pytest.raises(ModelError, match=rf"network\.bin: not a valid file of the format {form}"):
        learn_facts(model)


@pytest.mark.slow
def test_wrong_channels_and_classes_are_named(tmp_path: Path) -> None:
    told = r"no image of 3 channel\(s\) .*, and takes such of 1 channel\(s\); .* complaint.*: Given groups=1, weight"
    with pytest.raises(ModelError, match=told):
        learn_facts(saved(tmp_path / "channels", "torchscript", channels=3))
    with pytest.raises(ModelError, match=r"names 4 classes .*output '0' has 2 channels"):
        learn_facts(saved(tmp_path / "classes", "torchscript", classes=4))


def test_inspect_tells_of_each_head(tmp_path: Path) -> None:
    name = "two heads, the second"
    content = exported(ZOO[name].make(), "factory")
    model = save_foreign(tmp_path / "model", content, "factory", arguments={"name": name}, output="scores")
    told = CliRunner().invoke(app, ["inspect", model, "--factory", FACTORY, "--json"])
    assert told.exit_code == 0, told.output
    facts = json.loads(told.stdout)
    assert list(facts["heads"]) == list(facts["outputs"])
    assert facts["heads"]["scores"] == {key: facts[key] for key in facts["heads"]["scores"]}
    # The second output looks a pixel farther: its own convolution comes last.
    scores, edges = (facts["heads"][each]["halo"] for each in ("scores", "edges"))
    assert edges == [halo + 1 for halo in scores]


def test_a_networks_file_alone_is_told_what_it_lacks(tmp_path: Path) -> None:
    alone = tmp_path / "network.pt"
    alone.write_bytes(exported(Small().eval(), "factory"))
    command = [sys.executable, "-m", "pipeline.cli", "inspect", str(alone)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "put it into a folder beside a card.yaml" in told.stderr
    assert told.stderr.count("\n") == 1
    with pytest.raises(ModelError, match=r"put it into a folder beside a card\.yaml"):
        learn_facts(str(alone))


def test_inspect_tells_what_was_derived_and_draws_it(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "torchscript")
    told = CliRunner().invoke(app, ["inspect", model, "--json"])
    assert told.exit_code == 0, told.output
    facts = json.loads(told.stdout)
    assert facts["local"] is True
    assert (facts["margin"], facts["halo"], facts["stride"]) == ([0, 0], [5, 5], [2, 2])
    assert "bounded part" in facts["reason"]
    drawn = CliRunner().invoke(app, ["inspect", model]).stdout
    lines = [" ".join(line.split()) for line in drawn.splitlines()]
    assert "legal sizes 2, 4, 6, ... pixels along an edge of a window, and so on by the stride" in lines
    assert "halo 5 pixels on each side that padding spoils; they are thrown away" in lines
    assert "method by one pixel that is NaN: where the output became NaN, the pixel was seen" in lines
    assert not any(line.startswith(("smallest", "phase")) for line in lines)
    assert "a window of 24 pixels for a core of 12, which starts on a multiple of 2" in drawn
