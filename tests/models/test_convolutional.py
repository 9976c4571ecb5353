"""A classifier made fully convolutional, against the classifier itself on every window, one by one."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import ModelError
from pipeline.models import convolutional
from pipeline.models.context import stitched_context
from pipeline.models.convolutional import find_window, make_fully_convolutional
from pipeline.models.derive import derive_context
from pipeline.models.passes import stitch
from tests.models.classifiers import Branching, Classifier, Head, classifiers, cut, slide


def check(network: nn.Module, window: tuple[int, ...], stride: tuple[int, ...], more: tuple[int, ...]) -> None:
    """Compare on an image with some windows along each axis, in float64 and in float32."""
    image = torch.randn(1, 1, *(edge + extra for edge, extra in zip(window, more, strict=True)))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        network = network.to(dtype)
        with torch.no_grad():
            wanted = slide(network, image.to(dtype), window, stride)
            found = make_fully_convolutional(network, 1, window)(image.to(dtype))
        # What a pooling leaves over of a window is not needed, so that there may be an output more.
        found = cut(found, (0,) * len(window), wanted.shape[2:])
        assert found.shape == wanted.shape
        assert float((found - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


@settings(max_examples=40, deadline=None)
@given(classifiers(2), st.tuples(st.integers(0, 7), st.integers(0, 7)))
def test_it_gives_what_the_classifier_gives_of_every_window(
    drawn: tuple[Classifier, tuple[int, ...], tuple[int, ...]], more: tuple[int, int]
) -> None:
    check(*drawn, more)


@settings(max_examples=12, deadline=None)
@given(classifiers(3), st.tuples(*[st.integers(0, 3)] * 3))
def test_it_does_in_three_dimensions(
    drawn: tuple[Classifier, tuple[int, ...], tuple[int, ...]], more: tuple[int, int, int]
) -> None:
    check(*drawn, more)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(classifiers(2))
@example((Classifier(stages=((1, 2, 1), (1, 2, 1)), extent=(1, 2), hidden=(), norm=False).eval(), (1, 5), (4, 4)))
def test_shifted_and_stitched_it_gives_an_output_for_each_pixel(
    drawn: tuple[Classifier, tuple[int, ...], tuple[int, ...]],
) -> None:
    network, window, stride = drawn
    made = make_fully_convolutional(network, 1, window).double()
    context = derive_context(made.float(), 1, 2)
    if not context.local:
        # Without poolings there is but one phase, and an even window has no middle.
        assert "no middle" in context.reason
        return
    assert context.stride == context.scale == stride
    footprint = stitched_context(context).footprint
    assert footprint is not None
    extent = footprint.window_shape(tuple(2 * by for by in footprint.stride))
    image = torch.randn(1, 1, *extent, dtype=torch.float64)
    stitching = stitched_context(context).stitching
    with torch.no_grad():
        found = made.double()(image) if stitching is None else stitch(made.double(), image, stitching)
        assert tuple(found.shape[2:]) == footprint.output_shape(extent)
        # The middle of the window of each output lies on its pixel, or half a pixel behind it.
        network = network.double()
        for at in ((0, 0), (found.shape[2] - 1, found.shape[3] - 1), (1, 0)):
            reach = stitched_context(context).reach
            start = [margin + place - low for margin, place, (low, _) in zip(footprint.margin, at, reach, strict=True)]
            patch = torch.zeros(1, 1, *window, dtype=torch.float64)
            part = cut(image, start, window)
            patch[..., : part.shape[2], : part.shape[3]] = part
            assert float((network(patch)[0] - found[0, :, at[0], at[1]]).abs().max()) < 1e-9
            assert all(low - high in (-1, 0) for low, high in reach)


def test_residuals_concatenations_functions_and_heads_by_name() -> None:
    network = Branching().eval()
    image = torch.rand(1, 1, 20, 23)
    made = make_fully_convolutional(network, 1, (12, 12))
    with torch.no_grad():
        found = made(image)
        for name in ("cell", "kind"):
            wanted = slide(Head(network, name), image, (12, 12), (2, 2))
            assert float((found[name][..., : wanted.shape[2], : wanted.shape[3]] - wanted).abs().max()) < 1e-6


def test_the_window_is_found_where_the_classifier_tells_it() -> None:
    assert find_window(Classifier().eval(), 1, 2) == (26, 26)
    with pytest.raises(ModelError, match=r"any size; say which it was trained on, as network\.window"):
        find_window(Classifier(end="global").eval(), 1, 2)
    with pytest.raises(ModelError, match="no size was found"):
        find_window(Classifier(extent=(5, 7)).eval(), 1, 2)


class _Turned(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if float(image.mean()) > 0 else -image


REFUSED: dict[str, tuple[Callable[[], list[nn.Module]], str]] = {
    "padding": (lambda: [nn.Conv2d(1, 2, 3, padding=1)], r"0 \(Conv2d\): pads"),
    "padding of a pooling": (lambda: [nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, padding=1)], r"1 \(MaxPool2d\): pads"),
    "rounding up": (lambda: [nn.Conv2d(1, 2, 3), nn.MaxPool2d(4, ceil_mode=True)], r"1 \(MaxPool2d\): rounds up"),
    "norm of a window": (lambda: [nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2)], r"1 \(InstanceNorm2d\)"),
    "unequal parts": (lambda: [nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(3)], "not equally large"),
    "numbers of the image": (lambda: [_Turned()], "cannot be followed"),
    "no classifier": (lambda: [nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1)], "no classifier of patches"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_convolution_can_give_is_refused_by_the_name_of_the_layer(name: str) -> None:
    layers, message = REFUSED[name]
    ends: list[nn.Module] = [] if name == "no classifier" else [nn.Flatten(), nn.LazyLinear(2)]
    network = nn.Sequential(*layers(), *ends)
    network(torch.zeros(2, 1, 12, 12))
    with pytest.raises(ModelError, match=message):
        make_fully_convolutional(network.eval(), 1, (12, 12))


def test_a_window_that_it_does_not_take_is_told_in_one_line_and_nowhere_else(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError) as caught:
        make_fully_convolutional(Classifier().eval(), 1, (20, 26))
    assert str(caught.value) == "the network takes no window of (20, 26) pixels; it takes windows of (26, 26)"
    # No square tells: what torch says is all that there is.
    with pytest.raises(ModelError, match=r"takes no window of \(20, 26\) pixels \(.+\)$") as caught:
        make_fully_convolutional(Classifier(extent=(5, 7)).eval(), 1, (20, 26))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_classifier_itself_is_left_as_it_was() -> None:
    network = Classifier().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = make_fully_convolutional(network, 1, (26, 26))
    with torch.no_grad():
        for tensor in made.parameters():
            tensor.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_its_example_runs() -> None:
    ran = doctest.testmod(convolutional)
    assert ran.attempted
    assert not ran.failed
