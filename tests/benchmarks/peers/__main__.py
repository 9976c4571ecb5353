"""seamfree end to end against the bare network, the machine's limit, and peers: a table, and JSON.

    python -m tests.benchmarks.peers --peers PYTHON [--json FILE]

The limit is what a network's arithmetic takes without any context at the rate of the machine's matrix product, in the
same round; `by cores` it is of the time for which cores were busy, which other programs hardly change.

`seamfree run --direct` is timed from its start to its exit: reading a TIFF, statistics, labels and their pyramids, a
copy of the image, the audit and the report. The others are timed on a scaled image in memory, without their start. All
have the same weights. seamfree runs the paper's network with unpadded convolutions, and, as `padded`, the same-padded
one, which peers need: labels of each are held against one float32 pass over the whole image of the same network.
`objects` finds components, too, as patchworks does.

PYTHON is that of an environment with `tests/benchmarks/peers/requirements.txt`; without it, what only that has is left
out. With an existing FILE, rounds are added to what it holds, so that a long measurement can be made in pieces; with
--work, what is prepared for it is kept, and used again; --rounds 0 prepares only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from pipeline.rates import device_name
from tests.benchmarks.peers.arithmetic import flops_per_pixel
from tests.benchmarks.peers.cases import NETWORKS, Case, differing, prepare
from tests.benchmarks.peers.table import draw
from tests.benchmarks.watching import Watched, run_watched

ROOT = Path(__file__).parents[3]

SEAMFREE = Path(sys.executable).parent / "seamfree"

CONTENDERS = {
    "limit": ("limit", "same"),
    "bare": ("bare", "valid"),
    "bare-padded": ("bare", "same"),
    "seamfree": ("none", "valid"),
    "seamfree-padded": ("none", "same"),
    "seamfree-objects": ("components", "valid"),
    "whole": ("whole", "same"),
    "monai-defaults": ("monai-defaults", "same"),
    "monai-tuned": ("monai-tuned", "same"),
    "bioimageio.core": ("bioimageio.core", "same"),
    "patchworks": ("patchworks", "same"),
}
"""Who does it, or for seamfree what objects are made of, and whether the network is padded."""

ELSEWHERE = ("monai-defaults", "monai-tuned", "bioimageio.core", "patchworks")
"""Those that need the peers' environment."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """Where one case is run, in one precision."""

    folder: Path
    precision: str
    device: str
    peers: str | None
    labels: bool
    """Whether they are compared."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.load(self.folder / "scaled.npy", mmap_mode="r").shape)

    def run(self, name: str, settings: Any) -> Found:  # noqa: ANN401 (a contender's own)
        """Let one contender run, and compare its labels."""
        kind, padding = CONTENDERS[name]
        if name.startswith("seamfree"):
            return self._seamfree(kind, padding)
        if kind == "whole" and (needed := self._needed(padding, self.precision)) > 0.8:
            return {"left_out": f"would take {needed:.1f} times the memory that there is"}
        if name in ELSEWHERE and self.peers is None:
            return {"left_out": "no environment of peers was named"}
        return self._other(name, kind, padding, self.precision, settings)

    def reference(self, padding: str) -> None:
        """Make the labels of one float32 pass over the whole image; in bands with context where memory is short."""
        path = self.folder / f"reference-{padding}.npy"
        if self.labels and not path.exists():
            bands = max(1, ceil(self._needed(padding, "float32") / 0.5))
            found = self._other("reference", "whole", padding, "float32", bands)
            if "failed" in found:
                raise SystemExit(f"there is nothing to compare labels with: {found['failed']}")
            (self.folder / "outcome-reference" / "labels.npy").rename(path)

    def _needed(self, padding: str, precision: Any) -> float:  # noqa: ANN401 (a Literal)
        """Give the memory of a pass over the whole image, as a share of what there is."""
        case = Case(self.folder, padding)
        needed = case.architecture.window_bytes(case.footprint.window_shape(self.shape), precision)
        return needed / psutil.virtual_memory().available if self.device == "cpu" else needed / _gpu_bytes()

    def _other(self, name: str, kind: str, padding: str, precision: str, settings: Any) -> Found:  # noqa: ANN401
        outcome = self.folder / f"outcome-{name}"
        shutil.rmtree(outcome, ignore_errors=True)
        outcome.mkdir()
        python = self.peers if name in ELSEWHERE and self.peers else sys.executable
        command: list[str | Path] = [python, "-m", "tests.benchmarks.peers.contenders", kind, self.folder, outcome]
        command += ["--padding", padding, "--precision", precision, "--device", self.device]
        command += [] if settings is None else ["--settings", json.dumps(settings)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
        watched = run_watched(command, gpu=self.device != "cpu", environment=environment, where=ROOT)
        if watched.code:
            return {"failed": _complaint(watched)}
        found: Found = json.loads((outcome / "outcome.json").read_text())
        if "flops_per_second" in found:
            architecture = Case(self.folder, padding).architecture
            for unit in ("second", "core_second"):
                if f"flops_per_{unit}" in found:
                    found[f"pixels_per_{unit}"] = found[f"flops_per_{unit}"] / flops_per_pixel(architecture)
        elif "seconds" in found:
            found["pixels_per_second"] = prod(self.shape) / found["seconds"]
            if "core_seconds" in found:
                found["pixels_per_core_second"] = prod(self.shape) / found["core_seconds"]
            found["peak_bytes"] = watched.peak_bytes
        if watched.gpu:
            found["gpu"] = watched.gpu
        labels = outcome / "labels.npy"
        if labels.exists() and name != "reference":
            found |= self._differing(np.load(labels), padding, objects_only=kind == "patchworks")
            labels.unlink()
        return found

    def _seamfree(self, instances: str, padding: str) -> Found:
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        command: list[str | Path] = [SEAMFREE, "run", self.folder / "image.ome.tif", "-o", out, "--direct"]
        command += ["-m", self.folder / padding, "--precision", self.precision, "--instances", instances]
        command += ["--device", self.device]
        environment = os.environ | {"XDG_CACHE_HOME": str(self.folder / "cache")}
        watched = run_watched(command, gpu=self.device != "cpu", environment=environment)
        if watched.code:
            return {"failed": _complaint(watched)}
        from pipeline import open_result

        result = open_result(out / "image.ome.zarr")
        timings, core = result.provenance["timings"], result.provenance["plan"]["core"]
        return {
            "pixels_per_second": prod(self.shape) / watched.seconds,
            "pixels_per_core_second": prod(self.shape) / watched.core_seconds,
            "seconds": watched.seconds,
            "peak_bytes": watched.peak_bytes,
            "settings": {"tile": " x ".join(map(str, core[-len(self.shape) :]))},
            "stages": timings["stages"],
            "tiles": timings["tiles"],
            **self._differing(np.asarray(result.semantic[0][:]), padding),
            **({"gpu": watched.gpu} if watched.gpu else {}),
        }

    def _differing(self, labels: Any, padding: str, *, objects_only: bool = False) -> Found:  # noqa: ANN401
        if not self.labels:
            return {}
        case, wanted = Case(self.folder, padding), np.load(self.folder / f"reference-{padding}.npy")
        if objects_only:
            wanted = (wanted == case.objects).astype(np.uint8)
        return {"differing": differing(labels.reshape(wanted.shape), wanted, case.footprint.context[0])}


def _complaint(watched: Watched) -> str:
    """Give the line in which a command says what is wrong."""
    lines = watched.errors.strip().splitlines() or [f"ended with {watched.code}"]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:300]


def _gpu_bytes() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[0])


def versions(python: str | None) -> dict[str, str]:
    """Give the versions of what is compared, as an environment has them."""
    if python is None:
        return {}
    program = (
        "import importlib.metadata as m, json\n"
        "named = ('torch', 'monai', 'bioimageio.core', 'patchworks', 'numpy')\n"
        "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions() if d.metadata['Name'] in named}))"
    )
    told = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = json.loads(told)
    return found


def choose_device(wish: str) -> str:
    import torch

    if wish == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wish


def entry_of(record: Found, name: str, precision: str, shape: tuple[int, ...], device: str) -> Found:
    """Find what was measured before of the same, or begin."""
    key = {"case": name, "precision": precision, "shape": list(shape), "device": device}
    for entry in record["measured"]:
        if {each: entry[each] for each in key} == key:
            found: Found = entry
            return found
    weights = "of the bundled model" if name == "2d-16" else "random"
    entry = {**key, "flops_per_pixel": flops_per_pixel(NETWORKS[name]), "weights": weights, "rounds": []}
    record["measured"].append(entry)
    return entry


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="PYTHON", help="Python of the peers' environment.")
    parser.add_argument("--cases", nargs="+", choices=NETWORKS, default=["2d-16"])
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["bfloat16"])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--edge", type=int, default=2048, help="Of the image; a multiple of 16.")
    parser.add_argument("--depth", type=int, default=96, help="Planes of a volume; its edges are --edge.")
    parser.add_argument("--rounds", type=int, default=3, help="Below 3 only to try something, or to add to a file.")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda.")
    parser.add_argument("--no-labels", dest="labels", action="store_false", help="Time only, compare no labels.")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="Where images, models and labels lie, and stay.")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    device, console = choose_device(given.device), Console(width=None if sys.stdout.isatty() else 150)
    record: Found = {"machine": device_name(device), "system": platform.platform(), "measured": []}
    if given.json is not None and given.json.exists():
        record = json.loads(given.json.read_text())
        if record["machine"] != device_name(device):
            raise SystemExit(f"{given.json} was measured on {record['machine']}; name another file")
    record["versions"] = {"seamfree": versions(sys.executable), "peers": versions(given.peers)}
    with ExitStack() as stack:
        work = given.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seamfree-peers-")))
        measured = [
            measure(given, record, work, name, precision, device, console)
            for name in given.cases
            for precision in given.precisions
        ]
    if not all(measured):
        raise SystemExit(1)


def measure(
    given: argparse.Namespace, record: Found, work: Path, name: str, precision: str, device: str, console: Console
) -> bool:
    """Measure one case in one precision, keep and show that, and say whether nobody failed."""
    shape = (given.edge,) * 2 if NETWORKS[name].dims == 2 else (given.depth, given.edge, given.edge)
    folder = work / f"{name}-{'x'.join(map(str, shape))}"
    if not folder.exists():
        prepare(folder, name, shape)
    entry = entry_of(record, name, precision, shape, device)
    field = Field(folder, precision, device, given.peers, given.labels)
    for padding in sorted({CONTENDERS[each][1] for each in given.contenders if each != "limit"}):
        field.reference(padding)
    failed = False
    for _ in range(given.rounds):
        one: Found = {}
        entry["rounds"].append(one)
        entry.setdefault("busy_before", []).append(psutil.cpu_percent(interval=1) / 100)
        for each in given.contenders:
            known = [past[each]["settings"] for past in entry["rounds"] if "settings" in past.get(each, {})]
            one[each] = field.run(each, known[0] if known else None)
            failed |= "failed" in one[each]
            rate = one[each].get("pixels_per_second")
            told = f"{rate / 1e6:.3f} Mpx/s" if rate else one[each].get("failed") or one[each]["left_out"]
            console.print(f"{name}, {precision}: {each}: {told}", highlight=False)
            if given.json is not None:
                given.json.write_text(json.dumps(record, indent=1))
    if entry["rounds"]:
        console.print(draw(entry))
    return not failed


if __name__ == "__main__":
    main()
