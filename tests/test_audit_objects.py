"""Objects around a pixel, made again from classes alone: honest ones are never odd, however little of them is seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import audit_objects
from pipeline.audit_objects import compare_objects
from pipeline.geometry import Box
from pipeline.labels.components import edge_ids, label_core
from pipeline.labels.parting import part_core
from pipeline.labels.watershed import PartingRule
from tests.labels.test_holes import whole as whole_holes

Ndim = Literal[2, 3]


def honest(plan: Any, classes: NDArray[np.uint8]) -> NDArray[np.uint32]:  # noqa: ANN401 (a stand-in)
    """Make the objects of a whole image."""
    box = Box.whole(classes.shape)
    seeds = classes == 2
    mask = seeds if plan.instances == "components" else classes > 0
    if plan.fill_holes:
        holes = whole_holes(mask, plan.spatial_ndim)
        mask, seeds = mask | holes, seeds | holes
    if plan.instances == "components":
        found = label_core(mask, box, mask.shape, plan.spatial_ndim)
        large = np.concatenate([[False], found.summary.area >= plan.minimum_size])
        labels = np.where(large[found.labels], found.labels, np.uint32(0))
    else:
        # Each component that is too large is one object, with an id after those of all others.
        labels = part_core(mask, seeds, box, mask.shape, plan.spatial_ndim, plan.parting).labels
    if plan.border == "drop":
        labels = np.where(np.isin(labels, edge_ids(labels, box, mask.shape, plan.spatial_ndim)), np.uint32(0), labels)
    return labels


def bench(plan: Any, classes: NDArray[np.uint8], labels: NDArray[np.uint32]) -> Any:  # noqa: ANN401 (stand-ins)
    held: dict[str, NDArray[Any]] = {"labels/semantic/0": classes, "labels/instances/0": labels}
    return SimpleNamespace(plan=plan, array=lambda name: SimpleNamespace(read=lambda box: held[name][box.slices]))


@st.composite
def plans(draw: st.DrawFn) -> Any:  # noqa: ANN401 (a stand-in)
    ndim: Ndim = draw(st.sampled_from([2, 3]))
    longest = 14 if ndim == 2 else 7
    shape = (*([1] * (4 - ndim)), *(draw(st.integers(1, longest)) for _ in range(ndim)))
    minimum_size = draw(st.sampled_from([0, 1, 2, 6]))
    largest = draw(st.sampled_from([2**20, 30]))
    return SimpleNamespace(
        instances=draw(st.sampled_from(["components", "watershed"])),
        fill_holes=draw(st.booleans()),
        border=draw(st.sampled_from(["keep", "drop"])),
        spatial_ndim=ndim,
        label_shape=shape,
        object_classes=(2,),
        contact_classes=(1,),
        minimum_size=minimum_size,
        parting=PartingRule(draw(st.sampled_from([0.0, 1.0])), minimum_size, (1,) * ndim, largest),
    )


def drawn(plan: Any, seed: int) -> NDArray[np.uint8]:  # noqa: ANN401 (a stand-in)
    random = np.random.default_rng(seed)
    share = random.uniform(0.1, 0.6)
    classes: NDArray[np.uint8] = random.choice(
        np.array([0, 1, 2], dtype=np.uint8), plan.label_shape, p=[share, 0.1, 0.9 - share]
    )
    return classes


@settings(max_examples=200, deadline=None)
@given(plans(), st.integers(0, 2**32 - 1), st.integers(1, 9), st.booleans())
def test_honest_objects_are_never_odd(plan: Any, seed: int, edge: int, grow: bool) -> None:  # noqa: ANN401
    classes = drawn(plan, seed)
    labels = honest(plan, classes)
    point = tuple(np.random.default_rng(seed).integers(plan.label_shape).tolist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_objects, "OBJECT_EDGES", {2: edge, 3: edge})
        found = compare_objects(bench(plan, classes, labels), point, grow=grow)
    assert found["odd_objects"] == 0, found


@settings(max_examples=100, deadline=None)
@given(plans(), st.integers(0, 2**32 - 1))
def test_any_other_partition_is_odd_where_all_is_seen(plan: Any, seed: int) -> None:  # noqa: ANN401
    classes = drawn(plan, seed)
    labels = honest(plan, classes)
    random = np.random.default_rng(seed)
    pixel = tuple(random.integers(plan.label_shape).tolist())
    wrong = labels.copy()
    wrong[pixel] = random.choice(np.setdiff1d(np.arange(labels.max() + 1), labels[pixel])) if labels.any() else 1
    # Numbers do not matter: an object of a single pixel may have another one that is free.
    renamed = np.count_nonzero(labels == labels[pixel]) == 1 and labels[pixel] and wrong[pixel] not in labels
    found = compare_objects(bench(plan, classes, wrong), pixel, grow=False)
    assert found["objects"] == np.unique(labels[labels > 0]).size
    assert renamed or found["odd_objects"] > 0


@pytest.mark.parametrize(
    ("changes", "labels", "odd"),
    [
        ({}, 1, 0),
        ({}, 0, 1),  # larger than what may be left out
        ({"minimum_size": 1000}, 0, 0),
        ({"border": "drop"}, 0, 0),  # it may reach the border
        ({"instances": "watershed"}, 0, 0),  # it may be of small parts
        ({"instances": "watershed", "minimum_size": 1}, 0, 1),
        ({"border": "drop"}, 1, 0),
    ],
)
def test_what_can_be_said_of_what_reaches_beyond(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], labels: int, odd: int
) -> None:
    classes = np.zeros((1, 1, 40, 200), dtype=np.uint8)
    classes[..., 10:20, 20:180] = 2
    given_plan = {
        "instances": "components", "fill_holes": True, "border": "keep", "spatial_ndim": 2, "minimum_size": 5,
        "label_shape": classes.shape, "object_classes": (2,), "contact_classes": (1,),
    }  # fmt: skip
    plan = SimpleNamespace(**given_plan | changes)
    plan.parting = PartingRule(1.0, plan.minimum_size, (1, 1))
    objects = np.where(classes > 0, np.uint32(labels), np.uint32(0))
    monkeypatch.setattr(audit_objects, "OBJECT_EDGES", {2: 30, 3: 30})
    found = compare_objects(bench(plan, classes, objects), (0, 0, 15, 100), grow=False)
    assert (found["objects"], found["open"], found["decided"], found["odd_objects"]) == (0, True, False, odd)
