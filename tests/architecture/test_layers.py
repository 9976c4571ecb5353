"""The house: imports go downwards only, heavy libraries stay in their rooms, files stay readable."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

FLOORS = [
    "errors",
    "remote",
    "geometry",
    "models",
    "images",
    "stores",
    "labels",
    "measure",
    "engine",
    "app",
    "training",
    "flows",
]
"""From the ground up. The app is what stands directly in `pipeline`; training stands on all of it."""

FORBIDDEN = {
    "models": {"images", "stores", "labels", "engine"},
    "images": {"models", "stores", "labels"},
    "stores": {"models", "images", "labels"},
    "labels": {"models", "images", "stores", "engine"},
    "measure": {"models", "images", "stores", "engine"},
}

HOMES = {
    "prefect": {"flows"},
    "torch": {"models", "training", "app"},
    "dask": {"engine", "app"},
    "pyarrow": {"stores"},
    "pandas": {"app"},
    "xarray": {"app"},
    "anndata": {"app"},
    "distributed": {"engine", "app"},
    "tifffile": {"images", "stores", "training"},
    "typer": {"app"},
    "rich": {"app"},
    "bioio": {"images"},
    "openslide": {"images"},
    "cc3d": {"labels"},
    "obstore": {"remote", "stores"},
    "numpy": set(FLOORS) - {"geometry", "errors", "flows", "engine"},
}

ROOT = Path(pipeline.__file__).parents[1]
FILES = sorted((ROOT / "pipeline").rglob("*.py")) + sorted((ROOT / "flows").rglob("*.py"))


def floor(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "flows":
        return "flows"
    if len(parts) > 1 and parts[1] in FLOORS:
        return parts[1]
    return "app"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(name.name, node.lineno) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found.append((str(node.module), node.lineno))
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_downwards_and_heavy_libraries_stay_at_home(path: Path) -> None:
    here = floor(module_of(path))
    for name, line in imports(path):
        top = name.split(".")[0]
        if top in HOMES:
            assert here in HOMES[top], f"{path}:{line}: {here} imports {top}"
        if top in ("pipeline", "flows"):
            there = floor(name)
            if name == "pipeline.errors" or here == there:
                continue
            # The command line alone reaches up, to train.
            allowed = FLOORS.index(there) < FLOORS.index(here) or (module_of(path), there) == (
                "pipeline.commands.models",
                "training",
            )
            assert allowed, f"{path}:{line}: {here} imports {there}, a floor above"
            assert there not in FORBIDDEN.get(here, set()), f"{path}:{line}: {here} must not know {there}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_import_cycles_and_no_vague_names(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers", "common", "base", "misc")
    seen: set[str] = set()
    waiting = [(module_of(path), True)]
    while waiting:
        module, start = waiting.pop()
        if not start:
            assert module != module_of(path), f"{module} imports itself, in a circle"
        if module in seen:
            continue
        seen.add(module)
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        waiting += [
            (str(node.module), False)
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("pipeline.", "flows."))
        ]


def test_the_public_surface_is_what_it_says() -> None:
    assert pipeline.__all__ == sorted(pipeline.__all__)
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
    for name in ("segment", "plan", "load_model", "open_result"):
        assert name in pipeline.__all__


@pytest.mark.parametrize("module", ["pipeline.jobs", "pipeline.batch", "pipeline.cli"])
def test_nothing_that_a_worker_or_a_direct_run_needs_loads_prefect(module: str) -> None:
    program = f"import sys, {module}; print([name for name in sys.modules if name.split('.')[0] == 'prefect'])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, pipeline.cli; print(sorted({'torch', 'dask', 'zarr', 'numpy', 'prefect'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_what_hands_out_tiles_loads_no_network_library() -> None:
    """Workers load it at that time; here, it would cost a second and 200 MiB."""
    program = "import sys, pipeline.batch; print(sorted({'torch', 'onnxruntime', 'skimage'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_no_module_hides_a_public_name() -> None:
    for name in pipeline.__all__:
        assert importlib.util.find_spec(f"pipeline.{name}") is None
