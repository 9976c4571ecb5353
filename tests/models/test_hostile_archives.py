"""Zip files and folders made to do harm: nothing leaves the folder, nothing grows without end, nothing is half read."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.models.facts import learn_facts
from tests.models.hostile import altered, complaint, whole_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_package(tmp_path_factory.mktemp("package"))


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
