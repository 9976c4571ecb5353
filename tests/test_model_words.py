"""What was derived of a network, in words."""

from __future__ import annotations

import pytest
import torch

from pipeline.model_words import tell_context
from pipeline.models.architecture import UNetConfig
from pipeline.models.derive import derive_context
from pipeline.models.facts import unet_context
from tests.models.zoo import ZOO


def tell(name: str) -> dict[str, str]:
    exhibit = ZOO[name]
    torch.manual_seed(0)
    return tell_context(derive_context(exhibit.make().eval(), 1, 2 if exhibit.dims == 2 else 3, exhibit.output))


def test_legal_sizes_of_a_valid_network_are_listed() -> None:
    told = tell_context(unet_context(UNetConfig()))
    assert told["margin"] == "92 pixels that the output lacks on each side"
    assert told["legal sizes"] == "188, 204, 220, ... pixels along an edge of a window, and so on by the stride"
    assert told["stride"].startswith("16 pixels of the image")
    assert told["method"].startswith("by arithmetic")


def test_axes_that_differ_are_named() -> None:
    told = tell("3-D U-Net, anisotropic")
    assert told["halo"].startswith("Z 6, YX 9 pixels on each side")
    assert told["legal sizes"].startswith("Z 1, 2, 3, ...; YX 2, 4, 6, ... pixels along an edge")
    assert tell("strided convolutions")["reach"].startswith("4 pixels before and 1 behind")


@pytest.mark.parametrize("name", ["instance norm", "two heads, the second"])
def test_what_is_not_known_is_left_out_and_what_it_is_about_is_said(name: str) -> None:
    told = tell(name)
    if name == "instance norm":
        assert told["local"].startswith("no: after down.0.body.1 (InstanceNorm2d)")
        assert {"halo", "reach", "convertible"}.isdisjoint(told)
    else:
        assert told["outputs"] == "scores with 2 channels, edges with 1 channel; all this is of edges"
