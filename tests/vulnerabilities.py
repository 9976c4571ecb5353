"""Known vulnerabilities in what the lock installs, found without a network: ``python -m tests.vulnerabilities FILE``.

The file is a database of advisories in the OSV format: a folder or a zip archive of YAML or JSON files, such as a copy
of the Python Packaging Advisory Database, or OSV's export for PyPI. What it does not know is not found: get a new one.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

__all__ = ["Finding", "look_for", "main", "read_database", "read_lock"]

LOCK = Path(__file__).parents[1] / "requirements.lock"

NOTHING = (
    "make audit: no database of advisories was given; download one, as a folder or a zip of OSV files (the Python "
    "Packaging Advisory Database, or OSV's export for PyPI), and say make audit DATABASE=FILE"
)


@dataclass(frozen=True)
class Finding:
    """A version that is installed, and an advisory about it."""

    name: str
    version: str
    advisory: str
    mended: str
    summary: str


def read_lock(path: Path) -> dict[str, str]:
    """Give the versions that a lock installs, by name."""
    pins = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in path.read_text().splitlines())
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def read_database(path: Path) -> Iterator[dict[str, Any]]:
    """Give all advisories.

    Raises
    ------
    ValueError
        If a file is none.
    """
    for name, content in _files(path):
        try:
            loaded = json.loads(content) if name.endswith(".json") else yaml.load(content, _Loader)
        except (ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: {name} cannot be read ({' '.join(str(error).split())[:120]})") from error
        if isinstance(loaded, dict) and "id" in loaded and "affected" in loaded:
            yield loaded


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as data, by the faster parser where there is one; dates stay text, as in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    endings = (".json", ".yaml", ".yml")
    if path.is_dir():
        yield from ((str(each), each.read_bytes()) for each in sorted(path.rglob("*")) if each.name.endswith(endings))
        return
    with zipfile.ZipFile(path) as archive:
        yield from ((name, archive.read(name)) for name in sorted(archive.namelist()) if name.endswith(endings))


def look_for(installed: dict[str, str], advisory: dict[str, Any]) -> Iterator[Finding]:
    """Give what an advisory says of what is installed."""
    if advisory.get("withdrawn"):
        return
    for affected in advisory["affected"]:
        package = affected.get("package", {})
        name = canonicalize_name(str(package.get("name", "")))
        if package.get("ecosystem") != "PyPI" or name not in installed:
            continue
        version = installed[name]
        ranges = [each["events"] for each in affected.get("ranges", []) if each.get("type") == "ECOSYSTEM"]
        if version in map(str, affected.get("versions", [])) or any(_within(version, events) for events in ranges):
            mended = [str(event["fixed"]) for events in ranges for event in events if "fixed" in event]
            told = str(advisory.get("summary") or advisory.get("details") or "")
            yield Finding(name, version, str(advisory["id"]), ", ".join(mended) or "-", " ".join(told.split())[:90])


def _within(version: str, events: list[dict[str, Any]]) -> bool:
    """Say whether a version lies in a range, whose events come in order."""
    inside, own = False, Version(version)
    for event in events:
        ((kind, at),) = [(kind, str(at)) for kind, at in event.items()]
        try:
            bound = Version(at)
        except InvalidVersion:
            continue
        if kind == "introduced":
            inside |= own >= bound
        elif (kind == "fixed" and own >= bound) or (kind == "last_affected" and own > bound):
            inside = False
    return inside


def main(given: list[str]) -> int:
    """Look, and say what was found: 0 for nothing, 1 for something, 2 where there is nothing to look in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", nargs="?", help="a folder or a zip of OSV files")
    parser.add_argument("--lock", type=Path, default=LOCK)
    wanted = parser.parse_args(given)
    if not wanted.database:
        print(NOTHING, file=sys.stderr)
        return 2
    installed, newest, count = read_lock(wanted.lock), "", 0
    found: list[Finding] = []
    try:
        for advisory in read_database(Path(wanted.database)):
            count += 1
            newest = max(newest, str(advisory.get("modified", ""))[:10])
            found += look_for(installed, advisory)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        print(f"make audit: {wanted.database}: not a database of advisories ({error})", file=sys.stderr)
        return 2
    if not count:
        print(f"make audit: {wanted.database}: holds no advisory in the OSV format", file=sys.stderr)
        return 2
    for each in sorted(found, key=lambda each: (each.name, each.advisory)):
        print(f"{each.name} {each.version}: {each.advisory}, mended in {each.mended}: {each.summary}")
    print(f"{len(installed)} packages, {count} advisories, the newest of {newest}: {len(found)} found")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
