"""TorchScript made to write files, openly or not: it is not loaded, and ordinary TorchScript is."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.jit._serialization import save_jit_module_to_flatbuffer

from pipeline.errors import ModelError
from pipeline.models.harmless import check_script
from pipeline.models.probe import load_script
from tests.models.foreign import save_foreign
from tests.models.hostile import Script, altered, complaint, scripted, whole_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_package(tmp_path_factory.mktemp("package"))


@pytest.mark.parametrize("where", ["package", "card"])
def test_torchscript_that_writes_files_is_not_loaded(package: Path, tmp_path: Path, where: str) -> None:
    target = tmp_path / "written"
    content = scripted(Script(str(target)))
    if where == "package":
        hostile = altered(package, tmp_path / "a.zip", {"weights.pt": content})
    else:
        hostile = Path(save_foreign(tmp_path / "model", content, "torchscript", classes=1))
    found = complaint(hostile)
    assert "this TorchScript calls torch.save, which can write files" in found
    assert "--trust-model-code" in found
    assert not target.exists()
    load_script(content, "cpu")(torch.zeros(1, 1, 4, 4))  # what it would have done
    assert target.exists()


@pytest.mark.parametrize("before", [b"x" * 64, b"\x18\0\0\0PTMF" + bytes(56)], ids=["anything", "another format"])
def test_a_script_with_something_before_it_is_refused(before: bytes) -> None:
    content = scripted(nn.ReLU())
    check_script(Path("network.pt"), content)
    with pytest.raises(ModelError, match="something stands before"):
        check_script(Path("network.pt"), before + content)


@pytest.mark.parametrize("where", ["package", "card"])
def test_another_network_before_a_harmless_one_is_not_run(package: Path, tmp_path: Path, where: str) -> None:
    target = tmp_path / "written"
    evil = load_script(scripted(Script(str(target))), "cpu")
    save_jit_module_to_flatbuffer(evil, str(tmp_path / "evil"))
    content = (tmp_path / "evil").read_bytes() + scripted(nn.Conv2d(1, 1, 3, padding=1))
    if where == "package":
        hostile = altered(package, tmp_path / "a.zip", {"weights.pt": content})
    else:
        hostile = Path(save_foreign(tmp_path / "model", content, "torchscript", classes=1))
    assert "something stands before the file" in complaint(hostile)
    assert not target.exists()
    load_script(content, "cpu")(torch.zeros(1, 1, 4, 4))  # what it would have done
    assert target.exists()


@pytest.mark.parametrize("behind", [b"x", bytes(64)])
def test_a_script_with_something_behind_it_is_refused(behind: bytes) -> None:
    with pytest.raises(ModelError, match=r"something stands behind|or not a whole one"):
        check_script(Path("network.pt"), scripted(nn.ReLU()) + behind)


class _AddsOne(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + 1


def rescripted(line: str, name: Callable[[str], str] = str) -> bytes:
    """Give a TorchScript into whose code a line was written by hand, its members called otherwise."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(scripted(_AddsOne()))) as archive, zipfile.ZipFile(out, "w") as changed:
        for member in archive.infolist():
            content = archive.read(member)
            if member.filename.endswith(".py"):
                assert content.count(b"return torch.add") == 1
                content = content.replace(b"return torch.add", f"{line}\n    return torch.add".encode())
            changed.writestr(name(member.filename), content)
    return out.getvalue()


@pytest.mark.parametrize(
    "line",
    [
        'getattr(torch, "save")(image, "{}")',
        'getattr(torch, "sa" "ve")(image, "{}")',
        'getattr(torch.autograd, "sa" "ve")(image, "{}")',
        '_0 = ("#", torch.save(image, "{}"))',
        't = torch\n    getattr(t, "sa" "ve")(image, "{}")',
        't = ops.aten\n    getattr(t, "sa" "ve")(image, "{}")',
    ],
)
def test_torchscript_that_hides_what_it_calls_is_not_loaded(tmp_path: Path, line: str) -> None:
    target = tmp_path / "written"
    content = rescripted(line.format(target))
    hostile = save_foreign(tmp_path / "model", content, "torchscript", classes=1)
    assert "which can write files" in complaint(Path(hostile))
    load_script(content, "cpu")(torch.zeros(1, 1, 4, 4))  # what it would have done
    assert target.exists()


def test_code_in_a_member_of_another_case_is_not_loaded(tmp_path: Path) -> None:
    target = tmp_path / "written"
    content = rescripted(f'torch.save(image, "{target}")', lambda name: name.replace(".py", ".PY"))
    hostile = save_foreign(tmp_path / "model", content, "torchscript", classes=1)
    assert "this TorchScript calls torch.save" in complaint(Path(hostile))
    load_script(content, "cpu")(torch.zeros(1, 1, 4, 4))  # what it would have done
    assert target.exists()


def test_two_members_of_one_name_are_refused() -> None:
    content = rescripted("pass", lambda name: name)
    out = io.BytesIO(content)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(next(each for each in archive.namelist() if each.endswith(".py")).upper(), "")
    with pytest.raises(ModelError, match="gives no member"):
        check_script(Path("network.pt"), out.getvalue())


def test_ordinary_torchscript_is_let_through_and_gives_the_same() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Dropout(),
        nn.GroupNorm(2, 4),
        nn.ConvTranspose2d(4, 2, 2, stride=2),
    ).eval()
    content = scripted(network)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        code = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".py"))
    assert b"getattr(" in code  # which torch writes for layers without a name
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(load_script(check_script(Path("network.pt"), content), "cpu")(image), network(image))


def test_what_torch_save_writes_is_told_from_a_script(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    torch.save(torch.nn.Conv2d(1, 2, 3), path)
    with pytest.raises(ModelError, match=r"what torch\.save writes is a pickle, .* by torch\.jit\.save"):
        check_script(path, path.read_bytes())
