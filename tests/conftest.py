"""Makes the tests' own modules importable by name in worker processes, which get this process's path.

Where tests run in several processes side by side, each has its share of the machine, and the slow ones come first.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest

# At the end: seamfree itself is the installed one.
sys.path.append(str(Path(__file__).parents[1]))

# What was measured on this machine decides nothing in tests, nor do they leave anything there.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="seamfree-cache-")

if "PYTEST_XDIST_WORKER" in os.environ:
    share = max(1, len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files in which something is slow: the last one of them would keep one process busy alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module")
def own_forkserver() -> Iterator[None]:
    """Have workers forked from a server that has nothing left over from other tests: no memory, no modules."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # as CPython's own tests do
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a two-dimensional model whose objects are the brighter half of the intensities."""
    # torch is loaded by those tests alone that need it.
    from tests.random_models import save_threshold_model

    return save_threshold_model(tmp_path_factory.mktemp("model") / "bright", 2)
