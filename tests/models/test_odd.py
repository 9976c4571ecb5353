"""Networks that do something odd, against what is known of them by construction."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.derive import derive_context
from tests.models.odd import LOCAL, NOT_LOCAL, Odd, look
from tests.models.test_derive import whole_and_tiles
from tests.models.zoo import Exhibit


@pytest.mark.parametrize("name", LOCAL)
def test_how_far_an_odd_network_sees_is_known_by_construction(name: str) -> None:
    make, far, stride = LOCAL[name]
    torch.manual_seed(0)
    context = derive_context(make().eval(), 1, 2)
    assert context.local, context.reason
    assert context.stride == (stride, stride)
    assert context.halo == (far, far) if name != "attention in windows" else context.halo == (0, 0)
    assert all(max(reach) == far for reach in context.reach)


def test_tiles_hide_what_turns_round_at_their_edges() -> None:
    make, *_ = LOCAL["a roll"]
    torch.manual_seed(0)
    network = make().eval()
    context = derive_context(network, 1, 2)
    assert any("circular padding" in note for note in context.notes)
    assert context.footprint is not None
    assert whole_and_tiles(network.double(), context.footprint, Exhibit(make)) <= 1e-12


@pytest.mark.parametrize("name", ["padded to a multiple", "means of shifted windows"])
def test_a_stride_that_only_legal_or_padded_sizes_tell_leaves_no_seam(name: str) -> None:
    make, *_ = LOCAL[name]
    torch.manual_seed(0)
    network = make().eval()
    footprint = derive_context(network, 1, 2).footprint
    assert footprint is not None
    assert whole_and_tiles(network.double(), footprint, Exhibit(make)) <= 1e-12


@pytest.mark.parametrize("step", [3, 7])
def test_pixels_that_are_passed_over_are_no_reason_to_refuse_what_cannot_be_watched(step: int) -> None:
    def sparse(image: Tensor) -> Tensor:
        return nn.functional.interpolate(image[..., ::step, ::step], size=image.shape[2:])

    network = Odd(sparse).eval()
    network.opaque = True  # type: ignore[assignment]  # as one that another runtime computes
    context = derive_context(network, 1, 2)
    assert context.local, context.reason
    assert context.stride == (step, step)


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_an_odd_network_that_cannot_be_tiled_is_refused(name: str) -> None:
    make, reason = NOT_LOCAL[name]
    torch.manual_seed(0)
    context = derive_context(make().eval(), 1, 2)
    assert not context.local
    assert reason in context.reason


def test_what_takes_no_image_of_two_axes_is_an_error_that_says_why() -> None:
    with pytest.raises(ModelError, match=r"the network takes no image .* conv1d"):
        derive_context(nn.Conv1d(1, 2, 3).eval(), 1, 2)
    with pytest.raises(ModelError, match=r"missing 1 required positional argument"):
        derive_context(Odd(lambda image, other: image + other).eval(), 1, 2)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda image: {"image": image}["picture"], "KeyError: 'picture'"),
        (lambda image: image.picture, "no attribute 'picture'"),
        (lambda image: image / (0 // (image.shape[0] - 1)), "by zero"),
    ],
    ids=["key", "attribute", "division"],
)
def test_whatever_code_complains_of_is_told_and_is_no_error_of_seamfrees(
    function: Callable[[Tensor], object], complaint: str
) -> None:
    with pytest.raises(ModelError, match=rf"the last complaint: .*{complaint}"):
        derive_context(Odd(function).eval(), 1, 2)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (
            lambda image: image[:, 0],
            r"'0' has the shape \(1, 8, 8\) for an image of 8 x 8 pixels; let .*, Y, X\)",
        ),
        (lambda image: image.movedim(1, -1), r"output '0' has the shape \(1, 8, 8, 1\)"),
        (lambda image: image[0], r"output '0' has the shape \(1, 8, 8\)"),
        (lambda image: (image * 2).numpy(), r"complaint: it gives a ndarray, and no tensor"),
    ],
    ids=["no channels", "channels last", "no batch", "no tensor"],
)
def test_an_output_that_is_no_image_as_torch_has_it_is_told(
    function: Callable[[Tensor], object], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        derive_context(Odd(function).eval(), 1, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_network_that_gives_shapes_and_no_numbers_is_told_in_its_own_words() -> None:
    script = torch.jit.trace(Odd(lambda image, first: first(image.bfloat16()), look(1).bfloat16()).eval(),
                             torch.zeros(1, 1, 16, 16)).float()  # type: ignore[no-untyped-call]  # fmt: skip
    with pytest.raises(ModelError, match=r"complaint.*: Input type \(CPUBFloat16Type\) and weight type"):
        derive_context(script, 1, 2)


def test_a_size_by_which_code_divides_is_one_that_it_does_not_take() -> None:
    context = derive_context(Odd(lambda image: image * float(100 % (image.shape[2] // 16) >= 0)).eval(), 1, 2)
    assert context.local, context.reason
    assert context.smallest[0] == 16
