"""Files made to do harm, or broken: each is refused in one line that says what, where and what to do; nothing runs."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import socket
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bioimageio.spec.utils import read_yaml, write_yaml
from torch import nn
from torch.jit._serialization import save_jit_module_to_flatbuffer

from pipeline.errors import ModelError
from pipeline.models.facts import learn_facts
from pipeline.models.harmless import check_script
from pipeline.models.library import find_model, load_model
from pipeline.models.probe import load_script
from pipeline.package_check import check_package
from tests.models.foreign import save_foreign
from tests.models.packaged import CODE, Wish, save_package

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wish = Wish(weights=("pytorch_state_dict", "torchscript"), postprocessing=(("sigmoid", {}),))
    return save_package(tmp_path_factory.mktemp("package") / "package.zip", wish)


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


class _Writes:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:  # noqa: ANN401 (as pickle wants it)
        return os.system, (f"echo written > {self.path}",)


class _Script(nn.Module):
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


def test_the_package_that_is_altered_here_is_whole(package: Path, tmp_path: Path) -> None:
    for trust in (False, True):
        assert learn_facts(package, trust=trust).context.local
        assert check_package(package, trust=trust) is not None
    assert learn_facts(altered(package, tmp_path / "a.zip")).context.local


@pytest.mark.parametrize("trust", [False, True])
def test_a_pickle_among_the_weights_is_not_run_whomever_one_trusts(package: Path, tmp_path: Path, trust: bool) -> None:
    target = tmp_path / "written"
    for content in (saved({"first.0.weight": _Writes(target)}), pickle.dumps(_Writes(target))):
        hostile = altered(
            package, tmp_path / "a.zip", {"weights.pth": content}, lambda said: said["weights"].pop("torchscript")
        )
        found = complaint(hostile, trust=trust)
        assert (
            ("not a state dict of tensors alone" in found or "format state-dict" in found)
            if trust
            else ("networks.py:Small, code that may do anything" in found and "--trust-model-code" in found)
        )
        assert not target.exists()
    pickle.loads(pickle.dumps(_Writes(target)))  # what it would have done
    assert target.exists()


def test_code_of_a_package_is_imported_only_where_it_is_trusted(package: Path, tmp_path: Path) -> None:
    target = tmp_path / "written"
    code = f"open({str(target)!r}, 'w').close()\n{CODE}"
    hostile = altered(package, tmp_path / "a.zip", {"networks.py": code.encode()})
    assert learn_facts(hostile).card.network.format == "torchscript"  # type: ignore[union-attr]
    assert not target.exists()
    assert learn_facts(hostile, trust=True).card.network.format == "state-dict"  # type: ignore[union-attr]
    assert target.exists()


@pytest.mark.parametrize("where", ["package", "card"])
def test_torchscript_that_writes_files_is_not_loaded(package: Path, tmp_path: Path, where: str) -> None:
    target = tmp_path / "written"
    content = scripted(_Script(str(target)))
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


@pytest.mark.parametrize("name", ["../written", "/tmp/written-by-a-zip-file", "a/../../written", "..\\written", "C:/x"])
def test_a_member_that_would_leave_the_folder_is_refused(package: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "deep").mkdir()
    hostile = altered(package, tmp_path / "deep" / "a.zip", {name: b"written"})
    assert "would leave the package's folder; do not use this file" in complaint(hostile)
    assert not (tmp_path / "written").exists()
    assert not Path("/tmp/written-by-a-zip-file").exists()


def test_a_link_in_a_zip_file_is_refused(package: Path, tmp_path: Path) -> None:
    hostile = altered(package, tmp_path / "a.zip")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(hostile, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "the member 'link' is a link" in complaint(hostile)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(package: Path, tmp_path: Path) -> None:
    hostile = altered(package, tmp_path / "a.zip", {"weights.pt": bytes(100 * 2**20)})
    assert hostile.stat().st_size < 2**20
    assert "'weights.pt' would grow from" in complaint(hostile)
    many = altered(package, tmp_path / "b.zip", {f"{number}.bin": bytes(60 * 2**20) for number in range(2)})
    assert "would unpack to" in complaint(many)


def test_a_bomb_within_the_weights_is_refused(package: Path, tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(100 * 2**20))
    hostile = altered(package, tmp_path / "a.zip", {"weights.pt": inner.getvalue()})
    assert "would unpack to 104,857,600" in complaint(hostile)


def test_a_description_that_grows_without_end_is_refused(package: Path, tmp_path: Path) -> None:
    hostile = altered(package, tmp_path / "a.zip")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 9)]
    text = "\n".join(["type: model", "format_version: 0.5.12", *lines])
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("rdf.yaml", text)
    assert "repeats itself beyond measure" in complaint(hostile)


@pytest.mark.parametrize("left", [0.5, 0.98])
def test_a_truncated_package_is_refused(package: Path, tmp_path: Path, left: float) -> None:
    content = package.read_bytes()
    (tmp_path / "a.zip").write_bytes(content[: int(left * len(content))])
    assert "not a zip file, or not a whole one" in complaint(tmp_path / "a.zip")


def test_a_damaged_member_is_refused(package: Path, tmp_path: Path) -> None:
    content = bytearray(package.read_bytes())
    with zipfile.ZipFile(package) as archive:
        at = archive.getinfo("weights.pt").header_offset + 200
    content[at : at + 20] = bytes(20)
    (tmp_path / "a.zip").write_bytes(content)
    assert "weights.pt is damaged" in complaint(tmp_path / "a.zip")


@pytest.mark.parametrize(("name", "trust"), [("weights.pt", False), ("weights.pth", True)])
def test_truncated_weights_are_refused(package: Path, tmp_path: Path, name: str, trust: bool) -> None:
    with zipfile.ZipFile(package) as archive:
        content = archive.read(name)
    hostile = altered(package, tmp_path / "a.zip", {name: content[: len(content) // 2]})
    assert "or not a whole one; fetch it again" in complaint(hostile, trust=trust)


def test_other_weights_than_those_described_are_refused(package: Path, tmp_path: Path) -> None:
    def lie(said: dict[str, Any]) -> None:
        said["weights"]["torchscript"]["sha256"] = "0" * 64

    found = complaint(altered(package, tmp_path / "a.zip", change=lie))
    assert "weights.pt is not the file that is described (sha256" in found
    assert "expected 000000000000…); download the package again" in found


def test_a_script_of_other_channels_is_refused(package: Path, tmp_path: Path) -> None:
    content = scripted(nn.Sequential(nn.Conv2d(3, 1, 3, padding=1)))
    found = complaint_of_facts(altered(package, tmp_path / "a.zip", {"weights.pt": content}))
    assert "takes no image of 1 channel(s)" in found


def complaint_of_facts(path: Path, *, trust: bool = False) -> str:
    """Give the complaint about a network, which names the model and not the file."""
    with pytest.raises(ModelError) as caught:
        learn_facts(path, trust=trust)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_of_other_shapes_are_refused(package: Path, tmp_path: Path) -> None:
    tensors = Wish(channels=3).network().state_dict()
    hostile = altered(package, tmp_path / "a.zip", {"weights.pth": saved(tensors)})
    found = complaint(hostile, trust=True)
    assert "the weights do not fit the architecture, for example first.0.weight" in found


def test_a_network_that_misses_its_own_test_is_refused(package: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.full((1, 1, 50, 46), 0.5, dtype=np.float32))
    found = complaint(altered(package, tmp_path / "a.zip", {"test_output.npy": buffer.getvalue()}))
    assert "misses its own test output in" in found
    np.save(buffer := io.BytesIO(), np.zeros((1, 1, 20, 20), dtype=np.float32))
    found = complaint(altered(package, tmp_path / "b.zip", {"test_output.npy": buffer.getvalue()}))
    assert "the test output has (1, 1, 20, 20)" in found


def test_a_test_tensor_with_a_pickle_is_refused_and_not_run(package: Path, tmp_path: Path) -> None:
    target = tmp_path / "written"
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Writes(target)], dtype=object), allow_pickle=True)
    hostile = altered(package, tmp_path / "a.zip", {"test_output.npy": buffer.getvalue()})
    assert "test_output.npy is not a whole .npy file of numbers" in complaint(hostile)
    assert not target.exists()


@pytest.mark.parametrize("what", ["weights", "output_of"])
def test_nothing_is_fetched(package: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no network")

    def elsewhere(said: dict[str, Any]) -> None:
        said["git_repo"], said["covers"] = "https://example.com/a", [{"source": "https://example.com/cover.png"}]
        if what == "weights":
            said["weights"]["torchscript"]["source"] = "https://example.com/weights.pt"
        else:
            said["inputs"][0]["output_of"] = "another-model"

    hostile = altered(package, tmp_path / "a.zip", change=elsewhere)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = complaint(hostile)
    expected = {"weights": "lies elsewhere, and nothing is fetched", "output_of": "the output of another model"}
    assert expected[what] in found
    assert asked == []


def unpacked(package: Path, folder: Path) -> Path:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def test_a_folder_and_its_description_are_packages_too(package: Path, tmp_path: Path) -> None:
    folder = unpacked(package, tmp_path / "folder")
    assert learn_facts(folder).card == learn_facts(folder / "rdf.yaml").card == learn_facts(package).card


@pytest.mark.parametrize("how", ["link", "parent"])
def test_files_outside_of_a_packages_folder_are_not_read(package: Path, tmp_path: Path, how: str) -> None:
    folder = unpacked(package, tmp_path / "folder")
    (folder / "weights.pt").rename(tmp_path / "weights.pt")
    if how == "link":
        (folder / "weights.pt").symlink_to(tmp_path / "weights.pt")
    else:
        text = (folder / "rdf.yaml").read_text()
        (folder / "rdf.yaml").write_text(text.replace("source: weights.pt\n", "source: ../weights.pt\n"))
    with pytest.raises(ModelError, match="leaves the package's folder"):
        learn_facts(folder)


@pytest.mark.parametrize("how", ["zero", "loop"])
def test_a_name_that_cannot_be_a_file_is_refused(package: Path, tmp_path: Path, how: str) -> None:
    """The fuzzer found the first."""
    folder = unpacked(package, tmp_path / "folder")
    if how == "loop":
        (folder / "weights.pt").unlink()
        (folder / "weights.pt").symlink_to("weights.pt")
    else:
        text = (folder / "rdf.yaml").read_text()
        (folder / "rdf.yaml").write_text(text.replace("source: weights.pt\n", 'source: "weights\\0.pt"\n'))
    with pytest.raises(ModelError, match=r"which it names, cannot be a file \(.+\); do not use this package"):
        learn_facts(folder)


def test_weights_of_onnx_in_another_file_are_refused(tmp_path: Path) -> None:
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, "y", "x"]) for name in ("image", "out")
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["image", "w"], ["out"])], "graph", ends[:1], ends[1:], [outside()]
    )
    content = onnx.helper.make_model(graph).SerializeToString()
    with pytest.raises(ModelError, match=r"the weights 'w' lie in another file"):
        load_model(save_foreign(tmp_path / "model", content, "onnx"))


def test_what_is_no_package_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.txt", "x")
    with pytest.raises(ModelError, match=r"there is no rdf\.yaml in this zip file"):
        learn_facts(tmp_path / "a.zip")
    (tmp_path / "b").mkdir()
    with pytest.raises(ModelError, match=r"nor a package of bioimage\.io"):
        find_model(tmp_path / "b")
    (tmp_path / "b" / "rdf.yaml").write_text("type: dataset\n")
    with pytest.raises(ModelError, match="this describes no model"):
        learn_facts(tmp_path / "b")
    (tmp_path / "b" / "rdf.yaml").write_text("type: model\nformat_version: 0.3.2\n")
    with pytest.raises(ModelError, match=r"its format is 0\.3\.2, and 0\.4 and 0\.5 are read"):
        learn_facts(tmp_path / "b")
    (tmp_path / "b" / "rdf.yaml").write_text(f"type: model\nformat_version: {'9' * 4000}\n")
    with pytest.raises(ModelError, match=r"its format is 9{40}\.\.\., and 0\.4 and 0\.5 are read"):
        learn_facts(tmp_path / "b")  # found by the fuzzer
    (tmp_path / "b" / "rdf.yaml").write_text("type: model\nformat_version: 0.5.12\n")
    with pytest.raises(ModelError, match=r"rdf\.yaml: .*required"):
        learn_facts(tmp_path / "b")


@pytest.mark.parametrize("before", [b"x" * 64, b"\x18\0\0\0PTMF" + bytes(56)], ids=["anything", "another format"])
def test_a_script_with_something_before_it_is_refused(before: bytes) -> None:
    content = scripted(nn.ReLU())
    check_script(Path("network.pt"), content)
    with pytest.raises(ModelError, match="something stands before"):
        check_script(Path("network.pt"), before + content)


@pytest.mark.parametrize("where", ["package", "card"])
def test_another_network_before_a_harmless_one_is_not_run(package: Path, tmp_path: Path, where: str) -> None:
    target = tmp_path / "written"
    evil = load_script(scripted(_Script(str(target))), "cpu")
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


def outside(name: str = "w", shape: tuple[int, ...] = (1, 1, 1, 1)) -> onnx.TensorProto:
    held = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, [1.0])
    held.ClearField("float_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../secret")
    return held


@pytest.mark.parametrize("where", ["branch", "constant", "function", "sparse", "training"])
def test_weights_of_onnx_in_another_file_are_refused_wherever_they_hide(tmp_path: Path, where: str) -> None:
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, "y", "x"]) for name in ("image", "out")]
    node = helper.make_node("Conv", ["image", "w"], ["out"])
    plain = helper.make_graph([helper.make_node("Relu", ["image"], ["out"])], "graph", ends[:1], ends[1:])
    constant = helper.make_node("Constant", [], ["w"], value=outside())
    model = helper.make_model(plain)
    if where == "branch":
        inner = helper.make_graph([node], "inner", [], ends[1:], [outside()])
        yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [1]))
        choice = helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner)
        model = helper.make_model(helper.make_graph([yes, choice], "graph", ends[:1], ends[1:]))
    elif where == "constant":
        model = helper.make_model(helper.make_graph([constant, node], "graph", ends[:1], ends[1:]))
    elif where == "function":
        imports = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function("own", "f", ["image"], ["out"], [constant, node], imports))
    elif where == "sparse":
        indices = helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(outside(shape=(1,)), indices, [1]))
    else:
        model.training_info.add().algorithm.initializer.append(outside())
    with pytest.raises(ModelError, match=r"the weights 'w' lie in another file"):
        load_model(save_foreign(tmp_path / "model", model.SerializeToString(), "onnx"))
