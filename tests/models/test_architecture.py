"""What a U-Net's shape says by arithmetic, against what the network does."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from pipeline.geometry import Footprint
from pipeline.models.architecture import Precision, UNetConfig
from pipeline.models.unet import UNet
from tests.random_models import random_network

# Every kind of network, at depths whose forwards are cheap.
SHAPES = [
    UNetConfig(dims=dims, depth=depth, base_channels=2, padding=padding, norm=norm)
    for dims, depths in ((2, (0, 1, 2, 3, 4)), (3, (0, 1, 2)))
    for depth in depths
    for padding in ("valid", "same")
    for norm in ("none", "batch")
]


def name_of(config: UNetConfig) -> str:
    return f"{config.dims}-D depth {config.depth} {config.padding} {config.norm}"


def run(network: UNet, shape: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        scores: torch.Tensor = network(torch.zeros(1, network.config.in_channels, *shape))
    return scores


def test_the_defaults_are_the_papers_network() -> None:
    config = UNetConfig()
    assert config.footprint == Footprint((92, 92), (0, 0), (16, 16), (12, 12), (188, 188))
    assert config.footprint.output_shape((572, 572)) == (388, 388)
    assert config.channels == (64, 128, 256, 512, 1024)
    with torch.device("meta"):
        network = UNet()
        assert network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert network.config == config
    # Counted from the figure of the paper: 18 convolutions of 3x3, 4 up-convolutions of 2x2, and the last of 1x1.
    widths = (1, 64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024)
    down = sum(9 * before * after + after for before, after in pairwise(widths))
    up = sum(
        4 * 2 * width * width + width + 9 * 2 * width * width + width + 9 * width * width + width
        for width in (512, 256, 128, 64)
    )
    assert sum(weight.numel() for weight in network.parameters()) == down + up + 64 * 2 + 2


def test_the_same_padded_classic_sees_107_pixels_far() -> None:
    assert UNetConfig(padding="same").footprint == Footprint((0, 0), (107, 107), (16, 16), (0, 0), (16, 16))


def runs(network: UNet, edge: int) -> bool:
    """Whether a forward on this edge gives an output with the stated margin; the network may raise on others."""
    other = network.config.footprint.smallest[1:]
    try:
        output = run(network, (edge, *other)).shape[2]
    except RuntimeError:
        return False
    return output == edge - 2 * network.config.footprint.margin[0] and output > 0


@pytest.mark.parametrize("config", [shape for shape in SHAPES if shape.norm == "none"], ids=name_of)
def test_the_legal_sizes_are_those_that_run_and_leave_what_the_footprint_says(config: UNetConfig) -> None:
    footprint, network = config.footprint, random_network(config)
    stride, smallest = footprint.stride[0], footprint.smallest[0]
    # One stride below the smallest to two above; the crop of an odd surplus shows as a different margin.
    for edge in range(max(1, smallest - stride), smallest + 2 * stride + 1):
        legal = edge >= smallest and edge % stride == footprint.phase[0]
        if legal:
            assert run(network, (edge, *footprint.smallest[1:])).shape[2:] == footprint.output_shape(
                (edge, *footprint.smallest[1:])
            )
        assert runs(network, edge) == legal, edge


def influence(network: UNet, position: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Where along axis 0, in the input's coordinates, the output is NaN when one input pixel is."""
    footprint = network.config.footprint
    needed = 2 * (footprint.margin[0] + max(footprint.halo[0], 1)) + 4 * footprint.stride[0]
    edge = footprint.window_shape((needed,) * footprint.ndim)[0]
    # Along the other axes the smallest legal size will do: NaN there or here is the same network.
    shape = (edge, *footprint.smallest[1:])
    image = torch.zeros(1, 1, *shape)
    centre = (edge // 2 // footprint.stride[0]) * footprint.stride[0] + position
    image[(0, 0, centre, *(size // 2 for size in shape[1:]))] = float("nan")
    with torch.inference_mode():
        bad = torch.isnan(network(image))[0, 0].numpy()
    rows = np.flatnonzero(bad.reshape(bad.shape[0], -1).any(axis=1)) + footprint.margin[0]
    assert rows[0] - footprint.margin[0] > 0
    assert rows[-1] < edge - footprint.margin[0] - 1  # the effect ends before the window does
    return rows - centre


@pytest.mark.parametrize("config", SHAPES, ids=name_of)
def test_one_nan_reaches_exactly_as_far_as_the_footprint_says(config: UNetConfig) -> None:
    network = random_network(config)
    footprint = config.footprint
    reached = [influence(network, position) for position in range(footprint.stride[0])]
    before = max(-rows[0] for rows in reached)
    after = max(rows[-1] for rows in reached)
    if config.padding == "same":
        assert max(before, after) == footprint.halo[0]
    else:
        # The outputs that a valid network leaves lie a margin inside: to see one more pixel they would need more.
        assert max(before, after) == footprint.margin[0] + footprint.stride[0] - 1


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("dims", "depth"), [(2, 3), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_the_network_commutes_with_shifts_by_its_stride_and_no_others(dims: int, depth: int, padding: str) -> None:
    config = UNetConfig.model_validate(
        {"dims": dims, "depth": depth, "base_channels": 3, "padding": padding, "norm": "batch"}
    )
    network, footprint = random_network(config).double(), config.footprint
    stride = footprint.stride[0]
    context = footprint.halo[0]
    edge = footprint.window_shape((2 * stride,) * dims)[0]
    image = torch.randn(1, 1, *(edge + stride,) * dims, dtype=torch.float64, generator=torch.manual_seed(0))

    def inner(shift: tuple[int, ...]) -> torch.Tensor:
        """The scores of one window of the image, without what saw padding, at the place of the unshifted one's core."""
        cut = image[(slice(None), slice(None), *(slice(at, at + edge) for at in shift))]
        with torch.inference_mode():
            scores = network(cut)
        # What all shifted windows own in common: after the shift, before the end.
        return torch.as_tensor(
            scores[
                (slice(None), slice(None), *(slice(context + stride - at, context + 2 * stride - at) for at in shift))
            ]
        )

    still = inner((0,) * dims)
    assert still.numel() > 0
    assert still.std() > 0.01
    for shift in product((0, stride), repeat=dims):
        if any(shift):
            assert (inner(shift) - still).abs().max() < 1e-12, shift
    for distance in range(1, stride):
        assert (inner((distance, *(0,) * (dims - 1))) - still).abs().max() > 1e-3, distance


@pytest.mark.parametrize("config", SHAPES, ids=name_of)
def test_operations_are_counted_as_torch_counts_them(config: UNetConfig) -> None:
    window = config.footprint.window_shape((24,) * config.dims)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(config)(torch.empty(1, 1, *window))
    assert config.flops(window) == counter.get_total_flops()


def test_the_bundled_shape_needs_what_was_planned_with() -> None:
    config = UNetConfig(base_channels=16, classes=3, norm="batch")
    assert config.flops((572, 572)) / 388**2 == pytest.approx(125e3, rel=0.02)
    assert config.flops((2044, 2044)) / 1860**2 == pytest.approx(98e3, rel=0.02)


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from pipeline.models.architecture import UNetConfig
from pipeline.models.library import LoadedModel, load_model
from pipeline.models.predictor import Predictor, limit_threads

def peak():
    # Of this program alone: what the system counts for the process begins with the size of the one that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])

limit_threads(1)
predictor = Predictor(load_model(sys.argv[1]), "cpu", sys.argv[2])
edges = tuple(int(edge) for edge in sys.argv[3].split(","))
smallest = predictor.card.architecture.footprint.smallest
predictor.predict(np.zeros((1, *smallest), np.float32))
before = peak()
predictor.predict(np.zeros((1, *edges), np.float32), scores=True)
print((peak() - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("config", "edge"),
    [
        (UNetConfig(base_channels=16, classes=3, norm="batch"), 1020),
        (UNetConfig(dims=3, depth=2, base_channels=16, padding="same"), 96),
        (UNetConfig(dims=3, depth=3, base_channels=16), 180),
    ],
    ids=["2-D valid", "3-D same", "3-D valid"],
)
def test_the_estimate_of_memory_bounds_what_a_forward_takes(
    config: UNetConfig, edge: int, precision: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.random_models import save_random_model

    if precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor knows no bfloat16: torch computes it by other means, slowly and in more memory")
    model = save_random_model(tmp_path_factory.mktemp("model") / "m", config)
    window = (edge,) * config.dims
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, model, precision, ",".join(map(str, window))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    taken = int(done.stdout)
    kind: Precision = "float32" if precision == "float32" else "bfloat16"
    estimate = config.window_bytes(window, kind, streamed=config.dims == 3)
    assert taken <= estimate * 1.1
    # A processor whose kernels need no copy in another order takes this much less.
    assert taken >= estimate * 0.3


@given(st.integers(0, 6), st.sampled_from([2, 3]), st.sampled_from(["valid", "same"]), st.integers(1, 400))
@settings(deadline=None)
def test_memory_and_work_grow_with_the_window(depth: int, dims: int, padding: str, core: int) -> None:
    config = UNetConfig.model_validate({"depth": depth, "dims": dims, "padding": padding, "base_channels": 4})
    small = config.footprint.window_shape((core,) * dims)
    large = config.footprint.window_shape((core + config.footprint.stride[0],) * dims)
    assert 0 < config.flops(small) < config.flops(large)
    for streamed in (False, True):
        taken = config.window_bytes(small, "float32", streamed=streamed)
        assert 0 < config.window_bytes(small, "bfloat16", streamed=streamed) < taken
        assert taken < config.window_bytes(large, "float32", streamed=streamed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dims": 4}, {"depth": -1}, {"base_channels": 0}, {"classes": 0}, {"classes": 257}, {"padding": "reflect"},
        {"norm": "instance"}, {"in_channels": 0}, {"dropout": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_a_shape_that_no_network_has_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        UNetConfig.model_validate(wrong)


def test_a_card_is_read_without_torch() -> None:
    code = (
        "import sys; from pipeline.models import architecture, card, library; "
        "card.read_card(library.find_model(library.DEFAULT_MODEL)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
