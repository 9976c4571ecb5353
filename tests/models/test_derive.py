"""What is derived of a network, against what is seen by changing single pixels of small images, one by one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.errors import ModelError
from pipeline.geometry import Footprint
from pipeline.models.architecture import UNetConfig
from pipeline.models.context import ModelContext, compare_declared
from pipeline.models.derive import LONGEST_PROBE, derive_context
from pipeline.models.facts import unet_context
from pipeline.models.probe import named_outputs
from pipeline.models.unet import UNet
from tests.models.zoo import ZOO, Exhibit, Net, make_positive


class Added(nn.Module):
    """What some layers make of an image, added to it."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, image: Tensor) -> Tensor:
        return image + torch.as_tensor(self.layers(image))


LOCAL = [name for name, exhibit in ZOO.items() if exhibit.refused is None]
REFUSED = [name for name, exhibit in ZOO.items() if exhibit.refused is not None]


def derive(exhibit: Exhibit) -> tuple[nn.Module, ModelContext]:
    torch.manual_seed(0)
    network = make_positive(exhibit.make())
    return network, derive_context(network, 1, exhibit.dims, exhibit.output)


def scores(network: nn.Module, images: Tensor, exhibit: Exhibit) -> Tensor:
    with torch.inference_mode():
        outputs = named_outputs(network(images))
    return outputs[exhibit.output or next(iter(outputs))]


def farthest(network: nn.Module, context: ModelContext, exhibit: Exhibit) -> list[tuple[int, int]]:
    """Change each pixel of one stride's block by itself, on the full image, and look which outputs differ."""
    dims = exhibit.dims
    edges = []
    for axis in range(dims):
        need = 2 * (max(context.reach[axis]) + context.margin[axis]) + 4 * context.stride[axis]
        edges.append(context.phase[axis] + -(-need // context.stride[axis]) * context.stride[axis])
    image = torch.rand(1, 1, *edges, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    before = scores(network, image, exhibit)
    found = [(-max(context.scale), -max(context.scale))] * dims
    for offset in product(*(range(stride) for stride in context.stride)):
        at = [edge // 2 + shift for edge, shift in zip(edges, offset, strict=True)]
        changed = image.clone()
        changed[(0, 0, *at)] = 1e3
        differs = (scores(network, changed, exhibit) != before).any(dim=1)[0]
        for axis, places in enumerate(differs.nonzero().unbind(dim=1) if differs.any() else ()):
            scale, margin = context.scale[axis], context.margin[axis]
            low = int(places.max()) * scale + margin - at[axis]
            high = at[axis] - (int(places.min()) * scale + margin + scale - 1)
            found[axis] = (max(found[axis][0], low), max(found[axis][1], high))
    return found


@pytest.mark.parametrize("name", LOCAL)
def test_the_receptive_field_is_what_changing_single_pixels_shows(name: str) -> None:
    exhibit = ZOO[name]
    network, context = derive(exhibit)
    assert context.local, context.reason
    assert (context.method, set(context.scale)) == (exhibit.method, {exhibit.scale})
    assert [tuple(each) for each in context.reach] == farthest(network.double(), context, exhibit)


HIDDEN = ("classic U-Net, same", "strided convolutions", "pixels that are skipped")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in HIDDEN else pytest.mark.slow) for name in LOCAL if ZOO[name].dims == 2],
)
def test_a_network_that_cannot_be_watched_is_said_to_see_no_less_and_hardly_more(name: str) -> None:
    exhibit = ZOO[name]
    network, context = derive(exhibit)
    network.opaque = True  # type: ignore[assignment]  # as one that another runtime computes
    hidden = derive_context(network, 1, 2, exhibit.output)
    assert hidden.method == "perturbation"
    assert "larger than they need be, by less than a stride" in hidden.notes[0]
    assert (hidden.margin, hidden.scale, hidden.stride) == (context.margin, context.scale, context.stride)
    for stride, told, true in zip(hidden.stride, hidden.reach, context.reach, strict=True):
        assert all(far <= said < far + stride for said, far in zip(told, true, strict=True))
    assert all(told >= true for told, true in zip(hidden.halo, context.halo, strict=True))


def whole_and_tiles(network: nn.Module, footprint: Footprint, exhibit: Exhibit) -> float:
    """Give the largest difference between tiles with a footprint's context and one larger pass."""
    torch.manual_seed(2)
    core = tuple(stride * (2 if stride < 8 else 1) for stride in footprint.stride)
    whole_core = tuple(2 * edge + context for edge, context in zip(core, footprint.context, strict=True))
    aligned = tuple(-(-edge // stride) * stride for edge, stride in zip(whole_core, footprint.stride, strict=True))
    extent = footprint.window_shape(aligned)
    image = torch.randn(1, 1, *extent, dtype=torch.float64)
    margin, context = footprint.margin, footprint.context
    whole = scores(network, image, exhibit)
    window = footprint.window_shape(core)
    worst = 0.0
    for corner in product(*(((0, edge) if at + edge <= size else (0,)) for edge, size, at in
                            zip(core, extent, window, strict=True))):  # fmt: skip
        cut = image[
            (slice(None), slice(None), *(slice(at, at + edge) for at, edge in zip(corner, window, strict=True)))
        ]
        inner = tuple(slice(c - m, c - m + edge) for c, m, edge in zip(context, margin, core, strict=True))
        place = tuple(
            slice(at + c - m, at + c - m + edge) for at, c, m, edge in zip(corner, context, margin, core, strict=True)
        )
        tile = scores(network, cut.contiguous(), exhibit)[(slice(None), slice(None), *inner)]
        worst = max(worst, float((tile - whole[(slice(None), slice(None), *place)]).abs().max()))
    return worst


@pytest.mark.parametrize("name", [name for name in LOCAL if ZOO[name].scale == 1])
def test_tiles_with_the_derived_context_equal_one_larger_pass(name: str) -> None:
    exhibit = ZOO[name]
    torch.manual_seed(0)
    network = exhibit.make().eval()
    footprint = derive_context(network, 1, exhibit.dims, exhibit.output).footprint
    assert footprint is not None
    network.double()
    assert whole_and_tiles(network, footprint, exhibit) <= 1e-12
    # And with a stride less of context, a seam shows: nothing is wasted but what an unlucky phase would need.
    if max(footprint.halo) > 2 * max(footprint.stride):
        halo = tuple(max(0, far - 2 * stride) for far, stride in zip(footprint.halo, footprint.stride, strict=True))
        less = Footprint(footprint.margin, halo, footprint.stride, footprint.phase, footprint.smallest)
        assert whole_and_tiles(make_positive(network), less, exhibit) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_tiled_is_refused_by_the_name_of_its_layer(name: str) -> None:
    exhibit = ZOO[name]
    _, context = derive(exhibit)
    assert not context.local
    assert context.footprint is None
    assert exhibit.refused is not None
    assert exhibit.refused in context.reason


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(dims=dims, depth=depth, base_channels=2, padding=padding, norm="batch")
        for dims, depth in ((2, 0), (2, 1), (2, 4), (3, 2))
        for padding in ("valid", "same")
    ],
    ids=lambda config: f"{config.dims}-D, depth {config.depth}, {config.padding}",
)
def test_the_arithmetic_of_our_own_networks_is_what_is_derived(config: UNetConfig) -> None:
    known, derived = unet_context(config), derive_context(UNet(config).eval(), 1, config.dims)
    assert derived.footprint == known.footprint
    assert derived.reach == known.reach
    assert derived.outputs == known.outputs


@pytest.mark.slow
def test_the_published_network_of_31_million_weights_is_examined_as_it_is() -> None:
    derived = derive_context(UNet().eval(), 1, 2)
    assert derived.footprint == UNetConfig().footprint
    # Half as much again for what the kernels take, at most.
    estimate = UNetConfig().window_bytes((2060, 2060), "float32") / 2060**2
    assert estimate / 2 < derived.pixel_bytes < 2 * estimate


class Convolved(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the images that convolutions are computed on, as they are by then."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func._schema.name == "aten::convolution" and args[0].device.type == "cpu":
            self.shapes.append(tuple(args[0].shape[2:]))
        return func(*args, **(kwargs or {}))


class Masking(nn.Module):
    """Puts a number where an image is dark, and another where it is bright."""

    def forward(self, image: Tensor) -> Tensor:
        within = (image > -9) & (image < 9)
        return torch.where(within, image, -1.0) + torch.where(within, 0.5, image) * within.float()


@pytest.mark.parametrize("layer", [nn.ReLU, nn.PReLU, nn.Hardswish, Masking], ids=lambda layer: layer.__name__)
def test_what_a_network_sees_is_found_on_lines_and_never_on_whole_images(layer: Callable[[], nn.Module]) -> None:
    # A whole image costs as many times more as it has pixels along its other axis.
    residual = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), layer())
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Added(residual), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3),
                            layer(), nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 2, 1)).eval()  # fmt: skip
    with Convolved() as convolved:
        context = derive_context(network, 1, 2)
    assert (context.local, context.method) == (True, "nan")
    assert max(map(max, convolved.shapes)) <= LONGEST_PROBE
    assert {min(shape) for shape in convolved.shapes} == {1}


def test_a_probe_that_ends_says_so() -> None:
    context = derive_context(Net(pools=(), dilation=40).eval(), 1, 2, longest=128)
    assert not context.local
    assert "farther than the largest probe tells" in context.reason


def test_what_an_exhibit_would_get_if_the_user_insists() -> None:
    _, context = derive(ZOO["instance norm"])
    assert context.generous is not None
    assert context.generous.halo == (256, 256)
    assert context.generous.stride == (4, 4)


def test_a_declared_halo_that_is_too_small_is_named() -> None:
    _, context = derive(ZOO["classic U-Net, same"])
    halo = context.halo[0]
    (small,) = compare_declared({"halo": (halo - 4, halo), "margin": (0, 0)}, context)
    assert f"the declared halo [{halo - 4}, {halo}] is too small" in str(small)
    assert f"[{halo}, {halo}]" in str(small)
    assert not small.harmless
    large, multiple = compare_declared({"halo": (200, 200), "stride": (8, 4)}, context)
    assert "larger than needed" in str(large)
    assert "a multiple of what the network has" in str(multiple)
    assert large.harmless
    assert multiple.harmless
    assert not compare_declared({"stride": (6, 4)}, context)[0].harmless
    assert compare_declared({"halo": context.halo, "stride": (4, 4)}, context) == []


def test_all_heads_are_listed_and_one_that_is_not_there_is_an_error() -> None:
    network = Net(heads=True).eval()
    assert [(each.name, each.channels) for each in derive_context(network, 1, 2).outputs] == [
        ("scores", 2),
        ("edges", 1),
    ]
    with pytest.raises(ModelError, match=r"no output 'mask'; it has scores, edges"):
        derive_context(network, 1, 2, "mask")


def test_a_network_in_training_or_of_other_channels_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"training mode.*eval"):
        derive_context(Net(), 1, 2)
    with pytest.raises(ModelError, match=r"no image of 3 channel\(s\).*down\.0\.body\.0 \(Conv2d\)"):
        derive_context(Net().eval(), 3, 2)


class Noting(nn.Module):
    """Dilated convolutions that see 2 ** `layers` - 1 pixels, and note of how long images they were asked what."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=2**at, dilation=2**at) for at in range(layers)))
        self.longest = {"shapes": 0, "numbers": 0}

    def forward(self, image: Tensor) -> Tensor:
        what = "shapes" if image.device.type == "meta" else "numbers"
        self.longest[what] = max(self.longest[what], *image.shape[2:])
        return torch.as_tensor(self.layers(image))


@pytest.mark.parametrize(("layers", "longest"), [(3, LONGEST_PROBE - 1), (10, 12_292)])
def test_how_long_images_are_of_which_numbers_are_computed(layers: int, longest: int) -> None:
    network = Noting(layers).eval()
    assert max(map(max, derive_context(network, 1, 2).reach)) == 2**layers - 1
    assert network.longest == {"shapes": 40_328, "numbers": longest}
