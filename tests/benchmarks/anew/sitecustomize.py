"""Python imports this at its start, where the environment says so: every window is computed, and none reused."""

from pipeline.models import constants

constants.value_of = lambda _window: None  # type: ignore[assignment]
constants.ground_of = lambda _window: None  # type: ignore[assignment]
