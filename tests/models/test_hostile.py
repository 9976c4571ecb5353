"""Packages made to do harm, or broken: each is refused in one line, what, where and what to do; nothing runs."""

from __future__ import annotations

import io
import pickle
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.facts import learn_facts
from pipeline.models.library import find_model
from pipeline.package_check import check_package
from tests.models.hostile import Writes, altered, complaint, saved, scripted, whole_package
from tests.models.packaged import CODE, Wish


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_package(tmp_path_factory.mktemp("package"))


def test_the_package_that_is_altered_here_is_whole(package: Path, tmp_path: Path) -> None:
    for trust in (False, True):
        assert learn_facts(package, trust=trust).context.local
        assert check_package(package, trust=trust) is not None
    assert learn_facts(altered(package, tmp_path / "a.zip")).context.local


@pytest.mark.parametrize("trust", [False, True])
def test_a_pickle_among_the_weights_is_not_run_whomever_one_trusts(package: Path, tmp_path: Path, trust: bool) -> None:
    target = tmp_path / "written"
    for content in (saved({"first.0.weight": Writes(target)}), pickle.dumps(Writes(target))):
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
    pickle.loads(pickle.dumps(Writes(target)))  # what it would have done
    assert target.exists()


def test_code_of_a_package_is_imported_only_where_it_is_trusted(package: Path, tmp_path: Path) -> None:
    target = tmp_path / "written"
    code = f"open({str(target)!r}, 'w').close()\n{CODE}"
    hostile = altered(package, tmp_path / "a.zip", {"networks.py": code.encode()})
    assert learn_facts(hostile).card.network.format == "torchscript"  # type: ignore[union-attr]
    assert not target.exists()
    assert learn_facts(hostile, trust=True).card.network.format == "state-dict"  # type: ignore[union-attr]
    assert target.exists()


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
    np.save(buffer, np.array([Writes(target)], dtype=object), allow_pickle=True)
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
