"""What a description asks for, as rules of this program: all of it is honoured, or a step is refused by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bioimageio.spec.model import v0_4, v0_5
from pydantic import TypeAdapter

from pipeline.errors import ModelError
from pipeline.models.processing import map_preprocessing
from pipeline.models.readings import map_postprocessing, read_scores

BEFORE: Any = TypeAdapter(v0_5.PreprocessingDescr)
BEFORE_04: Any = TypeAdapter(v0_4.PreprocessingDescr)
AFTER: Any = TypeAdapter(v0_5.PostprocessingDescr)


def step(name: str, **kwargs: Any) -> Any:  # noqa: ANN401
    return BEFORE.validate_python({"id": name} | ({"kwargs": kwargs} if kwargs else {}))


def step_04(name: str, **kwargs: Any) -> Any:  # noqa: ANN401
    return BEFORE_04.validate_python({"name": name, "kwargs": kwargs})


def after(name: str, **kwargs: Any) -> Any:  # noqa: ANN401
    return AFTER.validate_python({"id": name} | ({"kwargs": kwargs} if kwargs else {}))


XY = {"axes": ["x", "y"]}

REFUSED = {
    "statistics of each plane": ([step("zero_mean_unit_variance", **XY)], "bczyx", "'zero_mean_unit_variance' takes"),
    "two steps of statistics": (
        [step("zero_mean_unit_variance", **XY), step("scale_range", **XY)], "bcyx", "'scale_range' is a second step"
    ),
    "a clip at percentiles": (
        [step("clip", min_percentile=1.0, max_percentile=99.0)], "bcyx", "'clip' clips at percentiles"
    ),
    "a softmax": ([step("softmax")], "bcyx", "'softmax' sees more than one pixel"),
    "a cast of what is scaled": (
        [step("zero_mean_unit_variance", **XY), step("ensure_dtype", dtype="uint8")], "bcyx",
        "'ensure_dtype' casts scaled intensities to uint8"
    ),
    "numbers along another axis": (
        [step("scale_linear", axis="y", gain=[1.0, 2.0], offset=[0.0, 1.0])], "bcyx", "'scale_linear' has 2 numbers"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_tiles_cannot_do_is_refused_by_the_name_of_the_step(name: str) -> None:
    steps, axes, expected = REFUSED[name]
    with pytest.raises(ModelError) as caught:
        map_preprocessing(steps, axes, 2)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_both_formats_say_the_same() -> None:
    one = map_preprocessing([step("scale_range", min_percentile=2.0, max_percentile=98.0, **XY)], "bcyx", 2)
    other = map_preprocessing(
        [step_04("scale_range", mode="per_sample", axes="yx", min_percentile=2, max_percentile=98)], "bcyx", 2
    )
    assert one == other
    assert (one.intensity.method, one.intensity.low, one.intensity.together) == ("percentile", 2.0, False)
    assert map_preprocessing([step("scale_range")], "bcyx", 2).intensity.together
    assert not map_preprocessing([step("scale_range")], "bcyx", 1).intensity.together
    assert map_preprocessing([step("ensure_dtype", dtype="uint8")], "bcyx", 1).pixel_type == "uint8"
    assert map_preprocessing([step("ensure_dtype", dtype="float32")], "bcyx", 1).pixel_type is None


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([after("zero_mean_unit_variance")], "'zero_mean_unit_variance' sees more than one pixel"),
        ([after("scale_mean_variance", reference_tensor="raw")], "'scale_mean_variance' sees more than one pixel"),
        ([after("ensure_dtype", dtype="uint8")], "'ensure_dtype' makes scores uint8"),
    ],
)
def test_what_needs_the_whole_output_is_refused(steps: list[Any], expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        map_postprocessing(steps, "bcyx", 2)


def scores(*channels: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.tile(np.array(channels).reshape(-1, 1, 1), (1, 3, 4))


@pytest.mark.parametrize(
    ("steps", "sample", "activation", "background"),
    [
        (["softmax"], scores(0.2, 0.8), "softmax", False),
        (["sigmoid"], scores(0.2, 0.8), "sigmoid", False),
        (["sigmoid", "binarize"], scores(0.0, 1.0), "none", True),
        ([], scores(0.2, 0.8), "none", False),
        ([], scores(0.2, 0.9), "none", True),
        ([], scores(-3.0, 4.0), "softmax", False),
        ([], scores(0.7), "none", True),
    ],
)
def test_scores_are_read_by_the_last_step_or_the_test_output(
    steps: list[str], sample: np.ndarray[Any, Any], activation: str, background: bool
) -> None:
    given = [after(name, **({"threshold": 0.5} if name == "binarize" else {})) for name in steps]
    reading = read_scores(map_postprocessing(given, "bcyx", len(sample)), len(sample), sample, (None, None))
    assert (reading.activation, reading.background) == (activation, background)


def test_scores_that_could_mean_anything_are_refused() -> None:
    for sample in (scores(7.0), None):
        with pytest.raises(ModelError, match="nothing tells how the 1 channel"):
            read_scores((), 1, sample, (None, None))
    assert read_scores((), 1, None, (0.0, 1.0)).background
