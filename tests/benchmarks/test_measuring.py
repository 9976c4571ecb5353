"""What benchmarks measure with: arithmetic, windows, labels and memory, on tiny sizes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.architecture import UNetConfig
from pipeline.models.library import DEFAULT_MODEL, load_model
from pipeline.models.unet import UNet
from pipeline.report.words import duration
from tests.benchmarks.peers import contenders
from tests.benchmarks.peers.__main__ import CONTENDERS, ELSEWHERE
from tests.benchmarks.peers.arithmetic import flops_per_pixel, rate_limit
from tests.benchmarks.peers.cases import NETWORKS, Case, bundled_network, differing, prepare
from tests.benchmarks.peers.contenders import Task, pass_over
from tests.benchmarks.peers.table import draw, summarise
from tests.benchmarks.slide import GROUND, slide
from tests.benchmarks.stages import picture
from tests.benchmarks.watching import gpu_state, gpu_summary, run_watched


@pytest.mark.parametrize("architecture", [*NETWORKS.values(), UNetConfig(depth=2, base_channels=3, in_channels=2)])
def test_the_limits_arithmetic_is_what_torch_counts_and_what_large_windows_come_near_to(
    architecture: UNetConfig,
) -> None:
    edge = 4 * 2**architecture.depth
    with torch.device("meta"):
        network = UNet(architecture.model_copy(update={"padding": "same"}))
        image = torch.empty(1, architecture.in_channels, *(edge,) * architecture.dims)
    with FlopCounterMode(display=False) as counted:
        network(image)
    assert flops_per_pixel(architecture) * edge**architecture.dims == counted.get_total_flops()
    core = 2**20
    window = architecture.footprint.window_shape((core,) * architecture.dims)
    assert 1 < architecture.flops(window) / core**architecture.dims / flops_per_pixel(architecture) < 1.01


def test_the_rate_is_that_of_the_best_of_products_and_convolutions() -> None:
    found = rate_limit("float32", "cpu", sides=(64, 128), widths=(8,), pixels=32**2)
    assert set(found["tried"]) == {"product of 64", "product of 128", "convolution of 8 channels"}
    assert found["flops_per_second"] > 0
    assert found["flops_per_core_second"] > 0
    assert found["tried"][found["by"]] == max(found["tried"].values())


def test_bands_give_the_labels_of_the_whole_in_both_paddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", UNetConfig(depth=2, base_channels=4, classes=3))
    prepare(tmp_path / "case", "tiny", (96, 112))
    found = {}
    for padding in ("valid", "same"):
        task = Task(Case(tmp_path / "case", padding), "float32", "cpu", None)
        with torch.inference_mode():
            whole, bands = (pass_over(task, task.network(), task.case.image, number) for number in (1, 3))
        assert differing(bands, whole, border=0) < 1e-3  # rounding may decide a tie
        found[padding] = whole
    assert np.unique(found["same"]).size > 1
    with pytest.raises(ValueError, match="no pixel that is 48 from its edge"):
        differing(bands, whole, border=48)


def test_the_bundled_weights_are_those_of_the_bundled_model_with_nuclei_last() -> None:
    image = torch.rand(1, 1, 188, 188, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = load_model(DEFAULT_MODEL).network(image)
        found = bundled_network()(image)
    torch.testing.assert_close(found[:, [0, 2, 1]], wanted, rtol=1e-3, atol=1e-3)


def test_ratios_are_of_one_round_each_and_failures_are_told() -> None:
    entry = {
        "case": "2d-16", "precision": "bfloat16", "shape": [16, 16], "device": "cpu", "flops_per_pixel": 92e3,
        "rounds": [
            {"limit": {"pixels_per_second": 4e6, "pixels_per_core_second": 2e6},
             "seamfree": {"pixels_per_second": 2e6, "pixels_per_core_second": 5e5, "differing": 0.0},
             "other": {"pixels_per_second": 1e6, "peak_bytes": 2**30, "differing": 1e-3, "settings": [512, 4, 0.25]}},
            {"limit": {"pixels_per_second": 2e6}, "seamfree": {"pixels_per_second": 1e6},
             "other": {"pixels_per_second": 1e6, "peak_bytes": 2**31, "settings": [512, 4, 0.25]}},
            {"limit": {"pixels_per_second": 4e6}, "seamfree": {"pixels_per_second": 3e6},
             "other": {"failed": "killed"}},
        ],
    }  # fmt: skip
    limit, seamfree, other = summarise(entry)
    assert (seamfree.rate, seamfree.of_limit, seamfree.behind, seamfree.differing) == (2e6, 0.5, 1, 0)
    assert (other.rounds, other.rate, other.of_limit, other.behind) == (2, 1e6, 0.375, 1.5)
    assert (other.peak_bytes, other.differing) == (2**31, 1e-3)
    assert other.note == "killed; windows of 512, batch 4, overlap 0.25"
    assert (limit.of_limit, seamfree.of_core_limit, other.of_core_limit) == (1, 0.25, None)
    assert draw(entry).row_count == 3


@pytest.mark.slow
def test_memory_is_that_of_all_processes_of_a_command() -> None:
    child = "data = bytearray(150 << 20); import time; time.sleep(0.5); [None for _ in range(10**7)]"
    program = f"import subprocess, sys; data = bytearray(100 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    watched = run_watched([sys.executable, "-c", program])
    assert watched.code == 0
    assert 250 <= watched.peak_bytes / 2**20 < 400
    assert 0.05 < watched.core_seconds < watched.seconds
    assert run_watched([sys.executable, "-c", "raise SystemExit('no')"]).errors == "no\n"


def test_what_nvidia_smi_says_is_read() -> None:
    assert gpu_state("93, 1523\n0, 12\n") == (0.93, 1523)
    assert gpu_summary([]) == {}
    assert gpu_summary([(0, 4), (0, 500)]) == {"memory_mib": 500, "busy": 0, "busy_between": 0}
    states = [(0, 4), (0.5, 900), (0, 800), (1, 700), (0, 0), (0, 0)]
    assert gpu_summary(states) == {"memory_mib": 900, "busy": 0.25, "busy_between": 0.5}


def test_a_slide_has_as_much_ground_as_wanted() -> None:
    image = slide(512, 0.7)
    # Without the data set, dark pixels of its fields are as the ground is.
    assert 0.69 < np.mean(image == GROUND) < 0.75
    assert (image[256, 100:412] != GROUND).mean() > 0.9


def test_the_picture_of_stages_is_a_file_of_its_own_with_the_times_of_a_run() -> None:
    drawn = picture({"timings": {"stages": {"read": 1.5, "segment": 62.0}}})
    root = ET.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0::2] == ["read", "segment"]
    assert words[1::2] == [duration(1.5), duration(62)]
    assert "prefers-color-scheme" in drawn
    assert ".plot .bar" in drawn
    with pytest.raises(SystemExit, match="read were done by an earlier run"):
        picture({"timings": {"stages": {"read": None, "segment": 62.0}}})


def test_each_contender_is_there_and_the_peers_environment_has_exact_versions() -> None:
    kinds = {kind for name, (kind, _) in CONTENDERS.items() if not name.startswith("seamfree")}
    assert kinds == set(contenders.CONTENDERS)
    assert set(ELSEWHERE) <= kinds
    wanted = (Path(contenders.__file__).with_name("requirements.txt")).read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in wanted)
    assert {"monai", "patchworks", "bioimageio.core", "torch"} <= {line.partition("==")[0] for line in wanted}
