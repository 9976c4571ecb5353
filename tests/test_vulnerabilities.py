"""The check of dependencies: it finds what a database knows, and says when it has none."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.vulnerabilities import LOCK, NOTHING, main, read_lock

PINS = "Some_Package==1.5\nother==2.0rc1; python_version < '3.14'\n# a comment\nthird==3.1.0\n"


def advisory(number: int, name: str, events: list[dict[str, str]], **more: Any) -> dict[str, Any]:  # noqa: ANN401
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
        "versions": [],
    }
    return {
        "id": f"X-{number}",
        "modified": "2026-01-02T03:04:05Z",
        "summary": "it leaks",
        "affected": [affected],
        **more,
    }


ADVISORIES = [
    advisory(1, "some-package", [{"introduced": "0"}, {"fixed": "1.5"}]),  # mended in this very version
    advisory(2, "some.package", [{"introduced": "1.2"}, {"fixed": "1.6"}]),
    advisory(3, "other", [{"introduced": "0"}, {"last_affected": "2.0rc1"}]),
    advisory(4, "third", [{"introduced": "0"}, {"fixed": "2"}, {"introduced": "3.2"}, {"fixed": "3.3"}]),
    advisory(5, "third", [{"introduced": "0"}], withdrawn="2026-01-01T00:00:00Z"),
    advisory(6, "not-installed", [{"introduced": "0"}]),
]


@pytest.mark.parametrize("kind", ["yaml", "json", "zip"])
def test_what_is_installed_and_known_is_found(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock, database = tmp_path / "lock", tmp_path / "database"
    lock.write_text(PINS)
    texts = {f"vulns/{each['id']}.{kind}": yaml.safe_dump(each) if kind == "yaml" else json.dumps(each)
             for each in ADVISORIES}  # fmt: skip
    if kind == "zip":
        database = tmp_path / "all.zip"
        with zipfile.ZipFile(database, "w") as archive:
            for name, text in texts.items():
                archive.writestr(name.replace(".zip", ".json"), text)
    else:
        (database / "vulns").mkdir(parents=True)
        for name, text in texts.items():
            (database / name).write_text(text)
    assert main([str(database), "--lock", str(lock)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "other 2.0rc1: X-3, mended in -: it leaks",
        "some-package 1.5: X-2, mended in 1.6: it leaks",
        "3 packages, 6 advisories, the newest of 2026-01-02: 2 found",
    ]
    lock.write_text("third==3.1.0\n")
    assert main([str(database), "--lock", str(lock)]) == 0


def test_where_there_is_no_database_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err == f"{NOTHING}\n"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no zip")
    for name, why in (("empty", "holds no advisory"), ("text", "not a database"), ("gone", "not a database")):
        assert main([str(tmp_path / name)]) == 2
        assert why in capsys.readouterr().err


def test_the_lock_is_read_whole() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    assert len(read_lock(LOCK)) == len(lines) > 100
